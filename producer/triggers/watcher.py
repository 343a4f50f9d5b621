"""The watcher: submits uploaded objects by events and by listings of their prefix.

Events get lost, so a listing reconciles them at long intervals. In a store without events, listings do all. Submitting an
object twice is harmless.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, Self

import structlog

from ocrfleet.errors import ConfigurationError, NotFoundError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.submissions import SourceReference, SubmissionOptions
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import location
from ocrfleet.sources.sources import is_own
from producer.intake.batches import Count, IntakeBatches
from producer.triggers.notifications import newest
from producer.triggers.s3_prefix import PrefixRegistration

if TYPE_CHECKING:
    from types import TracebackType

    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.triggers.filters import Filter, Prefix
    from producer.triggers.notifications import ObjectEvent

log = structlog.get_logger(__name__)

#: Objects whose metadata is requested at the same time.
_THREADS = 16


class Watcher:
    """Submits objects with the same options: those of events, and new ones of a listing.

    Threads may share it, with one thread a prefix.
    """

    def __init__(self, store: ObjectStore, terms: SubmissionOptions, wanted: Filter, settings: S3Settings) -> None:
        """Take options whose profile is in the store."""
        self._batches = IntakeBatches(store)
        self._prefixes = PrefixRegistration(store, terms, wanted, settings)
        self._terms = terms
        self._wanted = wanted
        self._client = s3.client(settings)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="head")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def register(self, events: Sequence[ObjectEvent], *, source: str) -> int:
        """Submit the objects of events that pass the filter, in their present version; return how many.

        `source` is the label in the metrics. Raises TransientError, and ConfigurationError when an object may not be read;
        some objects may then be submitted.
        """
        written = [e for e in newest(events) if e.created and self._wanted.wants(e.bucket, e.key)]
        found = [reference for reference in self._pool.map(self._look_up, written) if reference is not None]
        registered = self._batches.add_all(self._terms, found)
        metrics.EVENTS.labels(source, "registered").inc(registered)
        metrics.EVENTS.labels(source, "ignored").inc(len(events) - registered)
        return registered

    def reconcile(self, place: Prefix, *, since: datetime | None = None) -> int:
        """Submit new and changed objects below a prefix that pass the filter; return how many.

        With `since`, only those modified at that time or later. Raises TransientError, and ConfigurationError when the prefix
        can't be listed; some objects may then be submitted.
        """
        count = Count()
        self._prefixes.register(place, count, since=since)
        return count.submitted

    def _look_up(self, event: ObjectEvent) -> SourceReference | None:
        """Return the present version of an object, which may be newer than its event; None when it is gone, or an own result."""
        uri = location.uri(event.bucket, event.key)
        try:
            with s3.errors(f"the source {uri}"):
                head = self._client.head_object(Bucket=event.bucket, Key=event.key)
        except NotFoundError:
            log.info("watcher.object_gone", uri=uri)
            return None
        if is_own(head["Metadata"]):
            log.info("watcher.own_output_skipped", uri=uri)
            return None
        version = head.get("VersionId")
        return SourceReference(
            name=event.key,
            uri=uri,
            size=head["ContentLength"],
            etag=head["ETag"].strip('"'),
            # S3's name for the one version in a bucket without versioning.
            version=None if version == "null" else version,
        )


class PrefixWatcher:
    """Lists a prefix periodically and submits new objects, until it is stopped."""

    #: Clocks differ, and a multipart upload has the time at which it began.
    OVERLAP = timedelta(hours=1)

    def __init__(
        self, watcher: Watcher, place: Prefix, *, every: float, whole_every: float, source: str = "poll"
    ) -> None:
        """Compare recently modified objects with the index every `every` seconds, and all objects every `whole_every` seconds.

        Each time the whole prefix is listed, as S3 can't list by time. `source` is the label in the metrics.
        """
        self._watcher = watcher
        self._place = place
        self._every = every
        self._whole_every = whole_every
        self._source = source
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        """List until stopped. Raises ConfigurationError when the first listing is refused; later refusals are retried."""
        since: datetime | None = None
        whole_at = time.monotonic()
        while not self._stopped.is_set():
            begun, now = time.monotonic(), datetime.now(UTC)
            whole = since is None or begun >= whole_at
            try:
                count = self._watcher.reconcile(self._place, since=None if whole else since)
            except (TransientError, ConfigurationError) as error:
                if since is None and isinstance(error, ConfigurationError):
                    raise
                log.warning("watcher.listing_failed", prefix=str(self._place), error=str(error))
            else:
                metrics.EVENTS.labels(self._source, "registered").inc(count)
                metrics.WATCH_LAST_SUCCESS.labels(self._source).set_to_current_time()
                since = now - self.OVERLAP
                whole_at = begun + self._whole_every if whole else whole_at
                log.info("watcher.prefix_listed", prefix=str(self._place), registered=count)
            self._stopped.wait(self._every)


class Watch(Protocol):
    """A loop that another thread stops."""

    def run(self) -> None: ...

    def stop(self) -> None: ...


def run_all(watches: Sequence[Watch], ended: queue.SimpleQueue[None]) -> None:
    """Run watches in parallel until `ended` gets an item; raise the error of one that fails."""
    with ThreadPoolExecutor(len(watches), thread_name_prefix="watch") as pool:
        running = [pool.submit(watch.run) for watch in watches]
        for one in running:
            one.add_done_callback(lambda _: ended.put(None))
        try:
            ended.get()
        finally:
            for watch in watches:
                watch.stop()
        for one in running:
            one.result()
