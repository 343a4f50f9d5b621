from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ocrfleet.errors import Reason
from ocrfleet.jobs import (
    DocumentStatus,
    Kind,
    Line,
    Manifest,
    PageResult,
    PageStatus,
    Problem,
    Source,
)
from worker.formats import WRITERS
from worker.formats.markdown import clean, escape

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
    extension: str,
    pages: Sequence[PageResult],
    *,
    status: DocumentStatus = DocumentStatus.COMPLETED,
    problem: Problem | None = None,
) -> str:
    out = io.BytesIO()
    writer = WRITERS[extension](out)
    writer.begin(manifest(len(pages), problem=problem), status)
    for page in pages:
        writer.page(page)
    writer.end()
    return out.getvalue().decode()


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

    # Then the reader sees which one, and why
    assert "<p>before</p>" in shown
    assert "<strong>Page 2 is missing:</strong> it said no</p>\n</blockquote>" in shown
    assert shown.index("before") < shown.index("Page 2 is missing") < shown.index("after")


def test_a_failure_without_a_detail_still_has_its_place() -> None:
    assert "> **Page 7 is missing:**" in write("md", [failed(7, None)])


def test_a_document_that_could_not_be_read_says_why() -> None:
    problem = Problem(reason=Reason.NEEDS_PASSWORD, detail="put *it* into <a file>")

    text = write("md", [], status=DocumentStatus.FAILED, problem=problem)

    assert text.startswith("<!-- document failed: needs_password -->\n\n")
    shown = COMMONMARK.render(text)
    assert "<strong>This document could not be read:</strong> put *it* into &lt;a file&gt;</p>" in shown


@pytest.mark.parametrize("detail", ["no\n\n# Chapter 9", "no\n\n<!-- page 9 -->\n\nforged", "a\rb\r\r- c"])
def test_a_detail_of_several_lines_stays_in_its_place(detail: str) -> None:
    # Given an engine of somebody else's, whose error has several lines
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
    """What a text says: lines in paragraphs, without the white space at their ends, which Markdown has not."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def understood(reader: MarkdownIt, markdown: str) -> list[list[str]]:
    """What a reader makes of a Markdown text; a failure if it finds more in it than lines and paragraphs."""
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
def test_whatever_a_page_says_means_nothing(reader: str, text: str) -> None:
    # When any text of any number of lines is written, then a reader finds these lines, and nothing else
    assert understood(READERS[reader], page_text(text)) == paragraphs(text)


@given(st.text(st.characters(categories=("L", "Nd", "Zs"), include_characters=".,;:?!'\"()/%")).map(str.strip))
@example("Plain prose, as most of it is: 3.5 % (or so) of A/B; isn't it?")
def test_prose_is_left_as_it_is(line: str) -> None:
    # For those who read the Markdown itself: nothing is escaped but a number that would begin a list.
    if not line[:1].isdigit():
        assert escape(line) == line


# ---- JSON


# ---- Markdown that a model wrote

MODELS_OWN = '# Title\n\nSome *text* with `code`.\n\n- one\n- two\n\n<table><tr><td colspan="2">a</td></tr></table>'


def test_a_models_markdown_stays_what_it_is() -> None:
    html = COMMONMARK.render(clean(MODELS_OWN))
    for part in ("<h1>Title</h1>", "<em>text</em>", "<code>code</code>", "<li>two</li>", '<td colspan="2">a</td>'):
        assert part in html


def test_plain_text_and_markdown_are_told_apart() -> None:
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


def test_the_json_says_what_its_coordinates_are() -> None:
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


@pytest.mark.parametrize("extension", WRITERS)
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
