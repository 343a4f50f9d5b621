"""The engine protocol: a page image goes in, a recognition comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from worker.imaging.page_image import PageImage

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.pages import Block, Line, Word
    from worker.engines.repetition import Loop


class ReadBy(NamedTuple):
    """Another engine that read a page for the one that was asked."""

    engine: str
    version: str
    model: str


@dataclass(frozen=True, slots=True)
class Score:
    """How sure a model is of a piece of the text that it wrote."""

    tokens: int
    characters: int
    #: 0..1: geometric mean of the probabilities of its tokens
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """The text of one page, as an engine read it.

    `lines` are in reading order. `text` has an empty line between paragraphs.
    """

    text: str
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    #: with their places, where the engine knows them; numbers of lines and blocks are indices in these
    words: tuple[Word, ...] = ()
    #: of the pieces of a generated text, in order; () where the engine gives the probability of no token
    scores: tuple[Score, ...] = ()
    #: why generation ended: stop, length, loop or deadline; None for engines that do not generate text
    finish_reason: str | None = None
    #: the repetition at the end of the text, if generation was stopped for one
    loop: Loop | None = None
    #: output tokens; None for engines that do not generate text
    tokens: int | None = None
    #: input tokens of prompt and image; None where the engine does not report them
    tokens_in: int | None = None
    #: which script of the page the engine lacks, and what to install; None where it can read all of the page
    lacking: str | None = None
    #: the engine that the text is from, where it is another
    read_by: ReadBy | None = None


class Engine(Protocol):
    """An OCR engine. A worker process constructs one as `Class(profile, settings)` and shares it between all its jobs."""

    #: name and version, e.g. "tesseract 5.3.0"; stored in each page's result
    version: str
    #: pages that the engine reads at the same time; final only after `start`
    concurrency: int
    #: further pages that the engine accepts, to preprocess them ahead
    ahead: int
    #: whether cancelling a call frees the engine; if not, a page that hangs makes the worker restart
    interruptible: bool

    @property
    def broken(self) -> str | None:
        """The reason why the engine can't read any more; None while it can. Polled from another thread."""

    async def start(self) -> None:
        """Load the model. Raises ConfigurationError if it can't load on this machine, whatever the number of tries."""

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page.

        `profile` is the engine's own profile, or a variant of it with another prompt or temperature. A caller that stops
        waiting cancels the call.

        Raises PageFaultError if this page can't be read, TransientError if another attempt should be made, and FatalError
        if the engine is broken: it died, or it hangs.
        """

    async def stop(self) -> None:
        """Release all resources. May be called twice."""
