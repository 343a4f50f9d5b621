"""Profiles: which engine reads a page, with which model, prompt and image. Data, and part of a document's identity.

They stand in the contract and not beside the engines because a producer needs a profile's digest to name a document.
Adding a model is adding one: here, in `models.py` for a family with prompts and modes, or in a JSON file of your own.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ocrfleet.errors import ConfigurationError, Reason
from ocrfleet.records.base import Record, digest_of
from ocrfleet.records.documents import Kind

#: Raised whenever our own code changes the text that the same engine gives for the same page (rendering, reading order).
TEXT_VERSION = 2

#: Where the letters of living scripts stand in Unicode.
_LETTERS = range(0x41, 0xD7A4)

ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


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


class Parser(StrEnum):
    """What an engine's output is made of."""

    #: text, to be taken as it is
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
    """How a model writes."""

    #: tokens that a page may take, with room left for the prompt and the image in the model's context
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    #: no run of so many tokens comes twice within the window: the published guard against loops; None is off
    ngram_size: int | None = Field(default=None, ge=1)
    ngram_window: int = Field(default=90, ge=1)
    #: tokens that may repeat all the same
    ngram_whitelist: tuple[int, ...] = ()


class Mode(Record):
    """A resolution mode of a model: how its processor cuts a page image."""

    name: str
    #: side of the square that the whole page is fitted into, in pixels
    base_size: int = Field(ge=64)
    #: side of the square tiles that a larger page is cut into as well, in pixels
    image_size: int = Field(ge=64)
    #: whether there are tiles
    tiles: bool
    #: whether the page is padded to a square first, where the processor would distort it
    pad: bool = False
    #: tokens that the page image takes at most
    image_tokens: int = Field(ge=1)


class TextLayer(StrEnum):
    """What becomes of the text that a PDF page has already."""

    #: the page is read as if there were none
    IGNORE = "ignore"
    #: it is taken where it can be trusted (worker/text_layer/trust.py); other pages are read
    PREFER = "prefer"
    #: it is taken where it can be trusted; other pages fail
    ONLY = "only"


class Judgement(Record):
    """When a text is not believed (worker/pipeline/verdict.py). The numbers come from bench/verdicts.py, over the corpus' honest texts."""

    #: doubts that do not count, as that a description of a picture has more letters than the picture
    ignored: tuple[Reason, ...] = ()
    #: Unicode's names of the scripts that the pages are in, as LATIN, GREEK or CJK; not judged where there are none
    scripts: tuple[str, ...] = ()
    #: share of a text's letters that must be in them
    least_in_scripts: float = Field(default=0.5, ge=0, le=1)
    #: letters that a text must have to be judged by its script
    fewest_for_script: int = Field(default=20, ge=1)
    #: share of a text's words that may mix alphabets, Latin with Cyrillic letters say: honest ones have 0.03 at
    #: most, in Arabic, whose "and" is written with the next word
    most_mixed: float = Field(default=0.2, ge=0, le=1)
    #: share of a text's signs that may be control characters, of private use, unassigned, or U+FFFD: honest ones have 0.03
    #: at most (a PDF's own text, with formulas); one or two are allowed in any
    most_garbage: float = Field(default=0.05, ge=0, le=1)
    #: share of letters and digits among them and the other signs, without rules, leaders and brackets: honest ones have 0.9
    least_readable: float = Field(default=0.15, ge=0, le=1)
    #: letters and digits that a text may have for each inked square of 4 x 4 pixels, if the page's longer side were 1,024
    #: pixels: honest ones of more than 200 have 0.45 at most …
    most_on_a_square: float = Field(default=1.2, gt=0)
    #: … and for each letter that the marks on the page can be; both must be exceeded: honest ones have 2.7 at most …
    most_for_a_letter: float = Field(default=8.0, gt=0)
    #: … and as many as this whatever is on the page: a stain may hide a line
    always_allowed: int = Field(default=200, ge=0)
    #: marks in rows, as those of print, of which at least one in `letters_for_one` must have been read: hatching and
    #: photographs have 35 at most, blurred noise was seen with 67 …
    fewest_letters: int = Field(default=60, ge=1)
    #: … and their share of the letters that all marks on the page can be: these have 0.025 at most, print 0.06 at least
    least_in_rows: float = Field(default=0.04, ge=0, le=1)
    #: honest texts have one for each mark at least
    letters_for_one: int = Field(default=10, ge=1)
    #: the same where the model says that all of the page is pictures, for marks within these: maps and charts have many
    fewest_letters_in_figures: int = Field(default=250, ge=1)


