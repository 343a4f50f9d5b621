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
#: Shorter lines say too little, and longer ones count no more; in their heights.
_SHORTEST, _LONGEST = 1.5, 20.0
#: Heights of lines that must be in the script on a page that is mostly in it, …
_MOSTLY, _LEAST = 0.5, 2.5
#: … and on another page, where they are at least such a share of all.
_LEAST_BESIDE, _LEAST_SHARE = 12.0, 0.04
#: What the recogniser read stands, on a page with another script, where it is so probably readable and read so surely; unless
#: those are few.
_SURELY_READABLE, _SURE, _FEW_KEPT = 0.8, 0.8, 0.15
#: Below this chance to be readable a line lacks signs.
UNREADABLE = 0.1


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
    """A linear classifier of lines, for one model of the recogniser. `stored` are its arrays, if not those of scripts.npz."""

    def __init__(self, stored: Mapping[str, NDArray[Any]] | None = None) -> None:
        if stored is None:
            with files("worker.engines").joinpath("scripts.npz").open("rb") as file:
                stored = dict(np.load(file, allow_pickle=False))
        self._center, self._basis, self._weights, self._offsets = (
            stored[name].astype(np.float32) for name in ("center", "basis", "weights", "offsets")
        )

    def scores(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logarithm of a line's chance to be of each of `CLASSES`; `columns` are its features."""
        logits = pooled((columns - self._center) @ self._basis) @ self._weights + self._offsets
        return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)


def features(chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the recogniser sees in each column of a line, shape (columns, 256)."""
    logs = np.log(np.maximum(chances[:, _SIGNS], np.finfo(np.float32).tiny))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), dtype=np.float32)


def pooled(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the columns are like over a line: their means and deviations, highest and lowest values."""
    return np.concatenate((columns.mean(axis=0), columns.std(axis=0), columns.max(axis=0), columns.min(axis=0)))


class ScriptObserver:
    """Decodes what the recogniser returns as RapidOCR does, and adds each line's scores of scripts to its words."""

    def __init__(self, decode: Any, classifier: ScriptClassifier) -> None:
        self._decode = decode
        self._classifier = classifier

    def __call__(self, chances: NDArray[np.float32], *arguments: Any, **sizes: Any) -> Any:
        lines, words = self._decode(chances, *arguments, **sizes)
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
    scores = np.stack([line.scores for line in lines])
    lengths = np.minimum([_length(line.box) for line in lines], _LONGEST)
    chance = readable(scores)
    lacks = chance < UNREADABLE
    votes = (np.exp(scores[lacks, len(READABLE) :]) * lengths[lacks, None]).sum(axis=0)
    best = int(votes.argmax())
    certain = float(votes[best])
    share = float(lengths[lacks].sum() / lengths.sum())
    if certain < _LEAST or (share < _MOSTLY and (certain < _LEAST_BESIDE or share < _LEAST_SHARE)):
        return None
    script = (OTHER, *SCRIPTS.values())[best]
    kept = tuple(
        line.box for line, can in zip(lines, chance, strict=True) if can > _SURELY_READABLE and line.confidence > _SURE
    )
    few = len(kept) <= _FEW_KEPT * len(lines)
    return Lacking(script, int(lacks.sum()), len(seen), () if few else kept)


def _length(box: Box) -> float:
    """Return how often a line is as long as it is wide, whichever way it lies."""
    x0, y0, x1, y1 = box
    return max(x1 - x0, y1 - y0) / max(min(x1 - x0, y1 - y0), 1.0)


def readable(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the chance, 0..1, that lines have no sign that the recogniser lacks; scores have the shape (…, classes)."""
    return np.asarray(np.exp(scores[..., : len(READABLE)]).sum(axis=-1), dtype=np.float32)
