"""Notifications of uploads to buckets: `POST /v1/events/s3`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.submissions import SubmissionOptions
from producer.api.auth import allowed_sources, reporter
from producer.api.bodies import small
from producer.api.problems import ProblemError, described
from producer.errors import UsageError
from producer.state.profiles import save_profile
from producer.triggers.filters import Filter, Prefix, apart_from_ours
from producer.triggers.notifications import MAX_MESSAGE_BYTES, UnparsableEventError, parse
from producer.triggers.watcher import Watcher

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/events", tags=["events"], dependencies=[Depends(reporter)])


class EventsAccepted(BaseModel):
    """The result of a notification."""

    #: objects that were added to the intake; they are stored
    registered: int
    #: events that need no action
    ignored: int


class EventReceiver:
    """Registers the objects that notifications report. `close` stops its threads."""

    def __init__(self, settings: Settings, store: ObjectStore, profile: Profile) -> None:
        """Raise ConfigurationError for results below an allowed source prefix: each result would be a new source."""
        self._allowed = allowed_sources(settings.api)
        results = settings.api.results
        try:
            places = [Prefix.parse_folder(place) for place in settings.api.allowed_sources()]
            wanted = apart_from_ours(Filter(), places, results=results, store=settings.store)
        except UsageError as error:
            raise ConfigurationError(f"OCRFLEET_API_SOURCES, OCRFLEET_API_RESULTS: {error}") from error
        options = SubmissionOptions(
            profile_digest=save_profile(store, profile),
            queue=settings.api.event_queue,
            collection=settings.api.event_collection,
            results=None if results is None else str(Prefix.parse_folder(results)),
        )
        self._watcher = Watcher(store, options, wanted, settings.s3)
        for outcome in metrics.OUTCOMES:
            metrics.EVENTS.labels("webhook", outcome)

    def close(self) -> None:
        self._watcher.__exit__(None, None, None)

    def receive(self, message: bytes) -> EventsAccepted:
        """Register the objects of a notification. Raises UnparsableEventError, TransientError, ConfigurationError."""
        events = parse(message)
        allowed = [event for event in events if self._allowed.allows(event.bucket, event.key)]
        if len(allowed) < len(events):
            log.warning("events.source_not_allowed", objects=len(events) - len(allowed))
        registered = self._watcher.register(allowed, source="webhook")
        metrics.EVENTS.labels("webhook", "ignored").inc(len(events) - len(allowed))
        metrics.WATCH_LAST_SUCCESS.labels("webhook").set_to_current_time()
        return EventsAccepted(registered=registered, ignored=len(events) - registered)


@router.post(
    "/s3",
    operation_id="take_events",
    response_model=EventsAccepted,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
    responses=described(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def take_events(request: Request) -> EventsAccepted:
    """Receive a notification of S3, MinIO or SeaweedFS. Its objects are stored for intake before the response is sent."""
    receiver: EventReceiver = request.app.state.context.events
    message = await small(request, limit=MAX_MESSAGE_BYTES)
    try:
        return await run_in_threadpool(receiver.receive, message)
    except UnparsableEventError as error:
        log.warning("events.unparsable", reason=str(error))
        metrics.EVENTS.labels("webhook", "unparsable").inc()
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The notification can't be parsed: {error}.") from error
    except ConfigurationError as error:
        # The sender repeats the notification until the configuration is corrected.
        log.error("events.object_not_readable", error=str(error))  # noqa: TRY400 - one clear line
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The object can't be read with this server's configuration: its log has the reason. Send the notification again later.",
            headers={"Retry-After": "60"},
        ) from error
