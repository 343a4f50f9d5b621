"""Profiles: engine, model, prompt, sampling, page image, retry policy. Data, and part of a document's identity.

They are in the contract and not beside the engines because a producer needs a profile's digest to make a document's id. To
add a model, add a profile: here, in `models/` for a family with prompts and modes, or in a JSON file of your own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ocrfleet.errors import ConfigurationError, Reason
from ocrfleet.records.base import Record, digest_of
from ocrfleet.records.documents import Kind
from ocrfleet.records.messages import MOST_PAGES

#: Incremented when a change of ocrfleet changes the text for the same page and engine (rendering, reading order).
TEXT_VERSION = 3

#: Code points in which the letters of living scripts are.
_LETTERS = range(0x41, 0xD7A4)

ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


def _left_out_at(default: object) -> Callable[[object], bool]:
    """Leave a field that earlier versions lack out of a profile that has its default: the profile's digest stays as it was."""
    return lambda value: value == default


class Render(Record):
    """How the page image for the engine is made."""

    #: longer side of the page image in pixels; a PDF page is rendered at it, an image file is never enlarged to it
    long_side: int = Field(ge=64, le=20_000)
    #: limit of width x height; larger page images are scaled down
    max_pixels: int = Field(default=32_000_000, ge=4_096)
    #: enlarge an image whose shorter side is below this, in pixels
    min_side: int | None = None
    #: dots per inch of a page, such as a poster, that is larger than `long_side` allows; an image is not enlarged to it
    min_dpi: float | None = Field(default=None, gt=0, exclude_if=_left_out_at(None))
    #: … and pixels of its shorter side, such as that of a strip
    short_side: int | None = Field(default=None, ge=64, le=20_000, exclude_if=_left_out_at(None))
    #: stretch the histogram to full contrast
    contrast: bool = False
    #: unsharp mask, in per cent (Pillow's UnsharpMask); 0 is off
    sharpen: int = Field(default=0, ge=0, le=500)

    @property
    def most_pixels(self) -> int:
        """The most pixels of a page image, for pages of a usual shape."""
        bounded_by_side = self.min_dpi is None and self.short_side is None
        return min(self.max_pixels, self.long_side**2) if bounded_by_side else self.max_pixels


class Parser(StrEnum):
    """Format of an engine's output."""

    #: plain text
    TEXT = "text"
    #: DeepSeek's layout tags around blocks of Markdown
    GROUNDING = "grounding"
    #: dots.ocr's JSON: a list of cells with a box, a category and a text
    DOTS = "dots"
    #: olmOCR's Markdown below YAML front matter
    OLMOCR = "olmocr"
    #: PaddleOCR-VL's text of one element: words, a table of OTSL tags, or a formula
    PADDLEOCR = "paddleocr"


class Sampling(Record):
    """Sampling parameters of a model."""

    #: tokens of a page's output at most; the prompt and the image need room in the model's context, too
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    #: no sequence of this many tokens is repeated within the window (the published guard against loops); None: off
    ngram_size: int | None = Field(default=None, ge=1)
    ngram_window: int = Field(default=90, ge=1)
    #: ids of tokens that may be repeated all the same
    ngram_whitelist: tuple[int, ...] = ()


class Mode(Record):
    """A resolution mode of a model: how its processor scales and tiles a page image."""

    name: str
    #: side of the square that the whole page is fitted into, in pixels
    base_size: int = Field(ge=64)
    #: side of the square tiles that a larger page is cut into as well, in pixels
    image_size: int = Field(ge=64)
    #: whether there are tiles
    tiles: bool
    #: whether the page is padded to a square first, because the processor would distort it
    pad: bool = False
    #: tokens that the page image takes at most
    image_tokens: int = Field(ge=1)


class TextLayer(StrEnum):
    """Use of the text layer of a PDF page."""

    #: the page is recognised as if there were no text layer
    IGNORE = "ignore"
    #: the text layer is used if it is trustworthy (worker/text_layer/trust.py); other pages are recognised
    PREFER = "prefer"
    #: the text layer is used if it is trustworthy; other pages fail
    ONLY = "only"


