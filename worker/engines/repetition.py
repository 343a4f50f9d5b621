"""Detect repetition in a model's output while it is generated, so that a page in a loop can be stopped.

Every `_STEP` characters, the end of the text is searched for in the text before it. A match at some distance may mean that a
unit of that length repeats; the length of the repetition is then compared with the most that a real page has. The same is
done on a copy of the text in which every number is one symbol, to detect counters and boxes. In addition, lines of very few
kinds, in any order, are counted. The result does not depend on how the output is split into pieces.

Characters until detection, from the beginning of the first copy: 600 for a unit of up to 50 characters within a line; 2,300
for up to 500 (about 600 tokens); 3,400 for up to 1,000, or 4,400 if it consists of short lines. Units that real pages have
many of take longer: 60 rows with little text, or 40 wide ones; a counter 250 lines, or 100 long ones. No exact repetition
goes on beyond 10,400 characters.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

#: Characters between two checks: about one piece of the stream.
_STEP = 64
#: Characters of a unit, at most: as long as a letterhead with an address.
_LONGEST_UNIT = 1000
#: Characters at the end of the text that are searched for: fewer than the shortest loop has, too many to match by chance.
_ANCHOR = 160
#: Matches per check, at most: they are few, or belong to the same period.
_TRIES = 16
#: Characters kept: a little more than the longest stretch in the rules below.
_KEPT = 12_000

#: Each rule is a list of (number of units, characters). It matches if both numbers of a pair are reached.
#: Units within a line. No printed line has 500 characters of one leader, word or phrase: a leader has at most 200, and a
#: refrain in a paragraph occurs about six times. Of long units, three copies may be a form in triplicate, more may not.
_WITHIN_LINE = ((10, 500), (6, 1000), (4.25, 1500), (3.25, 2000))
#: Cells of one table row. The widest real tables have a column for each week: 53.
_CELLS = ((64, 400), (10, 10_000))
#: Rows with little text: zeros, ditto marks, empty or ruled rows. Ledgers have up to 50 on a page, so 60 are too many, or 40 of
#: 100 characters (ten cells). A table of 30 rows of zeros with 24 columns has 7,500 characters. Columns of single digits have
#: up to 60 rows; 400 characters are 200 of these.
_ROWS = ((60, 400), (40, 4000), (10, 10_000))
#: Whole lines or paragraphs. Songs and litanies repeat a line up to six times, payrolls a few times more.
_LINES = ((10, 1500), (4.25, 2000), (3.25, 2500))
#: Units that differ only in a counter, and lines of very few kinds. Answer sheets count to 200, numbered empty ledgers to 60
#: with 6,000 characters. The last pair is as long as a full page of print.
_COUNTED = ((250, 1000), (100, 5000), (20, 10_000))
_FEWEST_COUNTED = 20

#: Lower limits of all rules.
_FEWEST_TIMES, _FEWEST_CHARACTERS = 3.25, 400
#: Copies of a group of table rows, at least: a table may occur twice on a page.
_FEWEST_TABLES = 4.25
#: Letters and digits, without repeated words, of a row or cell with little text: "ditto", zeros, signature fields.
_LITTLE = 32
#: Share of equal steps from number to number in a counter: the day of a date jumps back once in 30 steps.
_COUNTS = 0.95
#: Units at the end whose numbers are checked first. Real figures differ within these.
_FIRST_UNITS = 8
#: Characters between two checks for counters, which are expensive on pages full of figures.
_STEP_OF_NUMBERS = 4 * _STEP
#: Digits of a number that can be a counter.
_LONGEST_NUMBER = 18
#: Number of kinds that counts as very few, and the characters of a line that are compared.
_FEW_KINDS, _LINE_SEEN = 3, 256
#: Characters of a unit that are reported.
_SHOWN = 80

_NUMBER = re.compile(r"\d+")
#: also LaTeX's
_ROW_END = re.compile(r"\n|</tr>|<br\s*/?>|\\\\")
_TAG = re.compile(r"<[^<>]{0,200}>")
_WORD = re.compile(r"[^\W_]+")
#: Boxes of the layout prompt: repeated blocks have different ones.
_BOXES = re.compile(r"\[\[[^\[\]]*(?:\][^\[\]]*\[[^\[\]]*)*\]\]")


@dataclass(frozen=True, slots=True)
class Loop:
    """A repetition at the end of a page's text. `text[: start + period]` is the page with one copy of the unit."""

    #: the repeated text, shortened; for a counter, its first copy
    unit: str
    #: characters of the unit; the mean if units differ in length
    period: int
    #: complete copies until detection
    times: int
    #: index in the text where the first copy begins
    start: int


