r"""What commands print: names and messages from outside never control the terminal.

Control characters, escape sequences and controls of direction are shown as escapes (`\x1b`), in all that is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from producer.text import printable


def console(*, stderr: bool = False, highlight: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console of rich that prints only printable characters."""
    made = Console(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap)
    made.push_render_hook(_Hook())
    return made


def echo(text: object, *, stderr: bool = False) -> None:
    """Print lines of text to standard output, or to standard error."""
    typer.echo(_lines(str(text)), err=stderr)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    """Something to print, without the control characters that are in its text. Rich's own are apart."""

    def __init__(self, renderable: Any) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments: Iterable[Segment] = console.render(self._renderable, options)
        for segment in segments:
            yield segment if segment.control else Segment(_lines(segment.text), segment.style)
