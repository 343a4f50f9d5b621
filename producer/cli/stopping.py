"""How a long-running command is stopped: by Ctrl-C, SIGTERM, or the end of its terminal."""

from __future__ import annotations

import signal
import threading


def stopped_by_signals() -> threading.Event:
    """Return an event that SIGINT, SIGTERM and SIGHUP set from now on. Call it from the main thread."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    return stopped
