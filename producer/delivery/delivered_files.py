"""Which files of an output folder are ours: the digests of what was delivered to each path, in the folder's state folder.

A file with another content was written or changed by somebody else, and is never overwritten.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ocrfleet.records.base import digest_of

#: Folder within an output folder that holds all that is needed to resume a run.
STATE_FOLDER = ".ocrfleet"
_DIGEST = 64


class DeliveredFiles:
    """The digests of the files below an output folder. A lost digest only makes a file of ours look like somebody else's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = folder / STATE_FOLDER / "delivered"

    def digests(self, path: Path) -> set[str]:
        """Return the SHA-256 of each content that was delivered to a path. Raises OSError."""
        with suppress(FileNotFoundError):
            lines = self._record(path).read_text(encoding="ascii", errors="replace").splitlines()
            return {line for line in lines if len(line) == _DIGEST}
        return set()

    def add(self, path: Path, sha256: str) -> None:
        """Record a content before it is delivered. Raises OSError."""
        if sha256 in self.digests(path):
            return
        record = self._record(path)
        with suppress(FileExistsError):
            self._records.parent.mkdir(mode=0o700)
        record.parent.mkdir(parents=True, exist_ok=True)
        out = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(out, f"{sha256}\n".encode())
        finally:
            os.close(out)

    def _record(self, path: Path) -> Path:
        name = digest_of(str(path.relative_to(self._folder)))
        return self._records / name[:2] / name[2:32]
