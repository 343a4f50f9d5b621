"""Parse the output of olmOCR: YAML front matter about the page, then its Markdown.

The five fields are read by hand and strictly; what is no front matter is text. The fields and their values are those of
https://github.com/allenai/olmocr/blob/main/olmocr/pipeline.py (its guided decoding).
"""

from __future__ import annotations

import re

from ocrfleet.records.pages import Block
from worker.parsers import markdown
from worker.parsers.parsed import Parsed

_BOOLEAN = re.compile(r"[Tt]rue|[Ff]alse")
_FIELDS = {
    "primary_language": re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z]{2,8})*+|null"),
    "is_rotation_valid": _BOOLEAN,
    "rotation_correction": re.compile(r"0|90|180|270"),
    "is_table": _BOOLEAN,
    "is_diagram": _BOOLEAN,
}
_FIELD = re.compile(rf"({'|'.join(_FIELDS)})[ \t]*+:[ \t]*+([^\r\n]{{0,64}})(?:\r?\n|\Z)")
_RULE = re.compile(r"---+[ \t]*+(?:\r?\n|\Z)")
#: some outputs are one code block as a whole
_FENCE = re.compile(r"```(?:markdown|yaml)?[ \t]*+\r?\n(?=---)")
#: A figure, with the words that describe it and a name made of its place: there is no such file. In which pixels the place
#: is, its authors don't say, so it is not used.
_FIGURE = re.compile(r"!\[([^\[\]]*+)\]\(page_[0-9_]{1,64}\.png\)")


def parse(output: str) -> Parsed:
    """Return the page's blocks, without labels and boxes: this model writes neither.

    `damage` names missing fields of the front matter, or says that the page must be rotated first.
    """
    output = output.lstrip()
    fence = _FENCE.match(output)
    if fence:
        output = output[fence.end() :].rstrip().removesuffix("```")
    damage, body = _front_matter(output)
    return Parsed.of(map(_described, markdown.blocks(body)), damage=damage)


def _front_matter(output: str) -> tuple[str | None, str]:
    """Return what is wrong with the front matter or with the page it describes, and the text after it."""
    fields: dict[str, str] = {}
    opened = _RULE.match(output)
    at = opened.end() if opened else 0
    while (field := _FIELD.match(output, at)) and field[1] not in fields:
        fields[field[1]] = field[2].strip()
        at = field.end()
    if not fields:
        return "there is no front matter", output
    closed = _RULE.match(output, at)
    if closed:
        at = closed.end()
    wrong = [name for name, values in _FIELDS.items() if not values.fullmatch(fields.get(name, ""))]
    damage = None
    if not opened or not closed:
        damage = "the front matter has no beginning or no end"
    elif wrong:
        damage = f"the front matter does not tell {', '.join(wrong)}"
    elif fields["is_rotation_valid"].lower() == "false" and (turn := fields["rotation_correction"]) != "0":
        # olmOCR's own pipeline rotates the page counter-clockwise by this angle.
        damage = f"the page is not upright: it has to be turned counter-clockwise by {turn} degrees to be read"
    return damage, output[at:]


def _described(block: Block) -> Block:
    """Return a block in which a figure's link is replaced by its description."""
    if "](page_" not in block.markdown:
        return block
    return block.model_copy(update={"markdown": _FIGURE.sub(r"\1", block.markdown).strip()})
