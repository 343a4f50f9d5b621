from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any, cast

import pymupdf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ocrfleet.errors import Reason
from ocrfleet.formats import DEFAULT_FORMATS, FormatName
from ocrfleet.markdown.escape import escape
from ocrfleet.records.documents import DocumentStatus, Kind, Manifest, Problem, Source
from ocrfleet.records.pages import Block, Line, PageResult, PageStatus, Role
from ocrfleet.storage.store import ObjectStore
from tests.support.growth import assert_grows_linearly
from worker.formats import writer_of
from worker.formats.document_json import points
from worker.formats.markdown import clean
from worker.formats.materials import Materials
from worker.formats.scan import normalised

#: The pages of these tests have no figures.
NO_STORE = cast("ObjectStore", None)

#: CommonMark, and what most readers understand beyond it
COMMONMARK = MarkdownIt("commonmark")
WITH_TABLES = MarkdownIt("commonmark").enable(["table", "strikethrough"])
READERS = {"commonmark": COMMONMARK, "with tables": WITH_TABLES}


def manifest(pages: int = 3, *, problem: Problem | None = None) -> Manifest:
    source = Source(
        uri="file:///scans/a.pdf", size=10, mtime_ns=5, sha256="ab" * 32, kind=Kind.PDF, pages=max(1, pages)
    )
    return Manifest(
        document="0" * 32,
        created="20261122T051000.123456Z",
        profile="p",
        profile_digest="cd" * 32,
        sources=() if problem else (source,),
        selection=() if problem else ((1, pages),),
        problem=problem,
    )


def result(page: int, text: str = "", **facts: Any) -> PageResult:
    known: dict[str, Any] = {"status": PageStatus.DONE, "profile": "p", "engine": "e", "model": "m", "revision": "r"}
    return PageResult(page=page, text=text, **(known | facts))


def failed(page: int, detail: str | None = "it said no") -> PageResult:
    return result(page, status=PageStatus.FAILED, reason=Reason.ENGINE_FAILED, detail=detail)


def write(
    name: str,
    pages: Sequence[PageResult],
    *,
    status: DocumentStatus = DocumentStatus.COMPLETED,
    problem: Problem | None = None,
) -> str:
    out = io.BytesIO()
    writer = writer_of(FormatName(name))(out, Materials(store=NO_STORE))
    writer.begin(manifest(len(pages), problem=problem), status)
    for page in pages:
        writer.page(page)
    writer.end()
    return out.getvalue().decode(errors="surrogateescape")


# ---- Markdown: pages


def test_every_page_has_its_marker_in_order() -> None:
    # Given a page with text, a blank one, one that failed, one on which nothing was found
    pages = [result(1, "one\ntwo\n\nthree"), result(2, blank=True), failed(3), result(4)]

    # When they are written
    text = write("md", pages, status=DocumentStatus.PARTIAL)

    # Then each is where it belongs
    assert text == (
        "<!-- page 1 -->\n\none\ntwo\n\nthree\n\n"
        "<!-- page 2 blank -->\n\n"
        "<!-- page 3 failed: engine_failed -->\n\n> **Page 3 is missing:** it said no\n\n"
        "<!-- page 4 -->\n\n"
    )


def test_a_reader_sees_that_a_page_is_missing() -> None:
    # When a document with a failed page between two others is shown
    shown = COMMONMARK.render(write("md", [result(1, "before"), failed(2), result(3, "after")]))

    # Then the output names the page and the reason
    assert "<p>before</p>" in shown
    assert "<strong>Page 2 is missing:</strong> it said no</p>\n</blockquote>" in shown
    assert shown.index("before") < shown.index("Page 2 is missing") < shown.index("after")


def test_a_failed_page_without_a_detail_has_a_placeholder() -> None:
    assert "> **Page 7 is missing:**" in write("md", [failed(7, None)])


def test_a_document_that_could_not_be_read_shows_the_reason() -> None:
    problem = Problem(reason=Reason.NEEDS_PASSWORD, detail="put *it* into <a file>")

    text = write("md", [], status=DocumentStatus.FAILED, problem=problem)

    assert text.startswith("<!-- document failed: needs_password -->\n\n")
    shown = COMMONMARK.render(text)
    assert "<strong>This document could not be read:</strong> put *it* into &lt;a file&gt;</p>" in shown


