"""The state folder of an output folder: private, and no link."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.delivery.delivered_files import STATE_FOLDER
from producer.errors import UsageError
from producer.local.run import locked


@pytest.mark.parametrize("earlier", [False, True])
def test_no_other_user_reads_or_writes_the_state_folder(tmp_path: Path, earlier: bool) -> None:  # noqa: FBT001
    # Given an output folder, new or of an earlier version
    state = tmp_path / "out" / STATE_FOLDER
    if earlier:
        state.mkdir(parents=True)
        state.chmod(0o777)

    with locked(tmp_path / "out"):
        assert state.stat().st_mode & 0o777 == 0o700


def test_a_planted_state_folder_is_not_followed(tmp_path: Path) -> None:
    # Given a link where the state folder would be
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / STATE_FOLDER).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UsageError, match="is a link or a file"), locked(tmp_path):
        pass

    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_planted_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / STATE_FOLDER).mkdir()
    (tmp_path / STATE_FOLDER / "lock").symlink_to(tmp_path / "precious")

    with pytest.raises(UsageError), locked(tmp_path):
        pass

    assert (tmp_path / "precious").read_bytes() == b"precious"
