"""Verdicts: whether the text that an engine returned for a page is accepted.

The checks run in this order; the first one that fails is the verdict:

0. Whether the engine says that it lacks the page's script (unsupported script).
1. How the text ended (repetition, truncated). This is certain, and other defects follow from it. A loop that reached the
   token limit is a loop: a higher limit would not end it.
2. Whether it is text at all (unparsable): the counts of the later checks would mean nothing.
3. The script of its letters (wrong script). This needs no image.
4. The ink of the page image (invented, empty). At most one of the two can apply.

Engines that do not generate tokens report neither an early end nor a loop: check 1 passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import cv2

from ocrfleet.errors import Reason
from ocrfleet.records.pages import Role
from worker.engines.stream import DEADLINE
from worker.imaging import ink
from worker.imaging.marks import find_marks
from worker.imaging.print_detection import enlargement, printed
from worker.imaging.unread_ink import print_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from ocrfleet.profiles.profile import Judgement
    from ocrfleet.records.pages import Block
    from worker.engines.base import Recognition
    from worker.imaging.page_image import PageImage
    from worker.imaging.print_detection import Row
    from worker.parsers import Parsed

#: Markup that models write around the words of a page: HTML tags and entities, LaTeX commands.
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}>|&[A-Za-z]{2,8};|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]+")
#: Unicode categories of unreadable characters: control, private use, unassigned, lone surrogate.
_UNREADABLE = frozenset({"Cc", "Co", "Cn", "Cs"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: Characters that honest texts repeat beside few words: rules, dot leaders, tables in Markdown and LaTeX, forms.
_FILLERS = frozenset(
    "._-=~*#|:,'\"&\\{}[]()<>/+$^"
    "\N{MIDDLE DOT}\N{BULLET}\N{BULLET OPERATOR}\N{HORIZONTAL ELLIPSIS}\N{ONE DOT LEADER}\N{DOUBLE PRIME}\N{DITTO MARK}"
    "\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\N{MINUS SIGN}"
)
#: Punctuation and symbols below this number are no evidence.
_MIN_SYMBOLS = 50
#: Unreadable characters below this number are no evidence: one beside a page number is a blemish.
_MIN_UNREADABLE = 3
#: Scripts whose letters never occur in one word.
_EXCLUSIVE_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "ARABIC", "HEBREW", "ARMENIAN", "GEORGIAN", "DEVANAGARI", "THAI"})
#: Marks in rows on a page of print, at most; the corpus has pages with 2,700.
_MAX_MARKS = 4000


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a text is not accepted. `detail` is for a person to read."""

    reason: Reason
    detail: str


def judge(parsed: Parsed, recognition: Recognition, image: PageImage, judgement: Judgement) -> Rejection | None:
    """Return why the text of a page is rejected; None when it is accepted.

    `parsed` is the recognition after its parser. Blank pages are not passed here: no engine reads them. Takes 2 ms for an image
    of 1,684 pixels, and 3 ms more for a text of a few words.
    """
    words = _MARKUP.sub(" ", parsed.text)
    checks: tuple[Callable[[], Rejection | None], ...] = (
        lambda: _check_lacking(recognition),
        lambda: _check_end(recognition),
        lambda: _check_readable(parsed, words, judgement),
        lambda: _check_script(words, judgement),
        lambda: _check_ink(parsed, sum(map(str.isalnum, words)), image, judgement),
    )
    rejections = (check() for check in checks)
    return next((one for one in rejections if one is not None and one.reason not in judgement.ignored), None)


def _check_lacking(recognition: Recognition) -> Rejection | None:
    return None if recognition.lacking is None else Rejection(Reason.UNSUPPORTED_SCRIPT, recognition.lacking)


def _check_end(recognition: Recognition) -> Rejection | None:
    loop = recognition.loop
    if loop is not None:
        return Rejection(Reason.REPETITION, f"the text repeats {loop.unit!r}, {loop.times} times until it was stopped")
    limit = "" if recognition.tokens is None else f" of {recognition.tokens} tokens"
    if recognition.finish_reason == "length":
        return Rejection(Reason.TRUNCATED, f"the text was cut off at the limit{limit}")
    if recognition.finish_reason == DEADLINE:
        return Rejection(
            Reason.TRUNCATED, f"the text was cut off after {recognition.tokens or 0} tokens, at the page's deadline"
        )
    return None


def _check_readable(parsed: Parsed, words: str, judgement: Judgement) -> Rejection | None:
    characters = Counter(words)
    for space in [character for character in characters if character.isspace()]:
        del characters[space]
    total = characters.total()
    unreadable = sum(count for character, count in characters.items() if _is_unreadable(character))
    if unreadable >= _MIN_UNREADABLE and unreadable > judgement.most_garbage * total:
        return Rejection(Reason.UNPARSABLE, f"{unreadable} of {total} characters of the text are unreadable")
    if parsed.damage is not None:
        return Rejection(Reason.UNPARSABLE, parsed.damage)
    alphanumeric = sum(count for character, count in characters.items() if character.isalnum())
    symbols = sum(count for character, count in characters.items() if _is_symbol(character))
    if symbols >= _MIN_SYMBOLS and alphanumeric < judgement.least_readable * (alphanumeric + symbols):
        frequent = next(character for character, _ in characters.most_common() if _is_symbol(character))
        return Rejection(
            Reason.UNPARSABLE,
            f"the text has {symbols} symbols such as {frequent!r}, and {alphanumeric} letters and digits",
        )
    return None