class RetryStep(Record):
    """One more way to try a page whose text was not believed, or that failed by itself; what is None stays as it is."""

    #: what it is a remedy for; everything where it is empty
    after: tuple[Reason, ...] = ()
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    prompt: str | None = None
    #: of what comes back after that prompt
    parser: Parser | None = None
    #: pixels of the page image, as in Render
    long_side: int | None = Field(default=None, ge=64, le=20_000)
    #: limits of this attempt: tokens, and seconds in the engine
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)
    #: another profile, for one attempt, if somebody serves it
    profile: ProfileName | None = None
    #: the PDF's own text, if there is one to be trusted
    text_layer: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        changes = (self.temperature, self.prompt, self.parser, self.long_side)
        if any(change is not None for change in changes) + (self.profile is not None) + self.text_layer != 1:
            raise ValueError(
                "a rung is another profile, or the text layer, or changes of this profile: one of the three"
            )
        return self


class Canary(Record):
    """What must come back from the canary page (worker/pipeline/canary.py) before a worker is ready."""

    #: words that must be read, in small letters
    words: tuple[str, ...] = ()
    #: read it twice: the texts must be the same, and not empty
    twice: bool = False
    #: asked with this prompt where the profile's own does not ask for the text
    prompt: str | None = None


class Route(Record):
    """Sends a page to another profile, where a worker serves that: the first route of a profile that fits decides.

    What is None fits every page.
    """

    to: ProfileName
    #: inches of the page's longer side
    min_inches: float | None = Field(default=None, gt=0)
    max_inches: float | None = Field(default=None, gt=0)
    #: share of the page image that is ink, 0..1
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
        """Say whether a page of this size, ink and kind of source takes this route."""
        return (
            (self.min_inches is None or inches >= self.min_inches)
            and (self.max_inches is None or inches <= self.max_inches)
            and (self.min_ink is None or ink >= self.min_ink)
            and (self.max_ink is None or ink <= self.max_ink)
            and (self.kinds is None or kind in self.kinds)
        )


class Profile(Record):
    """One engine in one mode. A worker serves one profile, and a profile has queues of its own."""

    name: ProfileName
    engine: str
    model: str
    revision: str
    #: where the model's files lie, for models that are not fetched by name
    model_path: Path | None = None
    #: languages or scripts that the engine must be told, in its own words
    language: str | None = None
    #: what a model is asked, for engines that are asked: <image> and words
    prompt: str | None = None
    #: how the words reach the model where nobody else writes its chat out: all of it, the image's place included, with
    #: {prompt} where they go; None for a model that is given the prompt as it is
    template: str | None = None
    sampling: Sampling | None = None
    mode: Mode | None = None
    parser: Parser = Parser.TEXT
    render: Render
    text_layer: TextLayer = TextLayer.IGNORE
    judgement: Judgement = Judgement()
    #: ways to try a page again: from where it stands, the next one that is a remedy for what it fell with
    ladder: tuple[RetryStep, ...] = ()
    #: pages that go elsewhere
    routes: tuple[Route, ...] = ()
    text_version: int = TEXT_VERSION
    #: pages that one message carries
    pages_per_job: int = Field(default=8, ge=1, le=1000)
    #: seconds after which a page that is being recognised counts as hung
    page_deadline: float = Field(default=300.0, gt=0)
    canary: Canary = Canary()
    #: seconds a page takes on one core, for estimates before anything was measured (bench/accuracy.py)
    typical_seconds: float = 1.0

    @property
    def digest(self) -> str:
        """SHA-256 of what changes the text: neither how pages are batched nor how long they may take."""
        operational = {"name", "model_path", "pages_per_job", "page_deadline", "canary", "typical_seconds"}
        return digest_of(self.model_dump_json(exclude=operational))

    @property
    def destinations(self) -> tuple[str, ...]:
        """Names of the profiles that its pages may be sent to, by a route or by a rung."""
        rungs = (rung.profile for rung in self.ladder if rung.profile is not None)
        return tuple(sorted({*(route.to for route in self.routes), *rungs}))

    def at(self, rung: RetryStep) -> Profile:
        """Return the profile as a rung changes it."""
        changes: dict[str, Any] = {}
        if rung.prompt is not None:
            changes["prompt"] = rung.prompt
        if rung.parser is not None:
            changes["parser"] = rung.parser
        if rung.long_side is not None:
            changes["render"] = self.render.model_copy(update={"long_side": rung.long_side})
        if rung.temperature is not None and self.sampling is not None:
            changes["sampling"] = self.sampling.model_copy(update={"temperature": rung.temperature})
        return self.model_copy(update=changes).limited(max_tokens=rung.max_tokens, deadline=rung.deadline)

    def limited(self, *, max_tokens: int | None = None, deadline: float | None = None) -> Profile:
        """Return the profile with no more tokens for a page than this, and so many seconds; None leaves it as it is."""
        changes: dict[str, Any] = {}
        if deadline is not None:
            changes["page_deadline"] = deadline
        if max_tokens is not None and self.sampling is not None and self.sampling.max_tokens > max_tokens:
            changes["sampling"] = self.sampling.model_copy(update={"max_tokens": max_tokens})
        return self.model_copy(update=changes)


