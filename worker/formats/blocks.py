"""Parse a model's Markdown of any dialect into elements that CommonMark and its implementations agree on.

Any text is valid Markdown, but implementations disagree on unusual constructs, and a model means simple ones. This parser
decides line by line: only tables, formulas and code extend over an empty line, and only if they are closed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

from worker.formats.elements import Code, Element, Heading, Item, Paragraph, Quote, Rule
from worker.formats.inline import clean, without_links
from worker.formats.scan import Scanned, normalised, scan
from worker.formats.tables import from_pipes, is_delimiter

_FENCE = re.compile(r"[ \t]*+(?:(`{3,}+)[ \t]*+([^`\n]*+)|(~{3,}+)[ \t]*+([^\n]*+))")
#: The language of a fence that holds no code: some models put whole pages into one.
_NO_CODE = frozenset({"markdown", "md", "html", "text", "plaintext"})
_LANGUAGE = re.compile(r"[A-Za-z0-9+#.-]{0,20}")

_RULE = re.compile(r"([-*_])(?:[ \t]*+\1){2,}+")
_HEADING = re.compile(r"(#{1,6})[ \t]++(.*)")
_CLOSING = re.compile(r"(?:(?<=[ \t])|^)#++$")
_ITEM = re.compile(r"([-*+]|[0-9]{1,9}[.)])[ \t]++(.*)")
_UNDERLINE = re.compile(r"={2,}+")
_QUOTE = re.compile(r"(?:>[ \t]?)++")
_OWN_LINES = re.compile(r"(\x01[0-9]+\x03)")
_DEEPEST = 6


def read(text: str) -> list[Element]:
    """Parse a model's Markdown into elements. The time is linear in the text; never raises."""
    return list(_read(text))


#: Every format of a document needs the elements of the same blocks, one page after the other.
@functools.lru_cache(maxsize=128)
def _read(text: str) -> tuple[Element, ...]:
    elements: list[Element] = []
    for code, lines in _fenced(normalised(text).split("\n")):
        if code is None:
            elements += _Reader(scan("\n".join(lines))).read()
        elif lines:
            elements.append(Code(code, tuple(lines)))
    return tuple(elements)


