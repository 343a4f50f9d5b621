"""`submit --dry-run`: what a submission would be, and what it would take. Nothing is written but a few sources into the cache."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, TransientError
from ocrfleet.records.documents import Kind
from ocrfleet.sources.sources import OwnOutputError
from producer.intake.discover import SUFFIXES
from producer.intake.page_ranges import select
from producer.state.speed import speed

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.submissions import SourceReference, SubmissionOptions
    from ocrfleet.settings import Settings
    from producer.intake.inspect import Intake

#: Documents whose pages are counted, of those that may have several: each is fetched for that.
_COUNTED = 10
#: Kinds of files with any number of pages.
_SEVERAL = {Kind.PDF, Kind.TIFF, None}


@dataclass
class Preview:
    """What would be submitted."""

    documents: int = 0
    size: int = 0
    #: an estimate where not every document was counted
    pages: int = 0
    #: documents that may have several pages, and how many of them were counted
    several: int = 0
    counted: int = 0
    #: of those that were counted: name and why it can't be read
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return self.counted == self.several


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the fleet reads what is submitted."""

    #: that serve the profile; 0: it is what one would read
    workers: int
    pages_per_second: float

    @classmethod
    def of(cls, ledger: Ledger, settings: Settings, profile: Profile) -> Speed:
        """Ask the workers; while Redis is away there are none."""
        try:
            workers = [state for state in ledger.workers() if state.profile_digest == profile.digest]
        except TransientError:
            workers = []
        assumed = settings.pages_per_second
        return cls(len(workers), speed(workers, assumed=assumed) or assumed)


def look(wishes: Iterable[SourceReference], terms: SubmissionOptions, intake: Intake) -> Preview:
    """Return what these wishes come to, by the pages of some of them. Raises TransientError, ConfigurationError."""
    found = Preview()
    chosen: list[SourceReference] = []
    single = _selected(terms, 1)
    for wish in wishes:
        found.documents += 1
        found.size += wish.size
        if SUFFIXES.get(PurePosixPath(wish.name).suffix.lower()) not in _SEVERAL:
            found.pages += single
            continue
        found.several += 1
        # Each is as likely to be among the chosen as any other, however many come.
        if len(chosen) < _COUNTED:
            chosen.append(wish)
        elif (place := random.randrange(found.several)) < _COUNTED:  # noqa: S311 - no secret
            chosen[place] = wish
    found.counted = len(chosen)
    counted = sum(_pages(wish, terms, intake, found.problems) for wish in chosen)
    found.pages += round(counted * found.several / max(1, found.counted))
    return found


def _pages(wish: SourceReference, terms: SubmissionOptions, intake: Intake, problems: list[tuple[str, str]]) -> int:
    try:
        return _selected(terms, intake.wished(wish).pages)
    except PermanentError as error:
        problems.append((wish.name, f"{error.reason}: {error.detail}"))
    except OwnOutputError as error:
        problems.append((wish.name, str(error)))
    return 0


def _selected(terms: SubmissionOptions, pages: int) -> int:
    """Return how many pages of so many are to be read."""
    try:
        return sum(last - first + 1 for first, last in select(terms.selection, pages))
    except PermanentError:
        return 0
