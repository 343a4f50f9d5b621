"""Translates MuPDF's messages while it renders a page into warnings of the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ocrfleet.records.pages import PageWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Warnings by pattern of the message; the first match counts. Other messages (a wrong length, a repeated key) have no effect.
_MEANINGS = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"repeated \d+ times", None),
        (r"font|FT_New|glyph|cmap|identity encoding", WarningCode.FONT_SUBSTITUTED),
        (r"colou?r ?space|colou?r profile|\bicc\b|lcms|numcomps", WarningCode.COLOUR_SPACE_WRONG),
        (r"incorrect data check|checksum|crc", WarningCode.CHECKSUM_WRONG),
        (
            r"premature end|truncated|treating as end of file|does not end with|too short|missing IEND",
            WarningCode.DATA_ENDED_EARLY,
        ),
        (r"zlib|lzw|library error|openjpeg error|jbig2dec error|jpeg|fax|ccitt|jpx", WarningCode.DATA_DAMAGED),
        (r"repair|xref|version marker", WarningCode.REPAIRED),
        (r"error|ignoring|cannot|unknown keyword|invalid|syntax", WarningCode.CONTENT_SKIPPED),
    )
)
#: Descriptions of the warnings; the decoder's messages follow in brackets.
_WORDS = {
    WarningCode.FONT_SUBSTITUTED: "a font can't be read: another one was used",
    WarningCode.COLOUR_SPACE_WRONG: "a colour space is wrong or unknown",
    WarningCode.CHECKSUM_WRONG: "a checksum is wrong",
    WarningCode.DATA_ENDED_EARLY: "data ended early",
    WarningCode.DATA_DAMAGED: "data is damaged",
    WarningCode.REPAIRED: "the PDF is damaged: MuPDF repaired it to be drawn",
    WarningCode.CONTENT_SKIPPED: "part of the page's content was skipped",
}
#: The most messages in a warning, and the most characters of each.
_MOST_SHOWN, _LONGEST = 2, 120


def meanings(messages: str) -> tuple[PageWarning, ...]:
    """Return a warning for each kind of defect in MuPDF's messages, one a line."""
    found: dict[WarningCode, dict[str, None]] = {}
    for line in messages.splitlines():
        code = next((code for pattern, code in _MEANINGS if pattern.search(line)), None)
        if code is not None:
            found.setdefault(code, {})[line.strip()[:_LONGEST]] = None
    return tuple(PageWarning(code=code, detail=f"{_WORDS[code]} ({_joined(lines)})") for code, lines in found.items())


def drew_on_after_errors(warnings: Iterable[PageWarning]) -> bool:
    """Say whether part of the page may be missing."""
    return any(warning.code in _LOSING for warning in warnings)


_LOSING = frozenset({WarningCode.DATA_ENDED_EARLY, WarningCode.DATA_DAMAGED, WarningCode.CONTENT_SKIPPED})


def _joined(lines: dict[str, None]) -> str:
    return "; ".join(list(lines)[:_MOST_SHOWN])
