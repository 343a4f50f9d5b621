"""A worker process: one engine, its renderers, and a Celery consumer of its profile's queues.

Exit codes: 0 after a drain (SIGTERM), 70 when it broke while working (restart it), 78 when it can't start as configured.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from celery import signals
from celery.worker import state

from ocrfleet import logs
from ocrfleet.broker.celery_app import make_app, queue_names
from ocrfleet.broker.leases import Leases
from ocrfleet.broker.ledger import Ledger, process_name
from ocrfleet.errors import (
    EXIT_BROKEN,
    EXIT_CONFIGURATION,
    ConfigurationError,
    FatalError,
    OcrfleetError,
    TransientError,
)
from ocrfleet.metrics.confinement import check_confinement
from ocrfleet.profiles.select import find
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources
from ocrfleet.storage.fleet_identity import check_fleet
from ocrfleet.storage.open import open_store
from worker import engines, metrics
from worker.consumer.prefetch import limit_prefetch
from worker.consumer.tasks import Acknowledgement, register_tasks
from worker.pipeline.context import WorkerContext
from worker.pipeline.pipeline import Pipeline
from worker.rendering.pool import RenderPool
from worker.words.finder import WordFinder

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile

log = structlog.get_logger(__name__)

#: Seconds that a broken worker may take to give back its jobs; then it ends at once.
_BROKEN_GRACE = 15.0
#: Seconds beyond its drain that a worker may take to acknowledge its jobs and to stop its engine.
_DRAIN_GRACE = 25.0


def main(
    profile: Annotated[
        str,
        typer.Option(envvar="OCRFLEET_PROFILE", help="What reads the pages: a profile's name, a JSON file, or JSON."),
    ],
) -> None:
    """Consume page jobs from Redis (OCRFLEET_REDIS_URL) and store their text (OCRFLEET_STORE)."""
    settings = Settings()
    logs.configure(settings.log_level)
    try:
        code = work(make_context(settings, find(profile)))
    except ConfigurationError as error:
        log.error("worker.cannot_start", error=str(error))  # noqa: TRY400 - one clear line
        code = EXIT_CONFIGURATION
    except OcrfleetError as error:
        log.error("worker.failed", error=str(error))  # noqa: TRY400
        code = EXIT_BROKEN
    except Exception as error:
        log.exception("worker.raised", error=str(error) or type(error).__name__)
        code = EXIT_BROKEN
    sys.stderr.flush()
    # Not sys.exit: a thread that hangs in native code would keep a broken process alive without end.
    os._exit(code)


def make_context(settings: Settings, profile: Profile) -> WorkerContext:
    """Return the worker context, with an engine that is not loaded yet. Raises ConfigurationError."""
    check_confinement(settings)
    store, ledger = open_store(settings), Ledger(settings.redis_url.get_secret_value())
    with suppress(TransientError):  # Redis may start later
        check_fleet(store, ledger.redis)
    return WorkerContext(
        worker=f"{process_name(os.getpid())}.{uuid.uuid4().hex[:8]}",
        settings=settings,
        profile=profile,
        engine=engines.create(profile, settings),
        renderers=RenderPool(
            settings.renderers or _renderers(profile),
            memory=settings.render_memory_mb << 20,
            max_pixels=profile.render.max_pixels,
        ),
        store=store,
        sources=Sources(settings, store),
        ledger=ledger,
        words=_word_finder(settings, profile),
    )


def _word_finder(settings: Settings, profile: Profile) -> WordFinder | None:
    """Return what places the words of a model's text; None for engines that tell the places themselves."""
    if not settings.word_finders or profile.prompt is None:
        return None
    return WordFinder(settings.word_finders, max_pixels=profile.render.max_pixels, deadline=settings.render_deadline)


def _renderers(profile: Profile) -> int:
    """Return how many renderers an engine needs: a CPU engine needs its core for itself."""
    if profile.engine not in {"vllm", "openai"}:
        return 1
    return max(1, min(8, len(os.sched_getaffinity(0))))


def work(context: WorkerContext) -> int:
    """Work until the worker is drained or broken; return the exit code. Raises FatalError when the engine can't be loaded."""
    settings, profile = context.settings, context.profile
    metrics.initialise(profile)
    pipeline = Pipeline(context)
    pipeline.start()
    app = make_app(settings, consume=queue_names(profile.name))
    limit_prefetch(app, pipeline.jobs)
    shutdown = Shutdown(context, pipeline)
    check = functools.partial(check_fleet, context.store, context.ledger.redis)
    register_tasks(app, Acknowledgement(shutdown.leases, shutdown.broken, check), context, pipeline)
    signals.worker_shutting_down.connect(shutdown.drain, weak=False)
    # Being connected is enough: Celery then leaves the log and its level alone.
    signals.setup_logging.connect(_keep_logging, weak=False)
    consumer = app.Worker(
        hostname=f"{profile.name}@{context.worker}",
        pool="threads",
        concurrency=pipeline.jobs.concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    shutdown.leases.start()
    if settings.ready_file is not None:
        settings.ready_file.touch()
    log.info("worker.ready", worker=context.worker, profile=profile.name, engine=context.engine.version)
    consumer.start()
    return shutdown.finish()


def _keep_logging(**_: Any) -> None:
    pass


class Shutdown:
    """Ends this worker: in order after SIGTERM, or because it broke. Its leases say meanwhile whether it lives."""

    def __init__(self, context: WorkerContext, pipeline: Pipeline) -> None:
        self._drain_seconds = context.settings.drain_seconds
        self._pipeline = pipeline
        self._error: FatalError | None = None
        self._lock = threading.Lock()
        self.leases = Leases(
            context.ledger,
            state=pipeline.state,
            lease_seconds=context.settings.lease_seconds,
            job_deadline=context.settings.job_deadline,
            works=pipeline.responds,
            trouble=pipeline.engine_failure,
            patient=pipeline.waits_for_store,
            broken=self.broken,
        )

    def drain(self, **_: Any) -> None:
        """Begin no more pages, and end within the time for that. Celery calls this on SIGTERM."""
        self._pipeline.drain()
        # A thread that hangs, for example in a network share that is gone, would keep the process alive.
        _exit_after(self._drain_seconds + _DRAIN_GRACE, EXIT_BROKEN)

    def broken(self, error: FatalError) -> None:
        """Give back the jobs in hand, and end with the exit code of this error. Only the first call counts."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            code = _exit_code(error)
            log.error("worker.broken", error=str(error))
            _exit_after(_BROKEN_GRACE + (self._drain_seconds if code == EXIT_CONFIGURATION else 0), code)
            state.should_stop = code
            self._pipeline.drain()
            if code != EXIT_CONFIGURATION:
                # Before any job is given back: the next worker must find that this one died with its pages. A worker that may
                # not go on, as by a limit of spending, first ends the pages that it has begun.
                self.leases.stop()

    def finish(self) -> int:
        """Stop what still runs, and return the exit code. To be called when the consumer has stopped."""
        code = 0 if self._error is None else _exit_code(self._error)
        if code != EXIT_BROKEN:
            self.leases.stop()
            self._pipeline.stop()
        return code


def _exit_after(seconds: float, code: int) -> None:
    """End this process after so many seconds, if it has not ended by then."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


def _exit_code(error: FatalError) -> int:
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_BROKEN


def run() -> None:
    """Start a worker from the command line."""
    command = typer.Typer(add_completion=False, rich_markup_mode="rich")
    command.command()(main)
    command(prog_name="ocrfleet worker")
