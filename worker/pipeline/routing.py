"""Pages that go to another profile's queue: by a rule of their profile, up its ladder, or back from there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import OcrfleetError
from ocrfleet.records.messages import Climbing, Routed

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile, RetryStep
    from ocrfleet.records.documents import Kind, Manifest
    from ocrfleet.records.messages import PageJob
    from worker.imaging.page_image import PageImage
    from worker.pipeline.store_retry import StoreRetry

#: Seconds that it is remembered which profiles are served.
_REMEMBERED = 5.0
_POINTS_PER_INCH = 72.0


@dataclass(frozen=True, slots=True)
class Destination:
    """The profile on whose queue a page is put, and what its job says of that."""

    profile: str
    routed: Routed | None = None
    climbing: Climbing | None = None


class MovedError(OcrfleetError):
    """The page goes to another profile: it has no record yet, and its job no more business with it."""

    def __init__(self, to: Destination) -> None:
        super().__init__(f"the page goes to profile {to.profile}")
        self.to = to


def back_home(job: PageJob, manifest: Manifest) -> Destination:
    """Return where a page goes that came to this worker for one attempt only."""
    return Destination(job.routed.profile if job.routed else manifest.profile, routed=job.routed)


class Router:
    """Knows a profile's rules, and which profiles are served."""

    def __init__(self, profile: Profile, ledger: Ledger, patience: StoreRetry) -> None:
        self._routes = profile.routes
        self._scripts = profile.judgement.scripts
        self._ledger = ledger
        self._patience = patience
        self._asked = -_REMEMBERED
        self._served: dict[str, str] = {}

    @property
    def rules(self) -> bool:
        return bool(self._routes)

    async def check(self, image: PageImage, *, ink: float, kind: Kind) -> None:
        """Raise MovedError when a rule fits the page and somebody serves the profile that it names."""
        inches = max(image.width_pt, image.height_pt) / _POINTS_PER_INCH
        route = next((route for route in self._routes if route.fits(inches=inches, ink=ink, kind=kind)), None)
        if route is None:
            return
        digest = (await self._profiles()).get(route.to)
        if digest is not None:
            to = Routed(profile=route.to, profile_digest=digest, scripts=self._scripts)
            raise MovedError(Destination(route.to, routed=to))

    async def up(self, job: PageJob, number: int, rung: RetryStep) -> Destination | None:
        """Return where a rung sends a page; None when nobody serves that profile."""
        digest = (await self._profiles()).get(rung.profile or "")
        if rung.profile is None or digest is None:
            return None
        climbing = Climbing(
            profile=rung.profile,
            profile_digest=digest,
            scripts=job.routed.scripts if job.routed is not None else self._scripts,
            rung=number,
            max_tokens=rung.max_tokens,
            deadline=rung.deadline,
        )
        return Destination(rung.profile, routed=job.routed, climbing=climbing)

    async def _profiles(self) -> dict[str, str]:
        """Return the digests of the profiles that are served, by name."""
        if time.monotonic() - self._asked >= _REMEMBERED:
            workers = await self._patience.call(self._ledger.workers)
            self._served = {state.profile: state.profile_digest for state in workers}
            self._asked = time.monotonic()
        return self._served
