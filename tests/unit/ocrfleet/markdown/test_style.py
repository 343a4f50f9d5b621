from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ocrfleet.markdown.style import AS_STORED, Style, Tables, figures, restyled
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult, PageStatus
from tests.support.growth import assert_grows_linearly
from worker.formats.markdown import MarkdownWriter, clean

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PIPES = Style(tables=Tables.MARKDOWN)
JOINED = Style(join_hyphens=True)


def styled(text: str, style: Style) -> str:
    return "\n".join(restyled(text.split("\n"), style))


def stored(*texts: str, markdown: bool = True) -> str:
    """Write pages as they are stored."""
    out = io.BytesIO()
    writer = MarkdownWriter(out)
    manifest = Manifest(
        document="0" * 32, created="20261122T051000.123456Z", profile="p", profile_digest="cd" * 32, selection=((1, 9),)
    )
    writer.begin(manifest, DocumentStatus.COMPLETED)
    for page, text in enumerate(texts, 1):
        facts = {"profile": "p", "engine": "e", "model": "m", "revision": "r"}
        writer.page(PageResult(page=page, status=PageStatus.DONE, text=text, markdown=markdown, **facts))
    return out.getvalue().decode()


# ---- tables


def test_a_table_becomes_lines_with_pipes() -> None:
    table = "<table><tr><th>a</th><th>b | c</th></tr><tr><td>*1*</td><td>2 &lt; 3 $x|y_1$</td></tr></table>"

    assert styled(clean(table), PIPES) == "| a | b \\| c |\n| --- | --- |\n| \\*1\\* | 2 \\< 3 $x\\vert y_1$ |"


def test_rows_of_a_table_become_equally_long_and_the_first_is_the_head() -> None:
    table = "<table><caption>*c*</caption><tr><td>a</td></tr><tr><td>b</td><td>c</td></tr></table>"

    assert styled(clean(table), PIPES) == "\\*c\\*\n\n| a |  |\n| --- | --- |\n| b | c |"


def test_no_cell_and_no_caption_holds_a_page_marker() -> None:
    marker = "&lt;!-- page 7 -->"
    table = f"<table><caption>{marker}</caption><tr><td>a {marker}</td><td>$x$<!-- page 8 --></td></tr></table>"

    text = styled(clean(table), PIPES)

    assert text.startswith(marker)
    assert text.count(marker) == 2
    assert "<!--" not in text


@pytest.mark.parametrize(
    "cell", ['<td colspan="2">a</td>', '<td rowspan="2">a</td>', "<td>a<br>b</td>", "<td>a<ul><li>b</li></ul></td>"]
)
def test_a_table_that_markdown_cannot_express_stays_html(cell: str) -> None:
    table = clean(f"<table><tr>{cell}<td>c</td></tr></table>")

    assert table.startswith("<table>")
    assert styled(table, PIPES) == table


def test_a_table_within_code_is_code() -> None:
    code = clean("```\n<table>\n<tr><td>a</td></tr>\n</table>\n\nwo-\nrd\n```")

    assert styled(code, Style(tables=Tables.MARKDOWN, join_hyphens=True)) == code


# ---- words that were divided


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("a com-\npound word", "a compound\nword"),
        ("com-\npound, and\nso on", "compound,\nand\nso on"),
        ("com-\npound", "compound"),
        ("one-\ntwo-\nthree four", "onetwothree\nfour"),
        ("mother-in-\nlaw and", "mother-in-law\nand"),
        ("Straßen⸗\nbahn fährt", "Straßenbahn\nfährt"),
        ("Straßen¬\nBahn", "StraßenBahn"),
        ("soft\u00ad\nened", "softened"),
        ("Caffe\u0301-\nhaus", "Caffe\u0301haus"),
        ("com-\npound - and", "compound - and"),
        ("com-\npound 1914. A", "compound 1914. A"),
        # left alone
        ("1914-\n18", "1914-\n18"),
        ("the X-\nray", "the X-\nray"),
        ("a dash -\nand", "a dash -\nand"),
        ("a dash \u2013\nand", "a dash \u2013\nand"),
        ("Jean-\nPaul", "Jean-\nPaul"),
        ("Haupt-\nund Nebensätze", "Haupt-\nund Nebensätze"),
        ("pre-\nand post-war", "pre-\nand post-war"),
        ("com-\n\npound", "com-\n\npound"),
        ("com-\n- pound", "com-\n\n- pound"),
        ("`com-\npound`", "`com-\npound`"),
        ("- com-\n  pound word", "- compound\n  word"),
        ("$$com-\npound$$", "$$com- pound$$"),
        ("# com-\npound", "# com-\n\npound"),
    ],
)
def test_words_are_joined_where_a_line_divides_one(text: str, joined: str) -> None:
    assert styled(clean(text), JOINED) == joined


