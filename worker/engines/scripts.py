"""Classifies the script of lines from the outputs of PP-OCR's recogniser, including scripts that the recogniser lacks.

The recogniser reads lines in a script that it lacks as another script, or not at all. Its last layer is linear: from 120
features of each column of a line to the log probabilities of 18,709 characters. So the probabilities of a few hundred characters
determine the features, and the features over a line determine its script. Classification takes 0.3 ms per line. bench/scripts_train.py fits the weights in scripts.npz.
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


#: Indexes of the characters whose probabilities are used: 256, evenly spread, contain as much information as the 120 features.
_SIGNS = np.linspace(1, 18_708, 256).astype(np.intp)
#: Classes of lines that the recogniser can read, or that contain no readable text.
READABLE = ("Latin", "CJK", "figures", "texture", "rotated")
#: All classes. OTHER is the class of scripts without a Tesseract model.
CLASSES = (*READABLE, OTHER.name, *SCRIPTS)
#: Letters that only Vietnamese uses and that the recogniser has.
_VIETNAMESE = frozenset("ƠơƯư")
_MARKED = [CLASSES.index(name) for name in ("Vietnamese", "Latin with further marks")]
#: Classes of lines of which the recogniser reads at least some signs.
_LEGIBLE = [CLASSES.index(name) for name in ("Latin", "CJK", "figures")] + _MARKED
#: Least probability of other classes than these, of a line of which the recogniser read the spaces alone, that is not a row of dots.
_ILLEGIBLE = 0.1
#: Minimum probability that a line is in a lacking script (recognised with high confidence; with low confidence), or has lost
#: diacritical marks.
_FOREIGN, _FOREIGN_IN_DOUBT, _MARKS_MISSED = 0.8, 0.5, 0.9
#: Lines shorter than the first value are ignored; longer ones than the second count as that length. In line heights.
_SHORTEST, _LONGEST = 1.5, 20.0
#: A page is mostly in a lacking script if this share of its lines is, and these lines have at least this total length, …
_MOSTLY, _LEAST = 0.5, 2.5
#: … and partly in one with at least this total length, share of all lines, number of lines, and share of them in one script: the
#: corpus has pages with a few misclassified lines, each in another script.
_LEAST_BESIDE, _LEAST_SHARE, _FEWEST_BESIDE, _AGREED = 12.0, 0.06, 2, 0.45
#: Minimum share of lines with lost marks on a page in Vietnamese or a transliteration; on other Latin pages it is at most 0.15.
_MANY_MARKED = 0.35
#: On a page with a lacking script, a recognised line is kept with at least this probability of being readable and this
#: confidence, and only if the kept lines exceed this share of all lines.
_READABLE, _CONFIDENT, _FEW_KEPT = 0.8, 0.8, 0.15


class SeenLine(NamedTuple):
    """A recognised line with its script scores. The box is in pixels of the page image."""

    box: Box
    text: str
    confidence: float
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lacking:
    """A script of the page that the recogniser lacks."""

    script: Script
    #: number of lines in it, and of all lines
    lines: int
    of: int
    #: boxes of the lines that the recogniser can read
    kept: tuple[Box, ...]

    @property
    def found(self) -> str:
        """Description of the finding."""
        return f"{self.lines} of {self.of} lines are in {self.script.name}, whose signs the engine lacks"

    @property
    def detail(self) -> str:
        """Description of the finding and its remedy."""
        return f"{self.found}: {self.script.remedy}"


class ScriptClassifier:
    """Classifier of the script of lines, for one model of the recogniser. `stored`: its arrays; None: those of scripts.npz."""

    def __init__(self, stored: Mapping[str, NDArray[Any]] | None = None) -> None:
        if stored is None:
            with files("worker.engines").joinpath("scripts.npz").open("rb") as file:
                stored = dict(np.load(file, allow_pickle=False))
        self._columns, self._column_offsets, self._weights, self._offsets = (
            stored[name].astype(np.float32) for name in ("columns", "column_offsets", "weights", "offsets")
        )

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the log probability of each of `CLASSES` for a line. `features`: shape (columns, 256)."""
        units = np.maximum(features @ self._columns + self._column_offsets, 0)
        logits = np.concatenate((units.mean(axis=0), units.max(axis=0))) @ self._weights + self._offsets
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)


