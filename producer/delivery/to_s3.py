"""Deliver to S3.

    <results><name>.md, .json, …   the outputs, of one generation
    <results><name>.status.json    how the document ended, with the hashes of these outputs; written last
    <results>…/figures/<id>/…      figures that the Markdown shows, beside it

Every object has the metadata `ocrfleet`, so that it is never taken for an upload.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ocrfleet.errors import DamagedRecordError, NotFoundError, TransientError
from ocrfleet.formats import FORMATS, chosen_formats, extension
from ocrfleet.records.base import Digest, DocumentId, Generation, Moment, digest_of
from ocrfleet.records.documents import DocumentStatus, Failure, Problem, Status
from ocrfleet.records.submissions import MarkdownOptions
from ocrfleet.s3 import client as s3
from ocrfleet.s3.client import PreconditionFailedError
from ocrfleet.s3.location import S3Location, as_typed, has_dots, typed
from ocrfleet.s3.reader import opened
from ocrfleet.sources.sources import OWN_OUTPUT, is_own
from ocrfleet.storage.outputs import outputs_of
from producer.delivery.delivery import MARKDOWN, deliver
from producer.errors import DeliveryError, OccupiedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

    from ocrfleet.records.submissions import Submission
    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.outputs import Outputs
    from ocrfleet.storage.s3_store import Condition
    from ocrfleet.storage.store import ObjectStore

_CONTENT_TYPES = {f".{known.extension}": known.media_type for known in FORMATS.values()} | {".jpg": "image/jpg"}
#: Metadata of an output: the digest of its content. Large figures have none, nor had large outputs of earlier versions.
_SHA256 = f"{OWN_OUTPUT}-sha256"
#: Bytes from which on an object is uploaded in parts.
_PART = 8 << 20
#: Bytes of an S3 key.
_LONGEST_KEY = 1024


class ResultPointer(MarkdownOptions):
    """`<name>.status.json`: the document and generation whose outputs have a name, and the style of the Markdown.

    A reader who wants outputs that belong together compares their hashes.
    """

    document: DocumentId
    generation: Generation
    #: when the document was submitted under this name
    submitted: Moment
    source: str
    status: DocumentStatus
    total: int
    done: int
    failures: tuple[Failure, ...] = ()
    problem: Problem | None = None
    #: key of each output → SHA-256
    outputs: dict[str, Digest]
    #: format → why it could not be written
    refused: dict[str, str] | None = None


class _Joined(io.RawIOBase):
    """A stream whose beginning was read already."""

    def __init__(self, beginning: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._beginning = io.BytesIO(beginning)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._beginning.read(len(view)) or self._rest.read(len(view))
        view[: len(data)] = data
        return len(data)


class S3Sink:
    """A prefix in a bucket, for the outputs of one document and generation."""

    def __init__(self, settings: S3Settings, results: str, status: Status) -> None:
        """`results` is s3://bucket/prefix/, as the user gave it."""
        location = typed(results)
        self._settings = settings
        self._bucket = location.bucket
        self._prefix = location.key
        self._metadata = {OWN_OUTPUT: status.document, f"{OWN_OUTPUT}-generation": str(status.generation)}

    def target(self, name: str, extension: str) -> str:
        if has_dots(name):
            raise DeliveryError(
                f"the result {name!r} can't be written: its name has a segment . or ..; submit it by another name"
            )
        return fitting(self._prefix + name, f".{extension}")

    def beside(self, target: str, path: str) -> str:
        folder, slash, _ = target.rpartition("/")
        return f"{folder}{slash}{path}"

    def write(self, target: str, content: BinaryIO, *, sha256: str | None = None) -> None:
        """Upload an object, in parts where it is large, unless it is there.

        Raises TransientError, ConfigurationError, and OccupiedError when something else is there.
        """
        content_type = next(
            (kind for end, kind in _CONTENT_TYPES.items() if target.endswith(end)), "application/octet-stream"
        )
        beginning = content.read(_PART)
        arguments = {"ContentType": content_type, **s3.write_arguments(self._settings)}
        if len(beginning) < _PART:
            self._put(target, beginning, arguments)
            return
        metadata = self._metadata if sha256 is None else self._metadata | {_SHA256: sha256}
        # The last request of an upload in parts has no condition in boto3's transfers: between the two requests, what a
        # person uploads is replaced.
        if self._condition(target, sha256) is None:
            return
        with s3.errors(self._what(target)):
            s3.client(self._settings).upload_fileobj(
                cast("BinaryIO", _Joined(beginning, content)),
                self._bucket,
                target,
                ExtraArgs=arguments | {"Metadata": metadata},
            )

    def _put(self, target: str, body: bytes, arguments: dict[str, Any]) -> None:
        """Upload a small object on the condition that nothing is there, or what we found there."""
        sha256 = hashlib.sha256(body).hexdigest()
        arguments = {**arguments, "Metadata": self._metadata | {_SHA256: sha256}}
        condition: Condition = {"IfNoneMatch": "*"}
        for _ in range(self._settings.attempts):
            try:
                with s3.errors(self._what(target)):
                    s3.client(self._settings).put_object(
                        Bucket=self._bucket, Key=target, Body=body, **arguments, **condition
                    )
            except (PreconditionFailedError, NotFoundError):
                found = self._condition(target, sha256)
                if found is None:
                    return
                condition = found
            else:
                return
        raise TransientError(f"{self._what(target)}: others write it all the time; to be tried again")

    def _condition(self, target: str, sha256: str | None) -> Condition | None:
        """Return the condition on which a target may be written; None if this content of ours is there.

        Raises OccupiedError when something that ocrfleet did not write is there.
        """
        try:
            with s3.errors(self._what(target)):
                head = s3.client(self._settings).head_object(Bucket=self._bucket, Key=target)
        except NotFoundError:
            return {"IfNoneMatch": "*"}
        facts = {name.lower(): value for name, value in head["Metadata"].items()}
        if sha256 is not None and facts.items() >= (self._metadata | {_SHA256: sha256}).items():
            return None
        # An empty object is what some servers leave of a broken upload.
        if head["ContentLength"] and not (is_own(facts) and self._is_as_written(target, head["ETag"], facts)):
            raise OccupiedError(
                f"{self._what(target)} can't be written: what is there was not written by ocrfleet, or was changed since; move it "
                "away"
            )
        return {"IfMatch": head["ETag"]}

    def _is_as_written(self, target: str, etag: str, facts: Mapping[str, str]) -> bool:
        """Return whether an object of ours has the content of its metadata: an editor may keep them when it saves another."""
        if _SHA256 not in facts:
            return True
        try:
            with opened(
                s3.client(self._settings),
                S3Location(self._bucket, target),
                what=self._what(target),
                attempts=self._settings.attempts,
                etag=etag,
            ) as content:
                return hashlib.file_digest(content, "sha256").hexdigest() == facts[_SHA256]
        except (NotFoundError, PreconditionFailedError):
            return True  # replaced meanwhile: the write fails on its condition

    def has(self, target: str) -> bool:
        """Return whether something is at a target. Raises TransientError, ConfigurationError."""
        try:
            with s3.errors(self._what(target)):
                s3.client(self._settings).head_object(Bucket=self._bucket, Key=target)
        except NotFoundError:
            return False
        return True

    def _what(self, target: str) -> str:
        return f"the result s3://{self._bucket}/{target}"

    def pointer(self, name: str) -> ResultPointer | None:
        """Return the pointer of a name. Raises TransientError, ConfigurationError."""
        key = self.target(name, "status.json")
        try:
            with s3.errors(self._what(key)):
                answer = s3.client(self._settings).get_object(Bucket=self._bucket, Key=key)
                with closing(answer["Body"]) as body:
                    return ResultPointer.from_bytes(body.read())
        except (NotFoundError, DamagedRecordError):
            return None


