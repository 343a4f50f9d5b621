"""What becomes of a page: its text, its layout, and how far it is while it is tried again. Stored as the records of jobs.py are."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, NamedTuple

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


class Placed(StrEnum):
    """How a word got its box."""

    #: the word was seen there: by the engine that read it, or by a detector that found the same word
    DETECTED = "detected"
    #: between words that were seen, or as a part of its line
    INTERPOLATED = "interpolated"
    #: nothing tells more than the block, or the page, that it is in: its box is that of the block
    BLOCK = "block"


class Word(NamedTuple):
    """A word of the page's text, and where it stands. Stored as an array: a page has hundreds."""

    text: str
    #: as a line's box
    box: tuple[float, float, float, float]
    #: 0..1, of this word, as the engine gives it
    confidence: float | None = None
    #: words of one line have equal numbers; where the page has `lines`, it is the index of the word's line
    line: int = 0
    #: index of its block; none where the page has no blocks
    block: int | None = None
    placed: Placed = Placed.DETECTED


class Role(StrEnum):
    """The role of a block, independent of the model and of its name for it."""

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
    """A part of a page's layout, as the model returns it. The blocks of a page, in order, have all of its text."""

    #: the model's own word: title, text, table, image, …; empty for text that the model put into no block
    label: str
    role: Role = Role.OTHER
    #: as a line's box; a block may lie in several places
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    #: with HTML tables, as the model wrote it: to be cleaned before it is shown
    markdown: str = ""
    #: the Markdown was made from recognised lines and not by a model: it has one line for each, and needs no cleaning
    made: bool = False
    #: name of the picture that was cut out of the page, below the document's `figures/`
    figure: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written_first(cls, block: Any) -> Any:
        """Read blocks of 0.1's first pages, which called their Markdown `text`."""
        if isinstance(block, dict) and "text" in block:
            return {"markdown": block["text"], **{name: value for name, value in block.items() if name != "text"}}
        return block


class WarningCode(StrEnum):
    """A defect of a page's file with which the page could still be drawn. Part of the outputs: never rename one."""

    DATA_ENDED_EARLY = "data_ended_early"
    DATA_DAMAGED = "data_damaged"
    CHECKSUM_WRONG = "checksum_wrong"
    IMAGE_INCOMPLETE = "image_incomplete"
    FONT_SUBSTITUTED = "font_substituted"
    COLOUR_SPACE_WRONG = "colour_space_wrong"
    CONTENT_SKIPPED = "content_skipped"
    TRANSPARENCY = "transparency"
    HIDDEN_IMAGE = "hidden_image"
    FRAMES_NOT_READ = "frames_not_read"
    ATTACHMENTS_NOT_READ = "attachments_not_read"
    #: by qpdf or by MuPDF itself; `detail` names it
    REPAIRED = "repaired"
    #: the usual decoder could not draw the page; `detail` names the one that did
    OTHER_DECODER = "other_decoder"


class PageWarning(Record):
    """Something that is wrong with a page's file, in words. The page was drawn and read all the same."""

    code: WarningCode
    detail: str


class Region(Record):
    """A part of a page, and how sure the engine is of what it read there."""

    #: as a line's box
    box: tuple[float, float, float, float]
    #: 0..1: the mean of the region's lines, as the engine gives it
    confidence: float = Field(ge=0, le=1)


class Audit(Record):
    """What a second engine says of a page's text."""

    #: name and version of the second engine
    engine: str
    #: 0..1: share of the text that the second engine read as well
    agreement: float = Field(ge=0, le=1)
    #: whether both read the same text, but for what engines differ by
    agrees: bool


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
    #: defects of the file with which the page could still be drawn
    warnings: tuple[PageWarning, ...] = ()
    #: the text is the PDF's own
    text_layer: bool = False
    #: 0..1: the chance that less than 5 % of the text's characters are wrong; 1 of a blank page, 0 of one that failed; None in
    #: records of versions that did not tell it
    confidence: float | None = Field(default=None, ge=0, le=1)
    #: where the text is least sure; None where the engine does not say how sure it is of a place
    worst_region: Region | None = None
    #: None unless a second engine read the page
    audit: Audit | None = None
    #: the page is done, and its text is in doubt: a person should look at it
    review: bool = False
    #: why, in words
    review_reason: str | None = None
    #: the retry step that gave the text, counted over all profiles that had the page; 0 is the first attempt
    rung: int = 0
    #: stop, length, or loop for a text that was stopped as it repeated itself
    finish_reason: str | None = None
    tokens: int | None = None
    #: in reading order, with a newline between lines and an empty line between paragraphs
    text: str = ""
    #: whether the text is Markdown, with HTML tables, as a model wrote it: to be cleaned before it is shown
    markdown: bool = False
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    #: of the text, in reading order; none where nobody placed them. Not in the document's JSON, which it would double.
    words: tuple[Word, ...] = ()


class RetryState(Record):
    """The retry state of a page. Written after each attempt that failed.

    The last write wins. From any such state the retry policy derives the next attempt, and the retries end.
    """

    schema_version: Literal[1] = 1
    #: of the profile whose retry steps `rung` counts
    profile_digest: Digest
    #: the retry step that failed last; 0 is the profile without changes
    rung: int = Field(ge=0)
    #: why it failed
    fell: Reason
    #: the same in words, where the attempt gave no text: the next worker reports it in these words
    detail: str | None = None
    #: status `failed`, with the best text so far
    best: PageResult | None = None
    #: as in Routed: profiles that sent the page on
    sent_on: dict[str, int] | None = None
