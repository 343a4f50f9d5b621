"""A page that a model read, as elements: from its blocks where it has any, else from its text; and each block's plain text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ocrfleet.records.pages import Role
from worker.formats.blocks import read
from worker.formats.elements import Code, Element, Formula, Heading, Item, Paragraph, to_plain
from worker.formats.inline import tex

if TYPE_CHECKING:
    from ocrfleet.records.pages import Block

#: Blocks that are part of the page but not of its text.
ASIDE = frozenset({Role.HEADER, Role.FOOTER, Role.PAGE_NUMBER})
_LEVELS = {Role.TITLE: 1, Role.HEADING: 2}
#: A longer block (in characters) is no heading, even if the model labels it as one.
_LONGEST_HEADING = 300
#: Signs that there is more than one formula. `\\\\[` begins a line of a formula.
_SEVERAL = re.compile(r"(?<!\\)(?:\\\\)*+\\[\[\]()]|\$\$|\n[ \t]*+\n")
_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))


def elements(block: Block) -> list[Element]:
    """Return the elements of a block. A block labelled heading, formula or code becomes one even if its Markdown is plain."""
    if block.made and block.role is not Role.TABLE:
        return _made(block)
    if block.role is Role.FORMULA and (formula := _formula(block.markdown)):
        return [formula]
    found = read(block.markdown)
    match found:
        case [Paragraph(lines)] if block.role in _LEVELS and sum(map(len, lines)) <= _LONGEST_HEADING:
            return [Heading(_LEVELS[block.role], " ".join(lines))]
        case [*parts] if block.role is Role.CODE and parts and not any(isinstance(part, Code) for part in parts):
            return _code(block.markdown) or found
    return found


def _made(block: Block) -> list[Element]:
    """Return the elements of a block whose Markdown was made from lines by worker/engines/layout/parts.py."""
    lines = tuple(block.markdown.split("\n")) if block.markdown else ()
    if not lines:
        return []
    if block.role in _LEVELS:
        return [Heading(_LEVELS[block.role], " ".join(lines))]
    if block.role is not Role.LIST:
        return [Paragraph(lines)]
    items: list[list[str]] = []
    for line in lines:
        if line.startswith(" ") and items:
            items[-1].append(line.strip())
        else:
            items.append([line])
    parts = ((*first.partition(" "), rest) for first, *rest in items)
    return [Item(0, marker, (text, *rest)) for marker, _, text, rest in parts]


def plain_text(block: Block) -> str:
    """Return a block's text without marks: of a table, tabs between cells and a line for each row."""
    return to_plain(elements(block))


def captions(blocks: tuple[Block, ...]) -> dict[int, str]:
    """Return the captions by their picture's index: the text below it, or above it if no other picture has that caption."""
    found: dict[int, str] = {}
    taken = set()
    for index, block in enumerate(blocks):
        if block.figure is None:
            continue
        for place in (index + 1, index - 1):
            if 0 <= place < len(blocks) and blocks[place].role is Role.CAPTION and place not in taken:
                taken.add(place)
                found[index] = " ".join(plain_text(blocks[place]).split())
                break
    return found


def _formula(written: str) -> Formula | None:
    """Return a formula block's formula; None where it has words, or other formulas, beside it."""
    text = written.strip()
    for opener, closer in _DELIMITERS:
        if text.startswith(opener) and text.endswith(closer) and len(text) > len(opener + closer):
            text = text[len(opener) : -len(closer)]
            break
    if _SEVERAL.search(text):
        return None
    latex = tex(text)
    return Formula(latex) if latex else None


def _code(written: str) -> list[Element]:
    """Return code that has no fence, as code; nothing where it holds what only we may write."""
    return read(f"```\n{written.strip(chr(10))}\n```") if "```" not in written else []
