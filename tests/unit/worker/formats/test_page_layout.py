"""A page as a tree of blocks, lines and words: of stored words, and of records from before there were any."""

from __future__ import annotations

from typing import Any

from ocrfleet.records.pages import Block, Line, PageResult, PageStatus, Placed, Role, Word
from worker.formats.page_layout import page_layout


def page(**fields: Any) -> PageResult:
    known = {"profile": "p", "engine": "e", "model": "m", "revision": "r", "width_px": 1000, "height_px": 2000}
    return PageResult(page=1, status=PageStatus.DONE, **(known | fields))


def test_words_are_kept_through_bytes() -> None:
    words = (Word("Er", (1.5, 2, 3, 4), 0.5, 0, None), Word("sie", (4, 2, 9, 4), None, 0, 0, Placed.INTERPOLATED))
    assert PageResult.from_bytes(page(words=words).to_bytes()).words == words


def test_stored_words_stand_in_their_lines_and_blocks() -> None:
    words = (
        Word("one", (10, 10, 50, 30), 0.9, 0, 0),
        Word("two", (60, 10, 90, 30), None, 0, 0),
        Word("three", (10, 40, 50, 60), None, 1, 0, Placed.INTERPOLATED),
        Word("loose", (10, 80, 50, 90), None, 2, None),
    )
    block = Block(label="text", role=Role.TITLE, boxes=((0, 0, 100, 70),), markdown="one two three")
    first, last = page_layout(page(words=words, blocks=(block,)))
    assert (first.role, first.box, first.index) == (Role.TITLE, (0, 0, 100, 70), 0)
    assert [line.text for line in first.lines] == ["one two", "three"]
    assert first.lines[0].box == (10, 10, 90, 30)
    assert (last.role, [line.text for line in last.lines], last.index) == (Role.TEXT, ["loose"], None)


def test_words_of_lines_alone_share_their_boxes() -> None:
    lines = (Line(text="ab cd", box=(100, 10, 200, 30), confidence=0.8), Line(text="below", box=(100, 500, 200, 530)))
    block = Block(label="text", boxes=((90, 0, 210, 40),), markdown="ab cd")
    first, second = page_layout(page(lines=lines, blocks=(block,)))
    assert first.lines[0].words == (
        Word("ab", (100, 10, 140, 30), None, 0, 0, Placed.INTERPOLATED),
        Word("cd", (160, 10, 200, 30), None, 0, 0, Placed.INTERPOLATED),
    )
    assert first.lines[0].confidence == 0.8
    assert [line.text for line in second.lines] == ["below"]


def test_arabic_words_share_their_line_from_the_right() -> None:
    line = Line(text="\u0645\u0631\u062d\u0628\u0627 \u0628\u0643", box=(0, 0, 80, 10))
    (block,) = page_layout(page(lines=(line,)))
    assert [word.box[::2] for word in block.lines[0].words] == [(30, 80), (0, 20)]


def test_words_of_blocks_alone_lie_in_their_blocks() -> None:
    figure = Block(label="image", role=Role.FIGURE, boxes=((0, 0, 10, 10),), figure="p00001-1.png")
    block = Block(label="text", role=Role.TEXT, boxes=((0, 20, 100, 90),), markdown="# One *two*\n\nthree")
    first, second = page_layout(page(blocks=(figure, block), text="One two\n\nthree"))
    assert (first.role, first.lines) == (Role.FIGURE, ())
    assert [line.text for line in second.lines] == ["One two", "three"]
    assert {(word.placed, word.box) for line in second.lines for word in line.words} == {
        (Placed.BLOCK, (0, 20, 100, 90))
    }


def test_a_page_without_layout_has_its_words_somewhere_on_the_page() -> None:
    (block,) = page_layout(page(text="**One** two", markdown=True))
    assert [(line.text, line.box) for line in block.lines] == [("One two", (0, 0, 1000, 2000))]
    assert page_layout(page(text="")) == ()


def test_lines_without_blocks_stand_in_the_paragraphs_of_the_text() -> None:
    lines = [Line(text=text, box=(0, y, 50, y + 9)) for y, text in ((0, "one"), (10, "two"), (40, "three"))]
    words = tuple(Word(line.text, line.box, 0.5, number) for number, line in enumerate(lines))
    found = page_layout(page(lines=tuple(lines), words=words, text="one\ntwo\n\nthree"))
    assert [[line.text for line in block.lines] for block in found] == [["one", "two"], ["three"]]
