"""The sweep: publishes lost jobs of active documents again.

A message can be lost between the queue and its lease, by a Redis that restarts without its last second, or by an
interrupted publish. The work is proportional to the active documents, which the backlog limit bounds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from ocrfleet.broker.celery_app import publish_assembly, queue_names
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Mark
from ocrfleet.metrics import definitions as metrics
from ocrfleet.storage.page_records import stored_pages
from producer.control.dispatcher import publish_ranges

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore
    from producer.control.dispatcher import Dispatcher
    from producer.state.active import ActiveDocument

log = structlog.get_logger(__name__)

#: Seconds in which only one of several sweeps publishes the lost jobs of a document.
_APART = 10.0
#: Stands for a document's assembly among page numbers.
_ASSEMBLY = 0


class Sweep:
    """Watches the documents of a dispatcher. Jobs that are missing in two consecutive runs are published again."""

    def __init__(self, dispatcher: Dispatcher, store: ObjectStore, ledger: Ledger, app: Celery) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._ledger = ledger
        self._app = app
        self._inspector = MessageInspector(ledger.redis)
        self._missing: set[tuple[str, int, int]] = set()

    def run(self) -> int:
        """Run once; return how many pages and assemblies were published again. Raises TransientError."""
        lease = self._app.conf.broker_transport_options["visibility_timeout"]
        if ahead := self._inspector.pull_back_leases(time.time(), lease):
            log.warning("sweep.leases_in_the_future", messages=ahead, remedy="a machine's clock is wrong: set it")
        documents = list(self._dispatcher.active.values())
        served = {(state.profile, state.profile_digest) for state in self._ledger.workers()}
        # Those that are served, too: a routed page follows the retry policy of the profile that it was sent to.
        profiles = {name for active in documents for name in (active.marker.profile, *active.marker.routes)}
        profiles |= {profile for profile, _ in served}
        jobs, assemblies = self._inspector.jobs(sorted({name for profile in profiles for name in queue_names(profile)}))
        # A page routed to another profile is published for the document's profile when no worker serves the other any more.
        jobs = [job for job in jobs if job.routed is None or (job.routed.profile, job.routed.profile_digest) in served]
        open_ones = {(active.document, active.generation) for active in documents}
        known = {
            (job.document, job.generation, page)
            for job in jobs
            if (job.document, job.generation) in open_ones
            for page in range(job.first, job.last + 1)
        } | {(document, generation, _ASSEMBLY) for document, generation in assemblies}
        missing = {
            (active.document, active.generation, page) for active in documents for page in self._due(active)
        } - known
        lost = missing & self._missing
        self._missing = missing - lost
        published = 0
        for active in documents:
            pages = sorted(
                page
                for document, generation, page in lost
                if (document, generation) == (active.document, active.generation)
            )
            if pages and self._ledger.may_publish_again(active.document, active.generation, _APART):
                log.warning("sweep.published_again", document=active.document, pages=len(pages))
                published += self._publish_again(active, pages)
        return published

    def _due(self, active: ActiveDocument) -> list[int]:
        """Return the published pages without a record, or the assembly if that is due."""
        (progress,) = self._ledger.progress([(active.document, active.generation)])
        terminal = self._ledger.terminal(active.document, active.generation)
        if progress is None or terminal is None:
            return []  # the dispatcher seeds it at its next tick
        if progress.complete:
            return [_ASSEMBLY]
        return [page for page in active.manifest.pages() if page <= progress.published and page not in terminal]

    def _publish_again(self, active: ActiveDocument, pages: list[int]) -> int:
        """Publish lost jobs, without pages that have a record in the store of which a restarted Redis lost the mark.

        Return the number of pages and assemblies.
        """
        if pages != [_ASSEMBLY]:
            at = active.document, active.generation
            stored = stored_pages(self._store, *at)
            self._ledger.mark(*at, sorted(stored.done.intersection(pages)))
            mark = self._ledger.mark(*at, sorted(stored.failed.intersection(pages)), failed=True)
            lost = [page for page in pages if page not in stored.terminal]
            publish_ranges(self._app, active, lost)
            metrics.REPUBLISHED.labels("page").inc(len(lost))
            if mark is not Mark.LAST:
                return len(lost)
        publish_assembly(self._app, active.document, active.generation)
        metrics.REPUBLISHED.labels("assembly").inc()
        return 1
