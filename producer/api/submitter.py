"""Submit documents over HTTP: uploads are registered at once, sources in S3 by the fleet's intake.

An upload is here already, so its pages are counted before it is registered: a file with too many pages, or one that can't
be read, is refused with the reason. A source in S3 is fetched by the fleet: it is stored as an intake batch, which the
client can follow until it is a document.
"""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, PermanentError, Reason
from ocrfleet.formats import FormatName
from ocrfleet.markdown.style import Tables
from ocrfleet.profiles.select import named
from ocrfleet.records.base import Collection, moment
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.records.tenants import DEFAULT, stored_collection
from ocrfleet.s3.location import typed
from ocrfleet.s3.location import uri as uri_of_object
from ocrfleet.sources.sources import OwnOutputError, Sources, uri_of_upload
from producer.api.auth import allowed_sources
from producer.api.limits import SHARE
from producer.api.problems import ProblemError
from producer.delivery.webhook import CallbackError, check_url
from producer.errors import UsageError
from producer.intake.batches import client_of, short_client
from producer.intake.inspect import Intake, Seen, index_of
from producer.intake.page_ranges import parse_pages, select
from producer.intake.quotas import Quotas
from producer.intake.register import Registration
from producer.state.profiles import save_profile

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.documents import Source
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.api.auth import Caller
    from producer.api.bodies import Upload
    from producer.intake.batches import IntakeBatches

#: Seconds for which a count of waiting intake batches is used.
_COUNT_SECONDS = 5.0

Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]


