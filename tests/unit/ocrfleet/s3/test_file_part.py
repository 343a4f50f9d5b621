from __future__ import annotations

import io
from pathlib import Path

import pytest

from ocrfleet.s3.file_part import FilePart


@pytest.mark.parametrize(("start", "length"), [(0, 4), (3, 4), (8, 4), (10, 4), (12, 4), (0, 100)])
def test_a_part_is_those_bytes_of_the_file_and_no_others(tmp_path: Path, start: int, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    wanted = b"0123456789"[start : start + length]
    with path.open("rb") as file:
        part = FilePart(file.fileno(), start, length)
        assert part.read() == wanted
        assert part.read(1) == b""
        # It is sent once more from its beginning, or measured by its end
        assert part.seek(0) == 0
        assert [part.read(1), part.read(100)] == [wanted[:1], wanted[1:]]
        assert part.seek(0, io.SEEK_END) == len(wanted)
        assert part.seek(-1, io.SEEK_CUR) == max(0, len(wanted) - 1)
        assert part.tell() == max(0, len(wanted) - 1)
        # And the file is where it was
        assert file.tell() == 0
