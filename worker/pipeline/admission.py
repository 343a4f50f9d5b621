"""Admission: how many pages, and how many pixels of them, a worker has in hand at the same time.

First come, first served, so that a page that needs the worker for itself is not starved by others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Place:
    """A page's place. `pixels` is what it may take until it is known what it takes."""

    pixels: int
    alone: bool
    given: asyncio.Event = field(default_factory=asyncio.Event)


class Admission:
    """At most `pages` pages with at most `pixels` pixels; a page larger than that is admitted by itself. For one loop."""

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
        """Wait for a place, and hold it until the block ends; alone, nobody else is inside."""
        place = Place(pixels, alone)
        self._waiting.append(place)
        self._let_in()
        try:
            await place.given.wait()
            yield place
        finally:
            if place in self._inside:
                self._inside.remove(place)
            else:
                self._waiting.remove(place)
            self._let_in()

    def takes(self, place: Place, pixels: int) -> None:
        """Note what a page takes, once that is known: usually less than was feared."""
        place.pixels = pixels
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._has_room(self._waiting[0]):
            place = self._waiting.popleft()
            self._inside.add(place)
            place.given.set()

    def _has_room(self, place: Place) -> bool:
        if not self._inside:
            return True
        if place.alone or any(other.alone for other in self._inside):
            return False
        taken = sum(other.pixels for other in self._inside)
        return len(self._inside) < self._pages and taken + place.pixels <= self._pixels
