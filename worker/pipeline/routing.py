"""Routing: sends pages to the queues of other profiles, by a route or a retry step of this worker's profile.

A routed page stays with the profile that it went to, which tries it by its own retry steps. It may be sent on from there, but
never to its document's own profile nor to one that sent it on before: so it passes each profile once at most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ocrfleet.records.messages import Routed

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import RetryStep
    from ocrfleet.records.documents import Kind
    from worker.imaging.page_image import PageImage
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.page import Page

#: Seconds for which the list of served profiles is kept.
_REMEMBERED = 5.0
_POINTS_PER_INCH = 72.0


class Router:
    """Decides by the routes and retry steps of one profile, and by which profiles workers serve now."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._profile = context.profile
        self._read_at = -_REMEMBERED
        self._served: dict[str, str] = {}

    def has_routes(self, page: Page) -> bool:
        """Say whether a route may apply to the page: each page is routed once."""
        return bool(self._profile.routes) and page.job.routed is None

    async def by_route(self, image: PageImage, *, ink: float, kind: Kind) -> Routed | None:
        """Return where a route sends a page with this share of ink (0..1); None when none applies or is served."""
        inches = max(image.width_pt, image.height_pt) / _POINTS_PER_INCH
        matching = (route for route in self._profile.routes if route.fits(inches=inches, ink=ink, kind=kind))
        route = next(matching, None)
        digest = (await self._served_profiles()).get(route.to) if route is not None else None
        if route is None or digest is None:
            return None
        return Routed(profile=route.to, profile_digest=digest, scripts=self._profile.judgement.scripts)

    async def by_step(self, page: Page, number: int, step: RetryStep) -> Routed | str:
        """Return where a retry step that names another profile sends a page, or why it can't."""
        name = step.profile or ""
        sent_before = name in page.sent_on and page.sent_on.get(self._profile.name) != number
        if name in {page.manifest.profile, self._profile.name} or sent_before:
            return f"{name} had the page before"
        digest = (await self._served_profiles()).get(name)
        if digest is None:
            return f"no worker serves {name}"
        routed = page.job.routed
        return Routed(
            profile=name,
            profile_digest=digest,
            scripts=self._profile.judgement.scripts if routed is None else routed.scripts,
            rung=page.steps_before + number,
            max_tokens=step.max_tokens,
            deadline=step.deadline,
            sent_on=page.sent_on | {self._profile.name: number},
        )

    async def _served_profiles(self) -> dict[str, str]:
        """Return the digests of the profiles that workers serve, by name."""
        if time.monotonic() - self._read_at >= _REMEMBERED:
            workers = await self._context.store_retry.call(self._context.ledger.workers)
            self._served = {state.profile: state.profile_digest for state in workers}
            self._read_at = time.monotonic()
        return self._served