class Judgement(Record):
    """Thresholds at which a text is rejected (worker/pipeline/verdict.py), measured by bench/verdicts.py on correct texts."""

    #: reasons that are ignored: a description of a picture, for example, has more letters than the picture
    ignored: tuple[Reason, ...] = ()
    #: Unicode names of the scripts of the pages, such as LATIN, GREEK or CJK; without any, the script is not checked
    scripts: tuple[str, ...] = ()
    #: share of a text's letters that must be in these scripts
    least_in_scripts: float = Field(default=0.5, ge=0, le=1)
    #: letters that a text must have for the script to be checked
    fewest_for_script: int = Field(default=20, ge=1)
    #: largest share of a text's words that mix alphabets, such as Latin and Cyrillic: correct texts have at most 0.03, in
    #: Arabic, whose "and" is written with the next word
    most_mixed: float = Field(default=0.2, ge=0, le=1)
    #: largest share of a text's characters that are control characters, of private use, unassigned, or U+FFFD: correct texts
    #: have at most 0.03 (a PDF's text layer, with formulas); one or two are allowed in any text
    most_garbage: float = Field(default=0.05, ge=0, le=1)
    #: smallest share of letters and digits among all characters but rules, leaders and brackets: correct texts have 0.9
    least_readable: float = Field(default=0.15, ge=0, le=1)
    #: most letters and digits of a text for each inked square of 4 x 4 pixels, with the page scaled to a longer side of 1,024
    #: pixels: correct texts of more than 200 have at most 0.45 …
    most_on_a_square: float = Field(default=1.2, gt=0)
    #: … and for each letter that the marks on the page can be; both must be exceeded: correct texts have at most 2.7 …
    most_for_a_letter: float = Field(default=8.0, gt=0)
    #: … and as many as this on any page: a stain may hide a line
    always_allowed: int = Field(default=200, ge=0)
    #: fewest marks in rows, like print, of which at least one in `letters_for_one` must have been read: hatching and
    #: photographs have at most 35, blurred noise had up to 67 …
    fewest_letters: int = Field(default=60, ge=1)
    #: … of a page without any text, if most of its marks are in rows: blank pages with dirt have 2
    fewest_letters_unread: int = Field(default=3, ge=1, exclude_if=_left_out_at(3))
    #: … and their share of the letters that all marks on the page can be: noise has at most 0.025, print at least 0.06
    least_in_rows: float = Field(default=0.04, ge=0, le=1)
    #: correct texts have at least one for each mark
    letters_for_one: int = Field(default=10, ge=1)
    #: the same for a page that consists of pictures in the model's layout, for marks within these: maps and charts have many
    fewest_letters_in_figures: int = Field(default=250, ge=1)


class RetryStep(Record):
    """A step of the retry policy: how to try a page again after a rejected text or a fault. None: as in the profile."""

    #: reasons after which this step is taken; () for all
    after: tuple[Reason, ...] = ()
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    prompt: str | None = None
    #: format of the output for that prompt
    parser: Parser | None = None
    #: longer side of the page image in pixels, as in Render
    long_side: int | None = Field(default=None, ge=64, le=20_000)
    #: limits of this attempt: tokens of the output, and seconds in the engine
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)
    #: another profile, if a worker serves it: it keeps the page and tries it by its own retry policy
    profile: ProfileName | None = None
    #: use the text layer, if it is trustworthy
    text_layer: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        changes = (self.temperature, self.prompt, self.parser, self.long_side)
        if any(change is not None for change in changes) + (self.profile is not None) + self.text_layer != 1:
            raise ValueError(
                "a retry step is another profile, or the text layer, or changes of this profile: one of the three"
            )
        return self


class Canary(Record):
    """Self-test: the expected text of the self-test page (worker/pipeline/canary.py) before a worker is ready."""

    #: words that must be recognised, in lower case
    words: tuple[str, ...] = ()
    #: recognise it twice: the texts must be equal, and not empty
    twice: bool = False
    #: prompt for the self-test page, if the profile's own does not ask for the text
    prompt: str | None = None