@pytest.mark.parametrize("detail", ["no\n\n# Chapter 9", "no\n\n<!-- page 9 -->\n\nforged", "a\rb\r\r- c"])
def test_a_detail_of_several_lines_stays_in_its_place(detail: str) -> None:
    # Given a third-party engine with an error of several lines
    tokens = COMMONMARK.parse(write("md", [failed(1, detail)]))

    # Then it is one paragraph of the placeholder, as any other
    kinds = [token.type for token in tokens]
    assert kinds == [
        "html_block",
        "blockquote_open",
        "paragraph_open",
        "inline",
        "paragraph_close",
        "blockquote_close",
    ]


def test_a_page_can_not_forge_the_marker_of_another() -> None:
    # Given a page that shows what our own markers look like
    text = write("md", [result(1, "<!-- page 2 -->\n\n<!-- page 3 failed: x -->\n--> <!--"), result(2, "mine")])

    # Then a tool that looks for markers finds those of the pages that there are
    comments = [token.content.strip() for token in COMMONMARK.parse(text) if token.type == "html_block"]
    assert comments == ["<!-- page 1 -->", "<!-- page 2 -->"]


@pytest.mark.parametrize(
    "text", ["<!-- page 7 -->", "a <!-- page 7 -->", "\\<!-- page 7 -->", "<<!-- page 7", "`<!-- page 7`"]
)
def test_no_search_finds_a_marker_in_a_text(text: str) -> None:
    # Given the text as a line, on a plain page, on one in Markdown, in code, and as why a page failed
    pages = [
        result(1, text),
        result(2, text, markdown=True),
        result(3, f"```\n{text}\n```", markdown=True),
        failed(4, text),
    ]

    # Then the only markers in a file are those of its pages
    assert "<!--" not in escape(text)
    assert "<!--" not in clean(text)
    assert write("md", pages).count("<!--") == len(pages)


# ---- Markdown: a page's text is data

#: What means something at the beginning of a line, in it, or together with its neighbours.
MARKUP = [
    *("#", "## ", "=", "===", "-", "--", "---", "- ", "+ ", "* ", "***", "___", "1)", "1. ", "1234567890. ", "> ", ">"),
    *("    ", "\t", " ", "  ", "```", "~~~", "`", "``", "~~", "**", "*", "_"),
    *("<script>", "<b>", "</b>", "<!--", "-->", "<?", "<![CDATA[", "<http://a.b>", "<a@b.c>", "http://a.b/c_d_e"),
    *("&amp;", "&copy;", "&#65;", "&#x41;", "&", ";", "[a](b)", "[a]: b", "[a]", "![a](b)", "[^1]: a", "[ ]", "]", "("),
    *("\\", "\\\\", "|", "| a | b |", "|-|-|", ":-:", ":-", "- | -", ":", "!", "\u00a0", "\u3000", "\u2028"),
    *("a", "word", "é", "ß", "第", "\n", "\n\n"),
]
printed = st.characters(exclude_categories=["Cs", "Cc"])
texts = st.one_of(
    st.lists(st.sampled_from(MARKUP), max_size=12).map("".join),
    st.text(st.one_of(printed, st.sampled_from("\n\n\t  #>-+=*_`[]()<>&;|~:\\!1.")), max_size=40),
)


