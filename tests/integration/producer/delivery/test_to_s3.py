"""S3 delivery: in the submission's style, the later submission under each name, without needless writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.markdown.escape import figure_path
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.documents import DocumentStatus, Output, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.s3.client import client
from ocrfleet.storage.outputs import Outputs
from ocrfleet.storage.store import FolderStore
from producer.delivery.delivery import deliver
from producer.delivery.to_folder import FolderSink
from producer.delivery.to_s3 import S3Delivery, S3Sink
from producer.errors import DeliveryError, OccupiedError
from tests.support.servers import SeaweedFS

DOCUMENT, FIGURE = "0" * 32, "000001-01-0123456789ab.jpg"
STORED = f"<table>\n<tr><td>a</td></tr>\n</table>\n\ncom-\npound\n\n![x]({figure_path(DOCUMENT, FIGURE)})\n".encode()
STYLED = f"| a |\n| --- |\n\ncompound\n\n![x]({figure_path(DOCUMENT, FIGURE)})\n".encode()
#: Options of `submit` and `watch`: --tables markdown --join-hyphens
CHOSEN = {"tables": Tables.MARKDOWN, "join_hyphens": True}


class Bucket:
    """A bucket, and a document that has ended and is delivered there."""

    def __init__(self, seaweed: SeaweedFS, folder: Path) -> None:
        self.client = seaweed.client
        self.name = seaweed.bucket()
        self.store = FolderStore(folder / "store")
        self.settings = seaweed.settings()
        self.delivery = S3Delivery(self.store, self.settings)
        self.store.put(keys.figure(DOCUMENT, FIGURE), b"figure")

    def ended(self, *, generation: int = 1, md: bytes = STORED) -> Status:
        outputs = {}
        for extension, data in (("md", md), ("json", b"{}")):
            digest = hashlib.sha256(data).hexdigest()
            outputs[extension] = Output(key=f"out/{digest[:16]}.{extension}", sha256=digest, size=len(data))
            self.store.put(outputs[extension].key, data)
        return Status(
            document=DOCUMENT,
            generation=generation,
            status=DocumentStatus.COMPLETED,
            total=1,
            done=1,
            figures=int(md == STORED),
            outputs=outputs,
        )

    def submission(self, day: int, **options: Any) -> Submission:
        terms = SubmissionOptions(
            profile_digest="0" * 64,
            queue=Priority.BULK,
            collection="c",
            results=f"s3://{self.name}/texts/",
            **options,
        )
        return Submission(
            name="box/a.pdf",
            document=DOCUMENT,
            uri="file:///scans/a.pdf",
            submitted=f"202611{day:02}T000000.000000Z",
            terms=terms,
        )

    def objects(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        found = {entry["Key"]: self.client.get_object(Bucket=self.name, Key=entry["Key"]) for entry in listed}
        return {key.removeprefix("texts/box/"): answer["Body"].read() for key, answer in found.items()}

    def written(self) -> dict[str, tuple[object, str]]:
        """Return when each object was written, and its ETag."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {entry["Key"]: (entry["LastModified"], entry["ETag"]) for entry in listed}

    def pointer(self) -> dict[str, Any]:
        pointer: dict[str, Any] = json.loads(self.objects()["a.pdf.status.json"])
        return pointer


@pytest.fixture
def bucket(seaweed: SeaweedFS, tmp_path: Path) -> Bucket:
    return Bucket(seaweed, tmp_path)


def test_markdown_is_delivered_in_the_style_that_the_submission_chose(bucket: Bucket) -> None:
    bucket.delivery.deliver(bucket.ended(), bucket.submission(1, **CHOSEN))

    objects = bucket.objects()
    assert objects["a.pdf.md"] == STYLED
    assert objects["a.pdf.json"] == b"{}"
    assert objects[figure_path(DOCUMENT, FIGURE)] == b"figure"
    # And the pointer has the hashes and the style of the delivered outputs
    pointer = bucket.pointer()
    assert pointer["outputs"]["texts/box/a.pdf.md"] == hashlib.sha256(STYLED).hexdigest()
    assert (pointer["tables"], pointer["join_hyphens"]) == ("markdown", True)


def test_a_folder_and_a_bucket_get_the_same_bytes(bucket: Bucket, tmp_path: Path) -> None:
    ended, style = bucket.ended(), Style(tables=Tables.MARKDOWN, join_hyphens=True)
    folder, prefix = FolderSink(tmp_path / "out"), S3Sink(bucket.settings, f"s3://{bucket.name}/texts/", ended)

    here = deliver(bucket.store, ended, name="box/a.pdf", sink=folder, style=style)
    there = deliver(bucket.store, ended, name="box/a.pdf", sink=prefix, style=style)

    assert [output.sha256 for output in here] == [output.sha256 for output in there]
    files = {path.relative_to(tmp_path / "out" / "box").as_posix(): path for path in tmp_path.glob("out/box/**/*.*")}
    assert {name: path.read_bytes() for name, path in files.items()} == bucket.objects()