@pytest.mark.parametrize("line", ["ab-", "ab- cd-", "ab 1 cd-", "ab-\u0301"])
def test_the_time_to_join_grows_linearly_with_the_lines(line: str) -> None:
    assert_grows_linearly(lambda size: styled("\n".join([line] * size), JOINED), 16_000)


def test_lines_that_all_end_in_a_hyphen_are_one_line() -> None:
    assert styled("ab 1 cd-\n" * 3 + "ef", JOINED) == "ab 1 cdab 1 cdab 1 cdef"


def test_words_in_tables_and_across_pages_are_not_joined() -> None:
    text = stored("<table>\n<tr><td>com-\npound</td></tr>\n<tr><td>com-</td></tr></table>\n\ncom-", "pound")

    assert styled(text, JOINED) == text


# ---- any text

PIECES = [
    *(
        "word",
        "com-\npound",
        "a-\nb",
        "\n",
        "\n\n",
        " ",
        "-",
        "- ",
        "# ",
        "1. ",
        "> ",
        "```\n",
        "`",
        "$",
        "$$",
        "|",
        "|-|\n",
    ),
    *(
        "<table>",
        "<tr>",
        "<td>",
        "<td colspan=2>",
        "</table>",
        "<br>",
        "<caption>",
        "&lt;b&gt;",
        "<!-- page 9 -->",
        "&lt;!-- page 9 -->",
        "&lt;&#x1;&#33;-- page 9 -->",
        "<b>",
    ),
    *(
        "[a](b)",
        "![a](b)",
        "*",
        "_",
        "\\",
        "***",
        "---",
        "~~~\n",
        "|a|b|\n|-|-|\n|c|d|\n",
        "\\(x|y\\)",
        "\\[z\\]",
        "é",
        "¬\n",
    ),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
styles = st.builds(Style, tables=st.sampled_from(Tables), join_hyphens=st.booleans())


@given(st.lists(texts, min_size=1, max_size=3), st.booleans())
@settings(deadline=None)
def test_by_default_a_text_stays_as_it_is_stored(pages: list[str], markdown: bool) -> None:  # noqa: FBT001
    text = stored(*pages, markdown=markdown)

    assert styled(text, AS_STORED) == text


@given(st.lists(texts, min_size=1, max_size=3), styles, st.booleans())
@settings(max_examples=1500, deadline=None)
@example(["<td>$&lt;b&gt;$"], PIPES, True)
@example(["<td>$`&lt;b&gt;`$ $[a](b)$"], PIPES, True)
def test_in_any_style_a_text_keeps_its_pages_and_does_nothing(pages: list[str], style: Style, markdown: bool) -> None:  # noqa: FBT001
    # When any pages are written, and delivered in any style
    text = styled(stored(*pages, "the end", markdown=markdown), style)

    # Then a tool that searches for markers finds no others
    assert text.count("<!-- page") == len(pages) + 1

    # And a reader finds each page's marker, and no HTML but tables, no link and no picture
    tokens = READER.parse(text)
    blocks = [token.content.strip() for token in tokens if token.type == "html_block"]
    markers = [f"<!-- page {number} -->" for number in range(1, len(pages) + 2)]
    assert [block for block in blocks if not block.startswith("<table>")] == markers
    inline = {child.type for token in tokens for child in token.children or ()}
    assert not inline & {"html_inline", "link_open", "image"}
    assert not [token for token in tokens if token.type == "code_block"]
    assert text.endswith("<!-- page " + str(len(pages) + 1) + " -->\n\nthe end\n\n")
    # And no letter is lost
    assert re.sub(r"[\W_]|vert", "", words(text)) == re.sub(
        r"[\W_]|vert", "", words(stored(*pages, "the end", markdown=markdown))
    )


def words(markdown: str) -> str:
    """The content of a text: tables without their tags."""
    said = []
    for token in READER.parse(markdown):
        if token.type == "html_block":
            said.append(html.unescape(re.sub(r"<[^!][^>]*>", "", token.content)))
        elif token.type in {"inline", "fence"}:
            said.append("".join(child.content for child in token.children or ()) or token.content)
    return " ".join(said)


def test_a_text_is_restyled_page_by_page() -> None:
    # Given a text without end
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield from ("<!-- page 1 -->", "", "some text", "")

    # When its first lines are requested, then few are read
    found = restyled(lines(), Style(tables=Tables.MARKDOWN, join_hyphens=True))
    assert [next(found) for _ in range(4)] == ["<!-- page 1 -->", "", "some text", ""]
    assert taken <= 2


def test_only_pictures_are_found() -> None:
    name = "000001-01-0123456789ab.jpg"
    link = f"![a](figures/{'0' * 32}/{name})"
    lines = [link, "", "```", link, "```", "", f"![a](figures/{'0' * 32}/../../{name})", "", f"text {link}", "", link]

    assert list(figures(lines)) == [name, name]
    assert list(figures(clean(f"{link}\n\n- {link}\n\n```\n{link}\n```").split("\n"))) == []
