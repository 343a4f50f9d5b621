"""Sandbox: a child may crash, hang or exhaust its memory; the parent reports which, and continues."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocrfleet.errors import FatalError, PageFaultError, PermanentError, Reason, TransientError
from ocrfleet.sandbox import child
from ocrfleet.sandbox import sandbox as module
from ocrfleet.sandbox.sandbox import Sandbox
from ocrfleet.sources.sources import sha256_of
from tests.support.servers import ROOT
from tests.support.waiting import FOREVER, rest, scaled, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMORY = 64 << 20
SHARED = 1 << 20
PR_GET_DUMPABLE = 3


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox("tests.support.fakes.sandboxed", memory=MEMORY, shared=SHARED, recycle=5)
    yield sandbox
    sandbox.close()


def echo(sandbox: Sandbox) -> int:
    """Ask for an echo; return the child's process id."""
    answer = sandbox.call({"do": "echo", "text": "é" * 70_000}, deadline=scaled(10))
    assert answer["echo"] == "é" * 70_000
    return int(answer["pid"])


def busy(sandbox: Sandbox) -> bool:
    """Return whether the child sleeps, as it was asked to."""
    return sandbox.shared is not None and sandbox.shared[:4] == b"busy"


def gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_one_child_answers_many_calls(sandbox: Sandbox) -> None:
    assert echo(sandbox) == echo(sandbox)