def test_the_later_submission_of_two_styles_wins_in_any_order_of_delivery(bucket: Bucket) -> None:
    # Given one submission for both formats as they are stored, and a later one for Markdown in another style
    ended, first, second = bucket.ended(), bucket.submission(1), bucket.submission(2, formats=("md",), **CHOSEN)

    # When both are delivered, in either order, and once more as after a restart
    for order in ((first, second), (second, first), (first, second, first)):
        for submission in order:
            bucket.delivery.deliver(ended, submission)

        # Then the Markdown is from the later one, and the other format is there too
        objects = bucket.objects()
        assert (objects["a.pdf.md"], objects["a.pdf.json"]) == (STYLED, b"{}")
        assert set(bucket.pointer()["outputs"]) == {"texts/box/a.pdf.md", "texts/box/a.pdf.json"}
        for key in ("texts/box/a.pdf.md", "texts/box/a.pdf.json", "texts/box/a.pdf.status.json"):
            bucket.client.delete_object(Bucket=bucket.name, Key=key)


def test_an_unchanged_output_is_not_written_again(bucket: Bucket) -> None:
    ended, submission = bucket.ended(), bucket.submission(1, **CHOSEN)
    bucket.delivery.deliver(ended, submission)
    before = bucket.written()

    bucket.delivery.deliver(ended, submission)
    assert bucket.written() == before

    # But a later generation replaces it, and an earlier one does not come back
    later = bucket.ended(generation=2, md=b"better\n")
    bucket.delivery.deliver(later, submission)
    bucket.delivery.deliver(ended, submission)
    assert bucket.objects()["a.pdf.md"] == b"better\n"
    assert bucket.pointer()["generation"] == 2


def test_a_delivery_that_was_interrupted_writes_only_what_is_missing(bucket: Bucket) -> None:
    # Given a delivery that ended before the pointer was written
    ended, submission = bucket.ended(), bucket.submission(1)
    bucket.delivery.deliver(ended, submission)
    bucket.client.delete_object(Bucket=bucket.name, Key="texts/box/a.pdf.status.json")
    before = bucket.written()

    bucket.delivery.deliver(ended, submission)

    assert {key: bucket.written()[key] for key in before} == before
    assert "a.pdf.status.json" in bucket.objects()


@pytest.mark.parametrize("size", [20, 9 << 20])
def test_what_a_person_wrote_is_never_overwritten(bucket: Bucket, size: int) -> None:
    # Given an output that a person corrected, and a pointer, or none
    md = (b"better\n" * size)[:size]
    later = bucket.ended(generation=2, md=md)
    bucket.delivery.deliver(bucket.ended(), bucket.submission(1))
    bucket.client.put_object(Bucket=bucket.name, Key="texts/box/a.pdf.md", Body=b"corrected")
    before = bucket.pointer()

    # When a later generation, or another document, is delivered, twice
    for _ in range(2):
        with pytest.raises(
            OccupiedError, match=r"texts/box/a\.pdf\.md can't be written: what is there was not written by"
        ):
            bucket.delivery.deliver(later, bucket.submission(2))

        # Then the correction stands, and the pointer does not claim it
        assert bucket.objects()["a.pdf.md"] == b"corrected"
        assert bucket.pointer() == before

    # And when it was moved away, all is delivered
    bucket.client.delete_object(Bucket=bucket.name, Key="texts/box/a.pdf.md")
    bucket.delivery.deliver(later, bucket.submission(2))
    assert bucket.objects()["a.pdf.md"] == md
    assert bucket.pointer()["generation"] == 2


@pytest.mark.parametrize("size", [20, 9 << 20])
def test_a_correction_by_an_editor_that_keeps_the_metadata_stands(bucket: Bucket, size: int) -> None:
    # Given an output that was corrected, and saved with the metadata that it had
    bucket.delivery.deliver(bucket.ended(md=b"#" * size), bucket.submission(1))
    there = bucket.client.head_object(Bucket=bucket.name, Key="texts/box/a.pdf.md")
    bucket.client.put_object(
        Bucket=bucket.name, Key="texts/box/a.pdf.md", Body=b"corrected", Metadata=there["Metadata"]
    )

    # When a later generation is delivered, then the correction stands
    with pytest.raises(OccupiedError, match=r"a\.pdf\.md can't be written: .*changed since"):
        bucket.delivery.deliver(bucket.ended(generation=2, md=b"better\n"), bucket.submission(2))
    assert bucket.objects()["a.pdf.md"] == b"corrected"


def test_a_large_output_is_uploaded_once_while_another_is_in_the_way(bucket: Bucket) -> None:
    # Given a file of a person at the name of an output, beside one that is uploaded in parts
    uploads: list[object] = []
    events = client(bucket.settings).meta.events
    events.register("before-call.s3.CreateMultipartUpload", lambda params, **_: uploads.append(params))
    bucket.client.put_object(Bucket=bucket.name, Key="texts/box/a.pdf.json", Body=b"mine")
    ended = bucket.ended(md=b"#" * (9 << 20))

    # When the delivery is tried again and again, then that one is uploaded once
    for _ in range(3):
        with pytest.raises(OccupiedError):
            bucket.delivery.deliver(ended, bucket.submission(1))
        assert len(uploads) == 1
    assert bucket.objects()["a.pdf.md"] == b"#" * (9 << 20)


