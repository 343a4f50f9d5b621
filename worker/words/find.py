"""The sandboxed program that finds the words on a page image, started by a Sandbox.

It detects and recognises lines as the default engine does. The image is in shared memory: uint8, RGB, row by row.
"""

from __future__ import annotations

import os

# A sandbox starts with an empty environment and may not start threads.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1")

from typing import TYPE_CHECKING, Any

import numpy as np

from ocrfleet.profiles.profile import RAPIDOCR
from worker.engines.rapidocr import load, read

if TYPE_CHECKING:
    from mmap import mmap

    from ocrfleet.sandbox.child import Handler

#: Maximum number of words in one answer: ten times those of a newspaper page.
MOST_WORDS = 8_000
#: Factor by which lines are narrowed before recognition: it takes 30 % less time and places as many words
#: (bench/word_places.py). With half of this width, old prints are not recognised.
NARROWED = 0.7
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
        pixels = np.frombuffer(shared, np.uint8, width * height * 3).reshape(height, width, 3).copy()
        words = read(self._models, pixels, narrowed=NARROWED).words[:MOST_WORDS]
        return {"words": [[word.text[:LONGEST], list(word.box), word.line] for word in words]}


def handler() -> Handler:
    return Finder()
