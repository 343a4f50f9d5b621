"""The two tasks: work on a range of pages, assemble a document. Thin: they know Celery, and the rest does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from celery.exceptions import Reject

from ocrfleet.broker.celery_app import TASK_ASSEMBLE, TASK_PAGES, publish_assembly, publish_pages, ranges
from ocrfleet.errors import DamagedRecordError, FatalError, NotFoundError, OcrfleetError, PermanentError
from ocrfleet.records.messages import AssemblyJob, PageJob
from worker import metrics as meters
from worker.assemble import assemble
from worker.pipeline.errors import DrainingError

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.broker.leases import Leases
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore
    from worker.pipeline.jobs import Pipeline

log = structlog.get_logger(__name__)

#: Seconds that a job which has to be given back is kept first, so that it does not circle at full speed.
_GIVE_BACK_DELAY = 1.0


class Acknowledgement:
    """Decides what becomes of a message: acknowledged when its work ended without an error, else given back."""

    def __init__(self, leases: Leases, broken: Callable[[FatalError], None]) -> None:
        self._leases = leases
        self._broken = broken

    @contextmanager
    def after(self, request: Any) -> Iterator[None]:
        """Keep the message of a task's request leased while the block works; raise Reject to give it back."""
        try:
            with self._leases.held(request.properties["delivery_tag"]):
                yield
        except NotFoundError as error:
            log.warning("job of a document that is gone", error=str(error))
        except DamagedRecordError as error:
            # It would circle at full speed. The sweep asks again each minute; whoever mends the record, or upgrades the worker
            # when a newer version wrote it, has the document go on.
            log.error("job of a document with a record that can't be read", error=str(error))  # noqa: TRY400
        except PermanentError as error:
            # Nothing is lost: the sweep finds pages without a record and publishes them in this version's words.
            log.error("message refused", error=error.detail)  # noqa: TRY400 - the place in our code says nothing
        except DrainingError as error:
            raise Reject(error, requeue=True) from error
        except FatalError as error:
            self._broken(error)
            raise Reject(error, requeue=True) from error
        except Exception as error:
            if isinstance(error, OcrfleetError):
                log.warning("job given back", error=str(error))
            else:
                log.exception("job raised")
            time.sleep(_GIVE_BACK_DELAY)
            raise Reject(error, requeue=True) from error


def register_tasks(
    app: Celery,
    acknowledgement: Acknowledgement,
    *,
    pipeline: Pipeline,
    store: ObjectStore,
    ledger: Ledger,
    profile: str,
) -> None:
    """Give the app its tasks; `profile` is that of this worker, whosever documents it assembles."""

    @app.task(name=TASK_PAGES, bind=True)
    def pages(self: Any, message: Any) -> None:
        with acknowledgement.after(self.request):
            job = PageJob.from_message(message)
            worked = pipeline.run(job, redelivered=bool(self.request.delivery_info.get("redelivered")))
            for to, numbers in worked.moved.items():
                parts = (
                    job.model_copy(update={"first": first, "last": last, "routed": to.routed, "climbing": to.climbing})
                    for first, last in ranges(numbers, job.last - job.first + 1)
                )
                publish_pages(app, to.profile, parts)
            if worked.assemble:
                publish_assembly(app, job.document, job.generation)

    @app.task(name=TASK_ASSEMBLE, bind=True)
    def assemble_document(self: Any, message: Any) -> None:
        with acknowledgement.after(self.request), pipeline.beside():
            job = AssemblyJob.from_message(message)
            with meters.stage("assemble", profile):
                assemble(store, ledger, job.document, job.generation)
