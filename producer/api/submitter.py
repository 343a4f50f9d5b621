"""From what somebody sends or names to a document: uploads are registered at once, sources elsewhere by way of intake.

An upload lies here anyway, so its pages are counted before it is taken: too many are refused, and a file that can't be read
is, too, with the reason. What lies in S3 is fetched by the fleet, so it is noted as an arrival, to be followed until it is
a document.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, PermanentError, Reason
from ocrfleet.markdown.style import Tables
from ocrfleet.profiles.models import named
from ocrfleet.records.base import Collection, Priority, moment
from ocrfleet.records.submissions import IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.s3 import client as s3
from ocrfleet.sources.sources import OwnOutputError, Sources, uri_of_upload
from producer.api.auth import allowed_sources
from producer.api.problems import ProblemError
from producer.delivery.webhook import CallbackError, check_url
from producer.errors import UsageError
from producer.intake.inspect import Intake, Seen, index_of
from producer.intake.page_ranges import parse_pages, select
from producer.intake.register import Registration
from producer.state.profiles import save_profile

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.documents import Source
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.api.bodies import Upload
    from producer.intake.batches import IntakeBatches

#: Seconds for which a count of arrivals is believed.
_COUNTED = 5.0

Format = Literal["md", "json"]
Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Wanted(BaseModel):
    """How somebody wants a document to be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: what it is shown as
    name: Text | None = Field(default=None, description="What it is shown as; by default the file's name.")
    profile: Text | None = Field(default=None, description="What reads it; `ocrfleet models` lists the names.")
    queue: Priority | None = Field(default=None, description="Interactive documents are read before bulk ones.")
    collection: Collection | None = Field(default=None, description="The name that it is found under.")
    pages: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Pages to be read, as `3-10` or `1,5-`; all by default."
    )
    formats: list[Format] | None = Field(default=None, description="Outputs that are delivered; all by default.")
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
        default=None, description="A URL that gets a signed POST when the document has ended."
    )

    @property
    def fingerprint(self) -> str:
        """The same for the same request. Without the options that 0.1.0 did not have, what 0.1.0 made of it."""
        unset = {name for name in ("tables", "join_hyphens") if getattr(self, name) is None}
        return self.model_dump_json(exclude=unset)


class Referred(Wanted):
    """A document that lies in S3."""

    source: Text = Field(description="s3://bucket/key, where each character stands for itself.")


