"""The Celery tasks of a worker: work on a range of pages, assemble a document. Only this package and worker/app.py know Celery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from celery.exceptions import Reject

from ocrfleet.broker.celery_app import TASK_ASSEMBLE, TASK_PAGES, publish_assembly, publish_pages
from ocrfleet.errors import DamagedRecordError, FatalError, NotFoundError, OcrfleetError, PermanentError
from ocrfleet.metrics import definitions
from ocrfleet.records.messages import AssemblyJob, PageJob
from worker import metrics
from worker.assemble import assemble
from worker.pipeline.errors import DrainingError

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.broker.leases import Leases
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.pipeline import Pipeline

log = structlog.get_logger(__name__)

#: Seconds that a job is kept before it is given back, so that it does not circle at full speed.
_GIVE_BACK_DELAY = 1.0


class Acknowledgement:
    """Acknowledges a message whose work ended without an error, and gives others back to their queue."""

    def __init__(
        self, leases: Leases, broken: Callable[[FatalError], None], check_fleet: Callable[[], None] = lambda: None
    ) -> None:
        """`check_fleet` raises ConfigurationError when this worker's store is not that of the jobs' fleet."""
        self._leases = leases
        self._broken = broken
        self._check_fleet = check_fleet

    @contextmanager
    def after(self, request: Any) -> Iterator[None]:
        """Keep the message of a task's request leased while the block works. Raises Reject to give it back."""
        try:
            with self._leases.held(request.properties["delivery_tag"]), self._gone():
                yield
        except DamagedRecordError as error:
            # If it were returned, it would be delivered again at once. The sweep publishes the pages each minute: the document
            # continues after the record was corrected, or after the worker was upgraded if a newer version wrote it.
            definitions.DAMAGED_RECORDS.inc()
            log.error("job.record_damaged", error=str(error))  # noqa: TRY400
        except PermanentError as error:
            # Nothing is lost: the sweep finds pages without a record, and publishes them in the form of this version.
            log.error("job.refused", error=error.detail)  # noqa: TRY400 - the place in our code says nothing
        except DrainingError as error:
            raise Reject(error, requeue=True) from error
        except FatalError as error:
            self._broken(error)
            raise Reject(error, requeue=True) from error
        except Exception as error:
            if isinstance(error, OcrfleetError):
                log.warning("job.given_back", error=str(error))
            else:
                log.exception("job.raised")
            time.sleep(_GIVE_BACK_DELAY)
            raise Reject(error, requeue=True) from error

    @contextmanager
    def _gone(self) -> Iterator[None]:
        """Let a job end whose document is gone, unless it is in another fleet's store."""
        try:
            yield
        except NotFoundError as error:
            self._check_fleet()
            log.warning("job.document_gone", error=str(error))


def register_tasks(app: Celery, acknowledgement: Acknowledgement, context: WorkerContext, pipeline: Pipeline) -> None:
    """Give the app its tasks. A worker assembles documents of any profile."""

    @app.task(name=TASK_PAGES, bind=True)
    def pages(self: Any, message: Any) -> None:
        with acknowledgement.after(self.request):
            job = PageJob.from_message(message)
            outcome = pipeline.run(job, redelivered=bool(self.request.delivery_info.get("redelivered")))
            for profile, jobs in outcome.routed.items():
                publish_pages(app, profile, jobs)
            if outcome.assemble:
                publish_assembly(app, job.document, job.generation)

    @app.task(name=TASK_ASSEMBLE, bind=True)
    def assemble_document(self: Any, message: Any) -> None:
        with acknowledgement.after(self.request), pipeline.jobs.assembly():
            job = AssemblyJob.from_message(message)
            with metrics.stage("assemble", context.profile.name):
                assemble(context.materials, context.ledger, job.document, job.generation)
