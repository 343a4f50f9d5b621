"""Every key in the object store and in Redis, as functions.

Object store (source of truth). Objects that decide an outcome are created once and never replaced, so that no late writer can
overwrite them. Only markers and indexes are removed.

    fleet.json                                   the fleet's identity, which its Redis has, too
    index/sources/<digest>.json                  digest, kind and pages of a source when last inspected (a cache)
    profiles/<digest>.json                       a profile that submissions name by its digest
    uploads/<sha256>                             bytes of an upload; other sources are stored as references
    uploads/<sha256>.refs/<id>                   marker: a document uses this upload
    arrivals/<queue>/<collection>/<time>-<digest>.json      intake batch: submitted sources that wait for intake; the digest begins with
                                                 eight digits of its client, or zeros
    refused/<queue>/<collection>/<time>-<digest>.json       intake batch that this version can't parse: correct it, move it back
    collections/<collection>/<time>-<id>-<digest>.json      a submission: a name for a document in this collection
    rolls/<digest>/<time>-<random>.seen          seen-objects index of an S3 prefix (a cache: may be deleted)
    waiting/<queue>/<collection>/<time>-<id>-<generation>   marker: the document is registered, no job is published yet
    active/<id>                                  marker: jobs are published, the document has not ended
    paused/<collection>                          marker: documents of this collection are not dispatched
    quarantined/<id>/<page>-<generation>         how workers died with this page alone in flight; until a retry
    deleted/<id>                                 tombstone: the document is being removed; stays while workers may still write
    ended/<status>/<day>/<id>                    marker: the document ended with this status; day of its registration
    outbox/<time>-<delivery>.json                webhook delivery, by the time when it is due
    undelivered/<id>.json                        ended document whose delivery to a bucket failed; retried every ten minutes
    given-up/<delivery>.json                     webhook delivery that failed for a day
    asked/<day>/<time>-<digest>.json             intake outcome of a source submitted over HTTP; for a week
    tokens/<name>/<digest>.json                  a token of the API: its hash, tenant, scopes and expiry
    idempotency/<day>/<digest>.json              response to a request with an Idempotency-Key, for a day
    documents/<id>/manifest.json                 sources, pages, profile
    documents/<id>/wanted/<digest>.json          a submission of this document; in tenant~<name>/ unless the default tenant's
    documents/<id>/told/<generation>-<digest>    marker: the submission's webhook is sent, or in the outbox
    documents/<id>/pages/<page>.json             the first stored success of a page; never replaced
    documents/<id>/pages/<page>.failed-<generation>.json    the failure of a page in a generation
    documents/<id>/climbs/<generation>/<page>.json          retry state of a page: step of the retry policy, best text so far
    documents/<id>/figures/<page>-<number>-<hash>.<format>  a figure on a page, named by its content
    documents/<id>/runs/<generation>/<page>-<random>.json   run record: attempts, seconds, worker; differs from run to run
    documents/<id>/out/<generation>/<hash>.<format>         an output, named by its content
    documents/<id>/conversions/<generation>/<format>.json   output in a format requested after the end, or the reason why it failed
    documents/<id>/status/<generation>.json      how the document ended, with its outputs; written last

Redis (a cache: everything can be rebuilt from the store). Keys of a document expire a week after their last use.

    ocrfleet:ledger:<id>:<generation>     hash    total, published, failed
    ocrfleet:pages:<id>:<generation>      bitmap  bit n: page n has a terminal record
    ocrfleet:faults:<id>:<generation>     hash    <page>:attempts, …:reason, …:deaths, …:deaths_alone, …:falls, …:death, …:detail; late
    ocrfleet:inflight:<id>:<generation>   hash    page → worker that holds it, and whether it holds no other page
    ocrfleet:worker:<worker>              string  heartbeat: the worker's state; expires with its lease
    ocrfleet:grave:<host>.<pid>           string  exit of a worker process, recorded by its supervisor; for a day
    ocrfleet:sweep:<id>:<generation>      string  lock: only one sweep publishes lost jobs of this document; for some seconds
    ocrfleet:workers                      set     names of workers that have, or had, a heartbeat
    ocrfleet:waiting                      hash    <queue>/<collection> → pages of waiting documents; `known`: the count is complete
    ocrfleet:quotas:<day>                 hash    of/<client>/pages, …/bytes, in/<collection>/pages, …/bytes submitted; …/collections that
                                                  the client began; for two days
    ocrfleet:taken:<batch>                string  marker: the pages of this intake batch are taken from its client's quota
    ocrfleet:fleet                        string  the fleet's identity, as in its store
    ocrfleet:dispatcher                   string  lock of the leader; expires if the leader dies
    pages.<queue>.<profile>, intake, assembly, unacked, unacked_index    keys of the broker (kombu)
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
TOKENS = "tokens/"
COLLECTIONS = "collections/"


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
    return f"{COLLECTIONS}{collection}/"


def submission(collection: str, created: str, document: str, digest: str) -> str:
    return f"{submissions(collection)}{created}-{document}-{digest[:16]}.json"


def roll(place: str) -> str:
    """Return the key prefix of a seen-objects index; `place` is its digest."""
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
    """Return the id of an intake batch in the API: <time>-<digest>."""
    return arrival.rpartition("/")[2].removesuffix(".json")


def asked(name: str) -> str:
    """Return the key of an intake outcome. `name` is the id of its batch."""
    return f"{ASKED}{name[:8]}/{name}.json"


def idempotency(day: str, digest: str) -> str:
    return f"{IDEMPOTENCY}{day}/{digest}.json"


def token(name: str, digest: str) -> str:
    return f"{tokens_named(name)}{digest[:16]}.json"


def tokens_named(name: str) -> str:
    return f"{TOKENS}{name}/"


def ended(status: str, day: str, document: str) -> str:
    return f"{ended_on(status, day)}{document}"


def ended_on(status: str, day: str | None = None) -> str:
    """Return the prefix of the documents with a status, all of them or those registered on a day (20261122)."""
    return f"ended/{status}/{day}/" if day else f"ended/{status}/"


def waiting(queue: str, collection: str, created: str, document: str, generation: int) -> str:
    """Return the key of a waiting marker. Each generation has its own marker: removing one does not remove the next."""
    return f"{waiting_in(queue, collection)}{created}-{document}-{generation:05d}"


def document_in(key: str) -> str:
    """Return the document id in the key of a marker or an index entry. Raises ValueError when there is none."""
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


def wanted(document: str, digest: str, tenant: str | None = None) -> str:
    """Return the key of a submission; `tenant` is None for the default one."""
    return f"{wanted_by(document, tenant)}{digest[:16]}.json"


def wanted_by(document: str, tenant: str | None = None) -> str:
    """Return the prefix of a document's submissions, or of those by a tenant that is not the default one."""
    return f"documents/{document}/wanted/{f'tenant~{tenant}/' if tenant else ''}"


