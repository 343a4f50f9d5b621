"""Fuzz the decoders through the sandbox: damaged documents of the corpus, opened, drawn and read.

    OCRFLEET_CORPUS=… python -m bench.fuzz_decoders [--seconds 600] [--seed 1]

Each round takes a file of the corpus, or a picture in a format that it may lack, damages it (flipped bits, lost, repeated and foreign pieces, extreme numbers, another file's tail), and lets
the sandboxed programs count its pages, draw one and extract its text, and extract its image. Counted are:

- escapes: a file or a listener of the fuzzer that a process reached; must be 0
- forbidden: processes that the filter of system calls ended (SIGSYS), or that raised PermissionError: the list is too tight, or an
  input took a decoder over. Their inputs are kept. Must be 0
- dead pools: after a fault, an intact document that can't be opened any more; must be 0
- contained: crashes, deadlines, lack of memory; they cost their own document only
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import PIL.Image
import pymupdf

from ocrfleet.errors import OcrfleetError, PageFaultError, PermanentError
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.sandbox import Sandbox
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff

MEMORY, SHARED = 256 << 20, 24 << 20
DEADLINE = 10.0
#: Files above this size would take most of the time.
LARGEST = 1 << 20
EXTREMES = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"4294967295",
    b"-1",
    b"0",
)
RENDER = Render(long_side=600, max_pixels=SHARED // 3).model_dump(mode="json")


def flipped(data: bytearray, _other: bytes, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 4, 32))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def lost(data: bytearray, _: bytes, chance: random.Random) -> None:
    begin = chance.randrange(len(data))
    del data[begin : begin + chance.randint(1, 1 + len(data) // 10)]


def repeated(data: bytearray, _: bytes, chance: random.Random) -> None:
    begin = chance.randrange(len(data))
    piece = data[begin : begin + chance.randint(1, 4096)]
    data[begin:begin] = piece * chance.randint(1, 8)


def extreme(data: bytearray, _other: bytes, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3))):
        number = chance.choice(EXTREMES)
        # Headers and directories lie at the beginning or at the end.
        near = chance.choice((min(len(data), 512), len(data)))
        begin = chance.choice((0, len(data) - near)) + chance.randrange(near)
        data[begin : begin + len(number)] = number


def digits(data: bytearray, _: bytes, chance: random.Random) -> None:
    places = [place for place in range(max(0, len(data) - 20_000), len(data)) if 48 <= data[place] <= 57]
    for place in chance.sample(places, min(len(places), 3)):
        data[place] = chance.randrange(48, 58)


def spliced(data: bytearray, other: bytes, chance: random.Random) -> None:
    begin = chance.randrange(len(data))
    piece = chance.randrange(max(1, len(other)))
    data[begin : begin + 4096] = other[piece : piece + 4096]


def cut(data: bytearray, _: bytes, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


DAMAGES: tuple[Callable[[bytearray, bytes, random.Random], None], ...] = (
    *(flipped, flipped, lost, repeated, extreme, extreme, digits, spliced, cut),
)


def damaged(data: bytes, other: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if made:
            chance.choice(DAMAGES)(made, other, chance)
    return bytes(made)


def drawn() -> list[tuple[Kind, bytes]]:
    """Return small pictures in the formats and compressions that the corpus may lack."""
    grey = PIL.Image.effect_noise((200, 120), 60)
    colour, bilevel = grey.convert("RGB"), grey.convert("1")
    pictures: tuple[tuple[PIL.Image.Image, str, dict[str, Any]], ...] = (
        (colour, "JPEG2000", {}),
        (grey, "JPEG2000", {"irreversible": True}),
        (colour, "BMP", {}),
        (grey.convert("P"), "PNG", {}),
        (grey.convert("I;16"), "PNG", {}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (bilevel, "TIFF", {"compression": "group4"}),
        *((colour, "TIFF", {"compression": name}) for name in ("tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate")),
    )
    made = []
    for picture, name, more in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, name, **more)
        kind = sniff(buffer.getvalue()[:SNIFF_BYTES])
        assert kind is not None
        made.append((kind, buffer.getvalue()))
    return made


def corpus(folder: Path) -> list[tuple[Kind, bytes]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and 0 < path.stat().st_size <= LARGEST:
            data = path.read_bytes()
            kind = sniff(data[:SNIFF_BYTES])
            if kind is not None:
                found.append((kind, data))
    return found


class Faults(logging.Handler):
    """Notes handlers that raised an error of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Fuzzer:
    """The sandboxes, the counts, and what a decoder must not reach."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._log = Faults()
        logging.getLogger("ocrfleet.sandbox.sandbox").addHandler(self._log)
        self._probe, self._renderer, self._image = (
            stack.enter_context(closing(Sandbox(module, memory=MEMORY, shared=SHARED)))
            for module in ("producer.intake.probe", "worker.rendering.rasterise", "worker.formats.pdf.image_file")
        )
        self._bait = folder / "bait"
        self._bait.mkdir()
        (self._bait / "file").write_bytes(b"secret")
        self._listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        for listener in self._listeners:
            listener.setblocking(False)
        with pymupdf.open() as intact:
            intact.new_page().insert_text((72, 72), "intact")
            self._intact = self._file(intact.tobytes())

    def _file(self, data: bytes) -> int:
        """Return the descriptor, for reading only, of a file with these bytes and without a name."""
        handle, path = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        fd = os.open(path, os.O_RDONLY)
        Path(path).unlink()
        return fd

    def round(self, kind: Kind, data: bytes, name: str) -> None:
        fd = self._file(data)
        requests: list[tuple[Sandbox, dict[str, Any]]] = [
            (self._probe, {}),
            (self._renderer, {"want": "pixels", "page": 0, "render": RENDER}),
        ]
        if kind is Kind.PDF:
            requests.append((self._renderer, {"want": "text", "page": 0}))
        else:
            requests.append((self._image, {"page": 0}))
        for sandbox, request in requests:
            self._call(sandbox, request | {"kind": kind}, fd, data, name)
        os.close(fd)
        self.counts["documents"] += 1
        if [path.name for path in self._bait.iterdir()] != ["file"] or (self._bait / "file").read_bytes() != b"secret":
            self.counts["escapes"] += 1
        for listener in self._listeners:
            try:
                listener.accept()[0].close()
                self.counts["escapes"] += 1
            except BlockingIOError:
                pass

    def _call(self, sandbox: Sandbox, request: dict[str, Any], fd: int, data: bytes, name: str) -> None:
        self.counts["calls"] += 1
        self._log.last = ""
        try:
            sandbox.call(request, fd=fd, deadline=DEADLINE, document=name)
            self.counts["answered"] += 1
        except PermanentError:
            self.counts["refused"] += 1
        except PageFaultError as fault:
            self.counts["contained"] += 1
            self.faults[f"{fault.reason.value}: {fault.detail}"] += 1
            if "SIGSYS" in fault.detail or "PermissionError" in self._log.last:
                self.counts["forbidden"] += 1
                self._keep(data, name)
            elif self._log.last:
                self._keep(data, name)
                print(self._log.last[-2000:], file=sys.stderr)
            self._check(sandbox)

    def _check(self, sandbox: Sandbox) -> None:
        """Let the sandbox open an intact document."""
        request = {"kind": Kind.PDF, "want": "pixels", "page": 0, "render": RENDER}
        try:
            sandbox.call(request, fd=self._intact, deadline=60, document="intact")
        except PageFaultError as fault:
            # The program for images refuses a PDF, alive.
            self.counts["dead pools"] += "ValueError" not in fault.detail
        except OcrfleetError:
            self.counts["dead pools"] += 1

    def _keep(self, data: bytes, name: str) -> None:
        Path(tempfile.gettempdir(), f"ocrfleet-fuzz-{name}").write_bytes(data)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    files = corpus(Path(os.environ["OCRFLEET_CORPUS"])) + drawn()
    chance = random.Random(chosen.seed)  # noqa: S311 - not for secrets
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        fuzzer = Fuzzer(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        end = time.monotonic() + chosen.seconds
        by_kind = {kind: [data for other, data in files if other is kind] for kind in {kind for kind, _ in files}}
        while time.monotonic() < end:
            kind = chance.choice(sorted(by_kind))
            data = damaged(chance.choice(by_kind[kind]), chance.choice(files)[1], chance)
            fuzzer.round(kind, data, f"{chosen.seed}-{fuzzer.counts['documents']}.{kind.value}")
            kinds[kind.value] += 1
    print(
        f"{chosen.seconds:g} s, seed {chosen.seed}, {len(files)} files; damaged documents: {dict(sorted(kinds.items()))}"
    )
    for name in ("documents", "calls", "answered", "refused", "contained", "forbidden", "dead pools", "escapes"):
        print(f"{name:12}{fuzzer.counts[name]:10,}")
    for fault, count in fuzzer.faults.most_common():
        print(f"{count:10,}  {fault}")
    return 1 if fuzzer.counts["forbidden"] + fuzzer.counts["dead pools"] + fuzzer.counts["escapes"] else 0


if __name__ == "__main__":
    sys.exit(main())
