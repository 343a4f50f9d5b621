"""Text for XML files: escaped, and without the characters that no XML file may hold, which a model may have written."""

from __future__ import annotations

import re

#: What is no character of XML 1.0 (https://www.w3.org/TR/xml/#charsets).
_INVALID = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile('[&<>"\t\n\r]')
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def xml(text: str) -> str:
    """Return a text as content, or as the value of an attribute between double quotes."""
    if text.isalnum():  # most words
        return text
    return _SPECIAL.sub(lambda found: _ESCAPED[found[0]], _INVALID.sub("\N{REPLACEMENT CHARACTER}", text))


def attributes(**values: str | float | None) -> str:
    """Return attributes with a space before each; those without a value are left out, numbers have two decimals at most."""
    return "".join(f' {name}="{_value(value)}"' for name, value in values.items() if value is not None)


def _value(value: str | float) -> str:
    return xml(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
