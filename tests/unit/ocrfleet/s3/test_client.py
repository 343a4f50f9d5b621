from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from botocore.exceptions import CredentialRetrievalError, SSLError

from ocrfleet.errors import ConfigurationError, NotFoundError, OcrfleetError, TransientError
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import reader as s3_reader
from ocrfleet.s3.client import PreconditionFailedError
from ocrfleet.s3.location import S3Location
from ocrfleet.settings import S3Settings, Settings
from ocrfleet.storage.open import open_store
from ocrfleet.storage.s3_store import S3Store
from tests.support.fakes.s3_server import Answer, FakeS3, refusal
from tests.support.waiting import scaled

SECRET = "wJalrXUtnFEMI0123456789"  # noqa: S105 - not a real secret
PART = 5 << 20


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Credentials that no server checks, without the AWS configuration of the user."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3.client.cache_clear()
    yield
    s3.client.cache_clear()


class TestClient:
    def test_equal_settings_share_one_client(self) -> None:
        assert s3.client(S3Settings()) is s3.client(S3Settings())
        assert s3.client(S3Settings()) is not s3.client(S3Settings(region="eu-west-1"))

    @pytest.mark.parametrize("variable", [None, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
    def test_a_server_that_is_not_aws_finds_the_bucket_in_the_path(
        self, variable: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        endpoint = "https://minio.example:9000"
        if variable is not None:
            monkeypatch.setenv(variable, endpoint)

        client = s3.client(S3Settings(endpoint_url=None if variable else endpoint))

        url = client.generate_presigned_url("get_object", Params={"Bucket": "a-bucket", "Key": "k"})
        assert url.startswith(f"{endpoint}/a-bucket/k?")

    def test_aws_finds_it_in_the_name_of_a_host_of_its_region(self) -> None:
        store = S3Store(S3Settings(region="eu-west-1"), "a-bucket")

        url = store.presigned("k", seconds=60, filename="a.md", content_type="text/markdown")

        assert url is not None
        assert url.startswith("https://a-bucket.s3.eu-west-1.amazonaws.com/k?")

    def test_a_bucket_whose_name_no_certificate_covers_is_in_the_path(self) -> None:
        store = S3Store(S3Settings(region="eu-west-1"), "a.bucket")

        url = store.presigned("k", seconds=60, filename="a.md", content_type="text/markdown")

        assert url is not None
        assert url.startswith("https://s3.")
        assert "/a.bucket/k?" in url

    @pytest.mark.parametrize("endpoint", [f"minio:{SECRET}@", "127.0.0.1:9000", f"http://me:{SECRET}@:x/"])
    def test_an_invalid_endpoint_is_reported_without_its_text(self, endpoint: str) -> None:
        with pytest.raises(ConfigurationError, match="OCRFLEET_S3_ENDPOINT_URL") as told:
            s3.client(S3Settings(endpoint_url=endpoint))

        assert SECRET not in repr(told.value)

    def test_a_missing_aws_profile_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")

        with pytest.raises(ConfigurationError, match="ProfileNotFound"):
            s3.client(S3Settings())

    def test_without_credentials_it_is_said_how_to_give_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
            open_store(Settings(store="s3://a-bucket/p", s3=S3Settings(endpoint_url="http://127.0.0.1:9")))


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code", "kind", "words"),
        [
            (404, "NoSuchKey", NotFoundError, "no object"),
            (404, "NoSuchVersion", NotFoundError, "no object"),
            (412, "PreconditionFailed", PreconditionFailedError, ""),
            (404, "NoSuchBucket", ConfigurationError, "bucket doesn't exist"),
            (301, "PermanentRedirect", ConfigurationError, "OCRFLEET_S3_REGION"),
            (400, "AuthorizationHeaderMalformed", ConfigurationError, "OCRFLEET_S3_REGION"),
            (403, "InvalidAccessKeyId", ConfigurationError, "key pair"),
            (403, "SignatureDoesNotMatch", ConfigurationError, "key pair"),
            (403, "AccessDenied", ConfigurationError, "s3:GetObject"),
            (400, "ExpiredToken", ConfigurationError, "expired"),
            (403, "InvalidObjectState", ConfigurationError, "restore"),
            (400, "InvalidStorageClass", ConfigurationError, "InvalidStorageClass"),
            (501, "NotImplemented", ConfigurationError, "NotImplemented"),
            (503, "SlowDown", TransientError, "503 SlowDown"),
            (429, "TooManyRequests", TransientError, "429"),
            (500, "InternalError", TransientError, "500"),
            (400, "RequestTimeout", TransientError, "RequestTimeout"),
            (409, "OperationAborted", TransientError, "409"),
        ],
    )
    def test_a_servers_error_is_reported_with_a_remedy(
        self, status: int, code: str, kind: type[OcrfleetError], words: str
    ) -> None:
        with FakeS3(refusal(status, code)) as fake:
            client = s3.client(fake.settings(attempts=1))

            with pytest.raises(kind, match="the source s3://a/b: ") as told, s3.errors("the source s3://a/b"):
                client.get_object(Bucket="a-bucket", Key="b")

        assert words in str(told.value)
        assert SECRET not in repr(told.value)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(404, NotFoundError), (403, ConfigurationError), (301, ConfigurationError), (500, TransientError)],
    )
    def test_head_has_no_words_and_is_understood(self, status: int, kind: type[OcrfleetError]) -> None:
        with FakeS3(Answer(status)) as fake:
            client = s3.client(fake.settings(attempts=1))

            with pytest.raises(kind), s3.errors("it"):
                client.head_object(Bucket="a-bucket", Key="b")

    def test_a_bucket_that_is_not_there_is_no_missing_object(self) -> None:
        with FakeS3(Answer(404)) as fake:
            client = s3.client(fake.settings(attempts=1))

            with pytest.raises(ConfigurationError, match="bucket doesn't exist"), s3.errors("it"):
                client.head_bucket(Bucket="a-bucket")

    def test_a_server_that_is_no_s3_is_reported(self) -> None:
        with (
            FakeS3(Answer(200, b"<html><body>It works!<br></body></html>")) as fake,
            pytest.raises(TransientError, match="OCRFLEET_S3_ENDPOINT_URL"),
        ):
            S3Store(fake.settings(attempts=1), "a-bucket").check()

    def test_a_timeout_is_transient(self) -> None:
        answer = Answer(200, b"", {"Content-Length": "10"})  # more than it sends
        with FakeS3(answer) as fake, pytest.raises(TransientError, match="a-bucket"):
            S3Store(fake.settings(attempts=1, read_timeout=scaled(0.1)), "a-bucket").check()

    def test_an_untrusted_certificate_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigurationError, match="AWS_CA_BUNDLE"), s3.errors("it"):
            raise SSLError(endpoint_url="https://x", error="[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")  # type: ignore[arg-type]

    def test_a_role_that_can_not_be_taken_just_now_may_be_so_later(self) -> None:
        with pytest.raises(TransientError) as told, s3.errors("it"):
            raise CredentialRetrievalError(provider="process", error_msg=SECRET)

        assert SECRET not in str(told.value)

    def test_own_errors_pass_unchanged(self) -> None:
        with pytest.raises(KeyError), s3.errors("it"):
            raise KeyError


