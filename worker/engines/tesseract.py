"""The Tesseract engine: the installed program, one process a page, the page on its standard input."""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from ocrfleet.errors import ConfigurationError, PageFaultError, Reason, TransientError
from ocrfleet.records.pages import Line, Word
from ocrfleet.sandbox.die_with_parent import dying_with_us
from worker.engines.base import Recognition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.imaging.page_image import PageImage

_PROGRAM = "tesseract"
#: The level of TSV rows for words. Rows of other levels have the boxes of lines, paragraphs and blocks.
_WORD_LEVEL = "5"
#: Entries of `--list-langs` that are not languages.
_NO_LANGUAGES = frozenset({"osd", "equ", "snum"})
_POINTS_PER_INCH = 72
#: The resolutions in dpi that Tesseract accepts (kMinCredibleResolution and kMaxCredibleResolution in publictypes.h).
_DPI = (70, 2400)


class _Word(NamedTuple):
    paragraph: tuple[int, int]  # numbers of block and paragraph
    line: int
    box: tuple[int, int, int, int]
    confidence: float
    text: str


class TesseractEngine:
    """Tesseract with one process for each page. Cancelling a call ends its process."""

    concurrency = 1
    ahead = 0
    broken = None
    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:  # noqa: ARG002 - the engine protocol
        self.version = _PROGRAM
        self._language = profile.language or "eng"

    async def start(self) -> None:
        """Look up the version. Raises ConfigurationError if the program or one of the profile's languages is missing."""
        try:
            self.version = await version()
            installed = await models()
        except PageFaultError as error:
            raise ConfigurationError(f"the installed Tesseract does not work: {error.detail}") from error
        wanted = [_installed_name(language, installed) for language in self._language.split("+")]
        missing = [language for language in wanted if language not in installed]
        if missing:
            there = ", ".join(sorted(installed - _NO_LANGUAGES)) or "none"
            raise ConfigurationError(
                f"Tesseract lacks the language {', '.join(missing)} (there is: {there}); "
                f"install it with `apt install {' '.join(map(_package, missing))}`"
            )
        self._language = "+".join(wanted)

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:  # noqa: ARG002 - the engine protocol
        """Read one page. Raises PageFaultError with the last line of Tesseract's stderr if it fails."""
        return await read(image, self._language)

    async def stop(self) -> None:
        """Do nothing: each call ends its own process."""


async def version() -> str:
    """Return the name and version of the installed program. Raises ConfigurationError if there is none."""
    return (await _run("--version")).partition("\n")[0].strip()


async def models() -> set[str]:
    """Return the names of the installed models. Raises ConfigurationError if the program is not installed."""
    return set((await _run("--list-langs")).splitlines()[1:])  # the first line is a heading


async def read(image: PageImage, language: str) -> Recognition:
    """Read a page with one or more models, joined by +. Raises PageFaultError if Tesseract fails."""
    # PNM is a line of text followed by the pixels. It has no resolution, and Tesseract would guess one.
    pnm = b"P6 %d %d 255\n" % (image.width, image.height) + image.pixels.tobytes()
    dpi = min(max(round(image.width * _POINTS_PER_INCH / image.width_pt), _DPI[0]), _DPI[1])
    output = await _run("stdin", "stdout", "-l", language, "--dpi", str(dpi), "tsv", given=pnm)
    return _recognition(_words(output))


async def _run(*arguments: str, given: bytes = b"") -> str:
    """Run Tesseract and return its stdout. The process is ended in any case, also when the call is cancelled."""
    program = shutil.which(_PROGRAM)
    if program is None:
        raise ConfigurationError("the program tesseract is not installed; install it with `apt install tesseract-ocr`")
    try:
        # Tesseract is tied to the thread that starts it, and the event loop's thread lives as long as the worker.
        process = await asyncio.create_subprocess_exec(
            *dying_with_us(program),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Two of Tesseract's threads on two busy cores are five times slower than one.
            env=os.environ | {"OMP_THREAD_LIMIT": "1"},
        )
    except OSError as error:
        raise TransientError(f"tesseract could not be started: {error}") from error
    try:
        output, complaints = await process.communicate(given)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        last = (complaints.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise PageFaultError(Reason.ENGINE_FAILED, f"tesseract: {last}")
    return output.decode(errors="replace")


def _installed_name(language: str, installed: set[str]) -> str:
    """Return the installed name of a language: Debian has `Fraktur`, the Tesseract project `script/Fraktur`."""
    names = (language, language.removeprefix("script/"), f"script/{language}")
    return next((name for name in names if name in installed), language)


def _package(language: str) -> str:
    """Return Debian's package of a language (deu, chi_sim) or script (Fraktur, script/Latin)."""
    name = language.removeprefix("script/")
    if name == "Fraktur":
        return "tesseract-ocr-script-frak"
    # Packages of scripts have four-letter codes as names; tesseract-ocr-all has all of them.
    return "tesseract-ocr-all" if name[:1].isupper() else f"tesseract-ocr-{name.lower().replace('_', '-')}"


def _words(tsv: str) -> Iterator[_Word]:
    """Parse Tesseract's TSV. Words are in its reading order."""
    for row in csv.DictReader(tsv.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] != _WORD_LEVEL or not (row["text"] or "").strip():
            continue
        left, top = int(row["left"]), int(row["top"])
        yield _Word(
            paragraph=(int(row["block_num"]), int(row["par_num"])),
            line=int(row["line_num"]),
            box=(left, top, left + int(row["width"]), top + int(row["height"])),
            confidence=float(row["conf"]),
            text=row["text"],
        )


def _recognition(found: Iterator[_Word]) -> Recognition:
    """Join words to lines and paragraphs, in the same order."""
    paragraphs = [
        [list(line) for _, line in groupby(paragraph, key=lambda word: word.line)]
        for _, paragraph in groupby(found, key=lambda word: word.paragraph)
    ]
    read = [line for lines in paragraphs for line in lines]
    return Recognition(
        text="\n\n".join("\n".join(_text(line) for line in lines) for lines in paragraphs),
        lines=tuple(map(_line, read)),
        words=tuple(
            Word(word.text.strip(), _floats(word.box), round(word.confidence / 100, 4), number)
            for number, line in enumerate(read)
            for word in line
        ),
    )


def _text(words: list[_Word]) -> str:
    return " ".join(word.text for word in words)


def _floats(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, box)
    return x0, y0, x1, y1


def _line(words: list[_Word]) -> Line:
    x0, y0, x1, y1 = zip(*(word.box for word in words), strict=True)
    return Line(
        text=_text(words),
        box=(float(min(x0)), float(min(y0)), float(max(x1)), float(max(y1))),
        confidence=round(sum(word.confidence for word in words) / len(words) / 100, 4),
    )
