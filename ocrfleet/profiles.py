"""Profiles: which engine reads a page, with which model, from which image. Data, and part of a document's identity.

They stand in the contract and not beside the engines because a producer needs a profile's digest to name a document.
"""

from __future__ import annotations

import re
from functools import cached_property

from pydantic import Field

from ocrfleet.errors import ConfigurationError
from ocrfleet.jobs import Record, digest_of

#: Raised whenever our own code changes the text that the same engine gives for the same page (rendering, reading order).
TEXT_VERSION = 1


class Render(Record):
    """How a page becomes the image that the engine sees."""

    #: length of the page image's longer side, in pixels; an image file is never enlarged for it, a PDF page is drawn at it
    long_side: int = Field(ge=64, le=20_000)
    #: width x height may not exceed this; larger pages are scaled down
    max_pixels: int = Field(default=32_000_000, ge=4_096)
    #: enlarge an image whose shorter side is below this, in pixels
    min_side: int | None = None
    #: stretch the histogram to full contrast
    contrast: bool = False
    #: unsharp mask, in per cent (Pillow's UnsharpMask); 0 is off
    sharpen: int = Field(default=0, ge=0, le=500)


class Profile(Record):
    """One engine in one mode. A worker serves one profile, and a profile has queues of its own."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    engine: str
    model: str
    revision: str
    #: languages or scripts that the engine must be told, in its own words
    language: str | None = None
    render: Render
    text_version: int = TEXT_VERSION
    #: pages that one message carries
    pages_per_job: int = Field(default=8, ge=1, le=1000)
    #: seconds after which a page that is being recognised counts as hung
    page_deadline: float = 300.0
    #: words that the engine must find on the canary page (worker/canary.py), in small letters
    canary: tuple[str, ...] = ()
    #: seconds a page takes on one core, for estimates before anything was measured (bench/accuracy.py)
    typical_seconds: float = 1.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what changes the text: neither how pages are batched nor how long they may take."""
        operational = {"name", "pages_per_job", "page_deadline", "canary", "typical_seconds"}
        return digest_of(self.model_dump_json(exclude=operational))


RAPIDOCR = Profile(
    name="rapidocr",
    engine="rapidocr",
    model="PP-OCRv6-small",
    revision="rapidocr-3.10.0",
    render=Render(long_side=2500),
    # A page takes seconds on a CPU: short jobs spread a document over all cores and leave a short tail.
    pages_per_job=1,
    canary=("ferry", "nine"),
    typical_seconds=1.5,
)

TESSERACT = Profile(
    name="tesseract",
    engine="tesseract",
    model="tessdata",
    revision="installed",
    language="eng",
    render=Render(long_side=2500),
    pages_per_job=1,
    canary=("ferry", "nine"),
    typical_seconds=1.5,
)

PROFILES = {profile.name: profile for profile in (RAPIDOCR, TESSERACT)}


def resolve(name: str, *, language: str | None = None) -> Profile:
    """Return the profile called `name`, for a language if one is given.

    Raises ConfigurationError when there is no such profile, or when its engine takes no language.
    """
    profile = PROFILES.get(name) or _custom(name)
    if profile is None:
        raise ConfigurationError(
            f"there is no engine {name!r}; there are: {', '.join(sorted(PROFILES))}, or package.module:Class of your own"
        )
    if language is None or language == profile.language:
        return profile
    if profile.language is None:
        raise ConfigurationError(
            f"{name} needs no --language: it reads the scripts it knows without being told "
            "(for others: --engine tesseract --language …)"
        )
    if not re.fullmatch(r"[A-Za-z_]+(/[A-Za-z_]+)?(\+[A-Za-z_]+(/[A-Za-z_]+)?)*", language):
        raise ConfigurationError(f"{language!r} is no list of languages; examples: eng, Fraktur, deu+fra")
    # A name is a queue's: where the readable part says less than the language, a digest tells two apart.
    slug = re.sub(r"[^a-z]+", "-", language.lower()).strip("-")[:40]
    if slug.replace("-", "+") != language:
        slug = f"{slug[:31]}-{digest_of(language)[:8]}".lstrip("-")
    told = profile.model_dump() | {"name": f"{name}-{slug}", "language": language, "canary": ()}
    return Profile.model_validate(told)


def _custom(name: str) -> Profile | None:
    """Return the profile of an engine that is given as `package.module:Class`; None when `name` is no such thing."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-60:].strip("-")
    if not slug:
        return None
    return Profile(
        name=slug, engine=name, model="custom", revision="custom", render=Render(long_side=2000), pages_per_job=1
    )
