"""Dispatch: page jobs onto the queue, never more than the backlog limit ahead; collections take turns.

Waiting documents are markers in the store, so Redis holds no more for ten million pages than for ten thousand. The
dispatcher keeps the active ones in memory, learns their progress from the ledger, and believes only the store when it
says that one has ended.
"""

from __future__ import annotations

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
from ocrfleet.records.base import Priority
from ocrfleet.records.documents import Manifest, Marker
from ocrfleet.records.messages import PageJob
from ocrfleet.storage.page_records import seed_ledger
from producer.state.active import ActiveDocument
from producer.state.backlog import count_waiting

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Of the backlog that one class may take: so that a flood of one never keeps the other waiting for all of it.
_SHARE = 0.75
#: Of the backlog, what profiles may take that nobody serves, as long as there are workers for others.
_SPARE = 0.1
#: Jobs that a collection publishes before it is another one's turn.
_JOBS_AT_ONCE = 4


class Dispatcher:
    """Publishes the documents of some collections, or of all when none are named; `backlog` says how many pages at most.

    `finish` is asked to do what follows from a document's end, by its id and generation, again and again until it says
    that it is done: only then the document's marker goes. Every method may raise TransientError when the store or Redis
    is away; the next call goes on.
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
        #: when a collection had its last turn, counted in turns
        self._served: dict[str, int] = {}
        self._turn = 0
        #: documents that have ended, until they are finished: by generation, the markers that go then; what waiting ones say
        self._ending: dict[str, dict[int, dict[str, Marker | None]]] = {}
        #: names and digests of the profiles that workers serve; none when there is no worker
        self._served_profiles: frozenset[tuple[str, str]] = frozenset()
        #: pages that may still be published for profiles that nobody serves while there are workers for others
        self._spare = 0
        #: which start of Redis it was at the last look
        self._run: str | None = None
        #: by document id
        self.active: dict[str, ActiveDocument] = {}

    @property
    def busy(self) -> bool:
        """Whether documents are being worked on, or finished."""
        return bool(self.active or self._ending)

    def adopt(self) -> None:
        """Take over the documents that were active when a dispatcher ended."""
        for key in self._store.list(keys.ACTIVE):
            self._adopt(key.removeprefix(keys.ACTIVE), only_ours=True)

    def want(self, document: str) -> None:
        """Take over one document if it is active, whatever its collection: somebody asks for it again."""
        self._adopt(document, only_ours=False)

    def _adopt(self, document: str, *, only_ours: bool) -> None:
        if document in self.active:
            return
        try:
            marker = Marker.from_bytes(self._store.get(keys.active(document)))
            if self._store.exists(keys.status(document, marker.generation)):
                self._end(document, marker.generation, keys.active(document))  # and whoever looked after it was killed
            elif not only_ours or not self._collections or marker.collection in self._collections:
                self._enter(document, marker)
        except NotFoundError:  # it was deleted
            self._store.delete(keys.active(document))
        except DamagedRecordError as error:
            log.error("dispatcher.active_document_damaged", document=document, error=str(error))  # noqa: TRY400

    def tick(self) -> list[ActiveDocument]:
        """Publish what there is room for; return the documents that have ended since the last call."""
        ended = self._look()
        self._finish_ended()
        self._paused = frozenset(key.removeprefix(keys.PAUSED) for key in self._store.list(keys.PAUSED))
        self._list_waiting()
        self._backlog = self._limit()
        self._served_profiles = frozenset((state.profile, state.profile_digest) for state in self._ledger.workers())
        unserved = (active.queued() for active in self.active.values() if self._nobody_serves(active.marker))
        self._spare = int(self._backlog * _SPARE) - sum(unserved)
        for queue in (Priority.INTERACTIVE, Priority.BULK):
            self._fill(queue)
        return ended

    def _fill(self, queue: Priority) -> None:
        """Publish documents of a class until there is no room: always of the collection with the fewest pages queued.

        So a small collection need not wait for a huge one before it, nor a document for one of ten thousand pages.
        """
        # What nobody serves has a part of its own, and takes no room from the others.
        queued = {
            active.document: 0 if self._nobody_serves(active.marker) else active.queued()
            for active in self.active.values()
        }
        lanes: dict[str, list[ActiveDocument]] = {}
        load: dict[str, int] = {}
        for active in self.active.values():
            if active.marker.queue is queue:
                collection = active.marker.collection
                load[collection] = load.get(collection, 0) + queued[active.document]
                if active.unpublished:
                    lanes.setdefault(collection, []).append(active)
        collections = {*lanes, *(collection for place, collection in self._waiting if place is queue)} - self._paused
        room = min(self._backlog - sum(queued.values()), int(self._backlog * _SHARE) - sum(load.values()))
        heap = [(load.get(collection, 0), self._served.get(collection, 0), collection) for collection in collections]
        heapify(heap)
        while room > 0 and heap:
            pages, _, collection = heappop(heap)
            published = self._publish_of(queue, collection, lanes.setdefault(collection, []), room)
            if published is None:
                continue
            self._turn += 1
            self._served[collection] = self._turn
            room -= published
            heappush(heap, (pages + published, self._turn, collection))
        self._served = {collection: self._served.get(collection, 0) for collection in collections}

    def _publish_of(self, queue: Priority, collection: str, lane: list[ActiveDocument], room: int) -> int | None:
        """Publish a few jobs of a collection's first document that has any; return their pages, None when none has.

        A document that takes a place counts as a page, also when none of its pages has to be read.
        """
        if not lane:
            entered = self._activate(queue, collection)
            if entered is None:
                return None
            lane.append(entered)
        active = lane[0]
        idle = self._nobody_serves(active.marker)
        if idle and self._spare <= 0:
            lane.pop(0)
            return 0
        published = self._publish(active, min(room, active.marker.pages_per_job * _JOBS_AT_ONCE))
        if not active.unpublished:
            lane.pop(0)
        if idle:
            self._spare -= max(1, published)
        return max(1, published)

    def _look(self) -> list[ActiveDocument]:
        """Ask the ledger how far each document is, and the store whether those that seem complete have ended."""
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
        """Tell a Redis that was restarted what the store has: it may have come back as it was some time ago."""
        run = self._ledger.run()
        if self._run not in {None, run}:
            for active in self.active.values():
                self._seed(active)
        self._run = run

    def _end(self, document: str, generation: int, key: str, waiting: Marker | None = None) -> None:
        """Have a document finished whose generation has ended, and the marker with this key removed then."""
        self._ending.setdefault(document, {}).setdefault(generation, {})[key] = waiting

    def _finish_ended(self) -> None:
        """Have ended documents finished, and remove their markers then: a crash before that does it once more."""
        for document, generations in list(self._ending.items()):
            for generation, markers in list(generations.items()):
                if self._finish(document, generation):
                    for key, waiting in markers.items():
                        self._remove(key, generation, waiting)
                    del generations[generation]
            if not generations:
                del self._ending[document]

    def _remove(self, key: str, generation: int, waiting: Marker | None) -> None:
        """Remove the marker of a generation that has ended, not that of a newer one which another leader has begun."""
        if waiting is not None:
            self._store.delete(key)
            count_waiting(self._ledger, waiting, over=True)
            return
        with suppress(NotFoundError, DamagedRecordError):
            if Marker.from_bytes(self._store.get(key)).generation > generation:
                return
        self._store.delete(key)

    def _publish(self, active: ActiveDocument, room: int) -> int:
        """Publish up to `room` pages that were not handed over yet; return how many."""
        progress = active.progress
        if progress is None or progress.complete:
            return 0
        after = progress.published
        terminal = self._ledger.terminal(active.document, active.generation, first=after + 1) or set()
        pages = list(islice((page for page in active.pages_after(after) if page not in terminal), room))
        # Behind the last page that has to be read, there may be others that were read before.
        last = pages[-1] if len(pages) == room else active.manifest.selection[-1][1]
        publish_ranges(self._app, active, pages)
        self._ledger.published(active.document, active.generation, last)
        active.progress = replace(progress, published=last)
        return len(pages)

    def _activate(self, queue: Priority, collection: str) -> ActiveDocument | None:
        """Make a collection's next waiting document active; None when none waits."""
        for key in self._waiting.get((queue, collection), ()):
            try:
                document = keys.document_in(key)
                marker = Marker.from_bytes(self._store.get(key))
                if self._store.exists(keys.status(document, marker.generation)):
                    self._end(document, marker.generation, key, marker)  # somebody else wants it, too
                    continue
                if self._nobody_serves(marker) and self._spare <= 0:
                    break
                active = self.active.get(document)
                if document in self._ending or (active is not None and active.generation < marker.generation):
                    continue  # its turn comes when the older generation has ended and is delivered
                if active is None:
                    self._store.put(keys.active(document), marker.to_bytes())
                    self._store.delete(key)
                    count_waiting(self._ledger, marker, over=True)
                    return self._enter(document, marker)
            except NotFoundError:
                continue
            except (DamagedRecordError, ValueError) as error:
                log.error("dispatcher.waiting_document_damaged", key=key, error=str(error))  # noqa: TRY400
                continue
            self._store.delete(key)
            count_waiting(self._ledger, marker, over=True)
        self._waiting.pop((queue, collection), None)
        return None

    def _nobody_serves(self, marker: Marker) -> bool:
        return bool(self._served_profiles) and (marker.profile, marker.profile_digest) not in self._served_profiles

    def _list_waiting(self) -> None:
        """Begin a listing of each collection that has waiting documents and is not being listed yet."""
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
        """Tell the ledger what the store has, and return how many pages that is: none of them is published.

        If that is all, ask for the document's assembly. One that has ended meanwhile is found at the next look.
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
    """Publish pages as jobs of neighbours, as many in each as the document's profile wants."""
    marker = active.marker
    jobs = (
        PageJob(document=active.document, generation=active.generation, queue=marker.queue, first=first, last=last)
        for first, last in ranges(pages, marker.pages_per_job)
    )
    publish_pages(app, marker.profile, jobs)
