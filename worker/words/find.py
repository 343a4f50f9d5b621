"""The sandboxed program that finds the words on a page image, started by a Sandbox.

It detects and recognises lines as the default engine does. The image is in shared memory: uint8, RGB, row by row.
"""

from __future__ import annotations

import os

# A sandbox starts with an empty environment and may not start threads.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import functools
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from ocrfleet.profiles.profile import RAPIDOCR
from worker.engines.layout.orientation import back
from worker.engines.page_reader import RapidOcrReader
from worker.engines.rapidocr import load
from worker.engines.scripts import lacking_script
from worker.words.unread import UNREAD, with_unread

if TYPE_CHECKING:
    from mmap import mmap

    from numpy.typing import NDArray

    from ocrfleet.records.pages import Word
    from ocrfleet.sandbox.child import Handler

#: Maximum number of words in one answer: ten times those of a newspaper page.
MOST_WORDS = 8_000
#: Factor by which lines are narrowed before recognition: it takes 30 % less time and places as many words
#: (bench/word_places.py). With half of this width, old prints are not recognised.
NARROWED = 0.7
#: Scripts that the recogniser lacks and that run from right to left.
RIGHT_TO_LEFT = frozenset({"Arabic", "Hebrew", "Syriac", "Thaana"})
#: Maximum length of a word in the answer.
LONGEST = 60


class Finder:
    """Keeps the models loaded."""

    def __init__(self) -> None:
        self._models: Any = None

    def __call__(self, request: dict[str, Any], _: int | None, shared: mmap | None) -> dict[str, Any]:
        """Answer the words of the image of `width` x `height` pixels in `shared`: text, box and line of each."""
        if shared is None:
            raise ValueError("the image comes through shared memory")
        if self._models is None:
            self._models = load(RAPIDOCR)
        width, height = request["width"], request["height"]
        pixels = np.frombuffer(shared, np.uint8, width * height * 3).reshape(height, width, 3)
        words = found_words(self._models, pixels)
        if len(words) > MOST_WORDS:  # dirt, or a pattern
            words = [word for word in words if UNREAD not in word.text][:MOST_WORDS]
        return {"words": [[word.text[:LONGEST], list(word.box), word.line] for word in words]}


def found_words(models: Any, pixels: NDArray[np.uint8]) -> list[Word]:
    """Return the words on a page image (RGB, shape (height, width, 3)), in reading order, with those that could not be read."""
    reader = RapidOcrReader(models, narrowed=NARROWED)
    words = reader.read(np.ascontiguousarray(pixels[:, :, ::-1])).words
    lacking = lacking_script(reader.seen)
    backwards = lacking is not None and lacking.script.name in RIGHT_TO_LEFT
    # Upright, as the page was read.
    turned = np.ascontiguousarray(np.rot90(pixels, reader.quarter))
    ahead = functools.partial(back, quarter=-reader.quarter % 4, width=turned.shape[1], height=turned.shape[0])
    behind = functools.partial(back, quarter=reader.quarter, width=pixels.shape[1], height=pixels.shape[0])
    upright = [word._replace(box=ahead(word.box)) for word in words]
    lines = [ahead(line.box) for line in reader.seen]
    grey = cast("NDArray[np.uint8]", cv2.cvtColor(turned, cv2.COLOR_RGB2GRAY))
    found = with_unread(grey, upright, lines, backwards=backwards)
    return [word._replace(box=behind(word.box)) for word in found]


def handler() -> Handler:
    return Finder()
