"""Scripts of lines, by what PP-OCR's recogniser sees in them: those that it can't write, it reads as others, or not at all.

The recogniser ends in one linear layer, from 120 features of each column of a line to the logarithms of the chances of 18,709
signs. So the chances of some hundred signs tell the features, and what they are like over a line tells its script, whether
the recogniser has its signs or not. That costs 0.3 ms a line. bench/scripts_train.py fits the weights in scripts.npz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ocrfleet.profiles.scripts import OTHER, SCRIPTS, Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box


#: The signs whose chances are looked at: 256 of the recogniser's, evenly spread, tell as much as its 120 features.
_SIGNS = np.linspace(1, 18_708, 256).astype(np.intp)
#: Classes of lines that the recogniser can read, or that nobody can.
READABLE = ("Latin", "CJK", "figures", "texture", "rotated")
#: All classes. The last but the scripts is of scripts that Tesseract has no model of.
CLASSES = (*READABLE, OTHER.name, *SCRIPTS)
#: Letters of Vietnamese alone, which the recogniser has.
_VIETNAMESE = frozenset("ƠơƯư")
_MARKED = [CLASSES.index(name) for name in ("Vietnamese", "Latin with further marks")]
#: The chance with which a line is in another script, read with confidence or without, or misses marks of its letters.
_FOREIGN, _FOREIGN_IN_DOUBT, _MARKS_MISSED = 0.8, 0.5, 0.9
#: Shorter lines say too little, and longer ones count no more; in their heights.
_SHORTEST, _LONGEST = 1.5, 20.0
#: Heights of lines that must be in the script on a page that is mostly in it, …
_MOSTLY, _LEAST = 0.5, 2.5
#: … and on another page, where they are at least such a share, so many lines, and such a share of them is in one script: the
#: corpus has pages with some wrong lines, each in another script.
_LEAST_BESIDE, _LEAST_SHARE, _FEWEST_BESIDE, _AGREED = 12.0, 0.06, 2, 0.45
#: Share of a page in Vietnamese, or in a transliteration, in which marks were missed; in other Latin it is 0.15 at most.
_MANY_MARKED = 0.35
#: What the recogniser read stands, on a page with another script, where it is so probably readable and read so surely; unless
#: those lines are few.
_READABLE, _CONFIDENT, _FEW_KEPT = 0.8, 0.8, 0.15


class SeenLine(NamedTuple):
    """A line that was recognised, with its scores of scripts. The box is in the page's pixels."""

    box: Box
    text: str
    confidence: float
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lacking:
    """A script of the page that the recogniser lacks."""

    script: Script
    #: lines in it, of so many
    lines: int
    of: int
    #: boxes of the lines that the recogniser can read
    kept: tuple[Box, ...]

    @property
    def found(self) -> str:
        """What was found, for a person to read."""
        return f"{self.lines} of {self.of} lines are in {self.script.name}, whose signs the engine lacks"

    @property
    def detail(self) -> str:
        """What was found, and what to do."""
        return f"{self.found}: {self.script.remedy}"


class ScriptClassifier:
    """Classifier of lines, for one model of the recogniser. `stored` are its arrays, if not those of scripts.npz."""

    def __init__(self, stored: Mapping[str, NDArray[Any]] | None = None) -> None:
        if stored is None:
            with files("worker.engines").joinpath("scripts.npz").open("rb") as file:
                stored = dict(np.load(file, allow_pickle=False))
        self._columns, self._column_offsets, self._weights, self._offsets = (
            stored[name].astype(np.float32) for name in ("columns", "column_offsets", "weights", "offsets")
        )

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logarithm of a line's chance to be of each of `CLASSES`; `features` are those of its columns."""
        units = np.maximum(features @ self._columns + self._column_offsets, 0)
        logits = np.concatenate((units.mean(axis=0), units.max(axis=0))) @ self._weights + self._offsets
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)


