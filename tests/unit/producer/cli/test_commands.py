"""The list of commands, and the imports for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from producer.cli.commands import COMMANDS
from producer.cli.main import app

#: Prints the modules that are loaded once the command line has answered.
_PROBE = """
import sys
from producer.cli.main import app
app(sys.argv[1:], standalone_mode=False)
print("loaded:", *sys.modules)
"""


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_list_of_commands_imports_none_of_them(option: str) -> None:
    ended = subprocess.run([sys.executable, "-c", _PROBE, option], capture_output=True, text=True, check=True)
    shown, _, loaded = ended.stdout.rpartition("loaded:")
    ours = {name for name in loaded.split() if name.startswith(("producer.", "ocrfleet.", "worker."))}
    assert ours == {"producer.cli", "producer.cli.commands", "producer.cli.main", "producer.errors", "ocrfleet.errors"}
    assert not {"celery", "redis", "boto3", "pymupdf", "numpy"} & set(loaded.split())
    if option == "--help":
        assert all(f" {name} " in shown for name in COMMANDS)


def test_every_command_in_the_list_has_its_function_and_its_help() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert list(commands) == list(COMMANDS)
    for name, command in commands.items():
        assert (command.name, command.short_help) == (name, COMMANDS[name].summary)
        assert command.help, name
        assert command.callback is not None
