"""A TCP proxy that can drop, delay and half-close connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.support.waiting import scaled

_T = TypeVar("_T")


class Proxy:
    """Forwards a port of 127.0.0.1 to another one, in its own event loop. Thread-safe."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._refusing = False
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `mend`."""
        self._refusing = True
        self._each(lambda writer: writer.transport.abort())

    def half_close(self) -> None:
        """Half-close every connection."""
        self._each(lambda writer: writer.write_eof() if writer.can_write_eof() else None)

    def delay(self, seconds: float) -> None:
        """Delay all data by `seconds`, until `mend`."""
        self._delay = seconds

    def mend(self) -> None:
        self._refusing, self._delay = False, 0.0

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=scaled(10))

    def _each(self, act: Callable[[asyncio.StreamWriter], object]) -> None:
        async def all_of_them() -> None:
            for writer in list(self._writers):
                with contextlib.suppress(OSError, RuntimeError):
                    act(writer)

        self._call(all_of_them())

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        while self._writers:  # each connection's task ends when its ends are gone
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(scaled(0.05))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._forward(reader, back), self._forward(there, writer))
        finally:
            self._writers -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: it was half-closed
            while data := await source.read(1 << 16):
                if self._delay:
                    await asyncio.sleep(self._delay)
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
