"""Recorded system calls (strace), and the rule that a stored file survives a power cut.

The recorded program prints a line `stored PATH` once it reports that a file is stored, and `removed PATH` for one that must not
come back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers import lacking

_TRACED = "openat,fsync,fdatasync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,write"
_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+).*")
_FILE = re.compile(r"\d+<(?P<path>[^>]*)>")
#: A path, after the descriptor of the folder that it is relative to, where the call has one.
_PATH = re.compile(r'(?:(?:\d+|AT_FDCWD)<(?P<folder>[^>]*)>, )?"(?P<path>[^"]*)"')
#: What the program prints.
_REPORT = re.compile(r'"(?P<what>stored|removed) (?P<path>[^"]*)\\n"')


_WRITTEN = re.compile(
    r'(?:openat|open|creat)\((?:AT_FDCWD<[^>]*>, )?"([^"]*)", [^)]*O_(?:WRONLY|RDWR|CREAT)[^)]*\) = \d'
)


@dataclass
class Call:
    """A system call that succeeded: its name, paths, and the lines at which it began and ended."""

    name: str
    paths: Sequence[str]
    began: int
    ended: int


@dataclass
class Recording:
    """The calls that matter for what is on the disk."""

    flushed: list[Call] = field(default_factory=list)
    named: list[Call] = field(default_factory=list)
    folders: list[Call] = field(default_factory=list)
    unlinked: list[Call] = field(default_factory=list)
    stored: list[Call] = field(default_factory=list)
    removed: list[Call] = field(default_factory=list)

    def losses(self) -> Iterator[str]:
        """Yield what a power cut could take of the files that were reported as stored, or bring back of those removed."""
        yield from self._returns()
        for report in self.stored:
            path = report.paths[-1]
            names = [call for call in self.named if call.paths[-1] == path and call.ended < report.began]
            if not names:
                yield f"{path} was reported and never named"
            for call in names[-1:]:
                if not self._was_flushed(call.paths[0], 0, call.began):
                    yield f"{path} got its name before its data was flushed"
                if not self._was_flushed(os.path.dirname(path), call.ended, report.began):  # noqa: PTH120
                    yield f"{path} was reported before its folder was flushed"
            for made in self.folders:
                folder = made.paths[0]
                if (
                    path.startswith(f"{folder}/")
                    and made.ended < report.began
                    and not self._was_flushed(os.path.dirname(folder), made.ended, report.began)  # noqa: PTH120
                ):
                    yield f"{path} was reported before the name of its folder {folder} was flushed"

    def _returns(self) -> Iterator[str]:
        for report in self.removed:
            path = report.paths[-1]
            gone = [call for call in self.unlinked if call.paths[-1] == path and call.ended < report.began]
            if not gone:
                yield f"{path} was reported and never removed"
            for call in gone[-1:]:
                if not self._was_flushed(os.path.dirname(path), call.ended, report.began):  # noqa: PTH120
                    yield f"{path} was reported as removed before its folder was flushed"

    def _was_flushed(self, path: str, after: int, before: int) -> bool:
        return any(path in call.paths and after < call.began and call.ended < before for call in self.flushed)


@dataclass
class Reached:
    """What a program reached outside of itself."""

    #: addresses that it connected or sent to, but for Unix sockets
    hosts: list[str]
    #: files that it opened for writing
    written: list[str]


def reached(program: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> Reached:
    """Run a Python program with its children under strace. Skips the test where there is no strace."""
    if shutil.which("strace") is None:
        lacking("strace")
    command = [
        "strace",
        "-f",
        "-y",
        "-s",
        "400",
        "--seccomp-bpf",
        "-e",
        "trace=connect,sendto,sendmsg,sendmmsg,openat,open,creat",
    ]
    subprocess.run([*command, "-o", str(log), sys.executable, "-c", program, *arguments], check=True, env=environment)
    lines = log.read_text(errors="replace").splitlines()
    return Reached(
        hosts=[line for line in lines if "sa_family=AF_INET" in line],
        written=[found[1] for line in lines if (found := _WRITTEN.search(line)) and not found[1].startswith("/dev/")],
    )


def record(program: str, *arguments: str, log: Path) -> Recording:
    """Run a Python program under strace. Skips the test where there is no strace."""
    if shutil.which("strace") is None:
        lacking("strace")
    command = ["strace", "-f", "-y", "-s", "400", "-e", f"trace={_TRACED}", "-o", str(log)]
    subprocess.run([*command, sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.DEVNULL)
    recording = Recording()
    for call in _calls(log.read_text(errors="replace").splitlines()):
        if call.name in {"fsync", "fdatasync"}:
            recording.flushed.append(call)
        elif call.name.startswith(("link", "rename")):
            recording.named.append(call)
        elif call.name.startswith("mkdir"):
            recording.folders.append(call)
        elif call.name.startswith("unlink"):
            recording.unlinked.append(call)
        elif call.name == "write" and call.paths:
            (recording.stored if call.paths[0] == "stored" else recording.removed).append(call)
    return recording


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        pid, rest = found["pid"], found["rest"]
        began = number
        if rest.endswith(" <unfinished ...>"):
            begun[pid] = number, rest.removesuffix(" <unfinished ...>")
            continue
        resumed = _RESUMED.fullmatch(rest)
        if resumed is not None and pid in begun:
            began, beginning = begun.pop(pid)
            rest = beginning + resumed["rest"]
        call = _CALL.fullmatch(rest)
        if call is not None and not call["result"].startswith("-"):
            yield Call(call["name"], _paths(call["name"], call["arguments"]), began, number)


def _paths(name: str, arguments: str) -> list[str]:
    if name in {"fsync", "fdatasync"}:
        return [found["path"] for found in _FILE.finditer(arguments)]
    if name == "write":
        report = _REPORT.search(arguments)
        return list(report.groups()) if report is not None else []
    return [
        os.path.join(found["folder"] or "", found["path"])  # noqa: PTH118 - texts, as strace shows them
        for found in _PATH.finditer(arguments)
    ]
