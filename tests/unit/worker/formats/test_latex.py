"""LaTeX that a model wrote: in each output, only known commands are live; the others are shown."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator

import pytest
from docx import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ocrfleet.formats import FormatName
from ocrfleet.markdown import latex
from ocrfleet.markdown.latex import _WORDS
from ocrfleet.markdown.style import Style, Tables, restyled
from ocrfleet.records.pages import Block
from tests.support.growth import assert_grows_linearly
from tests.unit.worker.formats.test_formats import NO_STORE, result, write
from tests.unit.worker.formats.test_written_formats import write as written_bytes
from worker.formats.markdown import clean
from worker.formats.materials import Materials

COMMONMARK = MarkdownIt("commonmark")
#: No viewer looks for a formula there.
CELL_WITHOUT_FORMULA = re.compile(
    r"<(td|th|caption)[^>]*>(?:(?!\$|\\[(\[]|\\begin)[^<])*</\1>|(?<=\|) (?:(?!\$|\\\\?[(\[]|\\begin)(?:\\.|[^|\n]))*(?= \|)"
)

LIVE = [
    r"\href{javascript:alert(1)}{x}",
    r"\url{javascript:alert(1)}",
    r"\includegraphics{http://attacker.example/a.png}",
    r"\input{/etc/passwd}",
    r"\immediate\write18{id}",
    r"\openin5=/etc/passwd \read5 to\line",
    r"\csname href\endcsname{javascript:alert(1)}{x}",
    r"\expandafter\href{a}{b}",
    r"\def\alpha{\href{a}{b}}\alpha",
    r"\let\alpha=\href",
    r"\newcommand{\frac}{\href}",
    r"\catcode`\|=0 |href{a}{b}",
    r"\require{html}",
    r"\htmlData{a=b}{x}\htmlStyle{a}{x}\class{a}{x}\cssId{a}{x}\style{a}{x}",
    r"\text{\href{a}{b}}",
    r"\begin{filecontents}{a}x\end{filecontents}",
    r"\begin {html}<script>\end{html}",
    r"\special{html:<script>}",
    r"\verb|\href|",
    r"\char92 href",
    r"\unicode{x5c}",
    r"\hspace{99999em}",
    r"\rule{99999em}{99999em}",
    r"\phantom{hidden}",
    r"\makeatletter\@input{a}",
    r"^^5chref{a}{b}",
    r"^^5c^^68ref{a}{b}",
    r"&#92;href{a}{b}",
    r"&#x5C;href{a}{b}",
    r"&amp;bsol;href{a}{b}",
    r"\\href{a}{b}",
    r"\\\href{a}{b}",
]
#: Ways to write a formula, some of which only some viewers take for one.
FORMULAS = [
    *("${}$", "$ {} $", "$${}$$", r"\({}\)", r"\[{}\]", r"\\({}\\)", r"\begin{align}{}\end{align}", "text {} text"),
    *("&#36;{}&#36;", "# ${}$", "- $ {} $", "> $${}$$", "|a|b|\n|-|-|\n|${}$|$ {} $|"),
    "<table><caption>${}$</caption><tr><td>${}$</td><td>$ {} $</td></tr></table>",
]


def commands(tex: str) -> list[str]:
    """Return the commands that TeX finds in a text, escaped backslashes left out, and its notation of bytes."""
    found = re.findall(r"\\(?:((?:begin|end)\s*\{[^}]*\}?)|([A-Za-z@]+)|(.)?)|(\^\^)", tex, re.DOTALL)
    return [ends or word or carets for ends, word, _, carets in found if ends or word or carets]


def unknown(tex: str) -> list[str]:
    known = _WORDS - {"begin", "end"}
    return [one for one in commands(tex) if one not in known and not re.fullmatch(r"(?:begin|end)\{align\}", one)]


def unknown_in_formulas(text: str) -> list[str]:
    """Return the unknown commands between two dollars; in the whole text, where it has another sign of a formula."""
    if re.search(r"\\[(\[]|\\begin", text):
        return unknown(text)
    parts = (*text.split("$")[1::2], *re.split(r"(?<!\\)\$", text)[1::2])
    return [one for part in parts for one in unknown(part)]


def viewed(markdown: str) -> Iterator[str]:
    """Yield what a viewer that knows no formulas gives to a script that looks for them afterwards (MathJax), by paragraph."""
    for token in COMMONMARK.parse(markdown):
        if token.type == "html_block":
            yield from (html.unescape(cell) for cell in re.split("<[^>]*>", token.content))
        yield "".join(child.content for child in token.children or () if child.type in {"text", "text_special"})


def live_in_markdown(markdown: str) -> list[str]:
    """Return the unknown commands that a viewer of Markdown runs; one that reads TeX between the formulas (Pandoc), too."""
    text = CELL_WITHOUT_FORMULA.sub("", re.sub(r"(?ms)^(`{3,}).*?^\1$", "", markdown))
    seen = [one for paragraph in viewed(text) for one in unknown_in_formulas(paragraph)]
    read = [one for paragraph in text.split("\n\n") for one in unknown_in_formulas(paragraph)]
    return seen + read + [one for one in unknown(text) if one != "^^"]


def check(texts: list[str], materials: Materials) -> None:
    """Fail if a command is live in an output of pages with these texts, for either kind of viewer."""
    assert [clean(clean(text)) for text in texts] == [clean(text) for text in texts]
    pages = [
        result(number, text, markdown=True, blocks=(Block(label="x", markdown=text),) if number % 2 else ())
        for number, text in enumerate([text for text in texts for _ in range(2)], 1)
    ]
    stored = write("md", pages)
    with_pipes = "\n".join(restyled(stored.split("\n"), Style(tables=Tables.MARKDOWN)))
    assert live_in_markdown(stored) == live_in_markdown(with_pipes) == []
    for page in json.loads(write("json", pages))["pages"]:
        assert unknown_in_formulas(page["text"]) == []
        for block in page["blocks"]:
            assert unknown_in_formulas(block["markdown"]) == []
            assert all(unknown_in_formulas(cell) == [] for cell in block["text"].split("\t"))
    for part in re.findall(r"<(p|td|th|caption|li|h\d)\b[^>]*>(.*?)</\1>", write("html", pages), re.DOTALL):
        assert unknown_in_formulas(html.unescape(part[1])) == []
    docx = Document(io.BytesIO(written_bytes(FormatName.DOCX, materials, pages)))
    cells = (cell.text for table in docx.tables for row in table.rows for cell in row.cells)
    for shown in (*(paragraph.text for paragraph in docx.paragraphs), *cells):
        assert unknown_in_formulas(shown) == []


@pytest.fixture(scope="module")
def materials() -> Materials:
    return Materials(store=NO_STORE)


@pytest.mark.parametrize("live", LIVE)
def test_no_command_that_does_something_is_live_in_any_output(live: str, materials: Materials) -> None:
    check([formula.replace("{}", live) for formula in FORMULAS], materials)


@given(
    st.lists(
        st.sampled_from([*LIVE, *"$\\&#^ {}[]()@;", "$$", "href", "&amp;", "\n", "x", "`", "|", "begin{align}"]),
        max_size=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_model_writes_no_command_is_live_in_its_markdown(parts: list[str]) -> None:
    assert live_in_markdown(clean("".join(parts))) == []


def test_a_command_that_is_not_known_is_shown() -> None:
    assert clean(r"$\href{javascript:alert(1)}{x}$") == r"$\backslash href{javascript:alert(1)}{x}$"
    assert clean(r"\href{a}") == r"\\href{a}"
    assert COMMONMARK.renderInline(clean(r"from \input{a}, C:\users")) == r"from \input{a}, C:\users"


@pytest.mark.parametrize(
    "formula",
    [
        r"\frac{a}{b} = \sqrt[3]{x_1^2 + y'} \le \infty",
        r"\begin{align*}a &= b \\[2pt] &\ne c\end{align*}",
        r"\left\{ \begin{array}{cc}a & b \\ \hline c & d\end{array} \right.",
        r"\text{if } x \in \mathbb{R},\ \hspace{1cm} \operatorname{rank}(A) = 3\,\%",
        r"\overset{\sim}{\longrightarrow} \mathcal{L}\big|_{0}^{\dagger} \tag{7}",
    ],
)
def test_usual_formulas_are_unchanged(formula: str) -> None:
    assert clean(f"$${formula}$$") == f"$${formula}$$"
    assert latex.shown(f"$${formula}$$") == f"$${formula}$$"


@pytest.mark.parametrize(
    "unit", ["\\", "\\begin{", "\\begin {", "^", "\\hspace{", "\\hspace ", "&#", "\\a", "\\\\a", "$"]
)
def test_takes_linear_time(unit: str) -> None:
    for function in (latex.inert, latex.shown):
        assert_grows_linearly(lambda size: function(unit * (size // len(unit))), 40_000)  # noqa: B023
