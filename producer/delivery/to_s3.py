"""Delivery to S3: a document's outputs under the names that people know.

    <results><name>.md, .json      the outputs, of one generation
    <results><name>.status.json    how it ended, with the hashes of these outputs; written last
    <results>…/figures/<id>/…      pictures that the text shows, beside it

What we write carries the metadata `ocrfleet`, so that it is never taken for somebody's upload.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.markdown.escape import figure_path
from ocrfleet.markdown.style import figures
from ocrfleet.records.base import Digest, DocumentId, Generation, Moment, Record, digest_of
from ocrfleet.records.documents import DocumentStatus, Failure, Output, Problem, Status
from ocrfleet.s3 import client as s3
from ocrfleet.sources.sources import OWN_OUTPUT

if TYPE_CHECKING:
    from ocrfleet.records.submissions import Submission
    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.store import ObjectStore

_CONTENT_TYPES = {"md": "text/markdown; charset=utf-8", "json": "application/json"}
_MARKDOWN = "md"
#: Bytes of an S3 key.
_LONGEST_KEY = 1024


class Pointer(Record):
    """Which document and generation stand under a name. A reader who wants outputs that belong together compares hashes."""

    document: DocumentId
    generation: Generation
    #: when the document was asked for under this name
    submitted: Moment
    source: str
    status: DocumentStatus
    total: int
    done: int
    failures: tuple[Failure, ...] = ()
    problem: Problem | None = None
    #: key of each output → SHA-256
    outputs: dict[str, Digest]


class S3Delivery:
    """Delivers to buckets. Raises TransientError, and ConfigurationError for a bucket that can't be written to."""

    def __init__(self, store: ObjectStore, settings: S3Settings) -> None:
        self._store = store
        self._settings = settings

    def stands(self, status: Status, submission: Submission) -> bool:
        """Say whether the name has these outputs already, or those of something that was asked for later."""
        pointer = self._pointer(submission)
        if pointer is None:
            return False
        if pointer.document != status.document:
            return pointer.submitted > submission.submitted
        if pointer.generation != status.generation:
            return pointer.generation > status.generation
        return self._wanted(status, submission).keys() <= pointer.outputs.keys()

    def deliver(self, status: Status, submission: Submission) -> None:
        """Write the outputs that were asked for, and last what points to them: after that it `stands`."""
        bucket, _ = self._place(submission)
        wanted = self._wanted(status, submission)
        for target, (extension, output) in wanted.items():
            if extension == _MARKDOWN and status.figures:
                self._deliver_figures(status.document, output.key, bucket, target)
            with closing(self._store.open(output.key)) as stream:
                self._put(bucket, target, stream, status, _CONTENT_TYPES.get(extension, "application/octet-stream"))
        pointer = Pointer(
            document=status.document,
            generation=status.generation,
            submitted=submission.submitted,
            source=s3.as_typed(submission.uri),
            status=status.status,
            total=status.total,
            done=status.done,
            failures=status.failures,
            problem=status.problem,
            outputs={target: output.sha256 for target, (_, output) in wanted.items()},
        )
        self._put(bucket, self._pointer_key(submission), io.BytesIO(pointer.to_bytes()), status, "application/json")

    def _wanted(self, status: Status, submission: Submission) -> dict[str, tuple[str, Output]]:
        """Return the formats and outputs that were asked for, by the keys that they are delivered to."""
        _, prefix = self._place(submission)
        formats = submission.terms.formats or tuple(status.outputs)
        return {
            fitting(f"{prefix}{submission.name}", f".{extension}"): (extension, output)
            for extension, output in status.outputs.items()
            if extension in formats
        }

    def _deliver_figures(self, document: str, key: str, bucket: str, beside: str) -> None:
        folder = beside.rpartition("/")[0]
        for name in figures(self._lines(key)):
            target = f"{folder}/{figure_path(document, name)}" if folder else figure_path(document, name)
            with closing(self._store.open(keys.figure(document, name))) as stream:
                self._put(bucket, target, stream, None, f"image/{name.rpartition('.')[2]}", document=document)

    def _lines(self, key: str) -> Iterator[str]:
        with closing(io.TextIOWrapper(self._store.open(key), encoding="utf-8", newline="\n")) as text:
            for line in text:
                yield line.removesuffix("\n")

    def _put(
        self, bucket: str, key: str, stream: BinaryIO, status: Status | None, content_type: str, *, document: str = ""
    ) -> None:
        metadata = {OWN_OUTPUT: status.document if status else document}
        if status is not None:
            metadata[f"{OWN_OUTPUT}-generation"] = str(status.generation)
        arguments = {"ContentType": content_type, "Metadata": metadata, **s3.write_arguments(self._settings)}
        with s3.errors(f"the result s3://{bucket}/{key}"):
            s3.client(self._settings).upload_fileobj(stream, bucket, key, ExtraArgs=arguments)

    def _pointer(self, submission: Submission) -> Pointer | None:
        bucket, _ = self._place(submission)
        key = self._pointer_key(submission)
        try:
            with s3.errors(f"the result s3://{bucket}/{key}"):
                answer = s3.client(self._settings).get_object(Bucket=bucket, Key=key)
                with closing(answer["Body"]) as body:
                    return Pointer.from_bytes(body.read())
        except (NotFoundError, DamagedRecordError):
            return None

    def _pointer_key(self, submission: Submission) -> str:
        return fitting(f"{self._place(submission)[1]}{submission.name}", ".status.json")

    @staticmethod
    def _place(submission: Submission) -> tuple[str, str]:
        """Return the bucket and the prefix that somebody's results go to."""
        location = s3.typed(submission.terms.results or "")
        return location.bucket, location.key


def fitting(name: str, extension: str) -> str:
    """Return a key no longer than S3 allows; a digest replaces what is cut."""
    if len(name.encode()) + len(extension) <= _LONGEST_KEY:
        return name + extension
    mark = f"~{digest_of(name)[:8]}{extension}"
    return name.encode()[: _LONGEST_KEY - len(mark)].decode("utf-8", "ignore") + mark