def test_no_file_of_somebody_else_is_overwritten(bucket: Bucket) -> None:
    # Given files of a person at the names of an output, of the pointer and of a figure
    mine = ("a.pdf.json", "a.pdf.status.json", figure_path(DOCUMENT, FIGURE))
    for name in mine:
        bucket.client.put_object(Bucket=bucket.name, Key=f"texts/box/{name}", Body=b"mine")

    with pytest.raises(OccupiedError):
        bucket.delivery.deliver(bucket.ended(), bucket.submission(1))

    assert [bucket.objects()[name] for name in mine] == [b"mine"] * 3


def test_a_pointer_without_a_style_means_the_stored_text(bucket: Bucket) -> None:
    # Given what a version without styles delivered
    ended = bucket.ended()
    bucket.delivery.deliver(ended, bucket.submission(1))
    assert bucket.pointer().keys().isdisjoint({"tables", "join_hyphens"})

    # When the same is submitted again, nothing is written; when in a style, the Markdown is
    before = bucket.written()["texts/box/a.pdf.json"]
    bucket.delivery.deliver(ended, bucket.submission(2))
    assert bucket.objects()["a.pdf.md"] == STORED
    bucket.delivery.deliver(ended, bucket.submission(3, **CHOSEN))
    assert bucket.objects()["a.pdf.md"] == STYLED
    assert bucket.written()["texts/box/a.pdf.json"] == before


def test_further_formats_are_made_when_they_are_missing_and_what_was_refused_is_told(bucket: Bucket) -> None:
    # Given a document that has ended, and a submission of formats that it was not written in
    ended = bucket.ended()
    bucket.store.put("out/html", b"<p>text</p>")
    html = Output(key="out/html", sha256=hashlib.sha256(b"<p>text</p>").hexdigest(), size=11)
    asked: list[list[str]] = []

    def outputs(status: Status, formats: Iterable[str]) -> Outputs:
        asked.append(list(formats))
        return Outputs({"md": status.outputs["md"], "html": html}, {"docx": "it is encrypted: ask for another"})

    delivery = S3Delivery(bucket.store, bucket.settings, outputs)

    # When it is delivered, twice
    for _ in range(2):
        delivery.deliver(ended, bucket.submission(1, formats=("docx", "html", "md")))

    # Then the converted outputs exist, with their media types, and the pointer lists failed formats
    assert asked[0] == ["md", "html", "docx"]
    assert bucket.objects()["a.pdf.html"] == b"<p>text</p>"
    head = bucket.client.head_object(Bucket=bucket.name, Key="texts/box/a.pdf.html")
    assert head["ContentType"] == "text/html; charset=utf-8"
    assert bucket.pointer()["refused"] == {"docx": "it is encrypted: ask for another"}
    assert set(bucket.pointer()["outputs"]) == {"texts/box/a.pdf.md", "texts/box/a.pdf.html"}

    # And a later submission with the default formats adds to them, and removes none
    bucket.delivery.deliver(ended, bucket.submission(2))
    assert set(bucket.pointer()["outputs"]) == {f"texts/box/a.pdf.{end}" for end in ("md", "html", "json")}
    assert bucket.pointer()["refused"] == {"docx": "it is encrypted: ask for another"}


def test_a_name_with_dot_segments_is_refused(bucket: Bucket) -> None:
    submission = bucket.submission(1).model_copy(update={"name": "box/../../other/a.pdf"})

    with pytest.raises(DeliveryError, match="its name has a segment"):
        bucket.delivery.deliver(bucket.ended(), submission)

    assert bucket.objects() == {}


def test_an_output_that_was_removed_is_delivered_when_its_source_is_submitted_again(bucket: Bucket) -> None:
    # Given a delivered output that was removed by hand
    ended = bucket.ended()
    bucket.delivery.deliver(ended, bucket.submission(1))
    bucket.client.delete_object(Bucket=bucket.name, Key="texts/box/a.pdf.md")

    # When the same submission is delivered once more, it stays away; when the source is submitted again, it comes back
    bucket.delivery.deliver(ended, bucket.submission(1))
    assert "a.pdf.md" not in bucket.objects()
    bucket.delivery.deliver(ended, bucket.submission(2))
    assert bucket.objects()["a.pdf.md"] == STORED


def test_the_text_follows_its_source_back_and_forth(bucket: Bucket) -> None:
    # Given two documents, which a source is in turn
    first = bucket.ended(md=b"first\n")
    second = bucket.ended(md=b"second\n").model_copy(update={"document": "1" * 32})

    # When one is submitted after the other, under one name
    for day, ended in enumerate((first, second, first, second, first), 1):
        submission = bucket.submission(day).model_copy(update={"document": ended.document})
        bucket.delivery.deliver(ended, submission)

        # Then its text stands there, also after an earlier delivery is repeated
        bucket.delivery.deliver(first, bucket.submission(1))
        assert bucket.objects()["a.pdf.md"] == (b"first\n" if ended is first else b"second\n")
        assert bucket.pointer()["document"] == ended.document
