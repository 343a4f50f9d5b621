"""Client of the word finder: finds words on page images in sandboxed processes beside the engine."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PageFaultError, Reason
from ocrfleet.records.pages import Word
from ocrfleet.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from worker.imaging.page_image import PageImage

#: Memory limit of a process in bytes: models, ONNX Runtime, OpenCV, and a page of eight million pixels.
_MEMORY = 6 << 30
_BYTES_PER_PIXEL = 3


class WordFinder:
    """Finds the words of up to `size` pages at the same time, each in its own process. Pages have at most `max_pixels`."""

    def __init__(self, size: int, *, max_pixels: int, deadline: float) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        # As many threads as processes: a running thread always gets a free process. Further pages wait in the executor's queue.
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="words")
        self._all = [
            Sandbox("worker.words.find", memory=_MEMORY, shared=max_pixels * _BYTES_PER_PIXEL, alone=True)
            for _ in range(size)
        ]
        self._free = list(self._all)

    async def find(self, image: PageImage) -> tuple[Word, ...]:
        """Return the words on a page image, in reading order, with their boxes and lines.

        Raises PageFaultError if the process crashes or exceeds its deadline, TransientError after `close`, and FatalError if no
        process can be started.
        """
        return await asyncio.wrap_future(self._threads.submit(self._find, image))

    def close(self) -> None:
        """Kill the processes. Idempotent."""
        for sandbox in self._all:
            sandbox.close()
        self._threads.shutdown(cancel_futures=True)

    def _find(self, image: PageImage) -> tuple[Word, ...]:
        size = image.width * image.height * _BYTES_PER_PIXEL
        with self._lock:
            sandbox = self._free.pop()
        try:
            if sandbox.shared is None or size > len(sandbox.shared):
                raise PageFaultError(Reason.INTERNAL_ERROR, "the page image is too large to find words on")
            sandbox.shared[:size] = image.pixels.tobytes()
            request = {"width": image.width, "height": image.height}
            return _words(sandbox.call(request, deadline=self._deadline))
        finally:
            with self._lock:
                self._free.append(sandbox)


def _words(answer: dict[str, Any]) -> tuple[Word, ...]:
    """Return the validated words of an answer."""
    match answer:
        case {"words": list(words)}:
            return tuple(map(_word, words))
        case _:
            raise _nonsense()


def _word(value: Any) -> Word:
    match value:
        case [str(text), [float(x0), float(y0), float(x1), float(y1)], int(line)] if all(
            map(math.isfinite, (x0, y0, x1, y1))
        ):
            return Word(text, (x0, y0, x1, y1), None, line)
        case _:
            raise _nonsense()


def _nonsense() -> PageFaultError:
    return PageFaultError(Reason.INTERNAL_ERROR, "the process that finds words answered nonsense")