class Route(Record):
    """A route sends pages to another profile, if a worker serves that. The first route that fits a page is taken.

    A rule that is None fits each page.
    """

    to: ProfileName
    #: longer side of the page, in inches
    min_inches: float | None = Field(default=None, gt=0)
    max_inches: float | None = Field(default=None, gt=0)
    #: share of the page image that is ink, 0 to 1
    min_ink: float | None = Field(default=None, ge=0, le=1)
    max_ink: float | None = Field(default=None, ge=0, le=1)
    #: kinds of source
    kinds: tuple[Kind, ...] | None = None

    @model_validator(mode="after")
    def _rules_something(self) -> Self:
        rules = (self.min_inches, self.max_inches, self.min_ink, self.max_ink, self.kinds)
        if all(rule is None for rule in rules):
            raise ValueError("a route needs a rule: min_inches, max_inches, min_ink, max_ink or kinds")
        return self

    def fits(self, *, inches: float, ink: float, kind: Kind) -> bool:
        """Return whether a page takes this route: longer side in inches, share of ink, kind of source."""
        return (
            (self.min_inches is None or inches >= self.min_inches)
            and (self.max_inches is None or inches <= self.max_inches)
            and (self.min_ink is None or ink >= self.min_ink)
            and (self.max_ink is None or ink <= self.max_ink)
            and (self.kinds is None or kind in self.kinds)
        )


class Profile(Record):
    """One engine in one mode. A worker serves one profile, and each profile has its own queues."""

    name: ProfileName
    engine: str
    model: str
    revision: str
    #: folder of the model's files, for models that are not fetched by name
    model_path: Path | None = None
    #: languages or scripts for engines that need them, by the engine's own names
    language: str | None = None
    #: prompt, for engines that take one: <image> and words
    prompt: str | None = None
    #: chat template, if no server applies one: the whole text with the placeholder of the image, and {prompt} for the prompt;
    #: None for a model that takes the prompt without one
    template: str | None = None
    sampling: Sampling | None = None
    mode: Mode | None = None
    parser: Parser = Parser.TEXT
    render: Render
    text_layer: TextLayer = TextLayer.IGNORE
    judgement: Judgement = Judgement()
    #: pages with less confidence are for review: 0 for none, 1 for all but blank ones. The default is for engines whose
    #: confidence was not fitted to their own readings.
    review_below: float = Field(default=0.3, ge=0, le=1)
    #: the retry policy: after a failed attempt, the next step for its reason is taken
    ladder: tuple[RetryStep, ...] = ()
    #: routes of pages to other profiles
    routes: tuple[Route, ...] = ()
    text_version: int = TEXT_VERSION
    #: pages that one message carries
    pages_per_job: int = Field(default=8, ge=1, le=MOST_PAGES)
    #: seconds that the recognition of a page may take
    page_deadline: float = Field(default=300.0, gt=0)
    canary: Canary = Canary()
    #: seconds of a page on one core, for estimates without a measurement (bench/accuracy.py)
    typical_seconds: float = 1.0

    @property
    def digest(self) -> str:
        """SHA-256 of the fields that change the text; batch sizes, deadlines, review and the self-test are left out."""
        operational = {
            "name",
            "model_path",
            "review_below",
            "pages_per_job",
            "page_deadline",
            "canary",
            "typical_seconds",
        }
        return digest_of(self.model_dump_json(exclude=operational))

    @property
    def destinations(self) -> tuple[str, ...]:
        """Names of the profiles that the routes and the retry policy send pages to."""
        retries = (step.profile for step in self.ladder if step.profile is not None)
        return tuple(sorted({*(route.to for route in self.routes), *retries}))

    def at(self, step: RetryStep) -> Profile:
        """Return the profile with the changes of a retry step."""
        changes: dict[str, Any] = {}
        if step.prompt is not None:
            changes["prompt"] = step.prompt
        if step.parser is not None:
            changes["parser"] = step.parser
        if step.long_side is not None:
            changes["render"] = self.render.model_copy(update={"long_side": step.long_side})
        if step.temperature is not None and self.sampling is not None:
            changes["sampling"] = self.sampling.model_copy(update={"temperature": step.temperature})
        return self.model_copy(update=changes).limited(max_tokens=step.max_tokens, deadline=step.deadline)

    def limited(self, *, max_tokens: int | None = None, deadline: float | None = None) -> Profile:
        """Return the profile with a limit on tokens and a deadline in seconds for a page; None leaves them as they are."""
        changes: dict[str, Any] = {}
        if deadline is not None:
            changes["page_deadline"] = deadline
        if max_tokens is not None and self.sampling is not None and self.sampling.max_tokens > max_tokens:
            changes["sampling"] = self.sampling.model_copy(update={"max_tokens": max_tokens})
        return self.model_copy(update=changes)


