"""A worker process: one engine, its renderers, and a Celery consumer of its profile's queues.

Ends with 0 after a drain (SIGTERM), 70 when it broke while working (restart it), 78 when it can't start as configured.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from celery import signals
from celery.worker import state

from ocrfleet import logs
from ocrfleet.broker.celery_app import make_app, queue_names
from ocrfleet.broker.leases import Leases
from ocrfleet.broker.ledger import Ledger, process_name
from ocrfleet.errors import EXIT_BROKEN, EXIT_CONFIGURATION, ConfigurationError, FatalError, OcrfleetError
from ocrfleet.profiles.models import find
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources
from ocrfleet.storage.open import open_store
from worker import engines
from worker import metrics as meters
from worker.consumer import prefetch as gate
from worker.consumer.tasks import Acknowledgement, register_tasks
from worker.pipeline.jobs import Pipeline
from worker.rendering.pool import RenderPool

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile

log = structlog.get_logger(__name__)

#: Seconds that a broken worker may take to give back its jobs before it ends all the same.
_BROKEN_GRACE = 15.0
#: Seconds beyond its drain that a worker may take to acknowledge and to end its engine.
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
        code = work(settings, find(profile))
    except ConfigurationError as error:
        log.error("worker can't start", error=str(error))  # noqa: TRY400 - one clear line
        code = EXIT_CONFIGURATION
    except OcrfleetError as error:
        log.error("worker broke", error=str(error))  # noqa: TRY400
        code = EXIT_BROKEN
    except Exception as error:
        log.exception("worker broke", error=str(error) or type(error).__name__)
        code = EXIT_BROKEN
    sys.stderr.flush()
    # Not sys.exit: a thread that hangs in native code would keep a broken process alive for ever.
    os._exit(code)


def work(settings: Settings, profile: Profile) -> int:
    """Work until told to stop or broken; return the exit code. Raises FatalError when the engine can't be loaded."""
    worker = f"{process_name(os.getpid())}.{uuid.uuid4().hex[:8]}"
    meters.begin(profile)
    store = open_store(settings)
    ledger = Ledger(settings.redis_url)
    pipeline = Pipeline(
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
        worker=worker,
    )
    pipeline.start()
    app = make_app(settings, consume=queue_names(profile.name))
    gate.install(app, pipeline)
    fatal: list[FatalError] = []
    breaking = threading.Lock()

    def broken(error: FatalError) -> None:
        with breaking:
            if fatal:
                return
            code = _exit_code(error)
            log.error("worker broken: it gives back its jobs and ends", error=str(error))
            fatal.append(error)
            _end_in(_BROKEN_GRACE + (settings.drain_seconds if code == EXIT_CONFIGURATION else 0), code)
            state.should_stop = code
            pipeline.drain()
            if code != EXIT_CONFIGURATION:
                # Before any job is given back: whoever takes it must find that this worker died with its pages.
                # One that may not go on, as by a limit of spending, ends what it has begun.
                leases.stop()

    leases = Leases(
        ledger,
        state=pipeline.state,
        lease_seconds=settings.lease_seconds,
        job_deadline=settings.job_deadline,
        works=pipeline.responds,
        trouble=pipeline.trouble,
        patient=pipeline.patient,
        broken=broken,
    )
    leases.start()
    register_tasks(
        app, Acknowledgement(leases, broken), pipeline=pipeline, store=store, ledger=ledger, profile=profile.name
    )

    @signals.worker_shutting_down.connect(weak=False)
    def drain(**_: Any) -> None:
        pipeline.drain()
        # A thread that hangs, as in a share that went away, would keep it for ever.
        _end_in(settings.drain_seconds + _DRAIN_GRACE, EXIT_BROKEN)

    @signals.setup_logging.connect(weak=False)
    def keep_logging(**_: Any) -> None:
        """Being connected is enough: Celery then leaves the log and its level alone."""

    consumer = app.Worker(
        hostname=f"{profile.name}@{worker}",
        pool="threads",
        concurrency=pipeline.jobs_at_once,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    if settings.ready_file is not None:
        settings.ready_file.touch()
    log.info("worker ready", worker=worker, profile=profile.name, engine=pipeline.engine_version)
    consumer.start()
    code = _exit_code(fatal[0]) if fatal else 0
    if code != EXIT_BROKEN:
        leases.stop()
        pipeline.stop()
    return code


def _end_in(seconds: float, code: int) -> None:
    """End this process after so many seconds, if it has not ended by then."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


def _exit_code(error: FatalError) -> int:
    return EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_BROKEN


def _renderers(profile: Profile) -> int:
    """Return how many renderers keep an engine fed: a CPU engine needs its core for itself."""
    if profile.engine not in {"vllm", "openai"}:
        return 1
    return max(1, min(8, len(os.sched_getaffinity(0))))


def run() -> None:
    """Start a worker from the command line."""
    command = typer.Typer(add_completion=False, rich_markup_mode="rich")
    command.command()(main)
    command(prog_name="ocrfleet worker")