#: For engines that can't be asked in another way.
_OWN_TEXT = RetryStep(
    after=(Reason.EMPTY, Reason.INVENTED, Reason.WRONG_SCRIPT, Reason.ENGINE_FAILED, Reason.ENGINE_DEADLINE),
    text_layer=True,
)

RAPIDOCR = Profile(
    name="rapidocr",
    engine="rapidocr",
    model="PP-OCRv6-small",
    revision="rapidocr-3.10.0",
    render=Render(long_side=2500),
    ladder=(_OWN_TEXT,),
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
    ladder=(_OWN_TEXT,),
    pages_per_job=1,
    canary=Canary(words=("ferry", "nine")),
    typical_seconds=1.5,
)

PROFILES = {profile.name: profile for profile in (RAPIDOCR, TESSERACT)}


def resolve(name: str, *, language: str | None = None) -> Profile:
    """Return the profile of a CPU engine or of a class of the user's, for a language if one is given.

    Raises ConfigurationError when there is no such profile, or when its engine takes no language.
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
            f"{name} needs no --language: it reads the scripts it knows without being told "
            "(for others: --engine tesseract --language …)"
        )
    if not re.fullmatch(r"[A-Za-z_]+(/[A-Za-z_]+)?(\+[A-Za-z_]+(/[A-Za-z_]+)?)*", language):
        raise ConfigurationError(f"{language!r} is no list of languages; examples: eng, Fraktur, deu+fra")
    # A name is a queue's: where the readable part says less than the language, a digest tells two apart.
    slug = re.sub(r"[^a-z]+", "-", language.lower()).strip("-")[:40]
    if slug.replace("-", "+") != language:
        slug = f"{slug[:31]}-{digest_of(language)[:8]}".lstrip("-")
    told = profile.model_dump() | {"name": f"{name}-{slug}", "language": language, "canary": Canary()}
    return Profile.model_validate(told)


def adapted(profile: Profile, *, text_layer: TextLayer = TextLayer.IGNORE, scripts: tuple[str, ...] = ()) -> Profile:
    """Return a profile that takes text layers as told, and believes only texts in these scripts; under a name of its own.

    `scripts` are names such as latin or greek, in letters of any size. Raises ConfigurationError for one that is unknown.
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
    """Return the profile of an engine that is given as `package.module:Class`; None when `name` is no such thing."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        return None
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-60:].strip("-")
    if not slug:
        return None
    return Profile(
        name=slug, engine=name, model="custom", revision="custom", render=Render(long_side=2000), pages_per_job=1
    )