class TestRetries:
    @pytest.mark.parametrize("busy", [refusal(503, "SlowDown"), refusal(429, "Throttling"), Answer(502, b"<html>")])
    def test_a_throttled_request_is_repeated(self, busy: Answer) -> None:
        # Given a server that is too busy twice
        with FakeS3(busy, busy, Answer()) as fake:
            # When something is written, then it is written
            S3Store(fake.settings(), "a-bucket", "p").put("a/b", b"data")

        assert [asked.body for asked in fake.asked] == [b"data"] * 3

    def test_it_is_sent_as_often_as_the_settings_say(self) -> None:
        with FakeS3(refusal(503, "SlowDown")) as fake, pytest.raises(TransientError, match="a-bucket/a/b"):
            S3Store(fake.settings(attempts=2), "a-bucket").put("a/b", b"data")

        assert len(fake.asked) == 2

    def test_a_conflict_is_tried_again(self) -> None:
        with FakeS3(refusal(409, "ConditionalRequestConflict"), Answer()) as fake:
            assert S3Store(fake.settings(), "a-bucket").create("a/b", b"data") is True

        assert len(fake.asked) == 2

    @pytest.mark.parametrize("ours", [True, False])
    def test_a_lost_response_to_a_creation_is_resolved_by_its_token(self, *, ours: bool) -> None:
        # Given a server that fails after an object was made, and says at the next attempt that there is one
        def found() -> Answer:
            token = fake.asked[0].headers["x-amz-meta-ocrfleet-create"] if ours else "another"
            return Answer(headers={"x-amz-meta-ocrfleet-create": token, "Content-Length": "4"})

        with FakeS3(refusal(500, "InternalError"), refusal(412, "PreconditionFailed"), found) as fake:
            # When an object is created, then its writer distinguishes it from another writer's
            assert S3Store(fake.settings(), "a-bucket").create("a/b", b"data") is ours

        assert [asked.method for asked in fake.asked] == ["PUT", "PUT", "HEAD"]

    def test_a_lost_response_to_a_multipart_upload_is_resolved(self, tmp_path: Path) -> None:
        # Given a server that made an object of parts, and then no longer knows the upload
        def found() -> Answer:
            token = fake.asked[1].headers["x-amz-meta-ocrfleet-create"]
            return Answer(headers={"x-amz-meta-ocrfleet-create": token, "Content-Length": "4"})

        path = tmp_path / "file"
        path.write_bytes(b"x" * (PART + 1))
        part, lost = Answer(headers={"ETag": "e"}), refusal(500, "InternalError")
        with FakeS3(Answer(404), Answer(body=UPLOAD), part, part, lost, refusal(404, "NoSuchUpload"), found) as fake:
            assert S3Store(fake.settings(), "a-bucket", part=PART).create_from("a/b", path) is True


