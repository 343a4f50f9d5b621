"""A temporary folder of a process. It is removed when the process ends; that of a killed process by the next one.

The process holds a lock (flock) on its folder, which the kernel releases however the process dies: a folder that can be
locked is abandoned.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds that a new folder may be without a lock: it is created a moment before it is locked.
_YOUNG = 60.0


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """Create a folder with this prefix in the machine's temporary folder, and remove it when the block ends."""
    _remove_abandoned(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(handle)


def _remove_abandoned(prefix: str) -> None:
    """Remove the folders of processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, or removed
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(handle)
                if status.st_uid == os.getuid() and time.time() - status.st_mtime > _YOUNG:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(handle)
