"""Removes invisible text of an earlier OCR (rendering mode 3) from a page. Runs in a sandbox.

All other operators stay unchanged and in order, including visible text. Invisible text is kept if visible text follows it without
its own position, because that text would move.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

import pikepdf

#: Text in this rendering mode is neither filled nor stroked (ISO 32000-1, table 106).
_INVISIBLE = 3
#: Bytes in each content stream with invisible text, or with a form: most pages need no parsing.
_SETS_MODE = re.compile(rb"\b3\s+Tr\b")
_DRAWS = re.compile(rb"/([^\s/\[\]<>(){}%]+)\s+Do\b")
#: Maximum nesting of forms that is searched.
_DEEPEST = 8

_SHOWS = frozenset({"Tj", "TJ", "'", '"'})
#: Operators that set the position of text independently of the text before.
_MOVES = frozenset({"Td", "TD", "T*", "Tm", "BT", "ET", "'", '"'})
#: Operators that paint other content than text.
_PAINTS = frozenset({"Do", "INLINE IMAGE", "sh", "S", "s", "f", "F", "f*", "B", "B*", "b", "b*"})
#: Entries of marked content that replace or describe its content.
_SPEAKS = ("/ActualText", "/Alt", "/E")


class OldText:
    """Invisible text of the pages of one document. A form used by several pages is searched once."""

    def __init__(self, pdf: pikepdf.Pdf) -> None:
        self._pdf = pdf
        self._forms: dict[tuple[int, int], bool] = {}

    def is_on(self, page: pikepdf.Page) -> bool:
        """Return whether a page has invisible text."""
        return self._page(page, change=False)

    def remove(self, page: pikepdf.Page) -> bool:
        """Remove the invisible text of a page; return whether there was any."""
        return self._page(page, change=True)

    def _page(self, page: pikepdf.Page, *, change: bool) -> bool:
        try:
            content = _content(page.obj)
        except pikepdf.PdfError:
            return False  # the content of the page is unreadable
        found = self._in_forms(page.obj.get("/Resources"), content, change=change, depth=0)
        if _SETS_MODE.search(content):
            instructions = list(pikepdf.parse_content_stream(page))
            drop, there = _invisible(instructions)
            if drop and change:
                data = pikepdf.unparse_content_stream(list(_kept(instructions, drop)))
                page.obj.Contents = pikepdf.Stream(self._pdf, zlib.compress(data), Filter=pikepdf.Name.FlateDecode)
            found = found or there
        return found

    def _in_forms(self, resources: Any, content: bytes, *, change: bool, depth: int) -> bool:
        """Process the forms of a content stream in the same way."""
        forms = resources.get("/XObject") if isinstance(resources, pikepdf.Dictionary) else None
        if not isinstance(forms, pikepdf.Dictionary) or depth >= _DEEPEST:
            return False
        found = False
        for name in set(_DRAWS.findall(content)):
            form = forms.get(f"/{name.decode('latin-1')}")
            if isinstance(form, pikepdf.Stream) and form.get("/Subtype") == pikepdf.Name.Form:
                found |= self._form(form, change=change, depth=depth + 1)
        return found

    def _form(self, form: pikepdf.Stream, *, change: bool, depth: int) -> bool:
        if form.objgen in self._forms:
            return self._forms[form.objgen]
        self._forms[form.objgen] = False  # a form may contain itself
        try:
            content = form.read_bytes()
        except pikepdf.PdfError:
            return False
        found = self._in_forms(form.get("/Resources"), content, change=change, depth=depth)
        if _SETS_MODE.search(content):
            instructions = list(pikepdf.parse_content_stream(form))
            drop, there = _invisible(instructions)
            if drop and change:
                data = pikepdf.unparse_content_stream(list(_kept(instructions, drop)))
                form.write(zlib.compress(data), filter=pikepdf.Name.FlateDecode)
            found = found or there
        self._forms[form.objgen] = found
        return found


def _content(page: Any) -> bytes:
    contents = page.get("/Contents")
    if isinstance(contents, pikepdf.Stream):
        return contents.read_bytes()
    if isinstance(contents, pikepdf.Array):
        return b"\n".join(part.read_bytes() for part in contents if isinstance(part, pikepdf.Stream))
    return b""


def _invisible(instructions: list[Any]) -> tuple[set[int], bool]:
    """Return the indexes of removable instructions that show invisible text, and whether there is any invisible text."""
    mode, saved, found = 0, [], False
    drop: set[int] = set()
    #: invisible text since the last operator that set a position
    waiting: list[int] = []
    for place, (operands, operator) in enumerate(instructions):
        name = str(operator)
        if name in _MOVES:
            drop.update(waiting)
            waiting = []
        if name == "q":
            saved.append(mode)
        elif name == "Q":
            mode = saved.pop() if saved else mode
        elif name == "Tr":
            mode = _as_mode(operands)
        elif name in _SHOWS:
            found = found or mode == _INVISIBLE
            waiting = [*waiting, place] if mode == _INVISIBLE else []
    return drop | set(waiting), found


def _as_mode(operands: Any) -> int:
    try:
        return int(operands[0])
    except (IndexError, TypeError, ValueError):
        return 0


def _kept(instructions: list[Any], drop: set[int]) -> Iterator[Any]:
    """Yield the remaining instructions. Marked content that lost all its content loses its replacement text as well."""
    silent = _silent(instructions, drop)
    for place, instruction in enumerate(instructions):
        operands, operator = instruction
        if place in silent:
            properties = pikepdf.Dictionary({key: operands[1][key] for key in operands[1] if key not in _SPEAKS})
            yield pikepdf.ContentStreamInstruction([operands[0], properties], operator)
        elif place not in drop:
            yield instruction
        elif str(operator) in "'\"":
            # These operators move to the next line first; one also sets word and character spacing.
            if len(operands) == 3:  # noqa: PLR2004
                yield pikepdf.ContentStreamInstruction([operands[0]], pikepdf.Operator("Tw"))
                yield pikepdf.ContentStreamInstruction([operands[1]], pikepdf.Operator("Tc"))
            yield pikepdf.ContentStreamInstruction([], pikepdf.Operator("T*"))


def _silent(instructions: list[Any], drop: set[int]) -> set[int]:
    """Return the indexes at which marked content starts that has a replacement text and contains only removed text."""
    silent: set[int] = set()
    #: for each open marked content: start, whether text in it is removed, whether other content is kept
    open_ones: list[list[Any]] = []
    for place, (operands, operator) in enumerate(instructions):
        name = str(operator)
        if name in {"BDC", "BMC"}:
            open_ones.append([place, False, False])
        elif name == "EMC" and open_ones:
            begin, dropped, kept = open_ones.pop()
            properties = instructions[begin][0][1:]
            speaks = properties and isinstance(properties[0], pikepdf.Dictionary)
            if dropped and not kept and speaks and any(key in properties[0] for key in _SPEAKS):
                silent.add(begin)
        elif place in drop:
            for entry in open_ones:
                entry[1] = True
        elif name in _SHOWS or name in _PAINTS:
            for entry in open_ones:
                entry[2] = True
        del operands
    return silent
