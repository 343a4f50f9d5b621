"""Every key in the object store and in Redis, as functions.

Object store (the truth). Whatever decides an outcome is created once and never replaced, so that no late writer can
undo it; only markers and indexes come and go.

    index/sources/<digest>.json                  what a source was when last seen (a cache: may be deleted)
    profiles/<digest>.json                       a profile that sources are to be read with
    uploads/<sha256>                             bytes that somebody sent us: all other sources are referenced
    uploads/<sha256>.refs/<id>                   a document that is made of them
    arrivals/<queue>/<collection>/<time>-<digest>.json      sources that somebody wants read, nobody has looked at yet
    refused/<queue>/<collection>/<time>-<digest>.json       an arrival that this version can't read: mend it, move it back
    collections/<collection>/<time>-<id>-<digest>.json      a submission: somebody's name for a document
    rolls/<digest>/<time>-<random>.roll          objects below a prefix that have been noted (a cache: may be deleted)
    waiting/<queue>/<collection>/<time>-<id>-<generation>   marker: registered, no job published yet
    active/<id>                                  marker: jobs are published, the document is not terminal
    paused/<collection>                          marker: none of its documents is dispatched
    quarantined/<id>/<page>-<generation>         workers died of this page, and how; gone when it is tried again
    deleted/<id>                                 marker: the document is being removed; stays while late pages may come
    ended/<status>/<day>/<id>                    marker: the document ended so; the day it was registered
    outbox/<time>-<delivery>.json                an end that somebody must still be told of, when that is due
    undelivered/<id>.json                        an end whose results somebody's bucket does not take; tried again now and then
    given-up/<delivery>.json                     one that its receiver did not take for a day
    asked/<day>/<time>-<digest>.json             what became of an arrival that somebody follows over HTTP; for a week
    idempotency/<day>/<digest>.json              what a request with a key was answered, for a day
    documents/<id>/manifest.json                 sources, pages, profile
    documents/<id>/wanted/<digest>.json          a submission: who wants it
    documents/<id>/told/<generation>-<digest>    marker: whoever made the submission is told, or will be by the outbox
    documents/<id>/pages/<page>.json             the first stored success of a page; stands for ever
    documents/<id>/pages/<page>.failed-<generation>.json    what was seen, when a page failed in a generation
    documents/<id>/climbs/<generation>/<page>.json          a page whose text was not believed: how far up the ladder, best text
    documents/<id>/figures/<page>-<number>-<hash>.<format>  a picture on a page, named by its content
    documents/<id>/runs/<generation>/<page>-<random>.json   attempts, seconds, worker: differs from run to run
    documents/<id>/out/<generation>/<hash>.<format>         an output, named by its content
    documents/<id>/status/<generation>.json      how the document ended; names its outputs; written last

Redis (a hint: all of it can be rebuilt from the store). Keys of a document expire when nobody touches them for a week.

    ocrfleet:ledger:<id>:<generation>     hash    total, published, failed
    ocrfleet:pages:<id>:<generation>      bitmap  bit n: page n has a terminal record
    ocrfleet:faults:<id>:<generation>     hash    <page>:attempts, …:reason, …:deaths, …:deaths_alone, …:falls, …:death, …:detail
    ocrfleet:inflight:<id>:<generation>   hash    page → worker that holds it, and whether alone
    ocrfleet:worker:<worker>              string  heartbeat: what it says of itself; expires with the worker's lease
    ocrfleet:grave:<host>.<pid>           string  how a worker's process ended, as its supervisor saw it; for a day
    ocrfleet:sweep:<id>:<generation>      string  somebody publishes again what this document misses; for some seconds
    ocrfleet:workers                      set     workers that have, or had, a heartbeat
    ocrfleet:waiting                      hash    <queue>/<collection> → pages of waiting documents; `known` once counted
    ocrfleet:dispatcher                   string  who dispatches and sweeps; expires when they die
    pages.<queue>.<profile>, intake, assembly, unacked, unacked_index    the broker's own
"""

from __future__ import annotations

import re

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_PAGE_KEY = re.compile(r"/pages/(?P<page>\d{6})(?:\.failed-(?P<generation>\d{5}))?\.json$")

WAITING = "waiting/"
ACTIVE = "active/"
UPLOADS = "uploads/"
DELETED = "deleted/"
PAUSED = "paused/"
OUTBOX = "outbox/"
QUARANTINED = "quarantined/"
ASKED = "asked/"
UNDELIVERED = "undelivered/"
GIVEN_UP = "given-up/"
IDEMPOTENCY = "idempotency/"


def source_index(digest: str) -> str:
    return f"index/sources/{digest}.json"


def profile(digest: str) -> str:
    return f"profiles/{digest}.json"


def upload(sha256: str) -> str:
    return f"{UPLOADS}{sha256}"


def reference(upload: str, document: str) -> str:
    return f"{upload}.refs/{document}"


def arrival(queue: str, collection: str, created: str, digest: str) -> str:
    return f"{arrivals(queue, collection)}{created}-{digest[:32]}.json"


def arrivals(queue: str, collection: str | None = None) -> str:
    return f"arrivals/{queue}/{collection}/" if collection else f"arrivals/{queue}/"


def refused(arrival: str) -> str:
    return f"refused/{arrival.partition('/')[2]}"


def submissions(collection: str) -> str:
    return f"collections/{collection}/"


def submission(collection: str, created: str, document: str, digest: str) -> str:
    return f"{submissions(collection)}{created}-{document}-{digest[:16]}.json"