def test_the_document_comes_as_a_descriptor_and_is_closed_again(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "document"
    path.write_text("content")
    with path.open() as file:
        answers = [sandbox.call({"do": "read"}, fd=file.fileno(), deadline=scaled(10)) for _ in range(3)]
    assert answers[0]["content"] == "content"
    assert answers[0] == answers[1] == answers[2]


def test_pixels_come_back_through_shared_memory(sandbox: Sandbox) -> None:
    assert sandbox.call({"do": "write"}, deadline=scaled(10)) == {"size": SHARED}
    assert sandbox.shared is not None
    assert sandbox.shared[:4] == b"page"


@pytest.mark.parametrize(
    ("request_", "reason", "detail"),
    [
        ({"do": "segfault"}, Reason.RENDER_CRASHED, "the decoder crashed (SIGSEGV): the file is probably damaged"),
        (
            {"do": "signal", "number": signal.SIGABRT},
            Reason.RENDER_CRASHED,
            "the decoder crashed (SIGABRT): the file is probably damaged",
        ),
        ({"do": "exit"}, Reason.RENDER_CRASHED, "the decoder crashed (exit status 3): the file is probably damaged"),
        (
            {"do": "babble"},
            Reason.RENDER_CRASHED,
            "the decoder crashed (it stopped answering): the file is probably damaged",
        ),
        (
            {"do": "hang up"},
            Reason.RENDER_CRASHED,
            "the decoder crashed (it stopped answering): the file is probably damaged",
        ),
        # What the kernel's out-of-memory killer sends.
        (
            {"do": "signal", "number": signal.SIGKILL},
            Reason.RENDER_MEMORY,
            "decoding needed more than 64 MiB of memory",
        ),
        ({"do": "memory"}, Reason.RENDER_MEMORY, "decoding needed more than 64 MiB of memory"),
        ({"do": "leak"}, Reason.RENDER_MEMORY, "decoding needed more than 64 MiB of memory"),
        # What the child's own alarm does when its parent sleeps.
        (
            {"do": "signal", "number": signal.SIGALRM},
            Reason.RENDER_DEADLINE,
            f"decoding took longer than {scaled(10):g} s",
        ),
        ({"do": "bug"}, Reason.INTERNAL_ERROR, "tests.support.fakes.sandboxed raised KeyError: please report it"),
    ],
)
def test_each_way_to_end_has_its_reason_and_the_next_call_succeeds(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, request_: dict[str, object], reason: Reason, detail: str
) -> None:
    monkeypatch.setattr(module, "EXIT_DEADLINE", 0.2)
    with pytest.raises(PageFaultError) as caught:
        sandbox.call(request_, deadline=scaled(10))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    echo(sandbox)


def test_a_hang_in_c_code_ends_at_the_deadline(sandbox: Sandbox) -> None:
    pid = echo(sandbox)
    deadline = scaled(0.3)
    with pytest.raises(PageFaultError, match=f"decoding took longer than {deadline:g} s") as caught:
        sandbox.call({"do": "hang"}, deadline=deadline)
    assert caught.value.reason is Reason.RENDER_DEADLINE
    until(lambda: gone(pid), seconds=1)
    echo(sandbox)


def test_a_permanent_error_reaches_the_parent_and_the_child_stays_alive(sandbox: Sandbox) -> None:
    pid = echo(sandbox)
    with pytest.raises(PermanentError) as caught:
        sandbox.call({"do": "permanent"}, deadline=scaled(10))
    assert (caught.value.reason, caught.value.detail) == (Reason.TOO_LARGE, "the page is larger than the sky")
    assert echo(sandbox) == pid


def test_a_child_has_no_secrets_and_writes_no_files(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    answer = sandbox.call({"do": "reveal"}, deadline=scaled(10))
    # Python itself sets LC_CTYPE where there is no locale, and the worker's package ORT_DISABLE_TELEMETRY.
    assert set(answer["environment"]) <= {"PYTHONPATH", "LC_CTYPE", "ORT_DISABLE_TELEMETRY"}
    assert "hunter2" not in str(answer)
    assert answer["cwd"] == "/"
    assert answer["limits"] == [child.MAX_DESCRIPTORS, 0]
    assert answer["ignored"] == [True, True]


def test_a_child_holds_few_descriptors(sandbox: Sandbox) -> None:
    assert 0 < sandbox.call({"do": "descriptors"}, deadline=scaled(10))["opened"] < child.MAX_DESCRIPTORS


def test_a_child_has_no_network_where_the_kernel_allows_it(sandbox: Sandbox) -> None:
    network = sandbox.call({"do": "reveal"}, deadline=scaled(10))["network"]
    if network == str(Path("/proc/self/ns/net").readlink()):
        pytest.skip("this kernel lets us make no network namespace")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert sandbox.call({"do": "connect", "port": port}, deadline=scaled(10)) == {"connected": False}


def test_each_document_has_a_child_and_shared_memory_of_its_own(sandbox: Sandbox) -> None:
    def child(document: str) -> int:
        return int(sandbox.call({"do": "echo", "text": ""}, deadline=scaled(10), document=document)["pid"])

    first = child("a")
    sandbox.call({"do": "write"}, deadline=scaled(10), document="a")
    assert child("a") == first
    assert child("b") != first
    until(lambda: gone(first), seconds=1)
    assert sandbox.shared is not None
    assert sandbox.shared[:4] == bytes(4)


def test_a_password_goes_to_documents_that_need_one_and_to_a_child_of_its_own(sandbox: Sandbox) -> None:
    def opened(document: str, *, locked: bool, passwords: Sequence[str]) -> list[str]:
        request = {"do": "unlock", "password": "right" if locked else None}
        seen: list[str] = sandbox.call(request, deadline=scaled(10), document=document, passwords=passwords)["seen"]
        return seen

    assert opened("open", locked=False, passwords=["wrong", "right"]) == []
    # The child that opens the document has not seen the other passwords, and keeps it open
    assert opened("locked", locked=True, passwords=["wrong", "right", "other"]) == ["right"]
    assert opened("locked", locked=True, passwords=["wrong", "right", "other"]) == ["right", "right"]
    with pytest.raises(PermanentError) as caught:
        opened("another", locked=True, passwords=["wrong", "other"])
    assert caught.value.reason is Reason.NEEDS_PASSWORD


def test_calls_without_a_document_share_no_password(sandbox: Sandbox) -> None:
    for password in ("first", "second", "first"):
        request = {"do": "unlock", "password": password}
        answer = sandbox.call(request, deadline=scaled(10), passwords=["first", "second"])
        assert answer["seen"][-1] == password


def test_the_start_of_a_child_counts_against_no_document(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a child that takes longer to start than the document may
    clock, fork, start, deadline = time.monotonic, sandbox._server.fork, [0.0], scaled(10)

    def slow(name: str, *, memory: int, shared_size: int, fds: Sequence[int]) -> None:
        fork(name, memory=memory, shared_size=shared_size, fds=fds)
        start[0] = 2 * deadline

    monkeypatch.setattr(module, "START_DEADLINE", 3 * deadline)
    monkeypatch.setattr(sandbox._server, "fork", slow)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock() + start[0])
        # When it reads one, then it has its time
        assert sandbox.call({"do": "echo", "text": "read"}, deadline=deadline)["echo"] == "read"


def test_a_child_that_moves_the_documents_position_changes_no_digest(sandbox: Sandbox, tmp_path: Path) -> None:
    # Given a document that a child has, which moves the position that it shares with its parent for ever
    content = os.urandom(1 << 20) * 16
    path = tmp_path / "document"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert sandbox.call({"do": "seek"}, fd=file.fileno(), deadline=scaled(10)) == {"seeking": True}
        # When the parent computes the digest, then it is that of all bytes
        digests = {sha256_of(file.fileno()) for _ in range(3)}
    assert digests == {hashlib.sha256(content).hexdigest()}


def test_other_processes_of_its_user_may_not_read_the_parents_memory(sandbox: Sandbox) -> None:
    echo(sandbox)
    assert ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


def test_a_child_is_recycled_after_so_many_calls(sandbox: Sandbox) -> None:
    pids = [echo(sandbox) for _ in range(7)]
    assert len(set(pids[:5])) == 1
    assert pids[5] == pids[6] != pids[0]


def test_a_child_killed_while_idle_is_no_pages_fault(sandbox: Sandbox) -> None:
    pid = echo(sandbox)
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid), seconds=5)
    assert echo(sandbox) != pid


