"""Watching a model's output for loops while it is written, so that a page that repeats itself can be stopped.

Every `_STEP` characters the end of the text is looked up in what came before it. Where it comes again at a distance, that
distance may be the length of a unit that repeats, and how far back the text equals itself at that distance is compared with
what a page can hold. The same is done on a copy in which every number is one symbol, for counters and for boxes. And lines
of very few kinds, in whatever order, are counted. Where the pieces of the stream begin and end makes no difference.

A loop is seen, counted from the beginning of its first copy, within 600 characters when its unit stays within a line and has
up to 50; within 2,300 with up to 500 (some 600 tokens); within 3,400 with up to 1,000, or 4,400 when it is of short lines. What
real pages have many of takes longer: rows with little in them 60 rows, or 40 wide ones; a counter 250, or 100 long lines.
Nothing that repeats exactly goes on beyond 10,400 characters.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

#: Characters between two looks at the text: about one piece of the stream.
_STEP = 64
#: Characters of a unit that repeats, at most: a page's header with an address.
_LONGEST_UNIT = 1000
#: Characters at the end that must come again to be looked at. Shorter than the shortest loop, longer than a chance.
_ANCHOR = 160
#: How often the end is looked up in one look: its earlier places are few, or are places of one and the same period.
_TRIES = 16
#: Characters kept: the longest stretch that any rule below asks for, and some more.
_KEPT = 12_000

#: Each rule is a choice of (so many of what repeats, in so many characters); both must be reached.
#: Within a line. No line of print has 500 characters of one leader, word or phrase: a leader has 200 at most, a refrain
#: within a paragraph comes some six times. Long units: three copies can be a form in triplicate, but not a fourth begun.
_WITHIN_LINE = ((10, 500), (6, 1000), (4.25, 1500), (3.25, 2000))
#: Cells of one table row. The widest real ones have a column for each week, 53.
_CELLS = ((64, 400), (10, 10_000))
#: Rows with little in them: of zeros, of ditto marks, empty, ruled. Ledgers have up to 50 on a page, so 60 are too many; at
#: 100 characters each (ten cells), 40; a table of 30 rows of zeros with 24 columns has 7,500 characters. Such rows come
#: in columns of one digit too, of 60 each: 400 characters are 200 of these.
_ROWS = ((60, 400), (40, 4000), (10, 10_000))
#: Whole lines or paragraphs. Songs and litanies repeat a line up to six times, payrolls a few more.
_LINES = ((10, 1500), (4.25, 2000), (3.25, 2500))
#: The same but for a number that counts, or lines of very few kinds. Answer sheets count to 200, numbered empty ledgers to
#: 60 with 6,000 characters. The last choice is as long as a full page of print.
_COUNTED = ((250, 1000), (100, 5000), (20, 10_000))
_FEWEST_COUNTED = 20

#: No rule asks for less.
_FEWEST_TIMES, _FEWEST_CHARACTERS = 3.25, 400
#: A table's rows repeat as a whole at least so often: a table may come twice.
_FEWEST_TABLES = 4.25
#: Letters and digits in the different words of a row or cell that has little in it: "ditto", zeros, the fields to sign in.
_LITTLE = 32
#: Share of the steps of a number from unit to unit that are the same: a date's day begins again each month, 1 of 30.
_COUNTS = 0.95
#: Units at the end whose numbers are looked at first. Figures differ within these.
_FIRST_UNITS = 8
#: Characters between two looks at numbers: a page of figures is looked at in vain all the time.
_STEP_OF_NUMBERS = 4 * _STEP
#: Digits of a number that can be a counter.
_LONGEST_NUMBER = 18
#: Kinds of lines that are very few, and the characters by which lines are told apart.
_FEW_KINDS, _LINE_SEEN = 3, 256
#: Characters of a unit that are told.
_SHOWN = 80

_NUMBER = re.compile(r"\d+")
#: also LaTeX's
_ROW_END = re.compile(r"\n|</tr>|<br\s*/?>|\\\\")
_TAG = re.compile(r"<[^<>]{0,200}>")
_WORD = re.compile(r"[^\W_]+")
#: Boxes of the layout prompt: blocks that repeat have different ones.
_BOXES = re.compile(r"\[\[[^\[\]]*(?:\][^\[\]]*\[[^\[\]]*)*\]\]")


@dataclass(frozen=True, slots=True)
class Loop:
    """What repeats at the end of a page. `text[: start + period]` is the page with one copy of it."""

    #: the text that repeats, shortened; of a counter, its first copy
    unit: str
    #: characters of the unit; of units that differ in length, the mean
    period: int
    #: whole copies until the loop was seen
    times: int
    #: index in the text where the first copy begins
    start: int


class LoopWatch:
    """The watcher of one page. It holds some 30,000 characters, however long the page gets."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._length = 0
        self._waiting = ""
        # Newest character first: Python finds forwards in linear time, but backwards in quadratic.
        self._text = ""
        self._figures = ""
        self._within_number = False
        #: of the runs in the last look, by period and beginning
        self._rules: dict[tuple[int, int], _Rule] = {}
        self._lines = _FewKinds()

    def feed(self, piece: str) -> Loop | None:
        """Take what the model wrote since the last call, and return the loop that the page is in, from then on for ever."""
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
            # The same run was looked at a step ago, mostly; its unit is the same, turned.
            rule = self._rules.get((period, start)) or _rule(self._text[:period][::-1])
            rules[period, start] = rule
            if rule.broken(times=run / period, characters=run):
                return self._told(period, run, times=run // period)
        self._rules = rules
        return None

    def _counted(self) -> Loop | None:
        """Find a loop whose units are the same but for their numbers."""
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
    #: no number changes but those in boxes
    boxes_only: bool


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Yield periods with which a text begins, shortest first, and for how many characters it has each."""
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
        # Its multiples are no news.
        if long_enough and all(period % shorter for shorter in found):
            found.append(period)
            yield period, run
        # Within the run of a short period, the anchor comes again at its multiples only.
        begin = max(period, run - _ANCHOR) + 1 if short else period + 1
        period = text.find(anchor, begin, end)


def _equal(text: str, shift: int) -> int:
    """Return how many characters at `shift` are as those at the beginning; the first `_ANCHOR` are known to be."""
    end = len(text) - shift
    same = stride = _ANCHOR
    while same + stride <= end and text[same : same + stride] == text[shift + same : shift + same + stride]:
        same, stride = same + stride, stride * 2
    # It ends within the next stride: each look halves what is in question.
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
    """How often a page may hold a unit."""

    choices: tuple[tuple[float, int], ...]
    #: of what the choices count, in one unit
    amount: int
    fewest_times: float

    def broken(self, *, times: float, characters: int) -> bool:
        return times >= self.fewest_times and _reaches(self.choices, times * self.amount, characters)


def _rule(unit: str) -> _Rule:
    # A unit is found from anywhere to anywhere: let it end where a row or a tag ends.
    ends = [end.end() for end in _ROW_END.finditer(unit * 2)]
    end = (ends[0] if ends else unit.find(">") + 1) % len(unit)
    unit = unit[end:] + unit[:end]
    bare = _TAG.sub(" ", unit)
    # What comes twice in a row adds nothing to it.
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
    """Say how the numbers of the last so many units go on, newest character first; None when they do not count."""
    width = unit.count("0")
    # Newest first, and the digits of each backwards.
    numbers = _NUMBER.findall(text)[: int(units) * width]
    written = 1 if text[0].isdecimal() else 0  # not to its end, perhaps
    # Where no number changes, the text repeats as it is.
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
    """Return which of a unit's numbers stand in boxes, counted from its end; it may begin within one."""
    twice = unit * 2
    inside: set[int] = set()
    for box in _BOXES.finditer(twice):
        after = twice.count("0", box.end())
        inside.update(number % width for number in range(after, after + box.group().count("0")))
    return inside


class _FewKinds:
    """Counts how many lines have been of very few kinds, in whatever order. Blank lines don't count."""

    def __init__(self) -> None:
        self._line = ""
        self._seen = 0
        self._lines = 0
        #: of each kind: the number of its last line, and where that ended
        self._last: dict[str, tuple[int, int]] = {}
        #: the first line of these kinds, and where it begins
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
            # What has not come since the middle is what came before the loop.
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
