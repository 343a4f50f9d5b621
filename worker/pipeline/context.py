"""The worker context: store, ledger, engine and settings, shared by the parts of one worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.formats.materials import Materials
from worker.pipeline.health import Health
from worker.pipeline.store_retry import StoreRetry

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.sources.sources import Sources
    from ocrfleet.storage.store import ObjectStore
    from worker.engines.base import Engine
    from worker.rendering.pool import RenderPool
    from worker.words.finder import WordFinder

#: Threads that wait for the store and for Redis.
_STORE_THREADS = 8
#: Threads that open sources. They are apart, so that no page's record waits for downloads.
_SOURCE_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """One engine, its profile, and the services around it. Made once, when the worker starts (worker/app.py)."""

    #: name of this worker in the ledger, in its heartbeat and in run records
    worker: str
    settings: Settings
    profile: Profile
    engine: Engine
    renderers: RenderPool
    store: ObjectStore
    sources: Sources
    ledger: Ledger
    #: finds the boxes of the words of a model's text; None if the engine returns them itself, or OCRFLEET_WORD_FINDERS is 0
    words: WordFinder | None = None
    health: Health = field(default_factory=Health)
    store_retry: StoreRetry = field(default_factory=lambda: StoreRetry(_STORE_THREADS))
    source_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_SOURCE_THREADS, thread_name_prefix="pipeline-sources")
    )

    @property
    def materials(self) -> Materials:
        """What the writers of output formats may use."""
        return Materials.of(self.settings, self.store, self.sources)
