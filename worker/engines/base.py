"""What an engine is: a page image goes in, a recognition comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from worker.imaging.page_image import PageImage

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.pages import Block, Line
    from worker.engines.repetition import Loop


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """What an engine read. `lines` stand in reading order; `text` has empty lines between paragraphs."""

    text: str
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    #: stop, length, loop, or deadline; None from engines that don't generate
    finish_reason: str | None = None
    #: what the text repeats at its end, and was stopped for
    loop: Loop | None = None
    #: tokens written; None from engines that don't generate
    tokens: int | None = None
    #: tokens read, of prompt and image; None where that is not told
    tokens_in: int | None = None


class Engine(Protocol):
    """One engine, loaded once in a worker process and shared by all its jobs. Made as `Class(profile, settings)`."""

    #: name and version of what reads, e.g. "tesseract 5.3.0": part of each page's result
    version: str
    #: pages that it takes at the same time; may be known only once it has started
    concurrency: int
    #: pages that it wants beyond those, to make them ready by itself
    ahead: int
    #: whether a cancelled call frees the engine; one that can't be interrupted is broken when a page hangs in it
    interruptible: bool

    @property
    def broken(self) -> str | None:
        """Why it can't read any more, where that shows without a page: asked now and then, from another thread."""

    async def start(self) -> None:
        """Load the model. Raises ConfigurationError when it can never load here."""

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page, as `profile` says: the engine's own, or that with another prompt or temperature.

        Raises PageFaultError when this page can't be read, TransientError when another attempt should be made, and
        FatalError when the engine is broken: it died, or it hangs. A caller that stops waiting cancels the call.
        """

    async def stop(self) -> None:
        """Let go of everything. May be called twice."""
