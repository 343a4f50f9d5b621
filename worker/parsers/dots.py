"""Parse the output of dots.ocr: a JSON list of cells, each with a bbox, a category and, except for pictures, a text.

The list is not parsed as JSON, because an output that was cut off, or has a quote too few or too many, would lose all its
cells. Instead it is split at its keys, in one pass; the text between two keys is the value of the first. A JSON string can't
contain a key, because its quotes are escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ocrfleet.markdown.escape import INLINE_FORMULA
from ocrfleet.records.pages import Block, Role
from worker.parsers.markdown import refined
from worker.parsers.parsed import Parsed, misplaced

#: The categories of the published prompt: https://github.com/rednote-hilab/dots.ocr, dots_ocr/utils/prompts.py
ROLES = {
    "Caption": Role.CAPTION,
    "Footnote": Role.FOOTNOTE,
    "Formula": Role.FORMULA,
    "List-item": Role.LIST,
    "Page-footer": Role.FOOTER,
    "Page-header": Role.HEADER,
    "Picture": Role.FIGURE,
    "Section-header": Role.HEADING,
    "Table": Role.TABLE,
    "Text": Role.TEXT,
    "Title": Role.TITLE,
}
#: The model's processor scales a page image to sides that are multiples of STEP pixels, with MIN_PIXELS to MAX_PIXELS in
#: all: dots_ocr/utils/consts.py of the same repository, and the model's preprocessor_config.json.
STEP, MIN_PIXELS, MAX_PIXELS = 28, 3_136, 11_289_600

_KEYS = "bbox", "category", "text"
_KEY = re.compile(rf'"({"|".join(_KEYS)})"\s*+:')
_NUMBER = r"\s*+(-?+[0-9]{1,6}+(?:\.[0-9]{1,6}+)?+)\s*+"
_BOX = re.compile(rf"\s*+\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
#: a malformed box
_NO_BOX = re.compile(r'(?:[-+\s0-9.,eE\[\]"]|null|NaN|Infinity)*+')
_CATEGORY = re.compile(r'\s*+"([^"\\\n]{0,64})"')
_BEGINNING = re.compile(r'\s*+"')
#: the end of a text that is followed by words outside of any cell; escaped characters don't count
_END = re.compile(r'\\.|("\s*+\}[\s,\]]*+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|u[0-9a-fA-F]{0,3}\Z|.|\Z)", re.DOTALL)
#: JSON's other escapes, \b and \f, don't occur on pages: they are LaTeX commands without their second backslash.
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "r": "\r", "t": "\t"}
#: LaTeX commands that JSON would read as a tab, a newline or a return, followed by letters.
_COMMANDS = (
    "tag tan tanh tau text textbf textit textrm textstyle tfrac therefore theta tilde times to top triangle triangleq "
    "nabla ne nearrow neg neq nexists nleq nmid not notin nsubseteq nu "
    "rangle rbrace rceil rfloor rho right rightarrow rightleftharpoons rm rvert"
)
_COMMAND = re.compile(rf"\\(?:((?:{_COMMANDS.replace(' ', '|')})(?![A-Za-z]))|.)", re.DOTALL)
#: a LaTeX command that is escaped as JSON requires
_DOUBLED = re.compile(r"(?<!\\)(?:\\\\)++[A-Za-z]")
#: a formula between dollar signs
_FORMULA = re.compile(rf"\$\$(?:[^$\\]|\\.)++\$\$|{INLINE_FORMULA.pattern}")
_STRUCTURE = " \t\r\n,[]{}"
_FENCE = re.compile(r"```(?:json)?")
#: the beginning of a category or of a key, at which an output may be cut off
_HALF_CATEGORIES = {f'"{name}'[:end] for name in ROLES for end in range(1, len(name) + 2)}
_HALF_KEYS = "|".join(f'"{key}"'[:end] for key in _KEYS for end in range(1, len(key) + 3))
_HALF_KEY = re.compile(rf"(?<=[{{,])\s*+(?:{_HALF_KEYS})\Z")
#: characters at the end of the output that are searched for such a beginning
_LONGEST_HALF = 32
_MATH = re.compile(r"\$|\\\[|\\\(")


@dataclass(slots=True)
class _Element:
    """A cell, or words outside of any cell: then only `text` is set."""

    bbox: tuple[float, ...] | None = None
    category: str | None = None
    text: str | None = None


def parse(output: str, *, width_px: int, height_px: int) -> Parsed:
    """Return the page's blocks, with boxes in pixels of the page image, rounded to 0.1.

    The model's boxes are in pixels of its scaled image. A cell without a box, a category or a text is kept. Words outside
    of any cell become a block without a label.
    """
    half = _HALF_KEY.search(output, max(0, len(output) - _LONGEST_HALF))
    output = output[: half.start()] if half else output
    if not _KEY.search(output):
        text = output.strip() if _words(output) else ""
        damage = "the text has no layout: there is not one cell" if text else None
        return Parsed.of([Block(label="", role=Role.TEXT, markdown=text)] if text else [], damage=damage)
    cells, whole = _cells(output)
    blocks = [block for cell in cells if (block := _block(cell, width_px, height_px))]
    damage = None if whole else "the list of cells breaks off"
    return Parsed.of(blocks, damage=damage or misplaced(block for block in blocks if block.label))


def _cells(output: str) -> tuple[list[_Element], bool]:
    """Split an output at its keys. Return its cells, and whether the last one is complete."""
    before, *found = _KEY.split(output)
    cells = [_Element(text=_words(before))]
    current, begins, whole, words = _Element(), True, True, ""
    for key, value in zip(found[::2], found[1::2], strict=True):
        if begins or getattr(current, key) is not None:
            current = _Element()
            cells.append(current)
        rest, whole = _read(current, key, value)
        begins = value.rstrip().endswith("{")
        words = _words(rest)
        if words:
            cells.append(_Element(text=words))
    if words in _HALF_CATEGORIES:
        cells.pop()
        whole = False
    return cells, whole


def scaled(width_px: int, height_px: int) -> tuple[int, int]:
    """Return the size (width, height) in pixels to which the model's processor scales a page image."""

    def steps(pixels: float, rounded: Callable[[float], int]) -> int:
        return max(STEP, rounded(pixels / STEP) * STEP)

    width, height = steps(width_px, round), steps(height_px, round)
    if width * height > MAX_PIXELS:
        by = math.sqrt(width_px * height_px / MAX_PIXELS)
        return steps(width_px / by, math.floor), steps(height_px / by, math.floor)
    if width * height < MIN_PIXELS:
        by = math.sqrt(MIN_PIXELS / (width_px * height_px))
        return steps(width_px * by, math.ceil), steps(height_px * by, math.ceil)
    return width, height