def paragraphs(text: str) -> list[list[str]]:
    """The content of a text: lines in paragraphs, without trailing white space, which Markdown does not keep."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def understood(reader: MarkdownIt, markdown: str) -> list[list[str]]:
    """The content of a Markdown text as parsed; fails if it has other elements than lines and paragraphs."""
    found = []
    for token in reader.parse(markdown):
        assert token.type in {"paragraph_open", "inline", "paragraph_close"}, token.type
        text = ""
        for child in token.children or ():
            assert child.type in {"text", "text_special", "softbreak"}, child.type
            text += "\n" if child.type == "softbreak" else child.content
        if token.type == "inline":
            found.append([line.strip() for line in text.split("\n")])
    return found


def page_text(text: str) -> str:
    """Write a page with a text and return what follows its marker."""
    return write("md", [result(1, text)]).removeprefix("<!-- page 1 -->\n\n")


#: What the properties below found, one by one: (the text, the reader that misunderstands it)
FOUND = [
    (">quoted without a space", "commonmark"),
    ("    indented", "commonmark"),
    ("\tindented by a tab", "commonmark"),
    ("a hard break by spaces  \nb", "commonmark"),
    ("a\r# b", "commonmark"),
    ("| a | b |\n|---|---|\n| c | d |", "with tables"),
    ("a | b\n:-- | --:", "with tables"),
    ("all ~~struck~~ out", "with tables"),
]


@pytest.mark.parametrize(("text", "reader"), FOUND)
def test_text_that_was_once_taken_for_markup(text: str, reader: str) -> None:
    assert understood(READERS[reader], page_text(text)) == paragraphs(text.replace("\r", "\n"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "# heading",
        "###### heading",
        "#",
        "#hashtag",
        "title\n===",
        "title\n  ===",
        "title\n---",
        "---",
        "- - -",
        "***",
        "___",
        "- item",
        "-",
        "-5 degrees",
        "+ item",
        "* item",
        "1. item",
        "1) item",
        "12.",
        "1234567890. no item",
        "1914. A year",
        "> quoted",
        ">> quoted",
        "```\ncode\n```",
        "~~~\ncode\n~~~",
        "`code`",
        "*a* _b_ **c** __d__",
        "snake_case_name 2*3*4",
        "<script>alert(1)</script>",
        "<b>bold</b>",
        "<!-- comment -->",
        "<?php ?>",
        "a < b > c",
        "&amp; &copy; &#65; &#x41; AT&T R&D; &",
        "[a](http://b)",
        "![a](b)",
        "[a]: http://b\n\n[a]",
        "<http://a.b> <a@b.c>",
        "a hard break\\\nb",
        "back\\slash \\* \\\\",
        "\\",
        "[ ] to do",
        "a | b",
        "",
        "\n\n\n",
        "\n\na\n\n\n\nb\n",
    ],
)
def test_text_reads_as_it_was_written(text: str, reader: str) -> None:
    assert understood(READERS[reader], page_text(text)) == paragraphs(text)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=1000, deadline=None)
@given(text=texts)
@example(text="")
def test_text_of_a_page_is_never_markup(reader: str, text: str) -> None:
    # When any text of any number of lines is written, then a reader finds these lines, and nothing else
    assert understood(READERS[reader], page_text(text)) == paragraphs(text)


@given(st.text(st.characters(categories=("L", "Nd", "Zs"), include_characters=".,;:?!'\"()/%")).map(str.strip))
@example("Plain prose, as most of it is: 3.5 % (or so) of A/B; isn't it?")
def test_prose_is_left_as_it_is(line: str) -> None:
    # For those who read the Markdown itself: nothing is escaped but a number that would begin a list.
    if not line[:1].isdigit():
        assert escape(line) == line


# ---- Markdown that a model wrote

MODELS_OWN = '# Title\n\nSome *text* with `code`.\n\n- one\n- two\n\n<table><tr><td colspan="2">a</td></tr></table>'


def test_plain_markdown_of_a_model_is_unchanged() -> None:
    html = COMMONMARK.render(clean(MODELS_OWN))
    for part in ("<h1>Title</h1>", "<em>text</em>", "<code>code</code>", "<li>two</li>", '<td colspan="2">a</td>'):
        assert part in html


def test_plain_text_and_markdown_are_distinguished() -> None:
    text = write("md", [result(1, "# not a title"), result(2, "# a title", markdown=True)])
    html = COMMONMARK.render(text)
    assert html.count("<h1>") == 1
    assert "# not a title" in html


HARMFUL = [
    "<script>alert(1)</script>",
    '<td onclick="x">a</td>',
    '<img src="http://x/y.png">',
    "<!-- page 7 -->",
    "[here](javascript:alert(1))",
    "[here\\](http://x)",
    "![here](http://x)",
    "[a]\n\n[a]: http://x",
    "<http://x>",
    "```\n<!-- page 7 -->",
    "~~~~\nopen",
    "- ```\n  open",
    "> ```\n> open",
    "<table><tr><td>open",
    "<![CDATA[ open",
    "<?php open",
    "<pre>\n\nopen",
    # Where readers don't agree that code begins, or that it has ended
    "- x\n  ```\n<img src=x onerror=alert(1)>",
    "<table>\n```\n<script>alert(1)</script>",
    "``` a`b\n<script>alert(1)</script>",
    "    ```\nopen",
    "1. ~~~\n\nopen",
]


def harmless(text: str) -> None:
    # Given a page with that text between two others
    pages = [result(1, "before"), result(2, text, markdown=True), result(3, "after")]
    markdown = write("md", pages)
    # Then there are three markers, and the page that follows is read as itself
    assert [line for line in markdown.split("\n") if re.search(r"<!--", line)] == [
        f"<!-- page {number} -->" for number in (1, 2, 3)
    ]
    html = COMMONMARK.render(markdown)
    assert html.rstrip().endswith("<!-- page 3 -->\n<p>after</p>")
    # And nothing of it leads anywhere or does anything
    assert not re.search(r"<(?:a|img|script|iframe|pre[^>]*on|svg|style)\b", html)
    assert not re.search(r"<\w+[^>]*\bon\w+=", html)


@pytest.mark.parametrize("text", HARMFUL)
def test_a_models_markdown_can_do_nothing(text: str) -> None:
    harmless(text)


@given(
    st.lists(
        st.sampled_from([*HARMFUL, "\n", "\n\n", "`", "\\", "[", "](", "<td>", "text", "    ", "| - |"]), max_size=8
    )
)
@settings(max_examples=300)
def test_whatever_a_models_markdown_is_made_of_it_can_do_nothing(parts: list[str]) -> None:
    harmless("".join(parts))


# ---- Markdown that a model wrote: what it becomes


@pytest.mark.parametrize(
    ("written", "clean_text"),
    [
        # HTML that is no table
        ("<center>Fig. 1</center>", "Fig. 1"),
        ("a<b>bold</b> and <i>slanted</i>", "a**bold** and *slanted*"),
        ("H<sub>2</sub>O, x<sup>10</sup>, 4<sup>th</sup>, e<sup>a+b</sup>", "H₂O, x¹⁰, 4th, e^(a+b)"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<h2>Title</h2>text", "## Title\n\ntext"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("<span style='x'>kept</span>", "kept"),
        # what is no tag
        ("5 < 6", "5 &lt; 6"),
        ("if a<b and c>d", "if a&lt;b and c>d"),
        ("<Smith@example.org> <name>", "&lt;Smith@example.org> &lt;name>"),
        ("<!-- page 9 -->", "&lt;!-- page 9 -->"),
        ("\\<x", "&lt;x"),
        # formulas
        (r"so \(a_1<b\), and", r"so $a_1\lt b$, and"),
        ("\\[\na\n= b\n\\]", "$$a = b$$"),
        ("before \\[a\\] behind", "before\n\n$$a$$\n\nbehind"),
        ("$$\n- a\n$$", "$$- a$$"),
        (r"\begin{align}a &= b \\[2pt] c\end{align}", r"$$\begin{align}a &= b \\[2pt] c\end{align}$$"),
        (r"$x &lt; y$ costs $5 or $6", r"$x \lt y$ costs $5 or $6"),
        (r"forgotten \( here", r"forgotten \\( here"),
        # headings, rules, lists
        ("text\n# Title #\ntext", "text\n\n# Title\n\ntext"),
        ("Title\n=====\ntext", "# Title\n\ntext"),
        ("text\n---\ntext", "text\n\n---\n\ntext"),
        ("    no code", "no code"),
        ("#hashtag", "#hashtag"),
        ("in the year\n1914. It", "in the year\n1914\\. It"),
        ("- one\n    - two\n        - three\n- four", "- one\n  - two\n    - three\n- four"),
        ("1. one\n   goes on\n2. two", "1. one\n   goes on\n2. two"),
        ("- # one", "- \\# one"),
        ("> quoted\n> on\n\nnot", "> quoted\n> on\n\nnot"),
        # code
        ("```python\na = '<b>'\n\nb\n```\nend", "```python\na = '<b>'\n\nb\n```\n\nend"),
        ("```markdown\n# Title\n```", "# Title"),
        ("```\nnever closed", "never closed"),
        # links
        ("[words](http://a.b/c)", "words (http://a.b/c)"),
        ("![a picture](page_1.png)", "a picture"),
        ("[a]: http://b", "[a&#93;: http://b"),
    ],
)
def test_what_a_model_writes_becomes_common_markdown(written: str, clean_text: str) -> None:
    assert clean(written) == clean_text
    assert clean(clean_text).replace("&#93;", "]") == clean_text.replace("&#93;", "]")


@pytest.mark.parametrize(
    ("written", "rows"),
    [
        ("<table border=1><tr><td>a</td><td>b</td></tr></table>", "<tr><td>a</td><td>b</td></tr>"),
        ("<table>\n\n<tr>\n<td>a\n\nb</td>\n\n</tr>\n</table>", "<tr><td>a<br>b</td></tr>"),
        ("<TABLE><TR><TD colspan=2 onclick=x>a</TD></TABLE>", '<tr><td colspan="2">a</td></tr>'),
        ("<table><thead><tr><td>a</td></tr></thead><tr><td>b", "<tr><th>a</th></tr>\n<tr><td>b</td></tr>"),
        ("<tr><td>a</td><td>b</td></tr>", "<tr><td>a</td><td>b</td></tr>"),
        ("<td>a<td>b", "<tr><td>a</td><td>b</td></tr>"),
        ("<table><tr><td>1 < 2 &amp; <b>3</b> \\(x\\)</td></tr></table>", "<tr><td>1 &lt; 2 &amp; 3 $x$</td></tr>"),
        ("<table><tr><td><table><tr><td>a</td></tr></table></td></tr></table>", "<tr><td>a</td></tr>"),
        ("<table><caption>c</caption><tr><td>a</td></tr></table>", "<caption>c</caption>\n<tr><td>a</td></tr>"),
        ("| a | b |\n|---|:-:|\n| $x$ | **c** |", "<tr><th>a</th><th>b</th></tr>\n<tr><td>$x$</td><td>c</td></tr>"),
    ],
)
def test_a_table_is_one_block_of_html(written: str, rows: str) -> None:
    assert clean(f"before\n{written}") == f"before\n\n<table>\n{rows}\n</table>"


def test_text_behind_a_table_that_is_not_closed_is_no_cell() -> None:
    table = "<table>\n<tr><td>a</td></tr>\n</table>"

    assert clean("<table><tr><td>a</td></tr>\n\nText.") == f"{table}\n\nText."
    assert clean("<table><tr><td>a\n\nText.") == f"{table}\n\nText."
    assert clean("<table><tr><td>a</td></tr> <table><tr><td>a") == f"{table}\n\n{table}"


#: Pieces of what models write, and of what could mislead a reader.
PIECES = [
    *HARMFUL,
    *MARKUP,
    *("<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>", '<th colspan="2">', "<caption>", "<br>", "<b>", "</b>"),
    *(
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "$",
        "$$",
        "\\begin{align}",
        "\\end{align}",
        "<sup>2</sup>",
        "<center>",
        "<p>",
        "<li>",
    ),
    *("```\n", "```python\n", "~~~\n", "- a\n", "  - b\n", "1. c\n", "> q\n", "|a|b|\n", "|-|-|\n", "===\n", "---\n"),
    *(
        "\x00",
        "\x01",
        "\x010\x03",
        "\x02",
        "\r",
        "figures/",
        "![x](figures/" + "0" * 32 + "/000001-01-0123456789ab.jpg)",
    ),
]
written_by_models = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
ROLES = st.sampled_from(list(Role))


def sober(markdown: str, pages: int, *, pictures: int = 0) -> None:
    """Fail unless a reader finds these pages' markers, tables, at most that many pictures, and no other HTML or link."""
    for reader in READERS.values():
        tokens = reader.parse(markdown)
        html = [token.content.strip() for token in tokens if token.type == "html_block"]
        assert [text for text in html if text.startswith("<!-- page")] == [
            f"<!-- page {n} -->" for n in range(1, pages + 1)
        ]
        for text in html:
            if not re.fullmatch(r"<!-- (?:page \d+|header|footer|number) -->", text):
                assert text.startswith("<table>")
                assert text.endswith("</table>")
                tags = re.findall(r"<[^>]*>", text)
                assert all(
                    re.fullmatch(r"</?(?:table|tr|td|th|caption|br)(?: (?:row|col)span=\"\d+\")*>", tag) for tag in tags
                )
        inline = [child for token in tokens for child in token.children or ()]
        assert not [child for child in inline if child.type in {"html_inline", "link_open"}]
        images = [child for child in inline if child.type == "image"]
        assert len(images) == pictures
        assert all(str(image.attrs["src"]).startswith(f"figures/{'0' * 32}/") for image in images)
        assert [token.type for token in tokens[-4:]] == ["html_block", "paragraph_open", "inline", "paragraph_close"]
        assert not [token for token in tokens if token.type == "code_block"]
    assert [line for line in markdown.split("\n") if line.startswith("<!-- page")] == [
        f"<!-- page {n} -->" for n in range(1, pages + 1)
    ]


