"""Nothing that comes from outside controls the terminal."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
from pathlib import Path

import pytest

from producer.cli import terminal
from producer.cli.main import main

#: Clears the screen, sets the title, turns the direction, moves the cursor.
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\u202edcod\x9b1A\r\x08.pdf"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CLI = Path(terminal.__file__).parent


def printed_safely(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in _COLOUR.sub("", text))


@pytest.mark.parametrize(
    "command",
    [
        ["run", HOSTILE],
        ["run", HOSTILE, "--dry-run"],
        ["run", "--pages", HOSTILE, "x"],
        ["run", "--formats", HOSTILE, "x"],
        ["run", "--engine", HOSTILE, "x"],
        ["run", "--workers", HOSTILE, "x"],
        [HOSTILE],
        ["models", HOSTILE],
        ["models", f"--{HOSTILE}"],
        ["status", HOSTILE],
        ["report", HOSTILE],
        ["convert", HOSTILE, "--formats", "txt"],
        ["submit", HOSTILE],
        ["samples", HOSTILE],
    ],
)
def test_no_argument_controls_the_terminal(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCRFLEET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OCRFLEET_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(sys, "argv", ["ocrfleet", *command])
    with contextlib.suppress(SystemExit):
        main()

    out, err = capsys.readouterr()
    assert out + err
    assert printed_safely(out + err)


def test_a_console_prints_colours_and_nothing_else_that_controls(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.console().print(f"[red]{HOSTILE}[/]\nsecond")
    terminal.echo(HOSTILE + "\nsecond " + os.fsdecode(b"K\xf6ln"))

    out = capsys.readouterr().out
    assert printed_safely(out)
    assert out.count("\nsecond") == 2
    assert "\\x1b[2J" in out


def test_every_command_prints_by_this_module() -> None:
    for path in sorted(CLI.rglob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"print", "Console", "rich.print"}, f"{path}:{node.lineno}"
            assert called != "typer.echo" or path.name == "main.py", f"{path}:{node.lineno}"
