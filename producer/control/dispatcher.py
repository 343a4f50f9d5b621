"""Dispatcher: publishes page jobs up to the backlog limit; tenants take turns, and the collections of each.

Waiting documents are markers in the store, so Redis needs no more memory for ten million pages than for ten thousand. The
dispatcher keeps the active documents in memory and reads their progress from the ledger; only the store decides whether a
document has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_assembly, publish_pages, ranges
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.documents import Manifest, Marker
from ocrfleet.records.messages import PageJob
from ocrfleet.records.priority import Priority
from ocrfleet.records.tenants import tenant_of
from ocrfleet.storage.page_records import seed_ledger
from producer.state.active import ActiveDocument
from producer.state.backlog import count_waiting

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Share of the backlog limit for one priority, so that many documents of one never take all of it.
_SHARE = 0.75
#: Share of the backlog limit for profiles that no worker serves, while there are workers for others.
_UNSERVED_SHARE = 0.1
#: Jobs of a collection that are published before the turn of the next one.
_JOBS_A_TURN = 4


class Dispatcher:
    """Publishes the documents of some collections, or of all when none are named.

    `backlog` returns the limit of pages on the queue. `finish` is called with the id and generation of an ended document until
    it returns true; then the document's marker is removed. Each method may raise TransientError when the store or Redis is
    away; the next call continues.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        app: Celery,
        *,
        backlog: Callable[[], int],
        collections: Iterable[str] = (),
        finish: Callable[[str, int], bool] = lambda _document, _generation: True,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._app = app
        self._limit = backlog
        self._backlog = 0
        self._collections = frozenset(collections)
        self._finish = finish
        self._waiting: dict[tuple[Priority, str], Iterator[str]] = {}
        self._paused: frozenset[str] = frozenset()
        #: number of the last turn of each collection
        self._last_turn: dict[str, int] = {}
        self._turn = 0
        #: ended documents that are not finished yet: by generation, the keys of markers to remove, and waiting markers
        self._ending: dict[str, dict[int, dict[str, Marker | None]]] = {}
        #: (name, digest) of the profiles that workers serve; empty without workers
        self._served_profiles: frozenset[tuple[str, str]] = frozenset()
        #: pages that may still be published for profiles that no worker serves, while there are workers for others
        self._unserved_room = 0
        #: id of the start of Redis at the last tick
        self._redis_run: str | None = None
        #: by document id
        self.active: dict[str, ActiveDocument] = {}

    @property
    def busy(self) -> bool:
        """Whether documents are active, or being finished."""
        return bool(self.active or self._ending)

    def adopt(self) -> None:
        """Take over the documents that were active when another dispatcher ended."""
        for key in self._store.list(keys.ACTIVE):
            self._adopt(key.removeprefix(keys.ACTIVE), only_ours=True)

    def want(self, document: str) -> None:
        """Take over a document if it is active, whatever its collection: it was submitted again."""
        self._adopt(document, only_ours=False)

    def _adopt(self, document: str, *, only_ours: bool) -> None:
        if document in self.active:
            return
        try:
            marker = Marker.from_bytes(self._store.get(keys.active(document)))
            if self._store.exists(keys.status(document, marker.generation)):
                self._end(
                    document, marker.generation, keys.active(document)
                )  # its dispatcher was killed before it finished the document
            elif not only_ours or not self._collections or marker.collection in self._collections:
                self._enter(document, marker)
        except NotFoundError:  # the document was deleted
            self._store.delete(keys.active(document))
        except DamagedRecordError as error:
            metrics.DAMAGED_RECORDS.inc()
            log.error("dispatcher.active_document_damaged", document=document, error=str(error))  # noqa: TRY400

    def tick(self) -> list[ActiveDocument]:
        """Publish jobs up to the limits; return the documents that have ended since the last call."""
        ended = self._read_progress()
        self._finish_ended()
        self._paused = frozenset(key.removeprefix(keys.PAUSED) for key in self._store.list(keys.PAUSED))
        self._list_waiting()
        self._backlog = self._limit()
        self._served_profiles = frozenset((state.profile, state.profile_digest) for state in self._ledger.workers())
        unserved = (active.queued() for active in self.active.values() if self._is_unserved(active.marker))
        self._unserved_room = int(self._backlog * _UNSERVED_SHARE) - sum(unserved)
        for queue in (Priority.INTERACTIVE, Priority.BULK):
            self._fill(queue)
        return ended

    def _fill(self, queue: Priority) -> None:
        """Publish jobs of a priority up to the limit, of the tenant with the fewest pages on the queue and its collection with the fewest.

        So a small collection does not wait for a huge one, nor a document for one of ten thousand pages, nor a tenant for one
        with many collections.
        """
        # Pages of profiles that no worker serves have a share of their own, and take nothing from the others.
        queued = {
            active.document: 0 if self._is_unserved(active.marker) else active.queued()
            for active in self.active.values()
        }
        unpublished: dict[str, list[ActiveDocument]] = {}
        load: dict[str, int] = {}
        for active in self.active.values():
            if active.marker.queue is queue:
                collection = active.marker.collection
                load[collection] = load.get(collection, 0) + queued[active.document]
                if active.unpublished:
                    unpublished.setdefault(collection, []).append(active)
        collections = {
            *unpublished,
            *(collection for priority, collection in self._waiting if priority is queue),
        } - self._paused
        room = min(self._backlog - sum(queued.values()), int(self._backlog * _SHARE) - sum(load.values()))
        of_tenants: dict[str, list[tuple[int, int, str]]] = {}
        pages_of: Counter[str] = Counter()
        for collection, pages in load.items():
            pages_of[tenant_of(collection)] += pages
        for collection in collections:
            turn = load.get(collection, 0), self._last_turn.get(collection, 0), collection
            of_tenants.setdefault(tenant_of(collection), []).append(turn)
        tenants = []
        for tenant, heap in of_tenants.items():
            heapify(heap)
            tenants.append((pages_of[tenant], max(turn for _, turn, _ in heap), tenant))
        heapify(tenants)
        while room > 0 and tenants:
            of_tenant, last, tenant = heappop(tenants)
            pages, _, collection = heappop(of_tenants[tenant])
            published = self._publish_of(queue, collection, unpublished.setdefault(collection, []), room)
            if published is not None:
                self._turn += 1
                self._last_turn[collection] = last = self._turn
                room -= published
                of_tenant += published
                heappush(of_tenants[tenant], (pages + published, self._turn, collection))
            if of_tenants[tenant]:
                heappush(tenants, (of_tenant, last, tenant))
        self._last_turn = {collection: self._last_turn.get(collection, 0) for collection in collections}

    def _publish_of(self, queue: Priority, collection: str, documents: list[ActiveDocument], room: int) -> int | None:
        """Publish some jobs of a collection's next document; return the number of pages, None without any document.

        A document that becomes active counts as one page at least, also when none of its pages has to be read.
        """
        if not documents:
            entered = self._activate(queue, collection)
            if entered is None:
                return None
            documents.append(entered)
        active = documents[0]
        unserved = self._is_unserved(active.marker)
        if unserved and self._unserved_room <= 0:
            documents.pop(0)
            return 0
        published = self._publish(active, min(room, active.marker.pages_per_job * _JOBS_A_TURN))
        if not active.unpublished:
            documents.pop(0)
        if unserved:
            self._unserved_room -= max(1, published)
        return max(1, published)

    def _read_progress(self) -> list[ActiveDocument]:
        """Read the progress of the active documents, and check in the store whether complete ones have ended."""
        self._reseed_after_a_restart()
        documents = list(self.active.values())
        states = self._ledger.progress([(active.document, active.generation) for active in documents])
        ended = []
        for active, progress in zip(documents, states, strict=True):
            active.progress = progress
            if (progress is None or progress.complete) and self._store.exists(
                keys.status(active.document, active.generation)
            ):
                del self.active[active.document]
                self._end(active.document, active.generation, keys.active(active.document))
                ended.append(active)
            elif progress is None and not self._store.exists(keys.manifest(active.document)):
                log.info("dispatcher.document_deleted", document=active.document)
                del self.active[active.document]
                self._store.delete(keys.active(active.document))
            elif progress is None:
                log.warning("dispatcher.ledger_rebuilt", document=active.document)
                self._seed(active)
        return ended

    def _reseed_after_a_restart(self) -> None:
        """Seed the ledgers again after a restart of Redis, which may have lost its latest writes."""
        run = self._ledger.run()
        if self._redis_run not in {None, run}:
            for active in self.active.values():
                self._seed(active)
        self._redis_run = run

    def _end(self, document: str, generation: int, key: str, waiting: Marker | None = None) -> None:
        """Add a document to those that are finished next; the marker with this key is removed after that."""
        self._ending.setdefault(document, {}).setdefault(generation, {})[key] = waiting

    def _finish_ended(self) -> None:
        """Finish ended documents, then remove their markers: after a crash in between, they are finished again."""
        for document, generations in list(self._ending.items()):
            for generation, markers in list(generations.items()):
                if self._finish(document, generation):
                    for key, waiting in markers.items():
                        self._remove(key, generation, waiting)
                    del generations[generation]
            if not generations:
                del self._ending[document]

    def _remove(self, key: str, generation: int, waiting: Marker | None) -> None:
        """Remove the marker of an ended generation, but not that of a newer one, which another leader may have started."""
        if waiting is not None:
            self._store.delete(key)
            count_waiting(self._ledger, waiting, over=True)
            return
        with suppress(NotFoundError, DamagedRecordError):
            if Marker.from_bytes(self._store.get(key)).generation > generation:
                return
        self._store.delete(key)

    def _publish(self, active: ActiveDocument, room: int) -> int:
        """Publish up to `room` pages that were not published yet; return how many."""
        progress = active.progress
        if progress is None or progress.complete:
            return 0
        after = progress.published
        terminal = self._ledger.terminal(active.document, active.generation, first=after + 1) or set()
        pages = list(islice((page for page in active.pages_after(after) if page not in terminal), room))
        # After the last page that has to be read, there may be pages that were read before.
        last = pages[-1] if len(pages) == room else active.manifest.selection[-1][1]
        publish_ranges(self._app, active, pages)
        self._ledger.published(active.document, active.generation, last)
        active.progress = replace(progress, published=last)
        return len(pages)

    def _activate(self, queue: Priority, collection: str) -> ActiveDocument | None:
        """Activate a collection's next waiting document; None when none waits."""
        for key in self._waiting.get((queue, collection), ()):
            try:
                document = keys.document_in(key)
                marker = Marker.from_bytes(self._store.get(key))
                if self._store.exists(keys.status(document, marker.generation)):
                    self._end(document, marker.generation, key, marker)  # it was submitted again
                    continue
                if self._is_unserved(marker) and self._unserved_room <= 0:
                    break
                active = self.active.get(document)
                if document in self._ending or (active is not None and active.generation < marker.generation):
                    continue  # after the older generation has ended and was delivered
                if active is None:
                    self._store.put(keys.active(document), marker.to_bytes())
                    self._store.delete(key)
                    count_waiting(self._ledger, marker, over=True)
                    return self._enter(document, marker)
            except NotFoundError:
                continue
            except (DamagedRecordError, ValueError) as error:
                metrics.DAMAGED_RECORDS.inc()
                log.error("dispatcher.waiting_document_damaged", key=key, error=str(error))  # noqa: TRY400
                continue
            self._store.delete(key)
            count_waiting(self._ledger, marker, over=True)
        self._waiting.pop((queue, collection), None)
        return None

    def _is_unserved(self, marker: Marker) -> bool:
        return bool(self._served_profiles) and (marker.profile, marker.profile_digest) not in self._served_profiles

    def _list_waiting(self) -> None:
        """Start a listing of each collection with waiting documents, unless there is one."""
        for queue in Priority:
            for collection in self._store.folders(keys.waiting_in(queue)):
                if not self._collections or collection in self._collections:
                    self._waiting.setdefault((queue, collection), self._store.list(keys.waiting_in(queue, collection)))

    def _enter(self, document: str, marker: Marker) -> ActiveDocument:
        active = ActiveDocument(Manifest.from_bytes(self._store.get(keys.manifest(document))), marker)
        self.active[document] = active
        active.stored = self._seed(active)
        return active

    def _seed(self, active: ActiveDocument) -> int:
        """Seed the ledger from the store, and return how many pages have a record there.

        If all of them have, publish the document's assembly. A document that has ended meanwhile is found at the next tick.
        """
        manifest, generation = active.manifest, active.generation
        pages = seed_ledger(self._store, self._ledger, manifest, generation)
        if pages is None:
            active.progress = None
            return 0
        (active.progress,) = self._ledger.progress([(manifest.document, generation)])
        if active.progress is not None and active.progress.complete:
            publish_assembly(self._app, manifest.document, generation)
        return len(pages.terminal)


def publish_ranges(app: Celery, active: ActiveDocument, pages: Iterable[int]) -> None:
    """Publish pages as jobs of consecutive pages, `pages_per_job` at most in each."""
    marker = active.marker
    jobs = (
        PageJob(document=active.document, generation=active.generation, queue=marker.queue, first=first, last=last)
        for first, last in ranges(pages, marker.pages_per_job)
    )
    publish_pages(app, marker.profile, jobs)
