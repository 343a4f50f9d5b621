"""Child processes that answer lines: what a question gives when the child answers, dies, or is misconfigured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError
from ocrfleet.formats import FormatName
from ocrfleet.records.conversions import ConversionRequest
from producer.processes.line_process import LineProcess

REQUEST = ConversionRequest(document="0" * 32, generation=1, formats=(FormatName.TEXT,)).to_bytes()


@contextmanager
def child(folder: Path, program: str) -> Iterator[LineProcess]:
    (folder / "child.py").write_text(f"import sys\n{program}")
    with closing(LineProcess("child", {**os.environ, "PYTHONPATH": str(folder)})) as process:
        yield process


def test_a_child_answers_line_by_line(tmp_path: Path) -> None:
    with child(tmp_path, "for line in sys.stdin: print(line.strip()[::-1], flush=True)") as process:
        assert process.ask(b"abc") == b"cba"
        assert process.ask(b"de") == b"ed"


@pytest.mark.parametrize("code", [0, 1, 70])
def test_a_child_that_dies_gives_no_answer_and_is_started_again(tmp_path: Path, code: int) -> None:
    with child(tmp_path, f"sys.stdin.readline(); sys.stdout.write('half'); sys.exit({code})") as process:
        assert process.ask(b"a") is None
        assert process.exit_code == code
        assert process.ask(b"b") is None


@pytest.mark.parametrize("reads", ["sys.stdin.readline()", "pass"])
def test_a_misconfigured_child_is_an_error_with_its_words(tmp_path: Path, reads: str) -> None:
    with child(tmp_path, f"{reads}; sys.stdout.write('set OCRFLEET_STORE'); sys.exit(78)") as process:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="set OCRFLEET_STORE"):
                process.ask(b"a" * 1000)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OCRFLEET_RENDER_MEMORY_MB", "few", "OCRFLEET_RENDER_MEMORY_MB: Input should be a valid integer"),
        ("OCRFLEET_STORE", "s3://", "OCRFLEET_STORE must be a folder or s3://bucket/prefix"),
    ],
)
def test_a_converter_with_a_bad_setting_says_so(variable: str, value: str, words: str) -> None:
    with (
        closing(LineProcess("worker.convert", {**os.environ, variable: value})) as process,
        pytest.raises(ConfigurationError, match=words),
    ):
        process.ask(REQUEST)
