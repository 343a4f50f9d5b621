"""Words that are divided at the end of a line."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.formats.page_layout import TextLine

#: At least two letters before the hyphen, as in ocrfleet/markdown/style.py.
_DIVIDED = re.compile(r"(.*[^\W\d_]{2})([-\u2010\u00ad\u00ac\u2e17])$")
#: `Haupt- und Nebensaetze`: no divided word goes on with these.
_AND = frozenset({"und", "oder", "sowie", "and"})


class Divided(NamedTuple):
    """A word that ends on the next line."""

    #: of the line that it begins on
    line: int
    #: its first part without the hyphen, and the hyphen
    first: str
    sign: str
    whole: str


def divided(lines: Sequence[TextLine]) -> dict[int, Divided]:
    """Return the words of a block that go on behind the end of a line, by the line's index."""
    found = {}
    for number, (line, following) in enumerate(pairwise(lines)):
        begin, rest = _DIVIDED.match(line.words[-1].text), following.words[0].text
        if begin is not None and rest[:1].islower() and rest.strip(".,;:") not in _AND:
            found[number] = Divided(number, begin[1], begin[2], begin[1] + rest)
    return found