class LoopWatch:
    """Detects repetition in one page's output. It keeps about 30,000 characters, however long the output gets."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._length = 0
        self._waiting = ""
        # Newest character first: Python's forward search takes linear time, its backward search quadratic time.
        self._text = ""
        self._figures = ""
        self._within_number = False
        #: rules of the runs in the last check, by period and start
        self._rules: dict[tuple[int, int], _Rule] = {}
        self._lines = _FewKinds()

    def feed(self, piece: str) -> Loop | None:
        """Add the output since the last call. Return the loop once one is detected, and at every later call."""
        if self._loop is not None:
            return self._loop
        waiting = self._waiting + piece
        whole = len(waiting) - len(waiting) % _STEP
        for begin in range(0, whole, _STEP):
            self._loop = self._look(waiting[begin : begin + _STEP])
            if self._loop is not None:
                return self._loop
        self._waiting = waiting[whole:]
        return None

    def _look(self, step: str) -> Loop | None:
        self._length += len(step)
        self._text = step[::-1] + self._text[: _KEPT - _STEP]
        figures = _NUMBER.sub("0", step)
        if self._within_number and figures[0] == "0":
            figures = figures[1:]
        self._within_number = step[-1].isdecimal()
        self._figures = figures[::-1] + self._figures[: _KEPT - _STEP]
        loop = self._repeated()
        if loop is None and self._length % _STEP_OF_NUMBERS == 0:
            loop = self._counted()
        few = self._lines.take(step)
        return loop or few

    def _repeated(self) -> Loop | None:
        rules: dict[tuple[int, int], _Rule] = {}
        for period, run in _runs(self._text):
            start = self._length - run
            # Mostly the same run as in the last check; its unit is the same, rotated.
            rule = self._rules.get((period, start)) or _rule(self._text[:period][::-1])
            rules[period, start] = rule
            if rule.broken(times=run / period, characters=run):
                return self._told(period, run, times=run // period)
        self._rules = rules
        return None

    def _counted(self) -> Loop | None:
        """Find a loop whose units differ only in their numbers."""
        for period, run in _runs(self._figures):
            unit = self._figures[:period][::-1]
            if "0" not in unit:
                continue
            times = run / period
            count = _numbers_count(self._text[: 2 * _FIRST_UNITS * period], unit, units=_FIRST_UNITS)
            if count is None or (times < _FEWEST_COUNTED and not count.boxes_only):
                continue
            count = _numbers_count(self._text, unit, units=times)
            if count is None:
                continue
            numbers = self._figures[:run].count("0")
            lengths = (len(number) for number in _NUMBER.findall(self._text))
            characters = run - numbers + sum(itertools.islice(lengths, numbers))
            if count.boxes_only and _rule(unit).broken(times=times, characters=characters):
                return self._told(round(characters / times), characters, times=int(times))
            if not count.boxes_only and _reaches(_COUNTED, times, characters):
                return self._told(round(characters / times), characters, times=int(times))
        return None

    def _told(self, period: int, run: int, *, times: int) -> Loop:
        unit = self._text[max(run - period, 0) : run][::-1]
        return Loop(unit=_shortened(unit), period=period, times=times, start=self._length - run)


@dataclass(frozen=True, slots=True)
class _Count:
    #: whether only the numbers in boxes change
    boxes_only: bool


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Yield the periods with which a text begins, shortest first, each with the number of characters it holds for."""
    anchor, end = text[:_ANCHOR], _LONGEST_UNIT + _ANCHOR
    period = text.find(anchor, 1, end) if len(anchor) == _ANCHOR else -1
    found: list[int] = []
    for _ in range(_TRIES):
        if period < 0:
            return
        least = max(_FEWEST_CHARACTERS, math.ceil(_FEWEST_TIMES * period))
        short = 2 * period <= _ANCHOR
        long_enough = text.startswith(text[: least - period], period)
        run = period + _equal(text, period) if short or long_enough else 0
        # Multiples of a known period are skipped.
        if long_enough and all(period % shorter for shorter in found):
            found.append(period)
            yield period, run
        # Within the run of a short period, the anchor matches only at its multiples.
        begin = max(period, run - _ANCHOR) + 1 if short else period + 1
        period = text.find(anchor, begin, end)


def _equal(text: str, shift: int) -> int:
    """Return how many characters at `shift` equal those at the beginning. The first `_ANCHOR` are known to be equal."""
    end = len(text) - shift
    same = stride = _ANCHOR
    while same + stride <= end and text[same : same + stride] == text[shift + same : shift + same + stride]:
        same, stride = same + stride, stride * 2
    # The difference lies within the next stride: bisect.
    upto = min(same + stride, end)
    while same < upto:
        middle = (same + upto + 1) // 2
        if text[same:middle] == text[shift + same : shift + middle]:
            same = middle
        else:
            upto = middle - 1
    return same


