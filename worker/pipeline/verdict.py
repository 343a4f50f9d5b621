"""Verdicts: whether a text that came back for a page is to be believed.

Where several apply, the first of these stands:

1. What ended the text (repetition, truncated): that is certain, and whatever else is wrong with it follows from that. A loop
   that ran into the limit is a loop, as a higher limit would not end it.
2. That it is no text (unparsable): what is counted in it below would mean nothing.
3. What its letters say (wrong script), which needs no look at the page.
4. What the page's ink says (invented, empty): of these only one can apply.

Engines that don't generate end nothing early and name no loop: for their texts it begins with 2.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason
from ocrfleet.records.pages import Role
from worker.engines.stream import DEADLINE
from worker.imaging import ink
from worker.imaging.print_detection import enlargement, printed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocrfleet.profiles.profile import Judgement
    from ocrfleet.records.pages import Block
    from worker.engines.base import Recognition
    from worker.imaging.page_image import PageImage
    from worker.imaging.print_detection import Row
    from worker.parsers import Parsed

#: What a model writes around a page's words: HTML's tags and entities, LaTeX's commands.
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,200}>|&[A-Za-z]{2,8};|\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]+")
#: Categories of what nobody reads: control, private use, unassigned, half a pair.
_UNREADABLE = frozenset({"Cc", "Co", "Cn", "Cs"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: Signs that pages have many of beside few words: rules, leaders, tables in Markdown and LaTeX, forms.
_FILLING = frozenset(
    "._-=~*#|:,'\"&\\{}[]()<>/+$^"
    "\N{MIDDLE DOT}\N{BULLET}\N{BULLET OPERATOR}\N{HORIZONTAL ELLIPSIS}\N{ONE DOT LEADER}\N{DOUBLE PRIME}\N{DITTO MARK}"
    "\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\N{MINUS SIGN}"
)
#: Signs that a text must have to be judged by them.
_FEWEST_SIGNS = 50
#: Signs that nobody reads, at least: one beside a page number is a blemish.
_FEWEST_UNREADABLE = 3
#: Alphabets whose letters never stand in one word.
_APART = frozenset({"LATIN", "CYRILLIC", "ARABIC", "HEBREW", "ARMENIAN", "GEORGIAN", "DEVANAGARI", "THAI"})
#: Marks in rows that a page of print has at most; 2,700 were seen.
_MOST_MARKS = 4000


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a text is not believed, for a person to read."""

    reason: Reason
    detail: str


def judge(parsed: Parsed, recognition: Recognition, image: PageImage, judgement: Judgement) -> Doubt | None:
    """Return why the text of a page is not believed; None when it is.

    `parsed` is what a parser made of the recognition. A page without ink is not to be judged: no engine sees it. Takes 2 ms at
    1,684 pixels, and 3 more for a text of a few words.
    """
    words = _MARKUP.sub(" ", parsed.text)
    looks: tuple[Callable[[], Doubt | None], ...] = (
        lambda: _ended_early(recognition),
        lambda: _unparsable(parsed, words, judgement),
        lambda: _wrong_script(words, judgement),
        lambda: _against_the_ink(parsed, sum(map(str.isalnum, words)), image, judgement),
    )
    doubts = (look() for look in looks)
    return next((doubt for doubt in doubts if doubt is not None and doubt.reason not in judgement.ignored), None)


def _ended_early(recognition: Recognition) -> Doubt | None:
    loop = recognition.loop
    if loop is not None:
        return Doubt(Reason.REPETITION, f"the text repeats {loop.unit!r}, {loop.times} times until it was stopped")
    told = "" if recognition.tokens is None else f" of {recognition.tokens} tokens"
    if recognition.finish_reason == "length":
        return Doubt(Reason.TRUNCATED, f"the text was cut off at the limit{told}")
    if recognition.finish_reason == DEADLINE:
        return Doubt(
            Reason.TRUNCATED, f"the text was cut off after {recognition.tokens or 0} tokens, as its time was over"
        )
    return None


def _unparsable(parsed: Parsed, words: str, judgement: Judgement) -> Doubt | None:
    signs = Counter(words)
    for space in [sign for sign in signs if sign.isspace()]:
        del signs[space]
    garbage = sum(times for sign, times in signs.items() if _is_unreadable(sign))
    if garbage >= _FEWEST_UNREADABLE and garbage > judgement.most_garbage * signs.total():
        return Doubt(Reason.UNPARSABLE, f"{garbage} of {signs.total()} signs of the text can't be read by anybody")
    if parsed.damage is not None:
        return Doubt(Reason.UNPARSABLE, parsed.damage)
    read = sum(times for sign, times in signs.items() if sign.isalnum())
    other = sum(times for sign, times in signs.items() if _is_noise(sign))
    if other >= _FEWEST_SIGNS and read < judgement.least_readable * (read + other):
        return Doubt(
            Reason.UNPARSABLE, f"the text has {other} signs such as {_most(signs)!r}, and {read} letters and digits"
        )
    return None


