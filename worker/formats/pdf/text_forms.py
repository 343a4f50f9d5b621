"""The invisible text of a page: a PDF form with each word at its place, in the glyphless font.

The font size is the height of the line. Each word, and each space between two words, is scaled to its width (Tz), so that
programs that split words at gaps and programs that split at spaces find the same words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ocrfleet.records.pages import Placed
from worker.formats.pdf.bidi import as_seen, is_right_to_left
from worker.formats.pdf.glyphless import ADVANCE, DESCENT, GlyphlessFont

if TYPE_CHECKING:
    from ocrfleet.records.pages import Word
    from worker.formats.page_layout import TextBlock, TextLine
    from worker.formats.pdf.file import PdfFile

#: Compatibility characters of Unicode (ligatures, Arabic presentation forms): users do not search for them.
_PRESENTATION_FORMS = re.compile("[\ufb00-\ufb06\ufb1d-\ufdff\ufe70-\ufefc]")
#: Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han, and their punctuation.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u303f\u3040-\u30ff\u31f0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
#: Han and kana: vertical lines of these scripts are read from top to bottom.
_UPRIGHT = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
#: A line is vertical if its height is this many times its width.
_TALL = 1.8
#: A box higher than this factor of its words' height belongs to a skewed line: each word then gets its own position.
_LEVEL = 1.4
#: Maximum distance of the middle of a word from the middle of its line, in line heights.
_OFF = 0.25
#: Maximum deviation of text from its position, and width of a space between words without a gap, in line heights.
_NEAR, _NARROW = 0.02, 0.02
#: Font sizes of text without boxes, as shares of the height per line in its block.
_LINE, _WIDEST = 0.8, 0.6
#: Unit vectors of the direction of a line and of the upward direction of its letters, as x and y with y upwards.
_LEVEL_FRAME, _UP_FRAME, _DOWN_FRAME = (1, 0, 0, 1), (0, 1, -1, 0), (0, -1, 1, 0)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word in the frame of its line: from `start` to `end` along the line, on the baseline `base`."""

    text: str
    start: float
    end: float
    base: float


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive words of a line. `frame` is the frame of the line."""

    pieces: list[_Piece]
    size: float
    frame: tuple[int, int, int, int]


class TextForms:
    """Writes the forms of the pages of a document, and at the end their common font."""

    def __init__(self, file: PdfFile) -> None:
        self._file = file
        self._font = GlyphlessFont()
        self._number = file.reserve()

    def add(self, blocks: Iterable[TextBlock], *, width: float, height: float) -> int | None:
        """Write the form of a page and return its number; None for a page without text.

        The form has the size of the page as displayed, in the units of the boxes; y of the boxes points down.
        """
        content = b"".join(self._shown(run) for block in blocks for run in _runs(block, height) if run.pieces)
        if not content:
            return None
        return self._file.compressed(
            b"/Type/XObject/Subtype/Form/BBox[0 0 %b %b]/Resources<</Font<</F %d 0 R>>>>"
            % (_number(width), _number(height), self._number),
            b"BT\n3 Tr\n" + content + b"ET\n",
        )

    def end(self) -> None:
        self._font.write(self._file, self._number)

    def _shown(self, run: _Run) -> bytes:
        """Return the operators that show a line."""
        out = [b"/F %b Tf\n" % _number(run.size)]
        # Position after the text: scales are rounded, and the rounding error is added to the next word.
        at: float | None = None
        base = 0.0
        for piece, behind in zip(run.pieces, [*run.pieces[1:], None], strict=True):
            if at is None or abs(piece.start - at) > run.size * _NEAR or piece.base != base:
                out.append(_moved(run.frame, piece.start, piece.base))
                at, base = piece.start, piece.base
            joined = behind is not None and _joined(piece.text, behind.text)
            end = behind.start if behind is not None and joined and behind.start > piece.end else piece.end
            shown, at = self._fitted(piece.text, at, end, run.size)
            out.append(shown)
            if behind is not None and not joined:
                shown, at = self._fitted(" ", at, max(behind.start, at + run.size * _NARROW), run.size)
                out.append(shown)
        return b"".join(out)

    def _fitted(self, text: str, start: float, end: float, size: float) -> tuple[bytes, float]:
        """Return the operators that show a text from `start` to `end`, and its end by the rounded scale."""
        natural = len(text) * size * ADVANCE / 1000
        scale = max(round(100 * (end - start) / natural), 1)  # whole: an eighth smaller than with a decimal
        return b"%d Tz%bTj\n" % (scale, self._font.encoded(text)), start + natural * scale / 100


def plain(text: str) -> str:
    """Return a text normalised for search: ligatures as letters, composed accents, no invisible characters."""
    text = _PRESENTATION_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = unicodedata.normalize("NFC", text)
    return "".join(character for character in text if unicodedata.category(character) not in {"Cc", "Cs", "Cn"})


def _runs(block: TextBlock, height: float) -> Iterator[_Run]:
    """Yield the lines of a block, then its words without a place on the page."""
    unplaced = []
    for line in block.lines:
        placed = [word for word in line.words if word.placed is not Placed.BLOCK]
        if placed:
            yield _placed(line, placed, height)
        if len(placed) < len(line.words):
            unplaced.append([word.text for word in line.words if word.placed is Placed.BLOCK])
    yield from _filled(block, unplaced, height)


def _placed(line: TextLine, words: Sequence[Word], height: float) -> _Run:
    """Return a line of words with places."""
    frame = _frame(line, words)
    boxes = [_turned(word.box, frame, height) for word in words]
    low, high = _turned(line.box, frame, height)[1::2]
    usual = median(top - bottom for _, bottom, _, top in boxes)
    level = high - low <= _LEVEL * usual
    size = max(high - low if level else usual, 0.1)
    middle = (low + high) / 2
    descent = -DESCENT / 1000 * size
    pieces = []
    for word, (start, bottom, end, top) in zip(words, boxes, strict=True):
        own = (bottom + top) / 2
        base = (middle if level and abs(own - middle) <= _OFF * size else own) - size / 2 + descent
        text = plain(word.text)
        if text:
            pieces.append(_Piece(as_seen(text), start, max(end, start + 0.01), base))
    if any(is_right_to_left(word.text) for word in words):
        pieces.sort(key=lambda piece: piece.start)
    return _Run(pieces, size, frame)


def _filled(block: TextBlock, lines: Sequence[Sequence[str]], height: float) -> Iterator[_Run]:
    """Yield lines without known places, one below the other in their block, with the natural width of their text."""
    x0, y0, x1, y1 = block.box
    for number, line in enumerate(lines):
        step = (y1 - y0) / len(lines)
        words = [text for word in line if (text := plain(word))]
        size = max(step * _LINE, 0.1)
        each = min((x1 - x0) / max(1, len(" ".join(words))), size * _WIDEST)
        backwards = any(map(is_right_to_left, words))
        base = height - (y0 + step * (number + 0.5)) - size / 2 - DESCENT / 1000 * size
        at, pieces = 0, []
        for word in words:
            start, end = at * each, (at + len(word)) * each
            at += len(word) + 1
            left, right = (x1 - end, x1 - start) if backwards else (x0 + start, x0 + end)
            pieces.append(_Piece(as_seen(word), left, right, base))
        yield _Run(sorted(pieces, key=lambda piece: piece.start), size, _LEVEL_FRAME)


def _frame(line: TextLine, words: Sequence[Word]) -> tuple[int, int, int, int]:
    """Return the direction of a line: a tall line runs up or down, by the order of its words."""
    x0, y0, x1, y1 = line.box
    letters = sum(len(word.text) for word in words)
    if letters < 2 or y1 - y0 < _TALL * (x1 - x0):  # noqa: PLR2004 - a single letter may be tall
        return _LEVEL_FRAME
    if len(words) > 1:
        return _UP_FRAME if words[0].box[1] > words[-1].box[1] else _DOWN_FRAME
    return _DOWN_FRAME if _UPRIGHT.search(words[0].text) else _UP_FRAME


def _turned(box: Sequence[float], frame: tuple[int, int, int, int], height: float) -> tuple[float, float, float, float]:
    """Convert a box of the page to the frame of a line: start, bottom, end, top."""
    x0, y0, x1, y1 = box[0], height - box[3], box[2], height - box[1]
    a, b, c, d = frame
    along = sorted((a * x0 + b * y0, a * x1 + b * y1))
    across = sorted((c * x0 + d * y0, c * x1 + d * y1))
    return along[0], across[0], along[1], across[1]


def _moved(frame: tuple[int, int, int, int], along: float, across: float) -> bytes:
    """Return the operator that moves to a position in the frame of a line and rotates the text to its direction."""
    a, b, c, d = frame
    x, y = a * along + c * across, b * along + d * across
    return b"%d %d %d %d %b %b Tm\n" % (a, b, c, d, _number(x), _number(y))


def _joined(one: str, other: str) -> bool:
    """Return whether two words are written without a space between them."""
    return bool(_NO_SPACES.match(one[-1]) and _NO_SPACES.match(other[0]))


def _number(value: float) -> bytes:
    return f"{value:.2f}".rstrip("0").rstrip(".").encode("ascii")