class SubmissionRequest(BaseModel):
    """Options of a submission."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text | None = Field(default=None, description="Name of the document; by default the file's name.")
    profile: Text | None = Field(default=None, description="Profile that reads it; `ocrfleet models` lists the names.")
    queue: Priority | None = Field(default=None, description="Interactive documents are read before bulk ones.")
    collection: Collection | None = Field(default=None, description="Collection that the document belongs to.")
    pages: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Pages to be read, as `3-10` or `1,5-`; all by default."
    )
    formats: list[FormatName] | None = Field(
        default=None, description="Formats of the outputs; `md` and `json` by default."
    )
    tables: Tables | None = Field(
        default=None,
        description="How tables are written in Markdown that is delivered: `html` (the default), or `markdown` where no "
        "cell spans others or has several lines.",
    )
    join_hyphens: bool | None = Field(
        default=None,
        description="Whether words that were divided at the end of a line are joined in Markdown that is delivered.",
    )
    callback: Annotated[str, Field(max_length=2000)] | None = Field(
        default=None, description="URL that gets a signed POST when the document has ended."
    )

    @property
    def fingerprint(self) -> str:
        """The same for the same request. Without the options that 0.1.0 did not have, what 0.1.0 made of it."""
        unset = {name for name in ("tables", "join_hyphens") if getattr(self, name) is None}
        return self.model_dump_json(exclude=unset)


class SourceRequest(SubmissionRequest):
    """Submission of an object in S3."""

    source: Text = Field(description="s3://bucket/key, not percent-encoded.")


class Submitter:
    """Registers uploads and stores sources for intake. Calls block and are thread-safe; `close` stops its processes.

    Each call may raise ProblemError for an error in the request, TransientError when the store or S3 is away.
    """

    def __init__(
        self, settings: Settings, store: ObjectStore, ledger: Ledger, batches: IntakeBatches, profile: Profile
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._batches = batches
        self._default = profile
        self._profiles = {known.name: known for known in named()} | {profile.name: profile}
        self._sources = Sources(settings, store)
        #: by tenant
        self._allowed = functools.lru_cache(maxsize=1000)(functools.partial(allowed_sources, settings.api))
        self._allowed(DEFAULT)  # raises ConfigurationError at the start
        self._intake = Intake(settings, store, self._sources)
        #: inspects uploads, without an entry in the index of sources
        self._counting = Intake(settings, None)
        self._saved: set[str] = set()
        self.quotas = Quotas(settings.api, ledger)
        #: batches that wait by client, and when they were counted
        self._waiting: tuple[float, Counter[str]] = (-math.inf, Counter())

    def close(self) -> None:
        self._counting.close()
        self._intake.close()

    def check_room(self, client: str) -> None:
        """Raise ProblemError (429) while too many batches wait for intake, or too many of this client's for the room that is left."""
        limit = self._settings.api.arrivals_limit
        counted, waiting = self._waiting
        if time.monotonic() - counted > _COUNT_SECONDS:
            listed = (key for queue in Priority for key in self._store.list(keys.arrivals(queue)))
            waiting = Counter(map(client_of, islice(listed, limit)))
            self._waiting = time.monotonic(), waiting
        room = limit - waiting.total()
        if room <= 0:
            raise ProblemError.too_many(
                "Too many submissions wait for intake: try again in a minute, or see whether `ocrfleet dispatch` or `serve` runs.",
                after=60,
            )
        if client and waiting[short_client(client)] >= SHARE * room:
            raise ProblemError.too_many(
                "Too many of your submissions wait for intake: try again in a minute.", after=60
            )

    def inspect(self, upload: Upload, *, client: str) -> Source:
        """Return a client's upload as a source, with its digest and number of pages. Raises ProblemError when it can't be read."""
        try:
            return self._counting.source(upload.path, client=client)
        except PermanentError as error:
            raise _unreadable(error) from error

    def register(self, upload: Upload, source: Source, wanted: SubmissionRequest, *, caller: Caller) -> str:
        """Store an upload and register it for its client; return its document's id. Raises QuotaError."""
        options, profile = self._options(wanted, caller.tenant)
        try:
            pages = sum(last - first + 1 for first, last in select(options.selection, source.pages))
        except PermanentError as error:
            raise _unreadable(error) from error
        if pages > self._settings.api.upload_pages:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file has {pages} pages to be read, and {self._settings.api.upload_pages} are allowed: choose some of them "
                "with `pages`, or split the file.",
                reason=Reason.TOO_LARGE,
            )
        day = self.quotas.take(caller.client, options.collection, pages=pages, size=source.size)
        try:
            return self._register(upload, source, wanted, options, profile)
        except BaseException:
            self.quotas.give_back(caller.client, options.collection, pages=pages, size=source.size, day=day)
            raise

    def _register(
        self,
        upload: Upload,
        source: Source,
        wanted: SubmissionRequest,
        options: SubmissionOptions,
        profile: Profile,
    ) -> str:
        uri = uri_of_upload(source.sha256)
        self._store.create_from(keys.upload(source.sha256), upload.path)
        # Saves intake from fetching and inspecting it again.
        seen = Seen(sha256=source.sha256, kind=source.kind, pages=source.pages)
        reference = SourceReference(
            name=wanted.name or _label(upload.name) or f"{source.sha256[:12]}.{source.kind}", uri=uri, size=source.size
        )
        self._store.put(index_of(reference), seen.to_bytes())
        registration = Registration(self._store, self._intake, profile=profile, terms=options, ledger=self._ledger)
        return registration.register_reference(reference, submitted=moment()).document

    def add_source(self, wanted: SourceRequest, *, caller: Caller) -> str:
        """Store a client's source in S3 for intake; return the id of the submission, to follow it. Raises QuotaError.

        Its bytes are taken from the quota now, its pages at intake, which checks the limits of a file once more.
        """
        try:
            location = typed(wanted.source)
        except ValueError as error:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "The source must be s3://bucket/key, and have no segment . or .. in its key."
            ) from error
        if not location.key or location.key.endswith("/"):
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "The source must be one object, s3://bucket/key: a prefix is for `ocrfleet submit`.",
            )
        if not self._allowed(caller.tenant).allows(location.bucket, location.key):
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "This source is not allowed: OCRFLEET_API_SOURCES has the buckets and prefixes in which sources may be named.",
            )
        options, _ = self._options(wanted, caller.tenant)
        uri = uri_of_object(location.bucket, location.key)
        try:
            reference = self._sources.looked_up(SourceReference(name=wanted.name or location.key, uri=uri, size=0))
        except PermanentError as error:
            raise ProblemError(
                HTTPStatus.NOT_FOUND, f"The source can't be read: {error.detail}.", reason=error.reason
            ) from error
        except OwnOutputError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"The source can't be read: {error}.") from error
        if reference.size > self._settings.api.upload_bytes:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The source has {reference.size} bytes, and {self._settings.api.upload_bytes} are allowed: split it.",
                reason=Reason.TOO_LARGE,
            )
        self.quotas.take(caller.client, options.collection, pages=0, size=reference.size)
        return self._batches.add_followed(options, reference, client=caller.client)

    def followed(self, name: str, *, tenant: str) -> str | None:
        """Return the document that a tenant's source has become; None while it waits. Raises ProblemError (404, 410)."""
        outcome: IntakeOutcome | None = None
        with suppress(NotFoundError, DamagedRecordError):
            outcome = IntakeOutcome.from_bytes(self._store.get(keys.asked(name)))
        if outcome is None or (outcome.tenant or DEFAULT) != tenant:
            raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such submission, or it is older than a week.")
        if outcome.refused is not None:
            raise ProblemError(HTTPStatus.GONE, f"The source has not become a document: {outcome.refused}.")
        return outcome.document

    def _options(self, wanted: SubmissionRequest, tenant: str) -> tuple[SubmissionOptions, Profile]:
        """Return the submission's options, and its profile, which is saved."""
        profile = self._profiles.get(wanted.profile) if wanted.profile is not None else self._default
        if profile is None:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "There is no such profile: `ocrfleet models` lists them; or omit `profile`.",
            )
        try:
            selection = tuple(parse_pages(wanted.pages)) if wanted.pages else ()
            if wanted.callback is not None:
                check_url(wanted.callback, private=self._settings.webhook_private)
        except UsageError as error:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "`pages` must be written like 3-10, or 1,5-8, or 20-."
            ) from error
        except CallbackError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"The callback can't be used: {error}.") from error
        if profile.digest not in self._saved:
            save_profile(self._store, profile)
            self._saved.add(profile.digest)
        options = SubmissionOptions(
            profile_digest=profile.digest,
            queue=wanted.queue or self._settings.api.queue,
            collection=stored_collection(tenant, wanted.collection or self._settings.api.collection),
            selection=selection,
            formats=tuple(sorted(set(wanted.formats or ()))),
            tables=wanted.tables,
            join_hyphens=wanted.join_hyphens,
            callback=wanted.callback,
        )
        return options, profile


def merged(kind: type[SubmissionRequest], *parts: Mapping[str, Any]) -> Any:
    """Merge the parts of a request, where later parts override earlier ones. Raises ValidationError."""
    return kind.model_validate({name: value for part in parts for name, value in part.items()})


def _label(name: str | None) -> str:
    """Return the last part of a file name, without characters that can't be printed, 255 characters at most."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:255]


def _unreadable(error: PermanentError) -> ProblemError:
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if error.reason is Reason.UNSUPPORTED:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif error.reason is Reason.TOO_LARGE:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return ProblemError(status, f"The file can't be read: {error.detail}.", reason=error.reason)
