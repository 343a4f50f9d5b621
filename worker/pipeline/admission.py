"""Admission: limits the pages, and the pixels of them, that a worker has in hand at the same time.

First come, first served, so that a page that must run alone is not overtaken for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Place:
    """The place of one page. `pixels` is the most that its image can have, until the image is rendered."""

    pixels: int
    alone: bool
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Admission:
    """At most `pages` pages with at most `pixels` pixels; a page larger than that is admitted alone. For one event loop."""

    def __init__(self, *, pages: int, pixels: int) -> None:
        self._pages = pages
        self._pixels = pixels
        self._inside: set[Place] = set()
        self._waiting: deque[Place] = deque()

    @property
    def waiting(self) -> int:
        """Pages that have no place yet."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, *, pixels: int, alone: bool) -> AsyncIterator[Place]:
        """Wait for a place, and keep it until the block ends. With `alone`, no other page has a place meanwhile."""
        place = Place(pixels, alone)
        self._waiting.append(place)
        self._admit()
        try:
            await place.admitted.wait()
            yield place
        finally:
            if place in self._inside:
                self._inside.remove(place)
            else:
                self._waiting.remove(place)
            self._admit()

    def resize(self, place: Place, pixels: int) -> None:
        """Set the pixels that a page takes, once its image is rendered: usually fewer than reserved."""
        place.pixels = pixels
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room(self._waiting[0]):
            place = self._waiting.popleft()
            self._inside.add(place)
            place.admitted.set()

    def _has_room(self, place: Place) -> bool:
        if not self._inside:
            return True
        if place.alone or any(other.alone for other in self._inside):
            return False
        taken = sum(other.pixels for other in self._inside)
        return len(self._inside) < self._pages and taken + place.pixels <= self._pixels
