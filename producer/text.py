"""Text for people: printable names and durations."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape

#: Characters that begin a formula in spreadsheets.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:  # noqa: PLR2004 - up to a minute and a half
        return f"{seconds:.0f} s"
    if seconds < 5400:  # noqa: PLR2004 - up to an hour and a half
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def shown(name: str) -> str:
    """Return a file name for rich's markup."""
    return escape(printable(name))


def printable(name: str) -> str:
    """Return a file name as text that a terminal only shows: control characters and stray bytes are escaped."""
    if name.isprintable():
        return name
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def csv_cell(text: str) -> str:
    """Return a text for CSV: printable, and escaped where a spreadsheet would evaluate it."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def warnings_of(warnings: Mapping[str, int]) -> str:
    """Return what is wrong with a document's file, by what it is and on how many pages."""
    pages = [f"{code} ({count} {'page' if count == 1 else 'pages'})" for code, count in warnings.items()]
    return "warnings: " + ", ".join(pages)
