"""Parse the output of PaddleOCR-VL: text or Markdown, formulas as LaTeX, and tables as OTSL, which become HTML.

With the table prompt the model writes OTSL only, with "OCR:" mostly text. Tables are found anywhere in the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocrfleet.records.pages import Block, Role
from worker.parsers import markdown, otsl
from worker.parsers.otsl import ROW_END, TAGS, TaggedCell
from worker.parsers.parsed import Parsed

_TAG = re.compile(f"({'|'.join(TAGS)})")
#: the beginning of a tag, at which an output may end; a single "<" may be text
_REMNANTS = {tag[:end] for tag in TAGS for end in range(2, len(tag))}


def parse(output: str) -> Parsed:
    """Return the page's blocks, without labels and boxes: this model writes neither.

    Nothing is lost to a grid that isn't one: text after a tag that should have none stays in its cell, and text that
    follows the end of a row stands outside of the table.
    """
    output = output.rstrip()
    output = output.removesuffix(next(filter(output.endswith, _REMNANTS), ""))
    blocks: list[Block] = []
    cells = lost = 0
    for piece in _pieces(output):
        if isinstance(piece, str):
            blocks += markdown.blocks(piece)
            continue
        written, missing = otsl.table(piece)
        cells += sum(len(row) for row in piece)
        lost += missing
        blocks.append(Block(label="", role=Role.TABLE, markdown=written))
    damage = f"the table is no grid: {lost} of {cells} cells belong to none" if 2 * lost > cells else None
    return Parsed.of(blocks, damage=damage)


def _pieces(output: str) -> Iterator[str | list[list[TaggedCell]]]:
    """Split an output, in one pass, into the texts outside of tables and the rows of tables that have cells."""
    before, *found = _TAG.split(output)
    texts: list[str] = [before]
    rows: list[list[TaggedCell]] = []
    for tag, after in zip(found[::2], found[1::2], strict=True):
        if tag != ROW_END:
            if not rows:
                yield "\n".join(texts)
                texts, rows = [], [[]]
            rows[-1].append(TaggedCell(tag, after))
        elif not rows:  # a row end outside of a table
            texts.append(after)
        elif after.strip():
            yield [row for row in rows if row]
            texts, rows = [after], []
        else:
            rows.append([])
    if rows:
        yield [row for row in rows if row]
    yield "\n".join(texts)