@dataclass(frozen=True, slots=True)
class _Rule:
    """The limit for a unit: how often a real page may have it."""

    choices: tuple[tuple[float, int], ...]
    #: number of counted items (cells, rows) in one unit
    amount: int
    fewest_times: float

    def broken(self, *, times: float, characters: int) -> bool:
        return times >= self.fewest_times and _reaches(self.choices, times * self.amount, characters)


def _rule(unit: str) -> _Rule:
    # A unit may begin anywhere: rotate it so that it ends where a row or a tag ends.
    ends = [end.end() for end in _ROW_END.finditer(unit * 2)]
    end = (ends[0] if ends else unit.find(">") + 1) % len(unit)
    unit = unit[end:] + unit[:end]
    bare = _TAG.sub(" ", unit)
    # Repeated words count once.
    filled = sum(map(len, set(_WORD.findall(bare))))
    if ends:
        rows = max(1, sum(1 for row in _ROW_END.split(unit) if row.strip()))
        return _Rule(_ROWS, rows, _FEWEST_TABLES) if filled <= _LITTLE * rows else _Rule(_LINES, 1, _FEWEST_TIMES)
    cells = unit.count("<td") + bare.count("|")
    if cells and filled <= _LITTLE * cells:
        return _Rule(_CELLS, cells, _FEWEST_TABLES)
    return _Rule(_WITHIN_LINE, 1, _FEWEST_TIMES)


def _reaches(choices: tuple[tuple[float, int], ...], amount: float, characters: int) -> bool:
    return any(amount >= least and characters >= length for least, length in choices)


def _numbers_count(text: str, unit: str, *, units: float) -> _Count | None:
    """Check whether the numbers of the last `units` units count. `text` has the newest character first. None if not."""
    width = unit.count("0")
    # Newest number first, with its digits reversed.
    numbers = _NUMBER.findall(text)[: int(units) * width]
    written = 1 if text[0].isdecimal() else 0  # the newest number may be incomplete
    # If no number changes, the text repeats exactly, and the other check applies.
    if len(numbers) < 2 * width + written or numbers[written:-width] == numbers[written + width :]:
        return None
    boxes = _in_boxes(unit, width) if "[[" in unit * 2 else set()
    still = True
    for place in range(written, written + width):
        if place % width in boxes:
            continue
        column = numbers[place::width]
        if max(map(len, column)) > _LONGEST_NUMBER:
            return None
        values = [int(number[::-1]) for number in column]
        steps = Counter(newer - older for newer, older in itertools.pairwise(values))
        if steps and max(steps.values()) < _COUNTS * steps.total():
            return None
        still = still and not any(steps)
    return _Count(boxes_only=still)


def _in_boxes(unit: str, width: int) -> set[int]:
    """Return the numbers of a unit that are inside boxes, counted from its end. A unit may begin within a box."""
    twice = unit * 2
    inside: set[int] = set()
    for box in _BOXES.finditer(twice):
        after = twice.count("0", box.end())
        inside.update(number % width for number in range(after, after + box.group().count("0")))
    return inside


class _FewKinds:
    """Counts consecutive lines of very few kinds, in any order. Blank lines don't count."""

    def __init__(self) -> None:
        self._line = ""
        self._seen = 0
        self._lines = 0
        #: for each kind: the number of its last line, and the offset of that line's end
        self._last: dict[str, tuple[int, int]] = {}
        #: number of the first line of these kinds, and its offset
        self._first, self._start = 0, 0

    def take(self, step: str) -> Loop | None:
        loop = None
        *ended, rest = step.split("\n")
        for line in ended:
            self._seen += len(line) + 1
            loop = self._end((self._line + line)[:_LINE_SEEN].strip()) or loop
            self._line = ""
        self._line = (self._line + rest)[:_LINE_SEEN]
        self._seen += len(rest)
        return loop

    def _end(self, line: str) -> Loop | None:
        if not line:
            return None
        self._lines += 1
        self._last.setdefault(line, (0, 0))
        self._last[line] = self._lines, self._seen
        if len(self._last) > _FEW_KINDS:
            self._forget_oldest()
        while self._reached():
            # A kind that has not occurred since the middle belongs to the text before the loop.
            last, _ = min(self._last.values())
            if 2 * last >= self._first + self._lines:
                break
            self._forget_oldest()
        if not self._reached():
            return None
        lines, characters = self._lines - self._first, self._seen - self._start
        return Loop(unit=_shortened(line), period=round(characters / lines), times=lines, start=self._start)

    def _reached(self) -> bool:
        return _reaches(_COUNTED, self._lines - self._first, self._seen - self._start)

    def _forget_oldest(self) -> None:
        oldest = min(self._last, key=self._last.__getitem__)
        self._first, self._start = self._last.pop(oldest)


def _shortened(unit: str) -> str:
    return unit if len(unit) <= _SHOWN else unit[: _SHOWN - 1] + "…"
