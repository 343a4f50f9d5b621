"""The page on the commands, from Typer's command tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main
from rich.text import Text

from docs.generator.markdown import NOTE, escaped, table
from ocrfleet.errors import EXIT_BROKEN, EXIT_CONFIGURATION
from producer.cli.main import app
from producer.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_UNABLE, EXIT_USAGE


def command_line() -> str:
    """Return the page on the commands, from Typer's command tree."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("ocrfleet", [], resilient_parsing=True)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    lines = [NOTE + "# Command line\n", f"{_prose(group.help)}\n"]
    panels: dict[str, list[str]] = {}
    for name, command in commands.items():
        panels.setdefault(command.rich_help_panel, []).append(name)
    for panel, names in panels.items():
        lines.append(f"**{panel}**\n")
        lines += [f"- [`ocrfleet {name}`](#ocrfleet-{name}): {_first_line(commands[name].help)}" for name in names]
        lines.append("")
    lines.append("## Exit codes\n")
    lines.append("Each command lists the codes that it uses. They mean the same everywhere:\n")
    lines += table(
        ("code", "meaning"),
        [
            (EXIT_DONE, "The command did all of its work."),
            (EXIT_INCOMPLETE, "The command ran, and something is not done: a document is partial or failed."),
            (EXIT_USAGE, "Wrong usage: an option, an input or a setting."),
            (EXIT_UNABLE, "The command could not run: Redis, the store or the configuration."),
            (130, "Interrupted by Ctrl-C."),
            (EXIT_BROKEN, "Worker process only: its engine broke. The supervisor starts it again."),
            (EXIT_CONFIGURATION, "Worker process only: it can't start as configured. It is not started again."),
        ],
    )
    for name, command in commands.items():
        lines += _command(name, command)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    usage = command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True))
    yield f"## ocrfleet {name}\n"
    yield f"    ocrfleet {name} {' '.join(usage)}\n"
    yield f"{_prose(command.help)}\n"
    rows = [(f"`{one.metavar or one.name}`", _prose(one.help), "" if one.required else "optional") for one in arguments]
    if rows:
        yield from table(("argument", "meaning", ""), rows)
    rows = []
    for one in options:
        spelled = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
        rows.append((spelled, _prose(one.help), "required" if one.required else _default(one)))
    if rows:
        yield from table(("option", "meaning", "default"), rows)


def _default(option: Any) -> str:
    value = option.default
    if value is None or value is False or value == [] or value is True or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _prose(text: str | None) -> str:
    """Return a help text's rich markup as Markdown: what is bold there is code here."""
    spans = Text.from_markup(inspect.cleandoc(text or ""))
    written, end = "", 0
    for span in sorted(spans.spans, key=lambda one: one.start):
        bold = spans.plain[span.start : span.end].replace("\n", " ")
        written += escaped(spans.plain[end : span.start]) + f"`{bold}`"
        end = span.end
    return written + escaped(spans.plain[end:])


def _first_line(text: str | None) -> str:
    return _prose((text or "").strip().partition("\n\n")[0]).replace("\n", " ")
