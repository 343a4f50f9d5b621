"""Dispatch: page jobs onto the queue, never more than the backlog limit ahead; collections take turns.

Waiting documents are markers in the store, so Redis holds no more for ten million pages than for ten thousand. The
dispatcher keeps the active ones in memory, learns their progress from the ledger, and believes only the store when it
says that one has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError
from ocrfleet.jobs import Manifest, Marker, PageJob, Queue
from ocrfleet.queues import publish_assembly, publish_pages, ranges
from ocrfleet.results import stored_pages
from ocrfleet.storage import NotFoundError

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.ledger import Ledger, Progress
    from ocrfleet.storage import ObjectStore

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Active:
    """A document whose jobs are being published or worked on."""

    manifest: Manifest
    marker: Marker
    progress: Progress | None = None
    #: pages that had a record in the store when the dispatcher took the document
    stored: int = 0

    @property
    def document(self) -> str:
        return self.manifest.document

    @property
    def generation(self) -> int:
        return self.marker.generation

    def queued(self) -> int:
        """Return how many pages are on the queue or being worked on; an assembly counts as a page."""
        if self.progress is None:
            return 1
        published = self.progress.published
        handed = sum(max(0, min(last, published) - first + 1) for first, last in self.manifest.selection)
        return max(1, handed - self.progress.terminal_published)

    def pages_after(self, page: int) -> Iterator[int]:
        """Yield the document's pages behind this one."""
        for first, last in self.manifest.selection:
            yield from range(max(first, page + 1), last + 1)


class Dispatcher:
    """Publishes the documents of some collections, or of all when none are named.

    Every method may raise TransientError when the store or Redis is away; the next call goes on.
    """

    def __init__(
        self, store: ObjectStore, ledger: Ledger, app: Celery, *, backlog_pages: int, collections: Iterable[str] = ()
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._app = app
        self._backlog = backlog_pages
        self._collections = frozenset(collections)
        self._waiting: dict[tuple[Queue, str], Iterator[str]] = {}
        #: by document id
        self.active: dict[str, Active] = {}

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
                self._store.delete(keys.active(document))  # it ended, and whoever looked after it was killed
            elif not only_ours or not self._collections or marker.collection in self._collections:
                self._enter(document, marker)
        except NotFoundError:
            return
        except DamagedRecordError as error:
            log.error("active document left alone", document=document, error=str(error))  # noqa: TRY400

    def tick(self) -> list[Active]:
        """Publish what there is room for; return the documents that have ended since the last call."""
        ended = self._look()
        room = self._backlog - sum(active.queued() for active in self.active.values())
        for active in list(self.active.values()):
            if room <= 0:
                break
            room -= self._publish(active, room)
        self._list_waiting()
        while room > 0:
            entered = self._activate()
            if entered is None:
                break
            room -= max(1, self._publish(entered, room))
        return ended

    def _look(self) -> list[Active]:
        """Ask the ledger how far each document is, and the store whether those that seem complete have ended."""
        documents = list(self.active.values())
        states = self._ledger.progress([(active.document, active.generation) for active in documents])
        ended = []
        for active, progress in zip(documents, states, strict=True):
            active.progress = progress
            if (progress is None or progress.complete) and self._store.exists(
                keys.status(active.document, active.generation)
            ):
                del self.active[active.document]
                self._store.delete(keys.active(active.document))
                ended.append(active)
            elif progress is None:
                log.warning("ledger rebuilt from the store", document=active.document)
                self._seed(active)
        return ended

    def _publish(self, active: Active, room: int) -> int:
        """Publish up to `room` pages that were not handed over yet; return how many."""
        progress = active.progress
        if progress is None or progress.complete:
            return 0
        after = progress.published
        terminal = self._ledger.terminal(active.document, active.generation, first=after + 1) or set()
        pages = list(islice((page for page in active.pages_after(after) if page not in terminal), room))
        if not pages:
            return 0
        publish_ranges(self._app, active, pages)
        self._ledger.published(active.document, active.generation, pages[-1])
        return len(pages)

    def _activate(self) -> Active | None:
        """Make the next waiting document active; None when none waits."""
        for key in self._next_waiting():
            document = key.rpartition("-")[2]
            try:
                marker = Marker.from_bytes(self._store.get(key))
                ended = self._store.exists(keys.status(document, marker.generation))
                active = self.active.get(document)
                if not ended and active is not None and active.generation < marker.generation:
                    continue  # its turn comes when the older generation has ended
                if not ended and active is None:
                    self._store.put(keys.active(document), marker.to_bytes())
                    self._store.delete(key)
                    return self._enter(document, marker)
            except NotFoundError:
                continue
            except DamagedRecordError as error:
                log.error("waiting document left alone", document=document, error=str(error))  # noqa: TRY400
                continue
            self._store.delete(key)
        return None

    def _list_waiting(self) -> None:
        """Begin a listing of each collection that has waiting documents and is not being listed yet."""
        for queue in (Queue.INTERACTIVE, Queue.BULK):
            for collection in self._store.folders(keys.waiting_in(queue)):
                if not self._collections or collection in self._collections:
                    self._waiting.setdefault((queue, collection), self._store.list(keys.waiting_in(queue, collection)))

    def _next_waiting(self) -> Iterator[str]:
        """Yield waiting keys: interactive ones first, and of each class one of every collection in turn."""
        for place in sorted(self._waiting, key=lambda place: place[0] is Queue.BULK):
            listing = self._waiting.pop(place)
            key = next(listing, None)
            if key is not None:
                self._waiting[place] = listing  # to the end: the others come first next time
                yield key

    def _enter(self, document: str, marker: Marker) -> Active:
        active = Active(Manifest.from_bytes(self._store.get(keys.manifest(document))), marker)
        self.active[document] = active
        active.stored = self._seed(active)
        return active

    def _seed(self, active: Active) -> int:
        """Tell the ledger what the store has, and return how many pages that is: none of them is published.

        If that is all, ask for the document's assembly.
        """
        manifest, generation = active.manifest, active.generation
        pages = stored_pages(self._store, manifest.document, generation)
        self._ledger.seed(manifest.document, generation, total=manifest.total, done=pages.done, failed=pages.failed)
        (active.progress,) = self._ledger.progress([(manifest.document, generation)])
        if active.progress is not None and active.progress.complete:
            publish_assembly(self._app, manifest.document, generation)
        return len(pages.terminal)


def publish_ranges(app: Celery, active: Active, pages: Iterable[int]) -> None:
    """Publish pages as jobs of neighbours, as many in each as the document's profile wants."""
    marker = active.marker
    jobs = (
        PageJob(document=active.document, generation=active.generation, queue=marker.queue, first=first, last=last)
        for first, last in ranges(pages, marker.pages_per_job)
    )
    publish_pages(app, marker.profile, jobs)
