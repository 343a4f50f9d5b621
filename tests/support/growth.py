"""How work grows with its input, in the seconds of a core: the same on an idle machine and on a busy one."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Shorter measurements in CPU seconds are mostly noise.
_NOISE = 0.005


def assert_grows_linearly(work: Callable[[int], object], size: int) -> None:
    """Assert that eight times the input takes far less than 64 times the work.

    `work` is called with a size, an eighth of `size` and then all of it. The best of up to three attempts counts, as a
    garbage collection or a neighbour on the same core falls into some.
    """
    ratio = 0.0
    for _ in range(3):
        small, large = _cost(work, size // 8), _cost(work, size)
        ratio = large / max(small, _NOISE)
        if ratio < 30:  # between 8 and 64
            return
    raise AssertionError(f"eight times the input took {ratio:.0f} times the work")


def _cost(work: Callable[[int], object], size: int) -> float:
    begun = time.thread_time()
    work(size)
    return time.thread_time() - begun
