"""The lines between a process and its converters (worker/convert.py): documents to be written in further formats."""

from __future__ import annotations

from pydantic import Field

from ocrfleet.formats import FormatName
from ocrfleet.records.base import DocumentId, Generation, Record
from ocrfleet.records.documents import Output


class ConversionRequest(Record):
    """Ask for a document in further formats."""

    document: DocumentId
    generation: Generation
    formats: tuple[FormatName, ...] = Field(min_length=1)


class ConversionAnswer(Record):
    """All outputs in the formats asked for, or why there are none."""

    made: dict[str, Output] = Field(default_factory=dict)
    #: by format: why it can't be written
    refused: dict[str, str] = Field(default_factory=dict)
    #: why the document can't be converted
    gone: str | None = None
    #: an error that may pass
    error: str | None = None