def _most(signs: Counter[str]) -> str:
    return next(sign for sign, _ in signs.most_common() if _is_noise(sign))


def _is_unreadable(sign: str) -> bool:
    return sign == _REPLACEMENT or unicodedata.category(sign) in _UNREADABLE


def _is_noise(sign: str) -> bool:
    """Say whether it is punctuation or a symbol that no page has many of. Boxes to tick, notes and pieces are not."""
    category = unicodedata.category(sign)
    return category[0] in "PS" and category != "So" and sign not in _FILLING


def wrong_script(text: str, judgement: Judgement) -> Doubt | None:
    """Return why the letters of a text that no engine wrote are not those of its page; None when they are."""
    return _wrong_script(_MARKUP.sub(" ", text), judgement)


def _wrong_script(words: str, judgement: Judgement) -> Doubt | None:
    if judgement.scripts:
        letters: Counter[str] = Counter()
        for sign, times in Counter(words).items():
            letters[_script(sign)] += times
        del letters[""]
        told = sum(letters[script] for script in judgement.scripts)
        total = letters.total()
        if total >= judgement.fewest_for_script and told < judgement.least_in_scripts * total:
            most, _ = letters.most_common(1)[0]
            wanted = ", ".join(judgement.scripts)
            return Doubt(Reason.WRONG_SCRIPT, f"{told} of {total} letters are {wanted}: most are {most}")
    found = [word for word in _WORD.findall(words) if len(word) > 1] if not words.isascii() else []
    mixed = [word for word in found if not word.isascii() and len(_APART & set(map(_script, word))) > 1]
    if len(found) >= judgement.fewest_for_script and len(mixed) > judgement.most_mixed * len(found):
        return Doubt(Reason.WRONG_SCRIPT, f"{len(mixed)} of {len(found)} words mix alphabets, as {mixed[0][:40]!r}")
    return None


@lru_cache(maxsize=4096)
def _script(sign: str) -> str:
    """Return the first word of a letter's name in Unicode, which is that of its script; "" for other signs.

    A letter in another form (full width, bold, a ligature) is that letter; what only changes letters is of no script.
    """
    plain = unicodedata.normalize("NFKC", sign)[0]
    letter = plain.isalpha() and unicodedata.category(plain) != "Lm"
    return unicodedata.name(plain, "").partition(" ")[0] if letter else ""


def _against_the_ink(parsed: Parsed, written: int, image: PageImage, judgement: Judgement) -> Doubt | None:
    """Judge a text of so many letters and digits by how much there is to be read on the page."""
    if written > judgement.always_allowed:
        # As many as there would be in the size that print is looked at in: comparable whatever the page was rendered at.
        needed = written / judgement.most_on_a_square / enlargement(image.height, image.width) ** 2
        if ink.squares(image, enough=needed) >= needed:
            return None
        letters = printed(image.pixels).letters
        if written <= judgement.most_for_a_letter * letters:
            return None
        share = ink.share(image)
        return Doubt(
            Reason.INVENTED,
            f"{written} letters and digits were written of a page with ink on {share:.2%} of it, for {letters:.0f} at most",
        )
    # Looked for only where so few were written that it matters: it takes longer than all the rest.
    if written * judgement.letters_for_one < _MOST_MARKS:
        return _empty(parsed, written, image, judgement)
    return None


def _empty(parsed: Parsed, written: int, image: PageImage, judgement: Judgement) -> Doubt | None:
    """Doubt that there is next to nothing to be read on a page with rows of marks outside of its pictures."""
    print_like = printed(image.pixels)
    figures = [block for block in parsed.blocks if block.role is Role.FIGURE]
    everywhere = sum(row.marks for row in print_like.rows) - print_like.across
    outside = sum(row.marks for row in print_like.rows if not _within(row, figures)) - print_like.across
    all_pictures = bool(parsed.blocks) and len(figures) == len(parsed.blocks)
    if all_pictures and not all(figure.boxes for figure in figures):
        outside = 0  # wherever they are
    if everywhere < judgement.least_in_rows * print_like.letters:
        return None  # by chance: noise has thousands of marks
    if outside >= judgement.fewest_letters and written * judgement.letters_for_one < outside:
        where = " outside of its pictures" if figures else ""
        return Doubt(
            Reason.EMPTY, f"{written} letters and digits were read of a page with some {outside} marks in rows{where}"
        )
    if all_pictures and everywhere >= judgement.fewest_letters_in_figures:
        return Doubt(
            Reason.EMPTY, f"only pictures were seen on a page with some {everywhere} marks in rows, as print has"
        )
    return None


def _within(row: Row, figures: Iterable[Block]) -> bool:
    """Say whether a row's middle lies in a picture."""
    x, y = (row.box[0] + row.box[2]) / 2, (row.box[1] + row.box[3]) / 2
    return any(x0 <= x <= x1 and y0 <= y <= y1 for block in figures for x0, y0, x1, y1 in block.boxes)
