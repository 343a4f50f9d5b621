"""The cache of sources, shared by the processes of a machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from ocrfleet.errors import ConfigurationError, PermanentError, Reason, TransientError
from ocrfleet.records.base import digest_of
from ocrfleet.sources import cache as module
from ocrfleet.sources.cache import SourceCache
from tests.support.servers import ROOT
from tests.support.waiting import rest

MIB = 1 << 20

#: A process of the machine: says "begun" when it fetches, waits to be told how long, writes, reads its file, says its size.
PROCESS = """
import sys, time, os
from pathlib import Path
from ocrfleet.sources.cache import SourceCache

def fetch(out):
    print("begun", flush=True)
    out.write(b"part ")
    out.flush()
    time.sleep(float(sys.argv[3]))
    out.write(b"rest")

with SourceCache(Path(sys.argv[1]), 1 << 20).held(sys.argv[2], fetch) as fd:
    print(os.pread(fd, 100, 0).decode(), flush=True)
    sys.stdin.read()
"""


def name(what: str) -> str:
    return digest_of(what)


def never(_: BinaryIO) -> None:
    raise AssertionError("it is there already")


def zeros(size: int) -> Callable[[BinaryIO], None]:
    def fetch(out: BinaryIO) -> None:
        out.write(bytes(size))

    return fetch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "total")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "total")


def use(cache: SourceCache, what: str, size: int) -> None:
    with cache.held(name(what), zeros(size), size=size) as fd:
        assert os.fstat(fd).st_size == size


@contextmanager
def process(folder: Path, what: str, *, seconds: float) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder), name(what), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        yield child
        child.kill()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_sixteen_threads_and_two_processes_that_want_the_same_fetch_it_once(folder: Path) -> None:
    # Given a process that has begun to fetch
    with process(folder, "a", seconds=0.5) as first:
        assert said(first) == "begun"
        # When another process and sixteen threads of this one request it meanwhile
        with process(folder, "a", seconds=0) as second, ThreadPoolExecutor(16) as threads:
            cache = SourceCache(folder, MIB)

            def read(_: int) -> bytes:
                with cache.held(name("a"), never) as fd:
                    return os.pread(fd, 100, 0)

            # Then all get the same file, and there was one fetch
            assert set(threads.map(read, range(16))) == {b"part rest"}
            assert said(second) == said(first) == "part rest"
    assert content(folder) == [name("a")]


def test_sixteen_threads_that_come_at_once_fetch_once(folder: Path) -> None:
    cache, fetched = SourceCache(folder, MIB), []

    def fetch(out: BinaryIO) -> None:
        fetched.append(1)
        rest(0.1)
        out.write(b"all")

    def read(_: int) -> bytes:
        with cache.held(name("a"), fetch, size=3) as fd:
            return os.pread(fd, 100, 0)

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(read, range(64))) == {b"all"}
    assert len(fetched) == 1


def test_a_fetched_file_is_counted_at_its_real_size(folder: Path) -> None:
    cache = SourceCache(folder, MIB)

    for expected in (0, 5, 10, 20 * MIB):
        with cache.held(name(str(expected)), zeros(10), size=expected) as fd:
            assert os.fstat(fd).st_size == 10


def test_a_descriptor_can_not_be_written_to(folder: Path) -> None:
    with SourceCache(folder, MIB).held(name("a"), zeros(1)) as fd, pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")


def test_a_failed_fetch_leaves_nothing_and_is_repeated_by_the_next(folder: Path) -> None:
    # Given many requests for a source of which the first two fetches fail
    cache = SourceCache(folder, MIB)
    tries: list[int] = []

    def fetch(out: BinaryIO) -> None:
        out.write(b"half")
        tries.append(1)
        rest(0.05)
        if len(tries) < 3:
            raise PermanentError(Reason.SOURCE_CHANGED, "")

    def read(_: int) -> bytes | None:
        try:
            with cache.held(name("a"), fetch) as fd:
                return os.pread(fd, 100, 0)
        except PermanentError:
            return None

    # When they come at once
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(read, range(8)))

    # Then two of them get the error, and the others get the third result
    assert (found.count(None), found.count(b"half"), len(tries)) == (2, 6, 3)
    assert content(folder) == [name("a")]


def test_the_error_of_a_fetch_is_raised_and_leaves_nothing(folder: Path) -> None:
    cache = SourceCache(folder, MIB)

    def fetch(out: BinaryIO) -> None:
        out.write(b"half")
        raise TransientError("away")

    with pytest.raises(TransientError, match="away"), cache.held(name("a"), fetch, size=100):
        pass

    assert content(folder) == []
    assert int((folder / "total").read_text()) == 0


def test_a_partial_file_of_a_killed_process_is_ignored_and_removed(folder: Path) -> None:
    # Given processes that were killed during a fetch
    cache = SourceCache(folder, MIB)
    with process(folder, "a", seconds=60) as one, process(folder, "b", seconds=60) as other:
        assert [said(one), said(other)] == ["begun", "begun"]
        for child in (one, other):
            child.send_signal(signal.SIGKILL)
    assert content(folder) == sorted([name("a") + ".part", name("b") + ".part"])
    # When the same source is requested, then it is fetched again completely
    with cache.held(name("a"), zeros(2)) as fd:
        assert os.pread(fd, 100, 0) == bytes(2)
    # And the next process to start removes the rest
    SourceCache(folder, MIB)
    assert content(folder) == [name("a")]


def test_a_fetch_under_way_is_no_leftover(folder: Path) -> None:
    with process(folder, "a", seconds=0.5) as child:
        assert said(child) == "begun"

        use(SourceCache(folder, 1000), "b", 5000)  # more than fits: everything is evicted that can be

        assert said(child) == "part rest"


def test_the_bound_holds_and_the_least_recently_used_go_first(folder: Path) -> None:
    cache = SourceCache(folder, 10 * MIB)
    for number in range(8):
        use(cache, str(number), MIB)
    use(cache, "0", MIB)  # used again: it stays longer
    for number in range(8, 12):
        use(cache, str(number), MIB)
        assert size_of(folder) <= 10 * MIB

    kept = content(folder)

    assert {name(number) for number in ("0", "8", "9", "10", "11")} <= set(kept)
    assert not {name("1"), name("2")} & set(kept)


def test_room_is_made_before_a_file_comes(folder: Path) -> None:
    cache = SourceCache(folder, 10 * MIB)
    for number in range(9):
        use(cache, str(number), MIB)
    seen = []

    def fetch(out: BinaryIO) -> None:
        seen.append(size_of(folder))
        out.write(bytes(5 * MIB))

    with cache.held(name("large"), fetch, size=5 * MIB):
        assert size_of(folder) <= 10 * MIB
    assert seen[0] <= 10 * MIB  # with what is to come


def test_a_file_in_use_is_evicted_only_after_its_last_use(folder: Path) -> None:
    cache = SourceCache(folder, 3 * MIB)
    with process(folder, "of another process", seconds=0) as child:
        assert [said(child), said(child)] == ["begun", "part rest"]
        with ExitStack() as stack:
            fds = [stack.enter_context(cache.held(name(str(n)), zeros(MIB), size=MIB)) for n in range(6)]
            # More is in use than there should be: all of it is there
            assert set(content(folder)) == {name(str(n)) for n in range(6)} | {name("of another process")}
            assert all(os.pread(fd, 1, MIB - 1) == b"\0" for fd in fds)
        assert size_of(folder) <= 3 * MIB
        assert name("of another process") in content(folder)
        child.communicate()
    use(cache, "large", 3 * MIB)
    assert name("of another process") not in content(folder)


def test_a_file_larger_than_the_cache_is_read_and_then_evicted(folder: Path) -> None:
    cache = SourceCache(folder, MIB)

    with cache.held(name("a"), zeros(5 * MIB), size=5 * MIB) as fd:
        assert os.fstat(fd).st_size == 5 * MIB
        assert content(folder) == [name("a")]

    assert content(folder) == []


def test_a_file_that_is_deleted_by_hand_is_fetched_again(folder: Path) -> None:
    cache = SourceCache(folder, MIB)
    use(cache, "a", 10)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    use(cache, "a", 10)

    assert content(folder) == [name("a")]


def test_an_unknown_total_is_counted(folder: Path) -> None:
    # Given files, and a writer of the total that was killed
    cache = SourceCache(folder, 4 * MIB)
    for number in range(3):
        use(cache, str(number), MIB)
    (folder / "total").write_bytes(b"")

    use(cache, "large", 2 * MIB)

    assert size_of(folder) <= 4 * MIB


def test_a_disk_that_is_full_may_be_freed(folder: Path) -> None:
    # Given an unused file
    cache = SourceCache(folder, 100 * MIB)
    use(cache, "old", MIB)

    # When there is no room on the disk for another
    def fetch(_: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(TransientError, match="is full: free some of it, or set OCRFLEET_CACHE_MB"),
        cache.held(name("new"), fetch),
    ):
        pass

    # Then what can go goes, so that the next try may find some
    assert content(folder) == []


def test_a_disk_that_is_full_is_noticed(folder: Path) -> None:
    # As by /dev/full, whose every write fails so.
    cache = SourceCache(folder, MIB)

    def fetch(_: BinaryIO) -> None:
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            full.write(bytes(MIB))

    with pytest.raises(TransientError, match="is full"), cache.held(name("a"), fetch):
        pass


def test_a_fetch_without_progress_is_not_waited_for_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.3)
    with process(folder, "a", seconds=60) as child:
        assert said(child) == "begun"

        with (
            pytest.raises(TransientError, match="does that process hang"),
            SourceCache(folder, MIB).held(name("a"), never),
        ):
            pass


def test_the_folder_is_this_users_alone(folder: Path) -> None:
    SourceCache(folder / "deep", MIB)
    use(SourceCache(folder / "deep", MIB), "a", 1)

    assert (folder / "deep").stat().st_mode & 0o777 == 0o700
    assert (folder / "deep" / name("a")).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(ConfigurationError, match="set OCRFLEET_CACHE to a folder of your own"):
        SourceCache(folder, MIB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    with pytest.raises(ConfigurationError, match="only this user may write"):
        SourceCache(folder, MIB)


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)

    with pytest.raises(ConfigurationError, match="no link"):
        SourceCache(folder, MIB)


def test_a_file_in_place_of_the_cache_folder_is_reported(folder: Path) -> None:
    folder.touch()

    with pytest.raises((ConfigurationError, TransientError), match="OCRFLEET_CACHE"):
        SourceCache(folder, MIB)


@pytest.mark.parametrize("wrong", ["", "a", "../" + "a" * 32, "A" * 64, "total"])
def test_only_digests_are_names(folder: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="not the name"), SourceCache(folder, MIB).held(wrong, never):
        pass


def test_foreign_files_in_the_cache_folder_are_kept(folder: Path) -> None:
    folder.mkdir()
    (folder / "letter.txt").write_bytes(bytes(MIB))

    use(SourceCache(folder, 1000), "a", 5000)

    assert content(folder) == ["letter.txt"]