#: Retry step for engines without other parameters.
_USE_TEXT_LAYER = RetryStep(
    after=(
        Reason.EMPTY,
        Reason.INVENTED,
        Reason.WRONG_SCRIPT,
        Reason.UNSUPPORTED_SCRIPT,
        Reason.ENGINE_FAILED,
        Reason.ENGINE_DEADLINE,
    ),
    text_layer=True,
)

RAPIDOCR = Profile(
    name="rapidocr",
    engine="rapidocr",
    model="PP-OCRv6-small",
    revision="rapidocr-3.10.0",
    # An A4 page has 214 dpi at 2500 pixels. The engine searches larger pages in tiles.
    render=Render(long_side=2500, min_dpi=200, short_side=1250),
    ladder=(_USE_TEXT_LAYER,),
    review_below=0.7,  # bench/confidence.py
    # A page takes seconds on a CPU: short jobs spread a document over all cores and leave a short tail.
    pages_per_job=1,
    canary=Canary(words=("ferry", "nine")),
    typical_seconds=1.5,
)

TESSERACT = Profile(
    name="tesseract",
    engine="tesseract",
    model="tessdata",
    revision="installed",
    language="eng",
    render=Render(long_side=2500),
    ladder=(_USE_TEXT_LAYER,),
    review_below=0.7,  # bench/confidence.py
    pages_per_job=1,
    canary=Canary(words=("ferry", "nine")),
    typical_seconds=1.5,
)

PROFILES = {profile.name: profile for profile in (RAPIDOCR, TESSERACT)}


def resolve(name: str, *, language: str | None = None) -> Profile:
    """Return the profile of a CPU engine or of a user's class (`package.module:Class`), for a language if one is given.

    Raises ConfigurationError when there is no such engine, or when it takes no language.
    """
    profile = PROFILES.get(name) or _custom(name)
    if profile is None:
        raise ConfigurationError(
            f"there is no engine {name!r}; there are: {', '.join(sorted(PROFILES))}, vllm, openai, "
            "or package.module:Class of your own"
        )
    if language is None or language == profile.language:
        return profile
    if profile.language is None:
        raise ConfigurationError(
            f"{name} needs no --language: it reads the scripts of its models "
            "(for others: --engine tesseract --language …)"
        )
    if not re.fullmatch(r"[A-Za-z_]+(/[A-Za-z_]+)?(\+[A-Za-z_]+(/[A-Za-z_]+)?)*", language):
        raise ConfigurationError(f"{language!r} is no list of languages; examples: eng, Fraktur, deu+fra")
    # The name is part of queue names: where its readable part is ambiguous, a digest is added.
    slug = re.sub(r"[^a-z]+", "-", language.lower()).strip("-")[:40]
    if slug.replace("-", "+") != language:
        slug = f"{slug[:31]}-{digest_of(language)[:8]}".lstrip("-")
    told = profile.model_dump() | {"name": f"{name}-{slug}", "language": language, "canary": Canary()}
    return Profile.model_validate(told)


def adapted(profile: Profile, *, text_layer: TextLayer = TextLayer.IGNORE, scripts: tuple[str, ...] = ()) -> Profile:
    """Return a profile with this use of text layers, that accepts only texts in these scripts; under its own name.

    `scripts` are names such as latin or greek, in any case. Raises ConfigurationError for an unknown script.
    """
    changes: dict[str, Any] = {}
    name = profile.name
    if text_layer is TextLayer.IGNORE and not scripts:
        return profile
    if text_layer is not TextLayer.IGNORE:
        changes["text_layer"] = text_layer
        name += f"-layer-{text_layer}"
    if scripts:
        wanted = tuple(sorted({script.upper() for script in scripts}))
        for script in wanted:
            if not any(unicodedata.name(chr(code), "").partition(" ")[0] == script for code in _LETTERS):
                raise ConfigurationError(
                    f"there is no script {script.lower()!r}; there are latin, greek, cyrillic, cjk, …"
                )
        changes["judgement"] = profile.judgement.model_copy(update={"scripts": wanted})
        name += "-" + "-".join(wanted).lower()
    return Profile.model_validate(profile.model_dump() | changes | {"name": name})


def _custom(name: str) -> Profile | None:
    """Return the profile of an engine named `package.module:Class`; None when `name` has another form."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-60:].strip("-")
    if not slug:
        return None
    return Profile(
        name=slug, engine=name, model="custom", revision="custom", render=Render(long_side=2000), pages_per_job=1
    )
