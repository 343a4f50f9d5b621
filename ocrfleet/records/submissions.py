"""Submissions: who asked for which document, with which options, and the batches that intake reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.base import Collection, Digest, DocumentId, Moment, PageNumber, Priority, Record, digest_of


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

    #: its profile is in the store, under keys.profile
    profile_digest: Digest
    queue: Priority
    collection: Collection
    #: pages to read, as inclusive ranges; an open end is None; () for all
    selection: tuple[tuple[PageNumber, PageNumber | None], ...] = ()
    #: s3://bucket/prefix/ that outputs are delivered to, as <prefix><name>.<format>; None where nothing is delivered
    results: str | None = None
    #: that are delivered: md, json; () for all
    formats: tuple[str, ...] = ()
    #: that is told when the document has ended
    callback: str | None = None


class SourceReference(Record):
    """A source that somebody wants read, before anybody has looked at its bytes."""

    #: relative path that its outputs are named by; of a source in S3, its key
    name: str = Field(min_length=1)
    uri: str
    size: int = Field(ge=0)
    mtime_ns: int = 0
    etag: str | None = None
    version: str | None = None


class IntakeBatch(Record):
    """Wishes that are safely noted and wait for intake, which removes it when each has become a document.

    Doing it twice changes nothing.
    """

    schema_version: Literal[1] = 1
    created: Moment
    terms: SubmissionOptions
    wishes: tuple[SourceReference, ...] = Field(min_length=1, max_length=1000)
    #: whether somebody follows it: then it is noted (Asked) what became of its one wish
    followed: bool = False

    @model_validator(mode="after")
    def _followed_by_one(self) -> Self:
        if self.followed and len(self.wishes) > 1:
            raise ValueError("an arrival of several wishes can't be followed")
        return self


class IntakeOutcome(Record):
    """What became of an arrival that somebody follows: both are None while it waits."""

    schema_version: Literal[1] = 1
    document: DocumentId | None = None
    #: why it has become none
    refused: str | None = None


class Submission(Record):
    """That somebody wants a document, under a name of theirs. Two submissions may want the same document."""

    #: what schema 1 wrote lay under other keys, and nobody ever read it
    schema_version: Literal[2] = 2
    name: str
    document: DocumentId
    #: what it was made of; an image of a book is one of several
    uri: str
    #: when it was asked for last: of two documents with one name, the one asked for later is delivered
    submitted: Moment
    terms: SubmissionOptions

    @property
    def digest(self) -> str:
        """The same for everybody who wants the same in the same way."""
        return digest_of(self.name, self.document, self.uri, self.terms.to_bytes().decode())