def features(chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the recogniser sees in each column of a line, shape (columns, 256); chances: (columns, signs)."""
    logs = np.log(np.maximum(chances[:, _SIGNS], np.finfo(np.float32).tiny))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), dtype=np.float32)


class ScriptObserver:
    """Decodes what the recogniser returns as RapidOCR does, and adds each line's scores of scripts to its words."""

    def __init__(self, decode: Any, classifier: ScriptClassifier) -> None:
        self.decode = decode
        self._classifier = classifier

    def __call__(self, chances: NDArray[np.float32], *arguments: Any, **sizes: Any) -> Any:
        lines, words = self.decode(chances, *arguments, **sizes)
        for number, word in enumerate(words):
            word.script_scores = self._classifier.scores(features(used_columns(chances, number, sizes)))
        return lines, words


def used_columns(chances: NDArray[np.float32], number: int, sizes: dict[str, Any]) -> NDArray[np.float32]:
    """Return the columns of a line in a batch without those that pad it; `sizes` are what RapidOCR gives its decoder."""
    columns = len(chances[number]) * sizes["wh_ratio_list"][number] / sizes["max_wh_ratio"]
    return np.asarray(chances[number][: max(math.ceil(columns), 1)])


def lacking_script(seen: Sequence[SeenLine]) -> Lacking | None:
    """Return the script that the recogniser lacks on a page, by the lines that it was given; None where it has all signs."""
    lines = [line for line in seen if _length(line.box) >= _SHORTEST]
    if not lines:
        return None
    chances = np.exp(np.stack([line.scores for line in lines]))
    lengths = np.minimum([_length(line.box) for line in lines], _LONGEST)
    marked = chances[:, _MARKED].sum(axis=1)
    confident = np.array([line.confidence > _CONFIDENT for line in lines])
    foreign = chances[:, len(READABLE) :].sum(axis=1) - marked > np.where(confident, _FOREIGN, _FOREIGN_IN_DOUBT)
    votes = (chances[foreign] * lengths[foreign, None])[:, len(READABLE) :].sum(axis=0)
    if _is_lacking(lengths, foreign, agreed=float(votes.max())):
        script = (OTHER, *SCRIPTS.values())[int(votes.argmax())]
        return Lacking(script, int(foreign.sum()), len(seen), _kept(lines))
    has_marks = marked > _MARKS_MISSED
    if lengths[has_marks].sum() >= max(_MANY_MARKED * lengths.sum(), _LEAST):
        vietnamese = any(not _VIETNAMESE.isdisjoint(line.text) for line in lines)
        script = SCRIPTS["Vietnamese" if vietnamese else "Latin with further marks"]
        # Nothing is kept: lines in which no mark was missed may have some all the same.
        return Lacking(script, int(has_marks.sum()), len(seen), ())
    return None


def _is_lacking(lengths: NDArray[np.float64], foreign: NDArray[np.bool_], *, agreed: float) -> bool:
    """Say whether the foreign lines are most of the page, or a part of it, where so many heights of them agree on a script."""
    found = float(lengths[foreign].sum())
    if found >= _MOSTLY * lengths.sum():
        return found >= _LEAST
    enough = found >= max(_LEAST_BESIDE, _LEAST_SHARE * lengths.sum()) and int(foreign.sum()) >= _FEWEST_BESIDE
    return enough and agreed >= _AGREED * found


def _kept(lines: list[SeenLine]) -> tuple[Box, ...]:
    """Return the boxes of the lines that the recogniser has read well; none where those are few."""
    readable = np.exp([line.scores[: len(READABLE)] for line in lines]).sum(axis=1)
    kept = tuple(
        line.box
        for line, chance in zip(lines, readable, strict=True)
        if chance > _READABLE and line.confidence > _CONFIDENT
    )
    return kept if len(kept) > _FEW_KEPT * len(lines) else ()


def _length(box: Box) -> float:
    """Return how often a line is as long as it is wide, whichever way it lies."""
    x0, y0, x1, y1 = box
    return max(x1 - x0, y1 - y0) / max(min(x1 - x0, y1 - y0), 1.0)
