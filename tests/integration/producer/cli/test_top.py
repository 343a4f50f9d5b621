"""`ocrfleet top` on a terminal, with its output in a file, and as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.support.stage import Stage
from tests.support.waiting import scaled, until

_COMMAND = str(Path(sys.executable).with_name("ocrfleet"))


def environment(stage: Stage, **more: str) -> dict[str, str]:
    known = {"OCRFLEET_REDIS_URL": stage.valkey.url, "OCRFLEET_STORE": str(stage.settings.store), "TERM": "xterm"}
    return {**os.environ, **known, **more}


def run(stage: Stage, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_COMMAND, "top", *options],
        env=environment(stage, **more),
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )


@pytest.fixture
def busy(stage: Stage) -> Stage:
    """A fleet with a worker that has one of three pages in flight, the first one rendered."""
    stage.plan |= {"wait": [5, 6, 7], "until": str(stage.folder / "never")}
    stage.register("one", [5, 6, 7])
    stage.start_worker()
    stage.await_(lambda: len(stage.recognised()) == 1 and stage.ledger.workers(), seconds=120)
    return stage


@pytest.mark.parametrize("columns", [80, 160])
def test_once_it_fits_its_columns(busy: Stage, columns: int) -> None:
    done = run(busy, "--once", COLUMNS=str(columns))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) == columns
    for words in ("Backlog", "running", "Problems", "Workers", "numbered"):
        assert words in done.stdout
    assert "no worker serves" not in done.stdout


def test_a_script_gets_json(busy: Stage) -> None:
    done = run(busy, "--json")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    lane = seen["outlook"]["lanes"]["bulk"]
    # One is with the engine, and another may be ready for it
    assert lane["running"] in {1, 2}
    assert lane["running"] + lane["queued"] + lane["waiting"] == 3
    assert lane["seconds_left"] > 0
    (worker,) = seen["outlook"]["workers"]
    assert worker["profile"] == busy.profile.name
    assert worker["lately"] == {"pages": 0.0, "tokens": 0.0, "starved": 0.0} or worker["lately"]["starved"] > 0


def test_top_updates_on_a_terminal_until_ctrl_c(busy: Stage) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = subprocess.Popen(
        [_COMMAND, "top", "--every", "0.5"],
        env={name: value for name, value in environment(busy).items() if name not in {"COLUMNS", "LINES"}},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = bytearray()
    # Several screens, one after the other
    until(
        lambda: shown.count(b"Problems") >= 3,
        seconds=120,
        meanwhile=lambda: shown.extend(os.read(ours, 1 << 16)),
        otherwise=lambda: shown,
    )
    process.send_signal(signal.SIGINT)
    while True:  # what is left, until it has closed its side
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:
            break
    assert process.wait(scaled(60)) == 0
    os.close(ours)
    # And the terminal is restored: the alternate screen was left
    assert b"\x1b[?1049l" in shown


def test_top_without_redis_reports_it(stage: Stage) -> None:
    done = run(stage, "--once", OCRFLEET_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 3
    assert "Redis can't be used" in done.stderr
