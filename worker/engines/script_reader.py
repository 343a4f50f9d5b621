"""Reads the lines of a page that RapidOCR lacks the script of, with Tesseract and its model of the script, if installed."""

from __future__ import annotations

import asyncio
import functools
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ocrfleet.errors import ConfigurationError, PageFaultError
from worker.engines import tesseract
from worker.engines.base import ReadBy, Recognition
from worker.engines.layout.blocks import arrange
from worker.engines.layout.orientation import back
from worker.engines.layout.parts import ArrangedPage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from ocrfleet.profiles.scripts import Script
    from ocrfleet.records.pages import Line, Word
    from worker.engines.layout.geometry import Box
    from worker.engines.scripts import Lacking
    from worker.imaging.page_image import PageImage

#: Models of languages that are used together where the script's own is missing: each takes its time.
_MOST_LANGUAGES = 3
#: What Tesseract read is the script's where this share of its letters is, with this mean confidence.
_LEAST_LETTERS, _LEAST_CONFIDENCE = 0.6, 0.5


class ScriptReader:
    """Tesseract's models of scripts. Without Tesseract it reads nothing."""

    def __init__(self) -> None:
        self._version = ""
        self._models: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Look up which models are installed."""
        try:
            self._version = await tesseract.version()
            self._models = frozenset(await tesseract.models())
        except (ConfigurationError, PageFaultError):
            self._models = frozenset()

    async def read(self, image: PageImage, recognition: Recognition, lacking: Lacking, *, quarter: int) -> Recognition:
        """Return the page with the lines that Tesseract read, or else the recognition with what it lacks.

        `quarter` says how often the page is rotated by 90 degrees, counter-clockwise, to be read.
        """
        model = chosen(lacking.script, self._models)
        if model is None:
            return replace(recognition, lacking=lacking.detail)
        # A page that is rotated is read as a whole.
        kept = {} if quarter else {line: words for line, words in _words(recognition) if line.box in lacking.kept}
        pixels = np.ascontiguousarray(np.rot90(_without(image.pixels, [line.box for line in kept]), quarter))
        width_pt, height_pt = (image.width_pt, image.height_pt)[:: -1 if quarter % 2 else 1]
        read = await tesseract.read(replace(image, pixels=pixels, width_pt=width_pt, height_pt=height_pt), model)
        if not _is_script(read, lacking.script):
            return replace(recognition, lacking=f"{lacking.found}: {self._version} ({model}) can't read them either")
        if kept:
            lines = kept | dict(_words(read))
            page = await asyncio.to_thread(arrange, tuple(lines), image.pixels, words=lines)
            engine, model = "rapidocr+tesseract", f"PP-OCRv6-small+{model}"
        else:
            page = ArrangedPage(lines=read.lines, text=read.text, words=read.words)
            page = page.moved(functools.partial(back, quarter=quarter, width=image.width, height=image.height))
            engine = "tesseract"
        return Recognition(
            text=page.text,
            lines=page.lines,
            blocks=page.blocks,
            words=page.words,
            read_by=ReadBy(engine, self._version, model),
        )


def chosen(script: Script, installed: Collection[str]) -> str | None:
    """Return the installed model that reads a script: the script's own, or those of its languages; None without any."""
    for name in (f"script/{script.model}", script.model):
        if name in installed:
            return name
    languages = [language for language in script.languages if language in installed]
    return "+".join(languages[:_MOST_LANGUAGES]) or None


def _words(recognition: Recognition) -> Iterator[tuple[Line, tuple[Word, ...]]]:
    """Return the lines with their words."""
    for number, line in enumerate(recognition.lines):
        yield line, tuple(word for word in recognition.words if word.line == number)


def _without(pixels: NDArray[np.uint8], boxes: Collection[Box]) -> NDArray[np.uint8]:
    """Return the page with these boxes painted over in the colour of its paper."""
    painted = pixels.copy()
    paper = np.median(pixels[::8, ::8].reshape(-1, 3), axis=0).astype(np.uint8)
    for x0, y0, x1, y1 in boxes:
        painted[max(int(y0), 0) : int(y1) + 1, max(int(x0), 0) : int(x1) + 1] = paper
    return painted


def _is_script(read: Recognition, script: Script) -> bool:
    """Say whether most of the letters that Tesseract read are the script's, and it was sure of them."""
    letters = [unicodedata.name(character, "") for character in read.text if character.isalpha()]
    lengths = [len(line.text) for line in read.lines]
    if not letters:
        return False
    confidence = np.average([line.confidence or 0.0 for line in read.lines], weights=lengths)
    share = sum(name.startswith(script.unicode) for name in letters) / len(letters)
    return bool(share >= _LEAST_LETTERS and confidence >= _LEAST_CONFIDENCE)
