"""Submissions: documents with a name and options, and the batches that intake reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.base import (
    Digest,
    DocumentId,
    Generation,
    Moment,
    PageNumber,
    Record,
    StoredCollection,
    digest_of,
)
from ocrfleet.records.priority import Priority
from ocrfleet.records.tenants import Tenant, tenant_of


class MarkdownOptions(Record):
    """Style of delivered Markdown. Defaults are None, so that they are not stored: records and digests stay as they were."""

    #: how tables are written; None: as they are stored, in HTML
    tables: Tables | None = None
    #: whether words that were divided at the end of a line are joined; None: they are not
    join_hyphens: bool | None = None

    @field_validator("tables")
    @classmethod
    def _html_by_default(cls, tables: Tables | None) -> Tables | None:
        return None if tables is Tables.HTML else tables

    @field_validator("join_hyphens")
    @classmethod
    def _divided_by_default(cls, join_hyphens: bool | None) -> bool | None:  # noqa: FBT001 - pydantic calls it
        return join_hyphens or None

    @property
    def style(self) -> Style:
        return Style(tables=self.tables or Tables.HTML, join_hyphens=bool(self.join_hyphens))


class SubmissionOptions(MarkdownOptions):
    """How a submission's sources are read, and where their results are delivered."""

    #: the profile is in the store, under keys.profile
    profile_digest: Digest
    queue: Priority
    collection: StoredCollection
    #: pages to read, as inclusive ranges; an open end is None; () for all
    selection: tuple[tuple[PageNumber, PageNumber | None], ...] = ()
    #: s3://bucket/prefix/ to which outputs are delivered as <prefix><name>.<format>; None: not delivered
    results: str | None = None
    #: formats that are delivered (ocrfleet/formats.py); () for the default ones
    formats: tuple[str, ...] = ()
    #: URL of the webhook for the document's end
    callback: str | None = None


class SourceReference(Record):
    """A submitted source, before its bytes are read."""

    #: relative path after which its outputs are named; for a source in S3, its key
    name: str = Field(min_length=1)
    uri: str
    size: int = Field(ge=0)
    mtime_ns: int = 0
    etag: str | None = None
    version: str | None = None


class IntakeBatch(Record):
    """Submitted sources that wait for intake. Intake removes the batch when each of them is a document; safe to repeat."""

    schema_version: Literal[1] = 1
    created: Moment
    terms: SubmissionOptions
    wishes: tuple[SourceReference, ...] = Field(min_length=1, max_length=1000)
    #: whether a client follows it: then the outcome of its single source is stored (IntakeOutcome)
    followed: bool = False
    #: the client over HTTP from whose quota its pages are taken, once they are counted; None where a command or an event submitted it
    client: str | None = None

    @model_validator(mode="after")
    def _followed_by_one(self) -> Self:
        if self.followed and len(self.wishes) > 1:
            raise ValueError("a batch of several sources can't be followed")
        return self


class IntakeOutcome(Record):
    """Outcome of a batch that a client follows: neither a document nor refused while it waits."""

    schema_version: Literal[1] = 1
    document: DocumentId | None = None
    #: why the source did not become a document
    refused: str | None = None
    #: whose it is; None: the default tenant's
    tenant: Tenant | None = None


class Submission(Record):
    """A submission of a document under a name. Two submissions may be of the same document."""

    #: schema 1 used other keys and was never released
    schema_version: Literal[2] = 2
    name: str
    document: DocumentId
    #: source of the document; for a folder of images, one of several
    uri: str
    #: time of the submission: of two documents with one name, the later submission is delivered
    submitted: Moment
    terms: SubmissionOptions
    #: the time in the key of its entry in the listing of its collection; None: when the document was first registered. Of a tenant
    #: other than the default one it is its own time, as the document may have been another tenant's before.
    listed: Moment | None = None
    #: the generation in which its tenant cancelled it, while other tenants still wanted the document
    cancelled: Generation | None = None

    @property
    def tenant(self) -> str:
        return tenant_of(self.terms.collection)

    @property
    def digest(self) -> str:
        """Equal for submissions of the same document with the same name, source and options."""
        return digest_of(self.name, self.document, self.uri, self.terms.to_bytes().decode())
