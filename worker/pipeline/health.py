"""Whether this worker may go on: broken, stuck or leaving."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Health:
    """Whether a worker goes on. `stuck`: a page hangs in an engine that can't be interrupted, so it gets no other.

    `broken`: the engine is, or it may not go on. `draining`: no page is begun any more.
    """

    stuck: bool = False
    broken: bool = False
    draining: bool = False

    @property
    def leaving(self) -> bool:
        """Whether pages that were not begun go to other workers."""
        return self.stuck or self.broken or self.draining
