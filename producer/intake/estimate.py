"""`--dry-run`: how many pages documents have, and the time and the cost of reading them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, TransientError
from ocrfleet.records.documents import Kind
from ocrfleet.sources.sources import OwnOutputError
from producer.intake.discover import SUFFIXES, Skipped
from producer.intake.page_ranges import select
from producer.state.speed import speed

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.submissions import SourceReference, SubmissionOptions
    from ocrfleet.settings import Settings
    from producer.intake.inspect import Intake

#: Documents of a submission whose pages are counted, of those that may have several: each is fetched for that.
_COUNTED = 10
#: Kinds of files with any number of pages.
_SEVERAL = {Kind.PDF, Kind.TIFF, None}
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class ReadingSpeed:
    """Speed of the workers that will read the pages."""

    #: 0: no worker serves the profile now, and the speed is that of one
    workers: int
    pages_per_second: float

    @classmethod
    def of_fleet(cls, ledger: Ledger, settings: Settings, profile: Profile) -> ReadingSpeed:
        """Return the measured speed of the workers that serve a profile; while Redis is away there are none."""
        try:
            workers = [state for state in ledger.workers() if state.profile_digest == profile.digest]
        except TransientError:
            workers = []
        assumed = settings.pages_per_second
        return cls(len(workers), speed(workers, assumed=assumed) or assumed)

    @classmethod
    def of_machine(cls, profile: Profile, workers: int) -> ReadingSpeed:
        """Return the speed of so many worker processes on this machine, by the profile's typical seconds a page."""
        return cls(workers, workers / max(profile.typical_seconds, 1e-6))


@dataclass(frozen=True, slots=True)
class UnreadableSource:
    """A document that can't be read."""

    name: str
    why: str
    #: of ocrfleet.errors.Reason; None for a result of this program, which is never read
    reason: str | None = None

    def __str__(self) -> str:
        return self.why if self.reason is None else f"{self.reason}: {self.why}"


@dataclass
class Estimate:
    """The documents and pages that a run or a submission would read."""

    speed: ReadingSpeed
    documents: int = 0
    #: bytes of the documents
    size: int = 0
    #: an estimate where not every document was counted
    pages: int = 0
    #: pages whose result is in the store already
    done: int = 0
    #: documents that may have several pages, and how many of them were counted
    several: int = 0
    counted: int = 0
    problems: list[UnreadableSource] = field(default_factory=list)
    #: files that are no documents
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return self.counted == self.several

    @property
    def seconds(self) -> float:
        """Seconds that the pages take which are not done."""
        return (self.pages - self.done) / self.speed.pages_per_second

    def cost(self, price_per_gpu_hour: float | None) -> float | None:
        """Return the cost of one GPU a worker for that time; None without a price."""
        if price_per_gpu_hour is None:
            return None
        return self.seconds / _HOUR * max(1, self.speed.workers) * price_per_gpu_hour


def estimate_submission(
    sources: Iterable[SourceReference], options: SubmissionOptions, intake: Intake, speed: ReadingSpeed
) -> Estimate:
    """Return the estimate of a submission, by the pages of some of its sources. Writes nothing but these to the cache.

    Raises TransientError and ConfigurationError when a source can't be fetched.
    """
    estimate = Estimate(speed)
    sample: list[SourceReference] = []
    single = _selected(options, 1)
    for source in sources:
        estimate.documents += 1
        estimate.size += source.size
        if SUFFIXES.get(PurePosixPath(source.name).suffix.lower()) not in _SEVERAL:
            estimate.pages += single
            continue
        estimate.several += 1
        # Each source gets into the sample with the same probability, however many come (reservoir sampling).
        if len(sample) < _COUNTED:
            sample.append(source)
        elif (place := random.randrange(estimate.several)) < _COUNTED:  # noqa: S311 - no secret
            sample[place] = source
    estimate.counted = len(sample)
    counted = sum(_pages(source, options, intake, estimate.problems) for source in sample)
    estimate.pages += round(counted * estimate.several / max(1, estimate.counted))
    return estimate


def _pages(
    source: SourceReference, options: SubmissionOptions, intake: Intake, problems: list[UnreadableSource]
) -> int:
    try:
        return _selected(options, intake.inspect(source).pages)
    except PermanentError as error:
        problems.append(UnreadableSource(source.name, error.detail, error.reason))
    except OwnOutputError as error:
        problems.append(UnreadableSource(source.name, str(error)))
    return 0


def _selected(options: SubmissionOptions, pages: int) -> int:
    """Return how many pages of a document with `pages` pages are selected."""
    try:
        return sum(last - first + 1 for first, last in select(options.selection, pages))
    except PermanentError:
        return 0