def roll(place: str) -> str:
    """Return the prefix of the roll of a place, which is named by a digest."""
    return f"rolls/{place}/"


def paused(collection: str) -> str:
    return f"{PAUSED}{collection}"


def quarantined(document: str, page: int, generation: int) -> str:
    return f"{quarantined_of(document)}{page:06d}-{generation:05d}"


def quarantined_of(document: str) -> str:
    return f"{QUARANTINED}{document}/"


def deleted(document: str) -> str:
    return f"{DELETED}{document}"


def outbox(due: str, delivery: str) -> str:
    return f"{OUTBOX}{due}-{delivery}.json"


def undelivered(document: str) -> str:
    return f"{UNDELIVERED}{document}.json"


def given_up(delivery: str) -> str:
    return f"{GIVEN_UP}{delivery}.json"


def arrival_name(arrival: str) -> str:
    """Return what an arrival is followed by: <time>-<digest>."""
    return arrival.rpartition("/")[2].removesuffix(".json")


def asked(name: str) -> str:
    """Return the key of what became of an arrival, by its name."""
    return f"{ASKED}{name[:8]}/{name}.json"


def idempotency(day: str, digest: str) -> str:
    return f"{IDEMPOTENCY}{day}/{digest}.json"


def ended(status: str, day: str, document: str) -> str:
    return f"{ended_on(status, day)}{document}"


def ended_on(status: str, day: str | None = None) -> str:
    """Return the prefix of the documents that ended so, all or those registered on a day (20261122)."""
    return f"ended/{status}/{day}/" if day else f"ended/{status}/"


def waiting(queue: str, collection: str, created: str, document: str, generation: int) -> str:
    """Return the key of a waiting marker: each generation has its own, so that the end of one never takes the next one's."""
    return f"{waiting_in(queue, collection)}{created}-{document}-{generation:05d}"


def document_in(key: str) -> str:
    """Return the document that a marker or an index's entry is of. Raises ValueError when none is named."""
    match = _ID.search(key.rpartition("/")[2])
    if match is None:
        raise ValueError(f"no document's key: {key}")
    return match[0]


def waiting_in(queue: str, collection: str | None = None) -> str:
    return f"{WAITING}{queue}/{collection}/" if collection else f"{WAITING}{queue}/"


def active(document: str) -> str:
    return f"{ACTIVE}{document}"


def manifest(document: str) -> str:
    return f"documents/{document}/manifest.json"


def wanted(document: str, digest: str) -> str:
    return f"{wanted_by(document)}{digest[:16]}.json"


def wanted_by(document: str) -> str:
    return f"documents/{document}/wanted/"


def told(document: str, generation: int, digest: str) -> str:
    return f"documents/{document}/told/{generation:05d}-{digest[:16]}"


def document(document: str) -> str:
    return f"documents/{document}/"


def pages(document: str) -> str:
    return f"documents/{document}/pages/"


def page_done(document: str, page: int) -> str:
    return f"{pages(document)}{page:06d}.json"


def page_failed(document: str, page: int, generation: int) -> str:
    return f"{pages(document)}{page:06d}.failed-{generation:05d}.json"


def parse_page(key: str) -> tuple[int, int | None]:
    """Return (page, generation of its failure or None when it is done) of a page record's key."""
    match = _PAGE_KEY.search(key)
    if match is None:
        raise ValueError(f"not the key of a page record: {key}")
    generation = match["generation"]
    return int(match["page"]), int(generation) if generation else None


def climb(document: str, generation: int, page: int) -> str:
    return f"documents/{document}/climbs/{generation:05d}/{page:06d}.json"


def figure(document: str, name: str) -> str:
    return f"documents/{document}/figures/{name}"


def run_record(document: str, generation: int, page: int, unique: str) -> str:
    return f"documents/{document}/runs/{generation:05d}/{page:06d}-{unique}.json"


def output(document: str, generation: int, digest: str, extension: str) -> str:
    return f"documents/{document}/out/{generation:05d}/{digest[:16]}.{extension}"


def statuses(document: str) -> str:
    return f"documents/{document}/status/"


def status(document: str, generation: int) -> str:
    return f"{statuses(document)}{generation:05d}.json"


def redis_ledger(document: str, generation: int) -> str:
    return f"ocrfleet:ledger:{document}:{generation}"


def redis_pages(document: str, generation: int) -> str:
    return f"ocrfleet:pages:{document}:{generation}"


def redis_faults(document: str, generation: int) -> str:
    return f"ocrfleet:faults:{document}:{generation}"


def redis_inflight(document: str, generation: int) -> str:
    return f"ocrfleet:inflight:{document}:{generation}"


def redis_sweep(document: str, generation: int) -> str:
    return f"ocrfleet:sweep:{document}:{generation}"


def redis_worker(worker: str) -> str:
    return f"ocrfleet:worker:{worker}"


def redis_grave(process: str) -> str:
    return f"ocrfleet:grave:{process}"


REDIS_WAITING = "ocrfleet:waiting"
REDIS_WORKERS = "ocrfleet:workers"


def queue_pages(queue: str, profile: str) -> str:
    return f"pages.{queue}.{profile}"


REDIS_DISPATCHER = "ocrfleet:dispatcher"

QUEUE_INTAKE = "intake"
QUEUE_ASSEMBLY = "assembly"
#: kombu's hash of leased messages by delivery tag, and its sorted set of the times at which their leases began
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"