def test_a_fork_server_that_was_killed_is_started_again(sandbox: Sandbox) -> None:
    pid = echo(sandbox)
    (parent,) = re.findall(r"PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())

    def kill_its_server() -> None:
        until(lambda: busy(sandbox))
        os.kill(int(parent), signal.SIGKILL)

    # Given a fork server that the kernel kills while its child is busy
    killing = threading.Thread(target=kill_its_server)
    killing.start()
    with pytest.raises(PageFaultError) as caught:
        sandbox.call({"do": "sleep", "seconds": FOREVER}, deadline=scaled(60))
    killing.join()
    # Then that is as if the child was killed, the child is gone, and the next call has a new one
    assert caught.value.reason is Reason.RENDER_MEMORY
    until(lambda: gone(pid), seconds=1)
    assert echo(sandbox) != pid


def test_ctrl_c_and_a_service_managers_sigterm_leave_the_child_at_work(sandbox: Sandbox) -> None:
    pid = echo(sandbox)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert echo(sandbox) == pid
    assert os.getpgid(pid) != os.getpgid(0)


def test_close_ends_the_child_and_the_call_that_waits_for_it(sandbox: Sandbox) -> None:
    # Given a call that would take for ever
    pid = echo(sandbox)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            sandbox.call({"do": "sleep", "seconds": FOREVER}, deadline=scaled(60))
        except TransientError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: busy(sandbox))
    # When the sandbox is closed, twice
    sandbox.close()
    sandbox.close()
    # Then the call ends, the child is gone, and there are no more calls
    thread.join(scaled(5))
    assert len(errors) == 1
    until(lambda: gone(pid), seconds=1)
    with pytest.raises(TransientError):
        sandbox.call({"do": "echo", "text": ""}, deadline=scaled(10))


@pytest.mark.parametrize("work", [{"do": "echo", "text": ""}, {"do": "hang"}])
def test_a_parent_killed_outright_leaves_no_child(work: dict[str, str]) -> None:
    # Given a parent whose child is idle, or hangs in C code where it can't see that the parent is gone
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from ocrfleet.sandbox.sandbox import Sandbox
sandbox = Sandbox("tests.support.fakes.sandboxed", memory={MEMORY})
print(sandbox.call({{"do": "echo", "text": ""}}, deadline={scaled(10)})["pid"], flush=True)
sandbox.call({work!r}, deadline=1)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        rest(0.3)
        # When the parent is killed
        parent.kill()
    # Then the child is gone a little after the deadline
    until(lambda: gone(pid), seconds=1 + child.ALARM_GRACE + 2)


def test_a_child_that_can_not_start_is_the_workers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox("no_such_module", memory=MEMORY)
    with pytest.raises(FatalError, match="no_such_module could not be started"):
        sandbox.call({}, deadline=scaled(1))
    sandbox.close()


def test_no_descriptor_is_left_behind() -> None:
    gc.collect()  # what earlier tests left to the collector would be closed in between
    before = set(Path("/dev/fd").iterdir())
    for _ in range(3):
        sandbox = Sandbox("tests.support.fakes.sandboxed", memory=MEMORY, shared=SHARED)
        echo(sandbox)
        with pytest.raises(PageFaultError):
            sandbox.call({"do": "segfault"}, deadline=scaled(10))
        echo(sandbox)
        sandbox.close()
        del sandbox
    assert set(Path("/dev/fd").iterdir()) <= before