WRITING = {"server_side_encryption": "aws:kms", "kms_key_id": "a-key", "storage_class": "STANDARD_IA"}
WRITING_HEADERS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "a-key",
    "x-amz-storage-class": "STANDARD_IA",
}
UPLOAD = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"


class TestWriting:
    def test_every_object_is_encrypted_and_classed_as_the_settings_say(self, tmp_path: Path) -> None:
        # Given settings of what is written
        path = tmp_path / "file"
        path.write_bytes(b"x" * (PART + 1))
        with FakeS3(Answer()) as fake:
            store = S3Store(fake.settings(**WRITING), "a-bucket", part=PART)
            store.put("a/b", b".")
            store.create("a/b", b".")
            whole = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            part = Answer(headers={"ETag": "e"})
            fake.script[:] = [Answer(404), Answer(body=UPLOAD), part, part, Answer(body=whole)]
            assert store.create_from("a/b", path) is True

        # Then each request that makes an object carries them
        put, create, head, initiate, first, second, complete = fake.asked
        for asked in (put, create, initiate):
            assert WRITING_HEADERS.items() <= asked.headers.items()

        # And a create does not overwrite an object
        assert create.headers["if-none-match"] == complete.headers["if-none-match"] == "*"
        assert "if-none-match" not in put.headers
        assert head.method == "HEAD"
        assert sorted([len(first.body), len(second.body)]) == [1, PART]

    def test_nothing_is_sent_that_older_servers_store_as_content(self) -> None:
        with FakeS3(Answer()) as fake:
            S3Store(fake.settings(), "a-bucket").put("a/b", b"data")

        (asked,) = fake.asked
        assert asked.body == b"data"
        assert not {"x-amz-trailer", "content-encoding", "x-amz-checksum-crc32"} & asked.headers.keys()
        assert SECRET not in repr(asked.headers)

    def test_a_failed_multipart_upload_is_aborted(self, tmp_path: Path) -> None:
        # Given a server that takes one part of two
        path = tmp_path / "file"
        path.write_bytes(b"x" * (PART + 1))
        part, failed = Answer(headers={"ETag": "e"}), refusal(500, "InternalError")
        with FakeS3(Answer(404), Answer(body=UPLOAD), part, failed) as fake, pytest.raises(TransientError):
            S3Store(fake.settings(attempts=1), "a-bucket", part=PART).create_from("a/b", path)

        # Then the upload of the parts is aborted
        assert (fake.asked[-1].method, fake.asked[-1].path) == ("DELETE", "/a-bucket/a/b?uploadId=u")


class TestReading:
    DATA = bytes(range(256)) * 20_000

    def rest(self, start: int, breaks_at: int | None = None) -> Answer:
        size = len(self.DATA)
        headers = {"ETag": '"e"', "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return Answer(206 if start else 200, self.DATA[start:], headers, breaks_at)

    def test_a_broken_connection_is_no_end(self) -> None:
        # Given a server that breaks off twice
        with FakeS3(self.rest(0, 3_000_000), self.rest(3_000_000, 0), self.rest(3_000_000)) as fake:
            copy = BytesIO()
            with S3Store(fake.settings(), "a-bucket").open("a/b") as stream:
                # When the object is read, then all of it comes
                shutil.copyfileobj(stream, copy)

        assert copy.getvalue() == self.DATA
        # And received bytes are not requested again, and another object is not mixed in
        first, *others = fake.asked
        assert "range" not in first.headers
        for asked in others:
            assert (asked.headers["range"], asked.headers["if-match"]) == ("bytes=3000000-", '"e"')

    def test_a_connection_that_always_breaks_is_to_be_tried_later(self) -> None:
        with FakeS3(self.rest(0, 0)) as fake, pytest.raises(TransientError, match="0 of 5120000"):
            S3Store(fake.settings(attempts=3), "a-bucket").get("a/b")

        assert len(fake.asked) == 3

    def test_two_objects_are_never_read_as_one(self) -> None:
        # Given an object that is replaced while it is read
        replaced = refusal(412, "PreconditionFailed")
        with FakeS3(self.rest(0, 1000), replaced) as fake, pytest.raises(TransientError, match="replaced while"):
            S3Store(fake.settings(), "a-bucket").get("a/b")

    def test_an_object_of_another_etag_or_version_is_refused(self) -> None:
        location = S3Location("a-bucket", "k")
        with FakeS3(refusal(412, "PreconditionFailed")) as fake:
            client = s3.client(fake.settings())
            with pytest.raises(PreconditionFailedError, match="the source"):
                s3_reader.opened(client, location, what="the source", attempts=3, etag='"e"', version="v1")

        (asked,) = fake.asked
        assert asked.headers["if-match"] == '"e"'
        assert asked.path == "/a-bucket/k?versionId=v1"
