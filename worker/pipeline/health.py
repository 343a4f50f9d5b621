"""State of this worker: running, draining or broken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Health:
    """The state of one worker, which its parts set and read. For one event loop, but for `draining`."""

    #: a page hangs in an engine that can't be interrupted: the engine gets no other page
    stuck: bool = False
    #: the engine is broken, or it may not go on
    broken: bool = False
    #: no further page is begun
    draining: bool = False
    #: the drain took too long: pages that were begun go back to the queue
    giving_back: bool = False

    @property
    def leaving(self) -> bool:
        """Whether pages that were not begun go to other workers."""
        return self.stuck or self.broken or self.draining