def _read(cell: _Element, key: str, value: str) -> tuple[str, bool]:
    """Set a cell's value for a key. Return the text after the value, and whether the cell ends there."""
    if key == "bbox":
        box = _BOX.match(value)
        cell.bbox = tuple(map(float, box.groups())) if box else ()
        end = box or _NO_BOX.match(value)
        rest = value[end.end() if end else 0 :]
    elif key == "category":
        category = _CATEGORY.match(value)
        cell.category = category[1].strip() if category else ""
        rest = value[category.end() if category else 0 :]
    else:
        written, rest = _text(value)
        cell.text = _unescaped(written, formula=ROLES.get(cell.category or "") is Role.FORMULA)
    structure = rest.rstrip(" \t\r\n`]")
    return rest, "}" in rest and not structure.endswith((",", "{"))


def _text(value: str) -> tuple[str, str]:
    """Return a value's string, still escaped, and the text after it: "" if the string does not end."""
    beginning = _BEGINNING.match(value)
    if not beginning:
        return "", value.strip().removeprefix("null")
    written = value[beginning.end() :]
    ending = written.rstrip(_STRUCTURE)
    if ending.endswith('"') and (len(ending) - len(ending[:-1].rstrip("\\"))) % 2:
        return ending[:-1], written[len(ending) :]
    last = None
    for match in _END.finditer(written):
        last = match if match[1] else last
    if last:
        return written[: last.start()], written[last.start() + 1 :]
    for structure in "{,}":  # the closing quote is missing, and the next cell begins
        written = written.rstrip().removesuffix(structure)
    return written, ""


def _unescaped(written: str, *, formula: bool) -> str:
    r"""Return the value of a JSON string. Unknown escapes are kept as they are, because LaTeX is full of them.

    In a formula, or between dollar signs, `\times` is read as a command and not as a tab, unless the string has other
    commands that are escaped correctly.
    """
    if not _DOUBLED.search(written):
        written = _commands(written) if formula else _FORMULA.sub(lambda math: _commands(math[0]), written)
    text = _ESCAPE.sub(_character, written)
    if "\\u" in written:  # join surrogate pairs; a lone surrogate can't be stored
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.strip()


def _commands(latex: str) -> str:
    """Return LaTeX with the second backslash that JSON requires before each command."""
    return _COMMAND.sub(lambda match: f"\\{match[0]}" if match[1] else match[0], latex)


def _character(escape: re.Match[str]) -> str:
    code = escape[1]
    if code[:1] == "u" and len(code) == len("u0041"):
        return chr(int(code[1:], 16))
    if not code or (code[0] == "u" and escape.end() == len(escape.string)):  # cut off
        return ""
    return _ESCAPED.get(code, escape[0])


def _words(between: str) -> str:
    """Return the text outside of cells without JSON's brackets and code fences."""
    return _FENCE.sub("", between).strip(_STRUCTURE).strip()


def _block(cell: _Element, width_px: int, height_px: int) -> Block | None:
    label, text = cell.category or "", cell.text or ""
    if not (label or text or cell.bbox):
        return None
    role = ROLES.get(label, Role.OTHER) if label else Role.TEXT
    if role is Role.FORMULA and text and not _MATH.search(text):
        text = f"$$\n{text}\n$$"
    boxes = _boxes(cell.bbox or (), width_px, height_px)
    return Block(label=label, role=refined(role, text), boxes=boxes, markdown=text)


def _boxes(bbox: tuple[float, ...], width_px: int, height_px: int) -> tuple[tuple[float, float, float, float], ...]:
    """Return the box, clipped to the image; () if nothing is left of it."""
    if not bbox:
        return ()
    width, height = scaled(width_px, height_px)
    x0, x1 = (round(min(max(x, 0), width) * width_px / width, 1) for x in (bbox[0], bbox[2]))
    y0, y1 = (round(min(max(y, 0), height) * height_px / height, 1) for y in (bbox[1], bbox[3]))
    return ((x0, y0, x1, y1),) if x0 < x1 and y0 < y1 else ()
