"""Renders pages in sandboxed processes: the worker's side."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import cv2
import numpy as np

from ocrfleet.errors import ConfigurationError, PageFaultError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox.sandbox import Sandbox
from worker import metrics
from worker.imaging.page_image import PageImage
from worker.text_layer.words import NO_LAYER, TextLayerWords, layer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ocrfleet.profiles.profile import Render

_BYTES_PER_PIXEL = 3
#: The most warnings of a page that are kept, and the most characters of each.
_MOST_WARNINGS, _LONGEST_WARNING = 20, 400

_Answer = TypeVar("_Answer")


@dataclass
class _Renderer:
    """A sandbox and the document that it has open."""

    sandbox: Sandbox
    document: str | None = None


class RenderPool:
    """Renders up to `size` pages at the same time, each in a process that may crash, hang or run out of `memory` (bytes).

    A process renders pages of one document.

    No page image has more than `max_pixels`; the memory that each process shares with this one is bounded by that.
    """

    def __init__(self, size: int, *, memory: int, max_pixels: int) -> None:
        self.size = size
        # Pages are rendered in parallel: threads within a page would cost more than they gain. This applies to the process.
        cv2.setNumThreads(1)
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        # As many threads as sandboxes: a running thread always finds a free one, and calls wait in the executor's queue.
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="render")
        shared = max_pixels * _BYTES_PER_PIXEL
        self._all = [
            _Renderer(Sandbox("worker.rendering.rasterise", memory=memory, shared=shared)) for _ in range(size)
        ]
        #: longest unused first
        self._free = list(self._all)

    async def render(
        self,
        document_key: str,
        fd: int,
        kind: Kind,
        page_index: int,
        render: Render,
        *,
        passwords: Sequence[str] = (),
        deadline: float,
    ) -> PageImage:
        """Render page `page_index`, from 0, of the file open as `fd`, within `deadline` seconds once it is its turn.

        `document_key` names the file's content: a process keeps the file open for the next page under the same key. A process gets one
        of the `passwords` only if the document needs one.
        Raises PermanentError, PageFaultError, or FatalError when no process can be started.
        """
        if render.max_pixels > self._max_pixels:
            raise ConfigurationError(
                f"the profile allows {render.max_pixels} pixels a page, this worker renders at most {self._max_pixels}"
            )
        request = {
            "want": "pixels",
            "kind": kind,
            "page": page_index,
            "render": render.model_dump(mode="json"),
        }
        return await self._ask(document_key, request, fd, _page_image, passwords=passwords, deadline=deadline)

    async def layer(
        self,
        document_key: str,
        fd: int,
        kind: Kind,
        page_index: int,
        *,
        passwords: Sequence[str] = (),
        deadline: float,
    ) -> TextLayerWords:
        """Return the text layer of a page; arguments and errors are those of `render`.

        It is not checked: see worker/text_layer/trust.py. A page of an image file has none.
        """
        if kind is not Kind.PDF:
            return NO_LAYER
        request = {"want": "text", "kind": kind, "page": page_index}
        return await self._ask(
            document_key, request, fd, lambda answer, _: layer_of(answer), passwords=passwords, deadline=deadline
        )

    async def _ask(
        self,
        document_key: str,
        request: dict[str, Any],
        fd: int,
        understand: Callable[[dict[str, Any], Sandbox], _Answer],
        *,
        passwords: Sequence[str],
        deadline: float,
    ) -> _Answer:
        """Send the request to a process; `understand` parses the response before the process gets another request."""
        # A cancelled caller may close its descriptor, and the number may be reused for another document.
        own_fd = os.dup(fd)
        try:
            future = self._threads.submit(
                self._answer, document_key, request, own_fd, understand, passwords=passwords, deadline=deadline
            )
        except RuntimeError:
            os.close(own_fd)
            raise
        future.add_done_callback(lambda _: os.close(own_fd))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the processes, at once; pages being rendered raise TransientError. Idempotent."""
        for renderer in self._all:
            renderer.sandbox.close()
        self._threads.shutdown(cancel_futures=True)

    def _answer(
        self,
        document: str,
        request: dict[str, Any],
        fd: int,
        understand: Callable[[dict[str, Any], Sandbox], _Answer],
        *,
        passwords: Sequence[str],
        deadline: float,
    ) -> _Answer:
        renderer = self._take(document)
        try:
            answer = renderer.sandbox.call(request, fd=fd, deadline=deadline, document=document, passwords=passwords)
            return understand(answer, renderer.sandbox)
        except PageFaultError as fault:
            metrics.count_renderer_fault(fault)
            raise
        finally:
            with self._lock:
                self._free.append(renderer)

    def _take(self, document: str) -> _Renderer:
        """Take the sandbox that has the document open if it is free, otherwise the one that was unused for longest."""
        with self._lock:
            renderer = next((free for free in self._free if free.document == document), self._free[0])
            self._free.remove(renderer)
        renderer.document = document
        return renderer


def _page_image(answer: dict[str, Any], sandbox: Sandbox) -> PageImage:
    """Copy the pixels from the shared memory, in RGB and at their final size. The response is checked completely."""
    match answer:
        case {
            "stored_width": int(stored_width),
            "stored_height": int(stored_height),
            "channels": (1 | 3) as channels,
            "width": int(width),
            "height": int(height),
            "width_pt": float(width_pt),
            "height_pt": float(height_pt),
            "rotation": (0 | 90 | 180 | 270) as rotation,
            "warnings": list(warnings),
            "missing": float(missing),
        } if (
            sandbox.shared is not None
            and 0 < width_pt < math.inf
            and 0 < height_pt < math.inf
            and 0 <= missing <= 1
            and min(stored_width, stored_height, width, height) > 0
            and stored_width * stored_height * channels <= len(sandbox.shared)
            and width * height * _BYTES_PER_PIXEL <= len(sandbox.shared)
        ):
            count = stored_width * stored_height * channels
            stored = np.frombuffer(sandbox.shared, np.uint8, count).reshape(stored_height, stored_width, channels)
            pixels = _in_rgb(stored, (width, height))
            return PageImage(
                pixels=pixels,
                width_pt=width_pt,
                height_pt=height_pt,
                rotation=int(rotation),
                warnings=tuple(_warning(warning) for warning in warnings[:_MOST_WARNINGS]),
                missing=missing,
            )
        case _:
            raise _nonsense()


def _warning(value: Any) -> PageWarning:
    match value:
        case [str(code), str(detail)] if code in set(WarningCode):
            # Half a surrogate pair can't be stored.
            return PageWarning(
                code=WarningCode(code), detail=detail[:_LONGEST_WARNING].encode(errors="replace").decode()
            )
        case _:
            raise _nonsense()


def _nonsense() -> PageFaultError:
    return PageFaultError(Reason.RENDER_CRASHED, "the decoder answered nonsense: the file is probably damaged")


def _in_rgb(stored: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a copy in RGB and of this size (width, height), which is slightly smaller. Runs in parallel threads.

    Bicubic: at 1.04 times the size it is closer to a Lanczos filter over the whole scan (38 dB) than linear (31 dB).
    """
    pixels = stored
    if (stored.shape[1], stored.shape[0]) != size:
        pixels = cast("NDArray[np.uint8]", cv2.resize(stored, size, interpolation=cv2.INTER_CUBIC))
    if stored.shape[2] == 1:
        return cast("NDArray[np.uint8]", cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    return stored.copy() if pixels is stored else pixels
