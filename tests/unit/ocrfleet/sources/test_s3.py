"""Errors of S3 are attributed to one source or to the access to S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError, PermanentError, Reason, TransientError
from ocrfleet.records.submissions import SourceReference
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources
from tests.support.fakes.s3_server import Answer, FakeS3, refusal

BARE = Answer(403)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that no server checks."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody's")


def wish(*, etag: str | None = "e") -> SourceReference:
    return SourceReference(name="a.pdf", uri="s3://a-bucket/a.pdf", size=3, etag=etag)


def fetch(fake: FakeS3, folder: Path) -> None:
    settings = Settings(cache=folder / "cache", s3=fake.settings(attempts=1))
    with Sources(settings, None).fetched(wish()):
        pass


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AccessDenied", "needs s3:GetObject"),
        (403, "InvalidObjectState", "restore it in S3"),
        (404, "NoSuchBucket", "bucket is gone"),
        (405, "MethodNotAllowed", "put it back"),
        (400, "KMS.DisabledException", "400 KMS.DisabledException"),
        (400, "KeyTooLongError", "400 KeyTooLongError"),
    ],
)
def test_an_error_of_one_source_is_permanent_for_that_source(
    tmp_path: Path, status: int, code: str, advice: str
) -> None:
    with FakeS3(refusal(status, code)) as fake, pytest.raises(PermanentError, match=advice) as caught:
        fetch(fake, tmp_path)

    assert caught.value.reason is Reason.SOURCE_MISSING
    # It enters outputs, whose bytes do not depend on where or when it was tried.
    assert "127.0.0.1" not in caught.value.detail


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken"), (403, "RequestTimeTooSkewed")],
)
def test_an_error_of_the_key_pair_is_not_permanent_for_the_source(tmp_path: Path, status: int, code: str) -> None:
    with FakeS3(refusal(status, code)) as fake, pytest.raises(ConfigurationError):
        fetch(fake, tmp_path)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
def test_temporary_errors_are_transient(tmp_path: Path, status: int, code: str) -> None:
    with FakeS3(refusal(status, code)) as fake, pytest.raises(TransientError):
        fetch(fake, tmp_path)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (refusal(403, "AccessDenied"), PermanentError),
        (refusal(403, "InvalidAccessKeyId"), ConfigurationError),
        (refusal(400, "ExpiredToken"), ConfigurationError),
    ],
)
def test_why_head_is_refused_is_asked_of_get(tmp_path: Path, told: Answer, error: type[Exception]) -> None:
    # HEAD has no body: expired credentials would look like millions of unreadable sources.
    with FakeS3(BARE, told) as fake:
        sources = Sources(Settings(cache=tmp_path / "cache", s3=fake.settings(attempts=1)), None)
        with pytest.raises(error):
            sources.looked_up(wish(etag=None))

    assert [asked.method for asked in fake.asked] == ["HEAD", "GET"]


def test_where_head_alone_is_refused_get_tells(tmp_path: Path) -> None:
    whole = Answer(200, b"abc", {"ETag": '"new"'})
    with FakeS3(BARE, whole) as fake:
        sources = Sources(Settings(cache=tmp_path / "cache", s3=fake.settings(attempts=1)), None)

        assert sources.looked_up(wish(etag=None)) == wish(etag="new")
