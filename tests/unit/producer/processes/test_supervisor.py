"""The supervisor: which child processes it restarts, when, and when it stops trying. The children are shell commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError, FatalError
from producer.processes.child_process import ChildProcess
from producer.processes.supervisor import RestartPolicy, Supervisor
from tests.support.waiting import until

AT_ONCE = RestartPolicy(first_wait=0)


class Children:
    """Children that record each start in a file, and the errors of the supervisor on their exits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.exits: list[tuple[str, int]] = []
        self._supervisors: list[Supervisor] = []
        #: what the supervisors take for the time
        self.now = 0.0

    def supervised(self, policy: RestartPolicy, **scripts: str) -> Supervisor:
        supervisor = Supervisor(
            policy, on_exit=lambda child, code: self.exits.append((child.name, code)), clock=lambda: self.now
        )
        self._supervisors.append(supervisor)
        for name, script in scripts.items():
            command = ["/bin/sh", "-c", f'echo >> "{self._folder / name}"; {script}']
            environment = {"PATH": os.defpath, "READY": str(self._folder / f"{name}.ready")}
            log_file = self._folder / f"{name}.log"
            supervisor.start(ChildProcess(name, command, environment, self._folder / f"{name}.ready", log_file))
        return supervisor

    def starts(self, name: str) -> int:
        noted = self._folder / name
        return len(noted.read_bytes()) if noted.exists() else 0

    def watch(self, supervisor: Supervisor, name: str, starts: int) -> None:
        until(lambda: self.starts(name) >= starts, pause=0.01, meanwhile=supervisor.watch, otherwise=lambda: self.exits)

    def watch_exits(self, supervisor: Supervisor, number: int) -> None:
        until(lambda: len(self.exits) >= number, pause=0.01, meanwhile=supervisor.watch)

    def wait_for_start(self, name: str, number: int) -> None:
        until(lambda: self.starts(name) >= number, pause=0.01)

    def stop(self) -> None:
        for supervisor in self._supervisors:
            supervisor.stop(grace=0)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path)
    yield made
    made.stop()


def test_a_child_that_died_is_restarted_and_its_exit_reported(children: Children) -> None:
    supervisor = children.supervised(AT_ONCE, a="exit 70")
    children.watch(supervisor, "a", starts=3)
    assert children.exits[:2] == [("a", 70), ("a", 70)]


def test_a_child_that_waits_for_its_restart_holds_up_no_other(children: Children) -> None:
    # Given a child that never gets ready, and one that does before it dies
    supervisor = children.supervised(RestartPolicy(first_wait=1, longest_wait=3600), a="exit 1", b='touch "$READY"')

    # When the first has failed so often that it is not due for long
    def watch_much_later() -> None:
        children.now += 600
        supervisor.watch()

    until(lambda: children.exits.count(("a", 1)) >= 10, pause=0.01, meanwhile=watch_much_later)
    failed = children.starts("a")
    children.now += 1  # the other may be due
    # Then the other is restarted a second after each of its deaths
    restarted = children.starts("b")

    def watch_a_second_after_each_death() -> None:
        exits = len(children.exits)
        supervisor.watch()
        children.now += len(children.exits) - exits

    until(lambda: children.starts("b") >= restarted + 3, pause=0.01, meanwhile=watch_a_second_after_each_death)
    assert children.starts("a") == failed


def test_each_failed_start_doubles_the_wait_up_to_the_longest(children: Children) -> None:
    supervisor = children.supervised(RestartPolicy(first_wait=1, longest_wait=6), a="exit 1")
    for started, wait in enumerate([1, 2, 4, 6, 6], start=1):
        # Given a child that has died once more
        children.watch_exits(supervisor, started)
        # Then it is not restarted before its time
        children.now += wait - 0.1
        supervisor.watch()
        assert len(children.exits) == children.starts("a") == started
        children.now += 0.2
        supervisor.watch()
        children.wait_for_start("a", started + 1)


def test_a_misconfigured_child_is_an_error_and_is_not_restarted(children: Children) -> None:
    supervisor = children.supervised(AT_ONCE, a="echo 'no such bucket'; exit 78", b="sleep 1000")
    with pytest.raises(ConfigurationError, match=r"a can't start, .*: no such bucket"):
        children.watch(supervisor, "a", starts=2)
    assert children.starts("a") == 1
    assert children.exits == [("a", 78)]


def test_others_go_on_without_a_misconfigured_one_until_none_is_left(children: Children) -> None:
    supervisor = children.supervised(
        RestartPolicy(first_wait=0, spare_others=True),
        a="exit 78",
        b='test "$(wc -c < "${READY%.ready}")" -lt 3 || exit 78',
    )
    with pytest.raises(ConfigurationError, match="b can't start"):
        children.watch(supervisor, "b", starts=4)
    assert (children.starts("a"), children.starts("b")) == (1, 3)


def test_failed_starts_in_a_row_are_an_error_where_the_policy_says_so(children: Children) -> None:
    supervisor = children.supervised(RestartPolicy(first_wait=0, failed_starts=3), a="echo 'no memory'; exit 1")
    with pytest.raises(FatalError, match=r"failed to start 3 times \(exit code 1\): no memory; its log is .*a\.log"):
        children.watch(supervisor, "a", starts=4)
    assert children.starts("a") == 3


def test_a_child_that_was_ready_did_not_fail_to_start(children: Children) -> None:
    supervisor = children.supervised(RestartPolicy(first_wait=0, failed_starts=2), a='touch "$READY"; exit 1')
    children.watch(supervisor, "a", starts=5)


def test_stopping_ends_all_children(children: Children) -> None:
    supervisor = children.supervised(AT_ONCE, a="exec sleep 1000", b="trap '' TERM; sleep 1000")
    started = supervisor.children
    supervisor.stop(grace=0.1)
    assert not any(child.alive for child in started)
    assert supervisor.children == []
