"""Uploads become work: events and listings end in the same arrivals, which are harmless to note twice.

Events get lost, so what they told is compared with a listing now and then. Where nobody sends any, the listing is all.
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
from ocrfleet.sources.sources import is_own
from producer.intake.batches import Count, IntakeBatches
from producer.triggers.notifications import newest
from producer.triggers.s3_prefix import Prefixes

if TYPE_CHECKING:
    from types import TracebackType

    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.triggers.filters import Filter, Prefix
    from producer.triggers.notifications import ObjectEvent

log = structlog.get_logger(__name__)

#: Objects that are looked up at the same time.
_THREADS = 16


class Watcher:
    """Registers objects under the same terms: those that events name, and those of a listing that are not noted yet.

    May be used by several threads at once; but one place is reconciled by one thread.
    """

    def __init__(self, store: ObjectStore, terms: SubmissionOptions, wanted: Filter, settings: S3Settings) -> None:
        """Take terms whose profile has been saved in the store."""
        self._arrivals = IntakeBatches(store)
        self._prefixes = Prefixes(store, terms, wanted, settings)
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
        """Register the wanted objects that were written, as they are now; return how many. The rest needs nothing.

        `source` says in the metrics who told of them.

        Raises TransientError, and ConfigurationError when an object may not be read: then some may be registered.
        """
        written = [e for e in newest(events) if e.created and self._wanted.wants(e.bucket, e.key)]
        found = [wish for wish in self._pool.map(self._look_up, written) if wish is not None]
        registered = self._arrivals.add_all(self._terms, found)
        metrics.EVENTS.labels(source, "registered").inc(registered)
        metrics.EVENTS.labels(source, "ignored").inc(len(events) - registered)
        return registered

    def reconcile(self, place: Prefix, *, since: datetime | None = None) -> int:
        """Register the wanted objects below a prefix that have not been noted yet; return how many.

        With `since`, only those that were changed at that time or later. Raises TransientError, and ConfigurationError when
        the prefix can't be listed: then some may be registered.
        """
        count = Count()
        self._prefixes.register(place, count, since=since)
        return count.submitted

    def _look_up(self, event: ObjectEvent) -> SourceReference | None:
        """Return an object as it is now, which may be newer than its event; None when it is gone, or a result of ours."""
        uri = s3.uri(event.bucket, event.key)
        try:
            with s3.errors(f"the source {uri}"):
                head = self._client.head_object(Bucket=event.bucket, Key=event.key)
        except NotFoundError:
            log.info("an object is gone already: nothing to read", uri=uri)
            return None
        if is_own(head["Metadata"]):
            log.info("an object is a result of ours: nothing to read", uri=uri)
            return None
        version = head.get("VersionId")
        return SourceReference(
            name=event.key,
            uri=uri,
            size=head["ContentLength"],
            etag=head["ETag"].strip('"'),
            # What S3 calls the one version of an object in a bucket that keeps none.
            version=None if version == "null" else version,
        )


class Follower:
    """Looks at a prefix again and again for what nobody told of, until it is stopped."""

    #: Clocks differ, and an object that is uploaded in parts has the time at which its upload began.
    OVERLAP = timedelta(hours=1)

    def __init__(
        self, watcher: Watcher, place: Prefix, *, every: float, whole_every: float, source: str = "poll"
    ) -> None:
        """Take seconds between two looks at what changed of late, and between two at all there is; and its name in metrics.

        Each look lists the whole prefix, as S3 can't list by time; but objects older than the last look, less an overlap,
        are not compared with what is noted.
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
        """Look until stopped. Raises ConfigurationError for a prefix that can't be listed from the first; later that may pass."""
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
                log.warning("a prefix can't be looked at now", prefix=str(self._place), error=str(error))
            else:
                metrics.EVENTS.labels(self._source, "registered").inc(count)
                metrics.WATCH_LAST_SUCCESS.labels(self._source).set_to_current_time()
                since = now - self.OVERLAP
                whole_at = begun + self._whole_every if whole else whole_at
                log.info("looked at a prefix", prefix=str(self._place), registered=count)
            self._stopped.wait(self._every)


class Watch(Protocol):
    """Something that goes on until it is stopped, by another thread."""

    def run(self) -> None: ...

    def stop(self) -> None: ...


def run_all(watches: Sequence[Watch], ended: queue.SimpleQueue[None]) -> None:
    """Run watches side by side until something is put into `ended`; raise the error of one that ends by itself."""
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