def _fenced(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Split lines into code, with the name of its language, and other lines. Unclosed fences and fences around text are dropped."""
    found = {number: match for number, line in enumerate(lines) if (match := _FENCE.fullmatch(line)) is not None}
    fences = {number: fence for number, fence in found.items() if _LANGUAGE.fullmatch(_words(fence))}
    # Closing ones have no words; of each kind, those that are still to come, the nearest last.
    closing = {
        sign: [number for number in reversed(fences) if _sign(fences[number]) == sign and not _words(fences[number])]
        for sign in "`~"
    }
    other: list[str] = []
    number = 0
    while number < len(lines):
        fence = fences.get(number)
        if fence is None:
            other.append(lines[number])
            number += 1
            continue
        words = _words(fence)
        ends = closing[_sign(fence)]
        while ends and ends[-1] <= number:
            ends.pop()
        code = lines[number + 1 : ends[-1]] if ends and words.lower() not in _NO_CODE else None
        # Only ocrfleet may write page markers and links to figures, so that tools can rely on them.
        if code is not None and not any("<!--" in line or "](" in line for line in code):
            yield None, other
            other = []
            yield words, [line.rstrip() for line in code]
            number = ends[-1] + 1
        else:
            number += 1
    yield None, other


def _sign(fence: re.Match[str]) -> str:
    return "`" if fence[1] else "~"


def _words(fence: re.Match[str]) -> str:
    return (fence[2] or fence[4] or "").strip()


class _Reader:
    def __init__(self, scanned: Scanned) -> None:
        self._scanned = scanned
        self._lines = without_links(scanned.text).split("\n")
        self._elements: list[Element] = []
        #: lines of the open element, and what they become: a paragraph, a quotation, or an item of a list
        self._open: list[str] = []
        self._make: Callable[[tuple[str, ...]], Element] = Paragraph
        #: columns at which the items around the next one begin, as written, and as they are to be written; the last marker
        self._list: list[tuple[int, int]] = []
        self._marker = ""

    def read(self) -> list[Element]:
        number = 0
        while number < len(self._lines):
            number = self._line(number)
        self._close()
        return self._elements

    def _line(self, number: int) -> int:
        """Parse one line, or the pipe table that begins with it. Return the number of the next line."""
        line = self._lines[number].expandtabs(4).rstrip()
        body = line.lstrip()
        if not body:
            self._close()
        elif "|" in body and number + 1 < len(self._lines) and is_delimiter(self._lines[number + 1].strip()):
            return self._pipes(number)
        elif _RULE.fullmatch(body):
            self._add(Rule())
        elif heading := _HEADING.fullmatch(body):
            self._heading(heading)
        elif _UNDERLINE.fullmatch(body) and len(self._open) == 1 and self._make is Paragraph:
            (text,), self._open = self._open, []
            self._add(Heading(1, self._inline([text])[0]))
        elif body.startswith(">"):
            self._continue(Quote, _QUOTE.sub("", body, count=1).strip())
        elif (item := _ITEM.fullmatch(body)) and self._begins_item(item[1]):
            self._item(len(line) - len(body), item[1], item[2].strip())
        elif self._open and self._make not in {Paragraph, Quote} and not _OWN_LINES.search(body):
            self._open.append(body)
        else:
            self._text(body)
        return number + 1

    def _begins_item(self, marker: str) -> bool:
        """Return whether a list item begins here. Within a paragraph only a first item can: `1914. A year` is text there."""
        return not self._open or self._make is not Paragraph or marker in {"-", "*", "+", "1.", "1)"}

    def _pipes(self, number: int) -> int:
        end = number + 2
        while end < len(self._lines) and "|" in self._lines[end]:
            end += 1
        self._add(from_pipes(self._lines[number:end], self._scanned.with_formulas))
        return end

    def _heading(self, heading: re.Match[str]) -> None:
        text = _CLOSING.sub("", heading[2].strip()).strip()
        if text:
            self._add(Heading(len(heading[1]), self._inline([text])[0]))
        else:
            self._text(heading[0].strip())

    def _item(self, column: int, marker: str, text: str) -> None:
        self._close()
        while self._list and (column < self._list[-1][0] or len(self._list) > _DEEPEST):
            self._list.pop()
        if not self._list:
            self._list.append((column, 0))
        elif column > self._list[-1][0] + 1:
            self._list.append((column, self._list[-1][1] + len(self._marker) + 1))
        self._marker = marker if marker[0].isdigit() else "-"
        self._open = [text]
        self._make = functools.partial(Item, self._list[-1][1], self._marker)

    def _text(self, body: str) -> None:
        for piece in map(str.strip, _OWN_LINES.split(body)):
            if _OWN_LINES.fullmatch(piece):
                number = int(piece[1:-1])
                self._add(self._scanned.tables.get(number) or self._scanned.formulas[number])
            elif piece:
                self._continue(Paragraph, piece)

    def _continue(self, make: Callable[[tuple[str, ...]], Element], line: str) -> None:
        if self._make is not make:
            self._close()
        self._list = []
        self._make = make
        self._open.append(line)

    def _add(self, element: Element) -> None:
        self._close()
        self._list = []
        self._elements.append(element)

    def _close(self) -> None:
        if self._open:
            self._elements.append(self._make(tuple(self._inline(self._open))))
            self._open = []

    def _inline(self, lines: list[str]) -> list[str]:
        """Return cleaned lines of a paragraph. Marks contain no character that cleaning changes."""
        return [self._scanned.with_formulas(line) for line in clean("\n".join(lines)).split("\n")]
