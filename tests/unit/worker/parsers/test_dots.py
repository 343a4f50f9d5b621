"""The parser of dots.ocr: cells from complete and from truncated output."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.records.pages import Block, Role
from tests.support.growth import assert_grows_linearly
from tests.support.published_outputs import DOTS_LOOPING, DOTS_PAGE, DOTS_VERTICAL
from worker.parsers import Parsed
from worker.parsers.dots import ROLES, parse, scaled

#: a size that the model's processor leaves as it is, so that boxes are pixels of the page
WIDTH, HEIGHT = 1008, 1400


def read(output: str) -> Parsed:
    return parse(output, width_px=WIDTH, height_px=HEIGHT)


def cell(text: str | None = None, *, category: str = "Text", bbox: Any = (1, 2, 30, 40)) -> dict[str, Any]:
    written = {"bbox": list(bbox), "category": category}
    return written if text is None else written | {"text": text}


def texts(page: Parsed) -> list[tuple[str, str]]:
    return [(block.label, block.markdown) for block in page.blocks]


class TestPublished:
    def test_a_page(self) -> None:
        page = parse(DOTS_PAGE, width_px=2480, height_px=3508)

        assert [(block.label, block.role) for block in page.blocks] == [
            ("Page-header", Role.HEADER),
            ("Picture", Role.FIGURE),
            ("Caption", Role.CAPTION),
            ("Picture", Role.FIGURE),
        ]
        assert page.blocks[0].markdown == "A PREPRINT - SEPTEMBER 5, 2022"
        assert page.blocks[2].markdown.endswith(r"$\theta_k$, $k = 1, \dots, 8$, for both RWMH (blue) and MLDA (red).")
        assert page.blocks[3] == Block(label="Picture", role=Role.FIGURE, boxes=((447.8, 1210.8, 1245.0, 1786.1),))
        assert page.damage is None

    def test_a_page_that_went_on_to_the_limit(self) -> None:
        page = read(DOTS_LOOPING)

        assert [block.role for block in page.blocks] == [Role.TABLE, Role.TABLE]
        assert page.blocks[0].markdown.endswith("<td>135.00</td><td></td></tr></tbody></table>")
        assert page.blocks[1].markdown.endswith("<tr><td></td><td></td></tr><tr><td></td>")
        assert page.damage == "the list of cells breaks off"

    def test_a_vertical_header(self) -> None:
        assert texts(read(DOTS_VERTICAL)) == [
            ("Page-header", "2"),
            ("Page-header", "陈\n士\n铎\n医\n学\n丛\n书"),
            ("Picture", ""),
        ]


class TestScaling:
    @pytest.mark.parametrize(
        ("size", "seen"),
        [
            ((1008, 1400), (1008, 1400)),
            ((1000, 1414), (1008, 1400)),
            ((2480, 3508), (2492, 3500)),
            ((4960, 7016), (2800, 3976)),
            ((20, 30), (56, 84)),
            ((1, 1), (56, 56)),
            ((1, 4000), (28, 4004)),
        ],
    )
    def test_sizes(self, size: tuple[int, int], seen: tuple[int, int]) -> None:
        assert scaled(*size) == seen

    def test_boxes_are_pixels_of_the_page(self) -> None:
        page = parse(json.dumps([cell("a", bbox=(0, 0, 2800, 3976))]), width_px=4960, height_px=7016)

        assert page.blocks[0].boxes == ((0, 0, 4960, 7016),)


class TestBoxes:
    def test_a_box_is_cut_at_the_edges(self) -> None:
        assert read(json.dumps([cell("a", bbox=(-5, 10, 1200.5, 1500))])).blocks[0].boxes == ((0, 10, WIDTH, HEIGHT),)

    @pytest.mark.parametrize(
        "box",
        ["[]", "null", "[1, 2, 3]", "[1, 2, 3, 4, 5]", "[30, 2, 3, 4]", "[1, 4, 3, 4]", "[2000, 2, 2100, 4]", "[NaN, 2, 30, 4]",
         "[1e2, 2, 300, 4]", f"[{'9' * 5000}, 2, 300, 4]", "[[1, 2, 3, 4]]", '"[1, 2, 3, 4]"', "[1, 2, 3, 4",
         '["1", "2", "3", "4"]'],
    )  # fmt: skip
    def test_an_invalid_box_is_left_out_and_its_cell_kept(self, box: str) -> None:
        page = read(f'[{{"bbox": {box}, "category": "Text", "text": "Words."}}]')

        assert page.blocks == (Block(label="Text", role=Role.TEXT, markdown="Words."),)

    def test_words_where_a_box_should_be_are_in_no_cell(self) -> None:
        page = read('[{"bbox": top left, "category": "Text", "text": "Words."}]')

        assert texts(page) == [("Text", "Words."), ("", "top left")]

    def test_most_cells_are_nowhere(self) -> None:
        good, bad = cell("a"), cell("b", bbox=(9, 9, 1, 1))

        assert read(json.dumps([good, bad, bad])).damage == "2 of 3 blocks have no place on the page"
        assert read(json.dumps([good, bad])).damage is None


class TestText:
    @pytest.mark.parametrize(
        ("category", "text", "role"),
        [
            ("Title", "# On tides", Role.TITLE),
            ("Title", "## On tides", Role.HEADING),
            ("Section-header", "## Springs", Role.HEADING),
            ("Text", "The moon.", Role.TEXT),
            ("List-item", "- a", Role.LIST),
            ("Footnote", "* a", Role.FOOTNOTE),
            ("Page-footer", "14", Role.FOOTER),
            ("Table", "<table></table>", Role.TABLE),
            ("Margin-note", "sic", Role.OTHER),
        ],
    )
    def test_categories_become_roles(self, category: str, text: str, role: Role) -> None:
        page = read(json.dumps([cell(text, category=category)]))

        assert page.blocks == (Block(label=category, role=role, boxes=((1, 2, 30, 40),), markdown=text),)

    def test_every_category_has_a_role(self) -> None:
        assert Role.OTHER not in ROLES.values()

    @pytest.mark.parametrize(
        ("written", "formula"),
        [
            (r"\frac{a}{b}", "$$\n\\frac{a}{b}\n$$"),
            ("$$x$$", "$$x$$"),
            (r"\[x\]", r"\[x\]"),
            ("for $x$", "for $x$"),
            ("", ""),
        ],
    )
    def test_a_formula_is_delimited(self, written: str, formula: str) -> None:
        assert read(json.dumps([cell(written, category="Formula")])).text == formula

    @pytest.mark.parametrize(
        ("written", "text"),
        [
            (r"a\"b\\c\/d\ne\tf", 'a"b\\c/d\ne\tf'),
            (r"\u00e9\ud83c\udf19 \ud83c", "é🌙 \ufffd"),
            (r"\(\alpha\) \frac \beta \u12", r"\(\alpha\) \frac \beta"),
            ('He said "twice", didn\'t he', 'He said "twice", didn\'t he'),
            ("two\nlines", "two\nlines"),
            ("{1, 2}", "{1, 2}"),
            (r"the key \"text\": 1", 'the key "text": 1'),
        ],
    )
    def test_escapes(self, written: str, text: str) -> None:
        assert read(f'[{{"bbox": [1, 2, 30, 40], "category": "Text", "text": "{written}"}}]').text == text

    @pytest.mark.parametrize(
        "latex",
        [
            r"a \times b",
            r"\theta_k",
            r"\text{if } x \neq y",
            r"\bar\beta\nu2",
            r"\frac{a}{b}",
            r"\left(\rho\right)",
            r"x\to\nabla",
        ],
    )
    def test_a_command_with_one_backslash_stays_one(self, latex: str) -> None:
        start = '[{"bbox": [1, 2, 30, 40], "category": '

        assert read(f'{start}"Formula", "text": "{latex}"}}]').text == f"$$\n{latex}\n$$"
        assert (
            read(f'{start}"Text", "text": "so ${latex}$, and\\n$${latex}$$"}}]').text
            == f"so ${latex}$, and\n$${latex}$$"
        )

    @pytest.mark.parametrize(
        ("category", "text"),
        [
            ("Formula", "a\nb \t c"),
            ("Formula", "\\alpha = 2\nu"),
            ("Text", "a\nu and\times"),
            ("Text", "cost $5\nu $6, or 5$\nu 6$"),
            ("Text", "$\\alpha\nu$"),
        ],
    )
    def test_new_lines_and_tabs_of_json_are_no_commands(self, category: str, text: str) -> None:
        assert text in read(json.dumps([cell(text, category=category)])).text

    @pytest.mark.parametrize("unit", ["\\", "$", "$a", "$$", "$$a", "\\t", "$\\times", "\\\\", "$$\\\\$"])
    @pytest.mark.parametrize("category", ["Formula", "Text"])
    def test_commands_are_found_in_linear_time(self, category: str, unit: str) -> None:
        def work(size: int) -> object:
            return read(f'[{{"category": "{category}", "text": "{unit * (size // len(unit))}"}}]')

        assert_grows_linearly(work, 400_000)


class TestDamage:
    def test_words_that_are_in_no_cell(self) -> None:
        page = read(f"Here it is:\n```json\n{json.dumps([cell('One.')])}\n```\nThat was all.")

        assert texts(page) == [("", "Here it is:"), ("Text", "One."), ("", "That was all.")]

    def test_no_cell(self) -> None:
        page = read("[1] The moon pulls.")

        assert page == Parsed(
            text="[1] The moon pulls.",
            blocks=(Block(label="", role=Role.TEXT, markdown="[1] The moon pulls."),),
            damage="the text has no layout: there is not one cell",
        )

    @pytest.mark.parametrize(
        "output", ["[]", "{}", "```json\n[]\n```", "[\n", '[{"bbox": [1, 2, 30, 40], "category": "Picture"}]']
    )
    def test_a_page_without_text(self, output: str) -> None:
        assert read(output).text == ""
        assert read(output).damage is None

    def test_a_forgotten_quote_or_brace(self) -> None:
        cells = json.dumps([cell("One {1}"), cell("Two."), cell("Three.")])
        for harm in ('"}, {', "}, {", ", {", '"', "}"):
            page = read(
                cells.replace('{1}"}', "{1}" + harm.strip(" {,"), 1)
                if harm in '"}'
                else cells.replace('"}, {', harm, 1)
            )

            assert [text.rstrip('",} {') for _, text in texts(page)] == ["One {1", "Two.", "Three."]

    def test_a_single_cell_without_a_list(self) -> None:
        assert read(json.dumps(cell("One."))).damage is None

    def test_cells_are_cut_off_anywhere(self) -> None:
        cells = [cell("One."), cell('Two "2" \\ é.', category="Caption"), cell(category="Picture"), cell("Three.")]
        whole = json.dumps(cells)
        ends = [len(json.dumps(cells[:count])) - 1 for count in range(1, len(cells) + 1)]

        for end in range(1, len(whole) - 1):
            page = read(whole[:end])
            complete = sum(one <= end for one in ends)

            assert texts(page)[:complete] == texts(read(json.dumps(cells[:complete])))
            assert len(page.blocks) <= complete + 1
            if page.blocks:
                assert page.damage == (None if end in ends else "the list of cells breaks off")
            begun = whole[ends[complete - 1] if complete else 0 : end].partition('"text": "')[2].rstrip('"\\')
            assert not begun.isalpha() or page.text.endswith(begun)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
boxes = st.lists(st.one_of(st.integers(-100, 5000), st.floats(0, 5000)), min_size=3, max_size=5)
cells = st.builds(
    lambda text, category, bbox: cell(text, category=category, bbox=bbox), words, st.sampled_from([*ROLES, "x"]), boxes
)


class TestAnything:
    @given(st.lists(cells, min_size=1))
    def test_honest_cells_come_out_as_they_are(self, written: list[dict[str, Any]]) -> None:
        page = read(json.dumps(written))

        found = [(block.label, block.markdown) for block in page.blocks]
        # Neither JSON's form feed nor its backspace is read: they are LaTeX.
        told = [(one["category"], one["text"].replace("\b", "\\b").replace("\f", "\\f").strip()) for one in written]
        assert [(label, text.removeprefix("$$\n").removesuffix("\n$$")) for label, text in found] == told

    @given(st.lists(cells, min_size=1), st.data())
    def test_output_before_a_truncation_is_kept(self, written: list[dict[str, Any]], data: st.DataObject) -> None:
        output = json.dumps(written, ensure_ascii=False)
        end = data.draw(st.integers(0, len(output)))
        complete = sum(
            len(json.dumps(written[:count], ensure_ascii=False)) - 1 <= end for count in range(1, len(written) + 1)
        )

        assert texts(read(output[:end]))[:complete] == texts(read(output))[:complete]
