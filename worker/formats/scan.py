r"""The first pass over a model's Markdown: extract tags, formulas and tables, in linear time.

The result is lines of Markdown with a mark in place of each formula and each table: `\x01n\x03` if it has its own lines,
`\x02n\x03` if it is within a line. No text contains such a mark, because control characters are removed first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ocrfleet.markdown.escape import INLINE_FORMULA
from worker.formats.elements import Formula, Table
from worker.formats.inline import script, tex
from worker.formats.tables import TAGS, TableReader, part_at_empty_line

#: HTML tags that models write into Markdown: they separate paragraphs, lines, or nothing. Other words in angle brackets are
#: text of the page.
_PARAGRAPHS = frozenset(
    {"p", "div", "center", "section", "article", "header", "footer", "main", "figure", "figcaption", "blockquote"}
    | {"ul", "ol", "dl", "pre", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "page_number", "watermark", "signature"}
)
_LINES = frozenset({"br", "li", "dt", "dd"})
_NOTHING = frozenset(
    {"b", "strong", "i", "em", "u", "s", "del", "ins", "mark", "small", "big", "sup", "sub", "span", "font", "a", "img"}
    | {"code", "kbd", "tt", "var", "q", "cite", "abbr", "nobr", "wbr", "col", "colgroup", "html", "head", "body"}
)
_KNOWN = _PARAGRAPHS | _LINES | _NOTHING | TAGS

_TOKEN = re.compile(
    r"<(?P<script>sup|sub)>(?P<raised>[^<>]{0,80}+)</(?P=script)>"
    r"|<(?P<emphasis>b|strong|i|em)>(?P<emphatic>(?![\s*])[^<>\n*_`\\]++)(?<!\s)</(?P=emphasis)>"
    r"|<(?P<closing>/?)(?P<name>[A-Za-z][A-Za-z0-9_]{0,15})(?P<attributes>(?:[\s/][^<>]*+)?)>"
    r"|(?P<formula>\\\\|\\[\[\](]|\$\$)|(?<!\\)\$"
    r"|\\begin\{(?P<environment>(?:equation|align|gather|multline|eqnarray)\*?)\}",
    re.IGNORECASE,
)
#: The form of an attribute: `a<b and c>d` contains no tag.
_ATTRIBUTES = re.compile(r"(?:\s++[A-Za-z-]++\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"']++))*+\s*+/?\s*+")
_ALT = re.compile(r"\balt\s*+=\s*+[\"']([^\"']*+)", re.IGNORECASE)
_LAST_TAG = re.compile(r"</?(?:table|thead|tbody|tfoot|tr|td|th|caption)[\s>]", re.IGNORECASE)
_EMPTY_LINE = re.compile(r"\n[ \t]*+\n")
#: Control characters except tab and line feed. They mean nothing in a text, and we use some as marks.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CLOSERS = {"\\[": "\\]", "\\(": "\\)", "$$": "$$"}
MARK = re.compile(r"[\x01\x02]([0-9]+)\x03")


@dataclass(slots=True)
class Scanned:
    """Lines of Markdown without tags, with the formulas and tables that the marks in them stand for."""

    text: str
    formulas: list[Formula] = field(default_factory=list)
    tables: dict[int, Table] = field(default_factory=dict)

    def with_formulas(self, text: str) -> str:
        """Return a line with its formulas between dollar signs instead of marks."""
        return MARK.sub(lambda mark: f"${self.formulas[int(mark[1])].tex}$", text)


def normalised(text: str) -> str:
    """Return the text with line feeds as line ends, and without other control characters except tabs."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._out: list[str] = []
        self._found = Scanned("")
        self._table: TableReader | None = None
        last = 0
        for match in _LAST_TAG.finditer(text):
            last = match.start()
        #: offset of the last tag of any table
        self._last_tag = last
        #: the position of the next closer of each kind of formula; the text's length if there is none
        self._closers: dict[str, int] = {}

    def scan(self) -> Scanned:
        position = 0
        while (token := _TOKEN.search(self._text, position)) is not None:
            self._take(self._text[position : token.start()], token.start())
            position = self._token(token)
        self._take(self._text[position:], len(self._text))
        self._end_table()
        self._found.text = "".join(self._out)
        return self._found

    def _take(self, text: str, end: int) -> None:
        """Add the text up to an offset, to the open cell if there is one."""
        if self._table is None:
            self._out.append(text)
        elif not self._table.takes_text:
            if text.strip():
                self._end_table()
                self._out.append(text)
        elif end > self._last_tag:  # the table was never closed
            inside, outside = part_at_empty_line(text)
            self._table.text(inside)
            if outside is not None:
                self._end_table()
                self._out.append(outside)
        else:
            self._table.text(text)

    def _end_table(self) -> None:
        if self._table is None:
            return
        table = self._table.end()
        leftover = self._table.leftover() if table is None else ""
        self._table = None
        if table is not None:
            self._out.append(f"\n\n{self._mark(Formula(''), table)}\n\n")
        else:
            self._out.append(leftover)

    def _mark(self, formula: Formula, table: Table | None = None, *, inline: bool = False) -> str:
        number = len(self._found.formulas)
        self._found.formulas.append(formula)
        if table is not None:
            self._found.tables[number] = table
        return ("\x02" if inline else "\x01") + f"{number}\x03"

    def _token(self, token: re.Match[str]) -> int:
        """Process a token. Return the offset where the next one may begin."""
        if token["script"]:
            self._take(script(token["script"].lower(), token["raised"]), token.end())
        elif token["emphasis"]:
            marks = "" if self._table else "**" if token["emphasis"].lower() in {"b", "strong"} else "*"
            self._take(f"{marks}{token['emphatic']}{marks}", token.end())
        elif token["name"]:
            self._tag(token)
        else:
            return self._formula(token)
        return token.end()

    def _tag(self, token: re.Match[str]) -> None:
        name, attributes, closing = token["name"].lower(), token["attributes"], bool(token["closing"])
        if name not in _KNOWN or not (name in TAGS or _ATTRIBUTES.fullmatch(attributes)):
            # Only the bracket is text; the characters after it may be a tag.
            self._take(token[0], token.end())
        elif name in TAGS:
            self._table_tag(name, closing=closing, attributes=attributes)
        elif self._table is not None and self._table.takes_text:
            if name not in _NOTHING:
                self._table.text("\n")
        elif self._table is None:
            self._out.append(_instead(name, closing=closing, attributes=attributes))

    def _table_tag(self, name: str, *, closing: bool, attributes: str) -> None:
        if self._table is not None and name == "table" and not closing and not self._table.takes_text:
            self._end_table()  # the previous table was never closed
        if self._table is None:
            if closing:
                self._out.append("\n" if name in {"tr", "table"} else " ")
                return
            self._table = TableReader()
            if name == "table":
                return
        if not self._table.tag(name, closing=closing, attributes=attributes):
            self._end_table()

    def _formula(self, token: re.Match[str]) -> int:
        """Process a formula, or a delimiter without an end. Return the offset where the next token may begin."""
        found = self._content(token)
        if found is None:
            # An end without a beginning, or a price: unchanged, but its backslash stays visible.
            self._take("\\" * (token[0] in _CLOSERS and token[0] != "$$") + token[0], token.end())
            return token.end()
        content, end = found
        formula = Formula(tex(content))
        if formula.tex and self._table is not None:
            self._take(f"${formula.tex}$", end)
        elif formula.tex:
            self._out.append(self._mark(formula, inline=token[0] in {"$", "\\("}))
        return end

    def _content(self, token: re.Match[str]) -> tuple[str, int] | None:
        """Return the LaTeX of the formula that a token begins, and the offset of its end; None if it begins none."""
        opener, start = token[0], token.end()
        if opener == "$":
            match = INLINE_FORMULA.match(self._text, token.start())
            return (match[1], match.end()) if match else None
        environment = token["environment"]
        closer = f"\\end{{{environment}}}" if environment else _CLOSERS.get(opener)
        stop = self._next(closer, start) if closer else None
        if closer is None or stop is None:
            return None
        end = stop + len(closer)
        if environment:
            return self._text[token.start() : end], end
        # Another one begins before this one ends, so this one was not closed. The search comes before any copy, so that a text
        # of many openers takes no longer.
        if self._text.find(opener, start, stop) >= 0:
            return None
        content = self._text[start:stop]
        return None if opener != "\\[" and _EMPTY_LINE.search(content) else (content, end)

    def _next(self, closer: str, start: int) -> int | None:
        """Return the offset of the next closing delimiter of a kind. Each position is searched once."""
        stop = self._closers.get(closer, -1)
        if stop < start:
            stop = self._text.find(closer, start)
            stop = self._closers[closer] = stop if stop >= 0 else len(self._text)
        return stop if stop < len(self._text) else None


def _instead(name: str, *, closing: bool, attributes: str) -> str:
    """Return the replacement of a tag outside of any table."""
    if name == "img":
        alt = _ALT.search(attributes)
        return alt[1] if alt else ""
    if name == "li":
        return "" if closing else "\n- "
    if name in _LINES:
        return "\n"
    if name == "hr":
        return "\n\n---\n\n"
    if name[0] == "h" and name[1:].isdigit() and not closing:
        return f"\n\n{'#' * int(name[1:])} "
    return "\n\n" if name in _PARAGRAPHS else ""


def scan(text: str) -> Scanned:
    """Extract tags, formulas and tables from a `normalised` text."""
    return _Scanner(text).scan()
