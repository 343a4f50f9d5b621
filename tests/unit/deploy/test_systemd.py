"""The systemd units, checked by systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest
import typer

from producer.cli.main import app
from tests.support.servers import ROOT, lacking

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
EXAMPLE = ROOT / "deploy" / "systemd" / "ocrfleet.env.example"
#: Seconds beyond its drain after which `ocrfleet worker` has killed what is left of its processes.
WORKER_END = 30


def read(path: Path) -> str:
    return path.read_text()


def settings_of(path: Path) -> dict[str, list[str]]:
    """Return what the section [Service] says, by name."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in read(path).splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_systemd_analyze_accepts_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze") or lacking("systemd-analyze (make system-deps)")
    # Given the units on a machine where ocrfleet is installed
    for path in (*UNITS, ROOT / "deploy" / "systemd" / "ocrfleet.target"):
        text = read(path).replace("/opt/ocrfleet/bin/ocrfleet", str(Path(sys.executable).with_name("ocrfleet")))
        (tmp_path / path.name).write_text(text)
    # When systemd reads them
    done = subprocess.run(
        [str(program), "verify", "--man=no", *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    # Then it has nothing to say
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_signals_only_the_main_process(path: Path) -> None:
    # An engine that got the signal, too, would be gone before its worker has drained
    assert settings_of(path)["KillMode"] == ["mixed"]


@pytest.mark.parametrize("name", ["ocrfleet-worker@.service", "ocrfleet-gpu@.service"])
def test_workers_get_the_time_that_their_drain_takes(name: str) -> None:
    said = settings_of(ROOT / "deploy" / "systemd" / name)
    (drain,) = [value for value in said["Environment"] if value.startswith("OCRFLEET_DRAIN_SECONDS=")]
    (stop,) = said["TimeoutStopSec"]
    assert int(stop) > int(drain.removeprefix("OCRFLEET_DRAIN_SECONDS=")) + WORKER_END
    # And one that can never start is not started again and again
    assert said["RestartPreventExitStatus"] == ["2 3"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_services_may_do_little(path: Path) -> None:
    said = settings_of(path)
    assert said["User"] == ["ocrfleet"]
    assert said["CapabilityBoundingSet"] == [""]
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectKernelTunables", "RestrictSUIDSGID"):
        assert said[name] == ["yes"], name
    assert said["ProtectSystem"] == ["strict"]
    # What the sandbox of renderers needs to be without a network
    assert said["RestrictNamespaces"] == ["user net"]
    gpu = path.name == "ocrfleet-gpu@.service"
    assert ("SystemCallFilter" in said, "PrivateDevices" in said) == (not gpu, not gpu)


def test_commands_are_given_options_that_they_have() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for path in UNITS:
        # Given what a unit calls, with the options that it sets, or else the example
        options = dict(
            re.findall(r'^(?:#|Environment=")?(\w+_OPTIONS)=([^"\n]*)', read(EXAMPLE) + read(path), re.MULTILINE)
        )
        (line,) = settings_of(path)["ExecStart"]
        _, command, *words = Template(line).safe_substitute(options).split()
        # Then the command has them
        known = {option for parameter in commands[command].params for option in parameter.opts}
        given = {word for word in words if word.startswith("--")}
        assert given, line
        assert given <= known, line
        assert not [word for word in words if word.startswith("$")], line


def test_the_example_gives_no_secret() -> None:
    example = read(EXAMPLE).splitlines()
    assert {"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "OCRFLEET_API_TOKENS="} <= set(example)
