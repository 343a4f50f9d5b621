"""Locations in S3, as users type them and as records store them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ocrfleet.s3 import location
from ocrfleet.s3.location import S3Location, has_dots


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_key_survives_being_stored(key: str) -> None:
    assume(not has_dots(key))
    assert location.parse(location.uri("bucket", key)) == S3Location("bucket", key)


def test_each_character_of_a_location_is_literal() -> None:
    assert location.typed("s3://a-bucket/1890s/50 % + é.pdf") == S3Location("a-bucket", "1890s/50 % + é.pdf")
    assert location.typed("s3://a-bucket") == location.typed("s3://a-bucket/") == S3Location("a-bucket", "")
    assert str(location.typed("s3://a-bucket/a b")) == "s3://a-bucket/a b"


def test_a_stored_uri_is_encoded() -> None:
    assert location.uri("a-bucket", "a b/50 %.pdf") == "s3://a-bucket/a%20b/50%20%25.pdf"
    assert location.as_typed("s3://a-bucket/a%20b/50%20%25.pdf") == "s3://a-bucket/a b/50 %.pdf"
    assert location.as_typed("file:///a%20b.pdf") == "file:///a%20b.pdf"


@pytest.mark.parametrize("text", ["", "a-bucket/key", "s3:a-bucket", "s3://", "s3:///key", "s3://a b/", "file:///a"])
def test_an_invalid_location_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not s3://bucket"):
        location.typed(text)
    with pytest.raises(ValueError, match="not s3://bucket"):
        location.parse(text)


@pytest.mark.parametrize("key", ["..", "in/../other/a.pdf", "./a", "a/.", "a/..", "a//../b"])
def test_dot_segments_are_refused(key: str) -> None:
    # A server that takes them for steps would read outside of the prefixes that are allowed
    with pytest.raises(ValueError, match="without the segments"):
        location.typed(f"s3://a-bucket/{key}")
    for stored in (location.uri("a-bucket", key), f"s3://a-bucket/{key.replace('.', '%2e')}"):
        with pytest.raises(ValueError, match="without the segments"):
            location.parse(stored)
        # But a record of an earlier version is shown
        assert location.as_typed(stored) == f"s3://a-bucket/{key}"
    assert location.typed("s3://a-bucket/a..b/...c/.d").key == "a..b/...c/.d"


@pytest.mark.parametrize("module", ["producer.local.run", "worker.app"])
def test_commands_on_local_files_do_not_import_boto3(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in sys.modules if name.startswith('boto')))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