class Submitter:
    """Takes what is sent or named. Its calls block, and may come from several threads; `close` ends its processes.

    Each call may raise ProblemError for what is wrong with a request, TransientError when the store or S3 is away.
    """

    def __init__(
        self, settings: Settings, store: ObjectStore, ledger: Ledger, arrivals: IntakeBatches, profile: Profile
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._arrivals = arrivals
        self._default = profile
        self._profiles = {known.name: known for known in named()} | {profile.name: profile}
        self._sources = Sources(settings, store)
        self._allowed = allowed_sources(settings.api)
        self._intake = Intake(settings, store, self._sources)
        #: looks at files that nobody shall remember by their name
        self._counting = Intake(settings, None)
        self._saved: set[str] = set()
        self._full = (0.0, False)

    def close(self) -> None:
        self._counting.close()
        self._intake.close()

    def check_room(self) -> None:
        """Raise ProblemError while too many arrivals wait for intake."""
        counted, full = self._full
        if time.monotonic() - counted > _COUNTED or not counted:
            limit = self._settings.api.arrivals_limit
            waiting = (key for queue in Priority for key in self._store.list(keys.arrivals(queue)))
            full = sum(1 for _ in islice(waiting, limit)) >= limit
            self._full = time.monotonic(), full
        if full:
            raise ProblemError.too_many(
                "Too much waits to be taken in: ask again in a minute, or see whether `ocrfleet dispatch` or `serve` runs.",
                after=60,
            )

    def look(self, upload: Upload) -> Source:
        """Return what an upload is, with its digest and number of pages. Raises ProblemError when it can't be read."""
        try:
            return self._counting.source(upload.path)
        except PermanentError as error:
            raise _unreadable(error) from error

    def take(self, upload: Upload, source: Source, wanted: Wanted) -> str:
        """Keep an upload and register it; return its document."""
        terms, profile = self._terms(wanted)
        try:
            pages = sum(last - first + 1 for first, last in select(terms.selection, source.pages))
        except PermanentError as error:
            raise _unreadable(error) from error
        if pages > self._settings.api.upload_pages:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"These are {pages} pages, and {self._settings.api.upload_pages} are taken at once: ask for some of them "
                "(`pages`), or split the file.",
                reason=Reason.TOO_LARGE,
            )
        uri = uri_of_upload(source.sha256)
        self._store.create_from(keys.upload(source.sha256), upload.path)
        # What intake would find out by fetching it again.
        seen = Seen(sha256=source.sha256, kind=source.kind, pages=source.pages)
        wish = SourceReference(
            name=wanted.name or _label(upload.name) or f"{source.sha256[:12]}.{source.kind}", uri=uri, size=source.size
        )
        self._store.put(index_of(wish), seen.to_bytes())
        registrar = Registration(self._store, self._intake, profile=profile, terms=terms, ledger=self._ledger)
        return registrar.take_in(wish, submitted=moment()).document

    def refer(self, wanted: Referred) -> str:
        """Note a source in S3 for intake; return the name that its arrival is followed by."""
        try:
            location = s3.typed(wanted.source)
        except ValueError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "The source must be s3://bucket/key.") from error
        if not location.key or location.key.endswith("/"):
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "The source must be one object, s3://bucket/key: a prefix is for `ocrfleet submit`.",
            )
        if not self._allowed.allows(location.bucket, location.key):
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "This server doesn't read that source: OCRFLEET_API_SOURCES has the buckets and prefixes that it reads.",
            )
        terms, _ = self._terms(wanted)
        uri = s3.uri(location.bucket, location.key)
        try:
            wish = self._sources.looked_up(SourceReference(name=wanted.name or location.key, uri=uri, size=0))
        except PermanentError as error:
            raise ProblemError(
                HTTPStatus.NOT_FOUND, f"The source can't be read: {error.detail}.", reason=error.reason
            ) from error
        except OwnOutputError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"The source can't be read: {error}.") from error
        return self._arrivals.add_followed(terms, wish)

    def followed(self, name: str) -> str | None:
        """Return the document that an arrival has become; None while it waits. Raises ProblemError."""
        try:
            asked = IntakeOutcome.from_bytes(self._store.get(keys.asked(name)))
        except (NotFoundError, DamagedRecordError):
            raise ProblemError(
                HTTPStatus.NOT_FOUND, "Nothing is known of this submission: it was none, or is older than a week."
            ) from None
        if asked.refused is not None:
            raise ProblemError(HTTPStatus.GONE, f"It has become no document: {asked.refused}.")
        return asked.document

    def _terms(self, wanted: Wanted) -> tuple[SubmissionOptions, Profile]:
        """Return how it is to be read, by a profile that has been saved."""
        profile = self._profiles.get(wanted.profile) if wanted.profile is not None else self._default
        if profile is None:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "There is no such profile: `ocrfleet models` lists them, or leave `profile` out.",
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
        terms = SubmissionOptions(
            profile_digest=profile.digest,
            queue=wanted.queue or self._settings.api.queue,
            collection=wanted.collection or self._settings.api.collection,
            selection=selection,
            formats=tuple(sorted(set(wanted.formats or ()))),
            tables=wanted.tables,
            join_hyphens=wanted.join_hyphens,
            callback=wanted.callback,
        )
        return terms, profile


def merged(kind: type[Wanted], *parts: Mapping[str, Any]) -> Any:
    """Return what several parts of a request say together, the later ones before the earlier. Raises ValidationError."""
    return kind.model_validate({name: value for part in parts for name, value in part.items()})


def _label(name: str | None) -> str:
    """Return a file's name as one may be shown: its last part, without what no name should have."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:255]


def _unreadable(error: PermanentError) -> ProblemError:
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if error.reason is Reason.UNSUPPORTED:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif error.reason is Reason.TOO_LARGE:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return ProblemError(status, f"The file can't be read: {error.detail}.", reason=error.reason)
