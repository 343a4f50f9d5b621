"""Deliver to S3.

    <results><name>.md, .json, …   the outputs, of one generation
    <results><name>.status.json    how the document ended, with the hashes of these outputs; written last
    <results>…/figures/<id>/…      figures that the Markdown shows, beside it

Every object has the metadata `ocrfleet`, so that it is never taken for an upload.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.formats import FORMATS, chosen_formats, extension
from ocrfleet.records.base import Digest, DocumentId, Generation, Moment, digest_of
from ocrfleet.records.documents import DocumentStatus, Failure, Problem, Status
from ocrfleet.records.submissions import MarkdownOptions
from ocrfleet.s3 import client as s3
from ocrfleet.s3.location import as_typed, typed
from ocrfleet.sources.sources import OWN_OUTPUT
from ocrfleet.storage.outputs import outputs_of
from producer.delivery.delivery import MARKDOWN, deliver

if TYPE_CHECKING:
    from ocrfleet.records.submissions import Submission
    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.outputs import Outputs
    from ocrfleet.storage.store import ObjectStore

_CONTENT_TYPES = {f".{known.extension}": known.media_type for known in FORMATS.values()} | {".jpg": "image/jpg"}
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
        return fitting(self._prefix + name, f".{extension}")

    def beside(self, target: str, path: str) -> str:
        folder, slash, _ = target.rpartition("/")
        return f"{folder}{slash}{path}"

    def write(self, target: str, content: BinaryIO) -> None:
        """Upload an object, in parts where it is large. Raises TransientError, ConfigurationError."""
        content_type = next(
            (kind for end, kind in _CONTENT_TYPES.items() if target.endswith(end)), "application/octet-stream"
        )
        arguments = {"ContentType": content_type, "Metadata": self._metadata, **s3.write_arguments(self._settings)}
        with s3.errors(f"the result s3://{self._bucket}/{target}"):
            s3.client(self._settings).upload_fileobj(content, self._bucket, target, ExtraArgs=arguments)

    def pointer(self, name: str) -> ResultPointer | None:
        """Return the pointer of a name. Raises TransientError, ConfigurationError."""
        key = self.target(name, "status.json")
        try:
            with s3.errors(f"the result s3://{self._bucket}/{key}"):
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
