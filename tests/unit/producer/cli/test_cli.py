from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.profiles.profile import RAPIDOCR
from producer.cli.options import PdfText, read_formats, read_group, read_profile, read_settings
from producer.errors import UsageError
from producer.intake.page_ranges import parse_pages

# ---- --pages


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("5", [(5, 5)]),
        ("3-10", [(3, 10)]),
        ("7-7", [(7, 7)]),
        ("5-", [(5, None)]),
        ("-4", [(1, 4)]),
        ("1,5-8", [(1, 1), (5, 8)]),
        ("20-, 1", [(20, None), (1, 1)]),
        (" 3 - 10 , 12 ", [(3, 10), (12, 12)]),
        ("999999", [(999999, 999999)]),
        ("007", [(7, 7)]),
    ],
)
def test_pages_are_written_as_people_write_them(text: str, ranges: list[tuple[int, int | None]]) -> None:
    assert list(parse_pages(text)) == ranges


@pytest.mark.parametrize(
    "text",
    ["", ",", "1,", "-", " ", "a", "3-a", "1.5", "3--5", "1-2-3", "--5", "3:5", "0x3", "+3", "1;2", "12345678-", "1e3"],
)
def test_an_invalid_page_selection_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="write it like 3-10"):
        parse_pages(text)


@pytest.mark.parametrize("text", ["1234567", "123456789012", "5 7", "1, 2 3"])
def test_digits_are_never_dropped(text: str) -> None:
    with pytest.raises(UsageError):
        parse_pages(text)


@pytest.mark.parametrize("text", ["0", "0-3", "5-3", "-0", "1,0", "10-9"])
def test_pages_that_can_not_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="pages count from 1"):
        parse_pages(text)


@given(
    st.lists(
        st.tuples(st.integers(1, 999_999), st.none() | st.integers(0, 1000)).map(
            lambda pair: (pair[0], None if pair[1] is None else min(999_999, pair[0] + pair[1]))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_formatted_page_selection_is_parsed_back(ranges: list[tuple[int, int | None]]) -> None:
    text = ",".join(f"{first}-{'' if last is None else last}" for first, last in ranges)

    assert list(parse_pages(text)) == ranges


@given(st.text("0123456789-, ", max_size=12))
def test_any_other_text_is_refused_in_one_way(text: str) -> None:
    # Any input gives a selection or a UsageError, never another exception.
    try:
        ranges = parse_pages(text)
    except UsageError:
        return
    assert all(first >= 1 and (last is None or last >= first) for first, last in ranges)


# ---- OCRFLEET_*


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "soon"),
        ("LEASE_SECONDS", "1"),
        ("BACKLOG_PAGES", "0"),
        ("BACKLOG_PAGES", "many"),
        ("PAGE_ATTEMPTS", "0"),
        ("RENDERERS", "-1"),
        ("RENDER_MEMORY_MB", "64"),
        ("SWEEP_SECONDS", "0"),
        ("RENDER_DEADLINE", "0"),
    ],
)
def test_an_invalid_setting_is_named_by_its_environment_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"OCRFLEET_{name}", value)

    with pytest.raises(UsageError, match=f"OCRFLEET_{name}: "):
        read_settings(None)


def test_all_bad_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_RENDERERS", "0")
    monkeypatch.setenv("OCRFLEET_BACKLOG_PAGES", "0")

    with pytest.raises(UsageError, match=r"OCRFLEET_BACKLOG_PAGES.*OCRFLEET_RENDERERS"):
        read_settings(None)


def test_a_level_of_logs_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_LOG_LEVEL", "loud")

    with pytest.raises(UsageError, match="OCRFLEET_LOG_LEVEL: "):
        read_settings(None)


@pytest.mark.parametrize("value", ["inf", "1e999"])
def test_a_time_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    # Everything is bounded, so a deadline has an end.
    monkeypatch.setenv("OCRFLEET_JOB_DEADLINE", value)

    with pytest.raises(UsageError, match="OCRFLEET_JOB_DEADLINE: "):
        read_settings(None)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_RENDERERS", "3")
    monkeypatch.setenv("OCRFLEET_UNHEARD_OF", "1")

    assert read_settings(None).renderers == 3


# ---- --password-file


def test_passwords_are_the_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_bytes("geheim\r\n\nmit Leerzeichen \nschlüssel".encode())

    assert read_settings(path).passwords() == ("geheim", "mit Leerzeichen ", "schlüssel")


def test_passwords_from_an_editor_that_writes_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_bytes(b"\xef\xbb\xbfgeheim\r\n")

    assert read_settings(path).passwords() == ("geheim",)


def test_the_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two")
    monkeypatch.setenv("OCRFLEET_PASSWORD_FILE", str(tmp_path / "one"))

    assert read_settings(None).passwords() == ("one",)
    assert read_settings(tmp_path / "two").passwords() == ("two",)


def test_a_password_file_is_found_from_other_folders_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a file that was named from where the command was given
    (tmp_path / "passwords").write_text("geheim")
    monkeypatch.chdir(tmp_path)
    settings = read_settings(Path("passwords"))

    # When it is read from elsewhere, as workers do
    monkeypatch.chdir("/")
    assert settings.passwords() == ("geheim",)


@pytest.mark.parametrize("content", [None, b"caf\xe9\n"], ids=["missing", "not UTF-8"])
def test_a_password_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "passwords"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=r"the password file .*passwords can't be read"):
        read_settings(path)


def test_a_folder_is_no_password_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OCRFLEET_PASSWORD_FILE", str(tmp_path))

    with pytest.raises(UsageError, match="can't be read"):
        read_settings(None)


# ---- the others


def test_an_engine_is_a_profile() -> None:
    assert read_profile() is RAPIDOCR
    assert read_profile(engine="rapidocr") is RAPIDOCR
    assert read_profile(engine="tesseract", language="deu").language == "deu"


@pytest.mark.parametrize(("engine", "language"), [("abbyy", None), ("rapidocr", "deu"), ("tesseract", "$(id)")])
def test_engine_options_that_no_engine_has_are_usage_errors(engine: str, language: str | None) -> None:
    with pytest.raises(UsageError):
        read_profile(engine=engine, language=language)


def test_group_accepts_folder_only() -> None:
    assert read_group("folder") is True
    assert read_group(None) is False
    with pytest.raises(UsageError, match="'folders'"):
        read_group("folders")


def test_a_searchable_pdf_replaces_the_text_of_an_earlier_ocr_or_keeps_it_by_choice() -> None:
    assert read_formats("md,pdf") == ("md", "pdf")
    assert read_formats("md,pdf", PdfText.KEEP) == ("md", "pdf-keep")
    with pytest.raises(UsageError, match="--formats md,json,pdf"):
        read_formats("md,json", PdfText.KEEP)