class S3Delivery:
    """Delivers to the buckets that submissions name."""

    def __init__(
        self,
        store: ObjectStore,
        settings: S3Settings,
        outputs: Callable[[Status, Iterable[str]], Outputs] | None = None,
    ) -> None:
        """Take a function that returns outputs in some formats and makes missing ones; without it, those are not delivered."""
        self._store = store
        self._settings = settings
        self._outputs = outputs or functools.partial(outputs_of, store)

    def deliver(self, status: Status, submission: Submission) -> None:
        """Write the outputs that a submission wants and that are not under its name yet; last, the pointer to them.

        Of two documents with one name, or two styles of one Markdown, those of the later submission stand; of two
        generations, the later one. Raises TransientError, and ConfigurationError for a bucket that can't be written to.
        """
        terms, name = submission.terms, submission.name
        sink = S3Sink(self._settings, terms.results or "", status)
        earlier = sink.pointer(name)
        if earlier is not None and _supersedes(earlier, status, submission):
            return
        if earlier is not None and (earlier.document, earlier.generation) != (status.document, status.generation):
            earlier = None  # its outputs are replaced
        style = terms.style
        outputs = self._outputs(status, chosen_formats(terms.formats))
        due = list(outputs.made)
        if earlier is not None:
            newest = submission.submitted > earlier.submitted and MARKDOWN in due
            if sink.target(name, extension(MARKDOWN)) in earlier.outputs and not newest:
                style = earlier.style
            due = [
                form
                for form in due
                if sink.target(name, extension(form)) not in earlier.outputs
                or (form == MARKDOWN and style != earlier.style)
                # Submitted again: an output may have been removed by hand.
                or (submission.submitted > earlier.submitted and not sink.has(sink.target(name, extension(form))))
            ]
            if not due and outputs.refused.items() <= (earlier.refused or {}).items():
                return
        delivered = deliver(
            self._store, status, name=name, sink=sink, outputs={form: outputs.made[form] for form in due}, style=style
        )
        pointer = ResultPointer(
            document=status.document,
            generation=status.generation,
            submitted=max(submission.submitted, earlier.submitted) if earlier is not None else submission.submitted,
            source=as_typed(submission.uri),
            status=status.status,
            total=status.total,
            done=status.done,
            failures=status.failures,
            problem=status.problem,
            outputs=(earlier.outputs if earlier is not None else {})
            | {output.target: output.sha256 for output in delivered},
            refused=_refused(earlier, outputs),
            tables=style.tables,
            join_hyphens=style.join_hyphens,
        )
        sink.write(sink.target(name, "status.json"), io.BytesIO(pointer.to_bytes()))


def _refused(earlier: ResultPointer | None, outputs: Outputs) -> dict[str, str] | None:
    """Return the formats that could not be written, those of an earlier delivery among them; None without any."""
    before = (earlier.refused or {}) if earlier is not None else {}
    refused = {form: why for form, why in before.items() if form not in outputs.made} | outputs.refused
    return refused or None


def _supersedes(pointer: ResultPointer, status: Status, submission: Submission) -> bool:
    """Return whether a name has another document that was submitted later, or a later generation."""
    if pointer.document != status.document:
        return pointer.submitted > submission.submitted
    return pointer.generation > status.generation


def fitting(name: str, extension: str) -> str:
    """Return a key no longer than S3 allows; a digest replaces the rest of a long one."""
    if len(name.encode()) + len(extension) <= _LONGEST_KEY:
        return name + extension
    mark = f"~{digest_of(name)[:8]}{extension}"
    return name.encode()[: _LONGEST_KEY - len(mark)].decode("utf-8", "ignore") + mark
