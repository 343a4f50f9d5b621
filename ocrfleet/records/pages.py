"""What becomes of a page: its text, its layout, and how far it is while it is tried again. Stored as the records of jobs.py are."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from ocrfleet.errors import Reason
from ocrfleet.records.base import Digest, PageNumber, Record


class PageStatus(StrEnum):
    DONE = "done"
    FAILED = "failed"


class Line(Record):
    """A line of text as it was read. `box` is (x0, y0, x1, y1) in pixels of the page image as displayed, origin top left."""

    text: str
    box: tuple[float, float, float, float]
    #: 0..1, as the engine gives it
    confidence: float | None = None


class Role(StrEnum):
    """What a block is, whichever model saw it and whatever it calls that."""

    TITLE = "title"
    HEADING = "heading"
    TEXT = "text"
    LIST = "list"
    TABLE = "table"
    FIGURE = "figure"
    CAPTION = "caption"
    FORMULA = "formula"
    CODE = "code"
    FOOTNOTE = "footnote"
    HEADER = "header"
    FOOTER = "footer"
    PAGE_NUMBER = "page_number"
    OTHER = "other"


class Block(Record):
    """A part of a page's layout, as the model sees it. The blocks of a page, in order, are all of its text."""

    #: the model's own word: title, text, table, image, …; empty for text that the model put into no block
    label: str
    role: Role = Role.OTHER
    #: as a line's box; a block may lie in several places
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    #: with HTML tables, as the model wrote it: to be cleaned before it is shown
    markdown: str = ""
    #: name of the picture that was cut out of the page, below the document's `figures/`
    figure: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written_first(cls, block: Any) -> Any:
        """Read blocks of 0.1's first pages, which called their Markdown `text`."""
        if isinstance(block, dict) and "text" in block:
            return {"markdown": block["text"], **{name: value for name, value in block.items() if name != "text"}}
        return block


class PageResult(Record):
    """What became of a page. Holds nothing that differs from run to run: seconds, attempts and workers are in run records.

    A page that failed for its text (truncated, repetition, …) has the best text that there was.
    """

    schema_version: Literal[1] = 1
    page: PageNumber
    status: PageStatus
    reason: Reason | None = None
    detail: str | None = None
    #: nothing is on the page: done, empty, and no engine saw it
    blank: bool = False
    profile: str
    engine: str
    engine_version: str | None = None
    model: str
    revision: str
    #: the page image that the engine saw, rotation applied
    width_px: int | None = None
    height_px: int | None = None
    #: the page as displayed, in points (1/72 inch); multiply a box by width_pt / width_px to get points
    width_pt: float | None = None
    height_pt: float | None = None
    #: degrees, clockwise, by which a PDF page is turned to be displayed: 0, 90, 180 or 270
    rotation: int = 0
    #: the text is the PDF's own
    text_layer: bool = False
    #: rung of the profile's ladder that gave the text; 0 is the profile as it stands
    rung: int = 0
    #: stop, length, or loop for a text that was stopped as it repeated itself
    finish_reason: str | None = None
    tokens: int | None = None
    #: lines parted by newlines, paragraphs by empty lines, in reading order
    text: str = ""
    #: whether the text is Markdown, with HTML tables, as a model wrote it: to be cleaned before it is shown
    markdown: bool = False
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()


class RetryState(Record):
    """How far a page is up a ladder. Written after each attempt that was of no use.

    The last writer stands: whatever it says, the page is tried again from there, and ends.
    """

    schema_version: Literal[1] = 1
    #: of the profile whose ladder that is
    profile_digest: Digest
    #: where it fell last; 0 is the profile as it stands
    rung: int = Field(ge=0)
    #: and what with
    fell: Reason
    #: that in words, where it was no doubt about a text: whoever goes on tells it as the one before would have
    detail: str | None = None
    #: failed, with the best text so far
    best: PageResult | None = None