def _is_unreadable(character: str) -> bool:
    return character == _REPLACEMENT or unicodedata.category(character) in _UNREADABLE


def _is_symbol(character: str) -> bool:
    """Say whether this is punctuation or a symbol of which no page has many. Tick boxes, notes and chess pieces are not."""
    category = unicodedata.category(character)
    return category[0] in "PS" and category != "So" and character not in _FILLERS


def check_script(text: str, judgement: Judgement) -> Rejection | None:
    """Return why the letters of a PDF's text layer are rejected; None when they are in the scripts of the page."""
    return _check_script(_MARKUP.sub(" ", text), judgement)


def _check_script(words: str, judgement: Judgement) -> Rejection | None:
    if judgement.scripts:
        letters: Counter[str] = Counter()
        for character, count in Counter(words).items():
            letters[_script(character)] += count
        del letters[""]
        expected = sum(letters[script] for script in judgement.scripts)
        total = letters.total()
        if total >= judgement.fewest_for_script and expected < judgement.least_in_scripts * total:
            most, _ = letters.most_common(1)[0]
            scripts = ", ".join(judgement.scripts)
            return Rejection(Reason.WRONG_SCRIPT, f"{expected} of {total} letters are {scripts}: most are {most}")
    found = [word for word in _WORD.findall(words) if len(word) > 1] if not words.isascii() else []
    mixed = [word for word in found if not word.isascii() and len(_EXCLUSIVE_SCRIPTS & set(map(_script, word))) > 1]
    if len(found) >= judgement.fewest_for_script and len(mixed) > judgement.most_mixed * len(found):
        return Rejection(Reason.WRONG_SCRIPT, f"{len(mixed)} of {len(found)} words mix alphabets, as {mixed[0][:40]!r}")
    return None


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """Return the script of a letter, which is the first word of its Unicode name; "" for other characters.

    A compatibility form (full width, bold, a ligature) counts as its letter; modifier letters have no script.
    """
    plain = unicodedata.normalize("NFKC", character)[0]
    letter = plain.isalpha() and unicodedata.category(plain) != "Lm"
    return unicodedata.name(plain, "").partition(" ")[0] if letter else ""


def _check_ink(parsed: Parsed, written: int, image: PageImage, judgement: Judgement) -> Rejection | None:
    """Compare the number of letters and digits that were written with the ink on the page image."""
    if written > judgement.always_allowed:
        # Scaled to the size at which print is detected, so that the rendering size does not matter.
        needed = written / judgement.most_on_a_square / enlargement(image.height, image.width) ** 2
        if ink.squares(image, enough=needed) >= needed:
            return None
        letters = printed(image.pixels).letters
        if written <= judgement.most_for_a_letter * letters:
            return None
        share = ink.share(image)
        return Rejection(
            Reason.INVENTED,
            f"{written} letters and digits were written of a page with ink on {share:.2%} of it, for {letters:.0f} at most",
        )
    # Print detection takes longer than all other checks: only where few enough letters were written for it to matter.
    if written * judgement.letters_for_one < _MAX_MARKS:
        return _check_missing(parsed, written, image, judgement)
    return None


def _check_missing(parsed: Parsed, written: int, image: PageImage, judgement: Judgement) -> Rejection | None:
    """Reject next to no text from a page that has rows of marks outside of its figures."""
    detected = printed(image.pixels)
    figures = [block for block in parsed.blocks if block.role is Role.FIGURE]
    everywhere = sum(row.marks for row in detected.rows) - detected.across
    outside = sum(row.marks for row in detected.rows if not _within(row, figures)) - detected.across
    all_pictures = bool(parsed.blocks) and len(figures) == len(parsed.blocks)
    if all_pictures and not all(figure.boxes for figure in figures):
        outside = 0  # where the figures lie is unknown
    if not written and not figures:
        readable = _readable_marks(image)
        if readable >= judgement.fewest_letters_unread:
            return Rejection(Reason.EMPTY, f"nothing was read of a page with {readable} marks in rows, as print has")
    if everywhere < judgement.least_in_rows * detected.letters:
        return None  # rows by chance: noise has thousands of marks
    if outside >= judgement.fewest_letters and written * judgement.letters_for_one < outside:
        where = " outside of its pictures" if figures else ""
        return Rejection(
            Reason.EMPTY, f"{written} letters and digits were read of a page with some {outside} marks in rows{where}"
        )
    if all_pictures and everywhere >= judgement.fewest_letters_in_figures:
        return Rejection(
            Reason.EMPTY, f"only pictures were seen on a page with some {everywhere} marks in rows, as print has"
        )
    return None


def _readable_marks(image: PageImage) -> int:
    """Return how many marks on a page look like print, be it a single word."""
    grey = cast("NDArray[np.uint8]", cv2.cvtColor(image.pixels, cv2.COLOR_RGB2GRAY))
    return print_marks(find_marks(grey), grey.shape)


def _within(row: Row, figures: Iterable[Block]) -> bool:
    """Say whether the centre of a row lies in a figure."""
    x, y = (row.box[0] + row.box[2]) / 2, (row.box[1] + row.box[3]) / 2
    return any(x0 <= x <= x1 and y0 <= y <= y1 for block in figures for x0, y0, x1, y1 in block.boxes)
