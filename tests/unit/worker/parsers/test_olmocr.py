"""The parser of olmOCR: front matter and Markdown, damaged or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.records.pages import Role
from tests.support.published_outputs import OLMOCR_EMPTY, OLMOCR_PAGE, OLMOCR_TABLE
from worker.parsers.olmocr import parse


def page(body: str, **changes: str | None) -> str:
    fields = {
        "primary_language": "en",
        "is_rotation_valid": "True",
        "rotation_correction": "0",
        "is_table": "False",
        "is_diagram": "False",
    } | changes
    return (
        "---\n" + "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None) + f"---\n{body}"
    )


class TestPublished:
    def test_the_model_card(self) -> None:
        read = parse(OLMOCR_PAGE)

        assert read.text == "olmOCR: Unlocking Trillions of Tokens in PDFs with Vision Language Models\n\nJake Poz"
        assert read.damage is None

    def test_a_page_with_a_table(self) -> None:
        read = parse(OLMOCR_TABLE)

        assert [block.role for block in read.blocks] == [Role.TEXT, Role.TABLE]
        assert read.blocks[1].markdown.startswith('<table>\n<thead>\n<tr>\n<th rowspan="2">Continent')
        assert read.damage is None

    def test_a_page_without_text(self) -> None:
        read = parse(OLMOCR_EMPTY)

        assert (read.text, read.blocks, read.damage) == ("", (), None)


class TestFrontMatter:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"primary_language": "null"}, {"primary_language": "pt-BR"}, {"is_table": "true"}, {"is_diagram": "false"},
         {"rotation_correction": "90"}, {"is_rotation_valid": "False"}, {"is_rotation_valid": "false"}],
    )  # fmt: skip
    def test_valid_front_matter(self, changes: dict[str, str]) -> None:
        assert parse(page("The moon.", **changes)).damage is None

    @pytest.mark.parametrize("turn", ["90", "180", "270"])
    def test_a_page_that_is_not_upright(self, turn: str) -> None:
        read = parse(page("nooM", is_rotation_valid="False", rotation_correction=turn))

        assert read.damage is not None
        assert f"counter-clockwise by {turn} degrees" in read.damage
        assert read.text == "nooM"

    @pytest.mark.parametrize(
        ("name", "value"),
        [("primary_language", ""), ("primary_language", "English, I think"), ("is_rotation_valid", "yes"), ("is_table", None),
         ("rotation_correction", "45"), ("rotation_correction", "9" * 60), ("is_diagram", "!!python/object:os.abort")],
    )  # fmt: skip
    def test_a_missing_or_empty_field_of_front_matter(self, name: str, value: str | None) -> None:
        read = parse(page("The moon.", **{name: value}))

        assert read.damage == f"the front matter does not tell {name}"
        assert read.text == "The moon."

    @pytest.mark.parametrize("text", ["The moon.", "---\nThe moon.\n---", "primary language: en", "---", "- - -"])
    def test_none(self, text: str) -> None:
        assert parse(text).damage == "there is no front matter"
        assert parse(text).text == text

    @pytest.mark.parametrize(
        "output",
        ["---\nprimary_language: en\nis_table: True\nThe moon.", "---\nprimary_language: en\nprimary_language: en: The moon.",
         "primary_language: en\n---\nThe moon."],
    )  # fmt: skip
    def test_without_beginning_or_end(self, output: str) -> None:
        assert parse(output).damage == "the front matter has no beginning or no end"
        assert parse(output).text.endswith("The moon.")

    def test_a_page_that_is_one_block_of_code(self) -> None:
        assert parse(f"```markdown\n{page('The moon.')}\n```").text == "The moon."
        assert parse(f"```\n{page('The moon.')}\n```").damage is None

    def test_rules_in_the_text_are_text(self) -> None:
        assert parse(page("One\n\n---\n\nis_table: True")).text == "One\n\n---\n\nis_table: True"


def test_a_figure_is_what_describes_it() -> None:
    read = parse(page("Before.\n\n![The moon, *full*](page_10_20_300_400.png)\n\n![](page_1_2_3_4.png)\n\n![a](b.png)"))

    assert [(block.role, block.markdown) for block in read.blocks] == [
        (Role.TEXT, "Before."),
        (Role.FIGURE, "The moon, *full*"),
        (Role.FIGURE, ""),
        (Role.FIGURE, "![a](b.png)"),
    ]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_word_is_lost(body: str) -> None:
    read = parse(page(f"The text: {body}"))

    assert "".join(read.text.split()) == "".join(f"The text: {body}".split())
    assert read.damage is None