@given(st.one_of(written_by_models, st.text(max_size=60)))
@settings(max_examples=1500, deadline=None)
@example("![***](x)")
@example("<b># x")
@example("``` a`b\n<script>")
def test_whatever_a_model_writes_is_sober(text: str) -> None:
    sober(write("md", [result(1, "before"), result(2, text, markdown=True), result(3, "after")]), 3)


@given(st.lists(st.tuples(ROLES, written_by_models, st.booleans()), max_size=5))
@settings(max_examples=500, deadline=None)
def test_any_blocks_become_safe_markdown(parts: list[tuple[Role, str, bool]]) -> None:
    blocks = tuple(
        Block(label="x", role=role, markdown=text, figure=NAME if picture and role is Role.FIGURE else None)
        for role, text, picture in parts
    )
    pages = [result(1, "before"), result(2, blocks=blocks, markdown=True), result(3, "after")]
    sober(write("md", pages), 3, pictures=sum(block.figure is not None for block in blocks))
    json.loads(write("json", pages))


@given(
    st.lists(st.sampled_from([piece for piece in PIECES if not re.search(r'!\[|src|onclick|="|#', piece)]), max_size=14)
)
@settings(max_examples=500, deadline=None)
@example(["```", "\n", "<table>", "<tr>"])
def test_no_word_of_a_model_is_lost(pieces: list[str]) -> None:
    # Given words, each with a letter that is in no tag and in no name of a language, with any separators
    words = [f"wört{number}ß" for number in range(len(pieces) + 1)]
    text = "".join(word + piece for word, piece in zip(words, [*pieces, ""], strict=True))

    # Then all are there, but for those that are parts of tags
    cleaned = clean(text)
    hidden = "".join(re.findall(r"<[^<>]*>", normalised(text)))
    assert [word for word in words if word not in cleaned and word not in hidden] == []