def wanted_by_default(key: str) -> bool:
    """Return whether the key of a submission is one of the default tenant. In a listing, these come first."""
    return "/tenant~" not in key


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
    """Return the page in a page record's key, and the generation of its failure, None when it is done. Raises ValueError."""
    match = _PAGE_KEY.search(key)
    if match is None:
        raise ValueError(f"not the key of a page record: {key}")
    generation = match["generation"]
    return int(match["page"]), int(generation) if generation else None


def retry_state(document: str, generation: int, page: int) -> str:
    return f"documents/{document}/climbs/{generation:05d}/{page:06d}.json"


def figure(document: str, name: str) -> str:
    return f"documents/{document}/figures/{name}"


def run_record(document: str, generation: int, page: int, unique: str) -> str:
    return f"documents/{document}/runs/{generation:05d}/{page:06d}-{unique}.json"


def output(document: str, generation: int, digest: str, extension: str) -> str:
    return f"{outputs(document)}{generation:05d}/{digest[:16]}.{extension}"


def outputs(document: str) -> str:
    return f"documents/{document}/out/"


def is_output_of(digest: str, key: str) -> bool:
    """Return whether the output at a key is named by a digest."""
    return key.rpartition("/")[2].startswith(f"{digest[:16]}.")


def conversion(document: str, generation: int, name: str) -> str:
    return f"documents/{document}/conversions/{generation:05d}/{name}.json"


def statuses(document: str) -> str:
    return f"documents/{document}/status/"


def status(document: str, generation: int) -> str:
    return f"{statuses(document)}{generation:05d}.json"


def stays_removed(key: str) -> bool:
    """Return whether an object must not come back after a power cut: a token, a manifest, a submission of a document.

    Others that come back are removed once more, or harmless.
    """
    return key.startswith(TOKENS) or key.endswith("/manifest.json") or "/wanted/" in key


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


def redis_quotas(day: str) -> str:
    return f"ocrfleet:quotas:{day}"


def redis_taken(batch: str) -> str:
    return f"ocrfleet:taken:{batch}"


REDIS_WAITING = "ocrfleet:waiting"
REDIS_WORKERS = "ocrfleet:workers"


def queue_pages(queue: str, profile: str) -> str:
    return f"pages.{queue}.{profile}"


REDIS_DISPATCHER = "ocrfleet:dispatcher"
REDIS_FLEET = "ocrfleet:fleet"
FLEET = "fleet.json"

QUEUE_INTAKE = "intake"
QUEUE_ASSEMBLY = "assembly"
#: kombu's hash of leased messages by delivery tag, and its sorted set of the times at which their leases began
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"