def features(chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the features of the columns of a line, shape (columns, 256). `chances`: probabilities, shape (columns, characters)."""
    logs = np.log(np.maximum(chances[:, _SIGNS], np.finfo(np.float32).tiny))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), dtype=np.float32)


class ScriptObserver:
    """Wraps the decoder of RapidOCR; adds the script scores of each line to its result."""

    def __init__(self, decode: Any, classifier: ScriptClassifier) -> None:
        self.decode = decode
        self._classifier = classifier

    def __call__(self, chances: NDArray[np.float32], *arguments: Any, **sizes: Any) -> Any:
        lines, words = self.decode(chances, *arguments, **sizes)
        for number, word in enumerate(words):
            word.script_scores = self._classifier.scores(features(used_columns(chances, number, sizes)))
        return lines, words


def used_columns(chances: NDArray[np.float32], number: int, sizes: dict[str, Any]) -> NDArray[np.float32]:
    """Return the columns of a line in a batch without padding. `sizes` are the keyword arguments of RapidOCR's decoder."""
    columns = len(chances[number]) * sizes["wh_ratio_list"][number] / sizes["max_wh_ratio"]
    return np.asarray(chances[number][: max(math.ceil(columns), 1)])


def lacking_script(seen: Sequence[SeenLine]) -> Lacking | None:
    """Return the script of a page that the recogniser lacks, by its recognised lines; None if it lacks none."""
    lines = [line for line in seen if _length(line.box) >= _SHORTEST]
    if not lines:
        return None
    chances = np.exp(np.stack([line.scores for line in lines]))
    # A line of which the recogniser read the spaces alone is in no script that it can read, unless it is a row of dots or a rule:
    # then hardly anything speaks for another script.
    spaces_only = np.array([line.text.isspace() for line in lines]) & (
        1 - chances[:, _LEGIBLE].sum(axis=1) > _ILLEGIBLE
    )
    chances[:, _LEGIBLE] *= ~spaces_only[:, None]
    chances /= np.maximum(chances.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
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
        # Keep no line: lines without a detected loss may have lost marks too.
        return Lacking(script, int(has_marks.sum()), len(seen), ())
    return None


def _is_lacking(lengths: NDArray[np.float64], foreign: NDArray[np.bool_], *, agreed: float) -> bool:
    """Return whether lines in lacking scripts are most of the page, or a part of it of which `agreed` line heights are in one script."""
    found = float(lengths[foreign].sum())
    if found >= _MOSTLY * lengths.sum():
        return found >= _LEAST
    enough = found >= max(_LEAST_BESIDE, _LEAST_SHARE * lengths.sum()) and int(foreign.sum()) >= _FEWEST_BESIDE
    return enough and agreed >= _AGREED * found


def _kept(lines: list[SeenLine]) -> tuple[Box, ...]:
    """Return the boxes of the lines that the recogniser has read reliably; () if they are few."""
    readable = np.exp([line.scores[: len(READABLE)] for line in lines]).sum(axis=1)
    kept = tuple(
        line.box
        for line, chance in zip(lines, readable, strict=True)
        if chance > _READABLE and line.confidence > _CONFIDENT
    )
    return kept if len(kept) > _FEW_KEPT * len(lines) else ()


def _length(box: Box) -> float:
    """Return the length of a line in heights, horizontal or vertical."""
    x0, y0, x1, y1 = box
    return max(x1 - x0, y1 - y0) / max(min(x1 - x0, y1 - y0), 1.0)