@given(written_by_models)
@settings(max_examples=500, deadline=None)
def test_cleaning_markdown_twice_is_safe(text: str) -> None:
    sober(write("md", [result(1, "a"), result(2, clean(text), markdown=True), result(3, "b")]), 3)


@pytest.mark.parametrize(
    "unit", ["<td>", "\\[", "\\(", "$", "`", "```a\n", "[", "](", "<b ", "*a", "- a\n", "a|b\n-|-\n", "\\[\n\n"]
)
def test_repetitive_text_takes_linear_time(unit: str) -> None:
    assert_grows_linearly(lambda size: clean(unit * (size // len(unit))), 160_000)


# ---- Markdown: blocks, pictures, pages that are not accepted

NAME = "000002-01-0123456789ab.jpg"
LINK = f"figures/{'0' * 32}/{NAME}"


def of_blocks(*blocks: Block) -> str:
    text = write("md", [result(1, blocks=blocks, markdown=True)])
    return text.removeprefix("<!-- page 1 -->\n\n").removesuffix("\n\n")


def test_a_picture_is_linked_with_its_caption() -> None:
    figure = Block(label="image", role=Role.FIGURE, figure=NAME)
    caption = Block(label="image_caption", role=Role.CAPTION, markdown="Fig. 1: *A* [cat](http://x)")

    text = of_blocks(figure, caption)

    assert text == f"![Fig. 1: A cat (http://x)]({LINK})\n\nFig. 1: *A* cat (http://x)"
    (image,) = [t for token in COMMONMARK.parse(text) for t in token.children or () if t.type == "image"]
    assert (image.attrs["src"], image.content) == (LINK, "Fig. 1: A cat (http://x)")


def test_a_caption_is_that_of_one_picture() -> None:
    figure = Block(label="image", role=Role.FIGURE, figure=NAME)
    caption = Block(label="c", role=Role.CAPTION, markdown="One")

    assert of_blocks(caption, figure) == f"One\n\n![One]({LINK})"
    assert of_blocks(figure, caption, figure) == f"![One]({LINK})\n\nOne\n\n![Figure]({LINK})"


def test_roles_make_headings_formulas_and_code_of_mere_words() -> None:
    text = of_blocks(
        Block(label="doc_title", role=Role.TITLE, markdown="Title"),
        Block(label="sub_title", role=Role.HEADING, markdown="### Has its marks"),
        Block(label="paragraph_title", role=Role.HEADING, markdown="Chapter\none"),
        Block(label="equation", role=Role.FORMULA, markdown=r"\[ a<b \]"),
        Block(label="formula", role=Role.FORMULA, markdown="x"),
        Block(label="formula", role=Role.FORMULA, markdown="$$ a $$\n\n$$ b $$"),
        Block(label="algorithm", role=Role.CODE, markdown="for *x*:\n  y"),
    )

    assert text == (
        "# Title\n\n### Has its marks\n\n## Chapter one\n\n$$a\\lt b$$\n\n$$x$$\n\n$$a$$\n\n$$b$$\n\n"
        "```\nfor *x*:\n  y\n```"
    )


def test_running_heads_are_left_out_unless_the_page_has_nothing_else() -> None:
    head = Block(label="header", role=Role.HEADER, markdown="THE TITLE")
    number = Block(label="page_number", role=Role.PAGE_NUMBER, markdown="12")
    text = of_blocks(
        head,
        Block(label="text", role=Role.TEXT, markdown="Text."),
        number,
        Block(label="footer", role=Role.FOOTER),
    )

    assert text == "Text."
    assert of_blocks(head, number) == "THE TITLE\n\n12"


def test_a_page_whose_blocks_say_nothing_has_its_text() -> None:
    assert "the text" in write("md", [result(1, "the text", blocks=(Block(label="text"),), markdown=True)])


def test_a_rejected_text_follows_a_note() -> None:
    page = result(
        2,
        "same\nsame",
        markdown=True,
        status=PageStatus.FAILED,
        reason=Reason.REPETITION,
        detail="it says same 900 times",
    )

    assert write("md", [page]) == (
        "<!-- page 2 failed: repetition -->\n\n"
        "> **The text of page 2 can't be trusted:** it says same 900 times\n\n"
        "same\nsame\n\n"
    )


def test_the_text_of_a_layer_is_plain() -> None:
    assert "\\*as printed\\*" in write("md", [result(1, "*as printed*", text_layer=True)])


# ---- JSON: blocks


def test_a_block_of_the_json_has_plain_text_points_and_a_path() -> None:
    blocks = (
        Block(label="table", role=Role.TABLE, boxes=((10, 20, 30, 40),), markdown="|a|b|\n|-|-|\n|**c**|1 < 2|"),
        Block(label="image", role=Role.FIGURE, boxes=((0, 0, 100, 200),), figure=NAME),
        Block(label="", markdown="# A *title* &amp; \\(x\\) <b>it</b>"),
    )
    page = result(1, blocks=blocks, markdown=True, width_px=100, height_px=200, width_pt=50.0, height_pt=100.0)

    table, image, text = json.loads(write("json", [page]))["pages"][0]["blocks"]

    assert (table["text"], table["points"]) == ("a\tb\nc\t1 < 2", [[5, 10, 15, 20]])
    assert table["markdown"] == blocks[0].markdown
    assert image["figure"] == LINK
    assert text["text"] == "A title & $x$ it"
    assert text["points"] == []


def test_points_are_unknown_where_the_page_has_no_size() -> None:
    page = result(1, blocks=(Block(label="", boxes=((1, 2, 3, 4),)),), markdown=True)

    assert json.loads(write("json", [page]))["pages"][0]["blocks"][0]["points"] is None


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_points_match_those_of_pymupdf(rotation: int) -> None:
    # Given a page with a crop box, turned, as it is displayed
    with pymupdf.open() as document:
        page = document.new_page(width=400, height=600)
        page.set_cropbox(pymupdf.Rect(30, 50, 330, 550))
        page.set_rotation(rotation)
        width, height = page.rect.width, page.rect.height
        seen = result(
            1,
            width_px=round(width * 2),
            height_px=round(height * 2),
            width_pt=width,
            height_pt=height,
            rotation=rotation,
        )
        box = (20.0, 40.0, 100.0, 90.0)

        # When a box of the image is turned back
        expected = pymupdf.Rect(*(side / 2 for side in box)) * page.derotation_matrix
        expected.normalize()

        # Then it is where PyMuPDF has it
        assert points(seen, (box,)) == [pytest.approx(tuple(expected), abs=0.01)]  # type: ignore[comparison-overlap]


def test_the_json_of_a_document_parses() -> None:
    # Given a document with a page of each kind
    lines = (Line(text="one", box=(1, 2, 30.5, 40), confidence=0.9),)
    pages = [
        result(1, 'one "two"\n\u2028\\', lines=lines, width_px=100, height_px=200, width_pt=50.0, height_pt=100.0),
        result(2, blank=True),
        failed(3),
    ]

    # When it is written
    text = write("json", pages, status=DocumentStatus.PARTIAL)
    document = json.loads(text)

    # Then all is in it
    assert (document["schema_version"], document["status"], document["problem"]) == (1, "partial", None)
    assert (document["document"], document["profile_digest"]) == ("0" * 32, "cd" * 32)
    assert document["sources"] == [{"sha256": "ab" * 32, "kind": "pdf", "pages": 3}]
    assert [page["page"] for page in document["pages"]] == [1, 2, 3]
    assert [page["status"] for page in document["pages"]] == ["done", "done", "failed"]
    assert document["pages"][0]["text"] == 'one "two"\n\u2028\\'
    assert document["pages"][0]["lines"] == [{"text": "one", "box": [1, 2, 30.5, 40], "confidence": 0.9}]
    assert document["pages"][1]["blank"] is True
    assert (document["pages"][2]["reason"], document["pages"][2]["detail"]) == ("engine_failed", "it said no")


def test_the_json_declares_its_coordinates() -> None:
    coordinates = json.loads(write("json", [result(1)]))["coordinates"]

    for word in ("x0, y0, x1, y1", "pixels", "origin top left", "points"):
        assert word in coordinates


def test_the_json_names_no_place_of_the_machine_that_wrote_it() -> None:
    assert "scans" not in write("json", [result(1)])


def test_a_page_is_one_line_of_the_json() -> None:
    # Given texts with every character that some program takes for the end of a line
    pages = [result(number, "a\nb\r\nc") for number in range(1, 6)]

    # When the lines between the brackets are parsed one by one, as grep gives them
    text = write("json", pages)
    lines = text[text.index('"pages": [') :].split("\n")[1:-3]

    # Then each is a page
    assert [json.loads(line.removesuffix(","))["page"] for line in lines] == [1, 2, 3, 4, 5]


def test_the_json_of_a_document_that_could_not_be_read() -> None:
    problem = Problem(reason=Reason.EMPTY_FILE, detail="no bytes")

    document = json.loads(write("json", [], status=DocumentStatus.FAILED, problem=problem))

    assert document["pages"] == []
    assert document["sources"] == []
    assert document["problem"] == {"reason": "empty_file", "detail": "no bytes"}


# ---- both


@pytest.mark.parametrize("extension", DEFAULT_FORMATS)
def test_the_same_pages_give_the_same_bytes(extension: str) -> None:
    pages = [result(1, "one"), failed(2), result(3, blank=True)]

    assert write(extension, pages) == write(extension, pages)


@given(st.lists(st.text(printed, max_size=20), min_size=1, max_size=5))
def test_every_page_is_in_every_output(page_texts: list[str]) -> None:
    # Given pages of which every second failed
    pages = [failed(number) if number % 2 else result(number, text) for number, text in enumerate(page_texts, 1)]

    # Then no output loses one
    document = json.loads(write("json", pages))
    markers = [token.content for token in COMMONMARK.parse(write("md", pages)) if token.type == "html_block"]
    assert [page["page"] for page in document["pages"]] == [page.page for page in pages]
    assert len(markers) == len(pages)


def test_a_row_that_a_cell_above_reaches_into_keeps_its_place() -> None:
    spanned = '<table><tr><td rowspan="2">a</td></tr><tr></tr><tr></tr><tr><td>c</td></tr></table>'
    assert clean(spanned).count("<tr>") == 3
