"""Parses notifications of object stores, in their formats, into events of one type.

- S3's format, `{"Records": […]}`, from AWS, Ceph and MinIO. Keys are URL-encoded, a space is a plus sign. MinIO's webhook adds
  `EventName` and `Key` beside the records. `s3:TestEvent` contains no event.
- The same, or EventBridge's, as the text of an SNS notification.
- EventBridge's, `{"detail-type": "Object Created", "detail": …}`. Keys are not encoded.
- SeaweedFS's filer webhook, one change of a file: `{"event_type": "create", "key": "/buckets/<bucket>/<key>", "message":
  {"old_entry": …, "new_entry": …, "new_parent_path": …}}`, as version 4.48 sends it (`weed/notification/webhook` and
  `weed/filer/filer_notify.go`). Keys are not encoded. `key` is the file's former path; after a renaming, `new_parent_path` and the
  new entry's name give the present one. The ETag is in base64 among the entry's `extended` attributes. Notifications about
  folders, about parts of uploads below `.uploads/` and about the server's own `.system` bucket are ignored: these are no objects.
  In a bucket with versions, version `V` of `a.pdf` is the file `a.pdf.versions/v_V`, and a delete marker is such a file, too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote_plus

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from ocrfleet.errors import OcrfleetError

MAX_MESSAGE_BYTES = 1 << 20
MAX_RECORDS = 1000
#: S3's own limit, in UTF-8
MAX_KEY_BYTES = 1024

_Model = TypeVar("_Model", bound="_Foreign")


class UnparsableEventError(OcrfleetError):
    """A message is no notification of a known format. The error gives the reason, without the message's content."""


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """An object was written or removed. Events come late, twice and out of order: only the store has the present state."""

    bucket: str
    #: not URL-encoded
    key: str
    #: False: it was removed
    created: bool
    size: int | None = None
    #: without quotation marks
    etag: str | None = None
    version: str | None = None
    #: hexadecimal; orders the events of one key (`newest`)
    sequencer: str | None = None
    time: datetime | None = None


def parse(message: bytes | str) -> list[ObjectEvent]:
    """Return the writes and removals of objects in a message; [] if it is about other events.

    Raises UnparsableEventError.
    """
    data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
    if len(data) > MAX_MESSAGE_BYTES:
        raise UnparsableEventError(f"it is larger than {MAX_MESSAGE_BYTES} bytes")
    body = _json(data)
    if "Message" in body and "Type" in body:
        body = _json(_read(_Notification, body).message.encode())
    match body:
        case {"Event": "s3:TestEvent"}:
            return []
        case {"Records": _}:
            return [event for record in _read(_Notice, body).records for event in record.events()]
        case {"detail-type": _, "detail": _}:
            return _read(_BridgeEvent, body).events()
        case {"event_type": _, "key": _, "message": _}:
            return _read(_FilerEvent, body).events()
    raise UnparsableEventError("it has none of the known formats: S3, SNS, EventBridge, MinIO, SeaweedFS")


def newest(events: Iterable[ObjectEvent]) -> list[ObjectEvent]:
    """Return one event for each object: the last one by sequencer; without sequencers, a write rather than a removal.

    A wrong write is harmless, because the object is looked up in the store; a wrong removal would lose a document.
    """
    last: dict[tuple[str, str], ObjectEvent] = {}
    for event in events:
        other = last.get((event.bucket, event.key))
        if other is None or _follows(event, other):
            last[event.bucket, event.key] = event
    return list(last.values())


def _follows(event: ObjectEvent, other: ObjectEvent) -> bool:
    if event.sequencer is None or other.sequencer is None:
        return event.created
    # AWS: pad the shorter one with zeros at its right end, then compare as strings.
    width = max(len(event.sequencer), len(other.sequencer))
    return event.sequencer.upper().ljust(width, "0") >= other.sequencer.upper().ljust(width, "0")


def _json(data: bytes) -> dict[str, Any]:
    try:
        body = from_json(data, allow_inf_nan=False)
    except ValueError:  # also too deep
        raise UnparsableEventError("it is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise UnparsableEventError("it is not a JSON object")
    return body


def _read(model: type[_Model], body: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        # The path has names of fields that we know and numbers of records, nothing else of the message.
        raise UnparsableEventError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _as_key(text: str) -> str:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("a key must be UTF-8") from None
    if not 1 <= length <= MAX_KEY_BYTES:
        raise ValueError(f"a key must have 1 to {MAX_KEY_BYTES} bytes")
    return text


def _decoded(text: str) -> str:
    try:
        return _as_key(unquote_plus(text, errors="strict"))
    except UnicodeDecodeError:
        raise ValueError("a key must be UTF-8") from None


def _unquoted(text: str) -> str | None:
    return text.strip('"') or None


def _version(text: str) -> str | None:
    # The one version of an object in a bucket that keeps none.
    return None if text in {"", "null"} else text


Bucket = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]
Key = Annotated[str, AfterValidator(_as_key)]
EncodedKey = Annotated[str, Field(max_length=3 * MAX_KEY_BYTES), AfterValidator(_decoded)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Etag = Annotated[str, Field(max_length=256), AfterValidator(_unquoted)]
Version = Annotated[str, Field(max_length=1024), AfterValidator(_version)]


class _Foreign(BaseModel):
    """A part of what others send: what we don't need of it may be anything."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Notification(_Foreign):
    """SNS's envelope. Others of its types (SubscriptionConfirmation) are no notifications."""

    type: Literal["Notification"] = Field(alias="Type")
    message: str = Field(alias="Message")


class _BucketName(_Foreign):
    name: Bucket


class _RecordObject(_Foreign):
    key: EncodedKey
    size: Size | None = None
    etag: Etag | None = Field(default=None, alias="eTag")
    version: Version | None = Field(default=None, alias="versionId")
    sequencer: str | None = None


class _RecordPart(_Foreign):
    bucket: _BucketName
    object: _RecordObject


class _Record(_Foreign):
    source: str = Field(default="", alias="eventSource")
    name: str = Field(alias="eventName")
    time: datetime | None = Field(default=None, alias="eventTime")
    s3: _RecordPart

    def events(self) -> list[ObjectEvent]:
        kind, _, _ = self.name.removeprefix("s3:").partition(":")
        if kind not in {"ObjectCreated", "ObjectRemoved", "LifecycleExpiration"}:
            return []
        return [
            ObjectEvent(
                bucket=self.s3.bucket.name,
                key=self.s3.object.key,
                created=kind == "ObjectCreated",
                size=self.s3.object.size,
                etag=self.s3.object.etag,
                version=self.s3.object.version,
                # MinIO's is the clock of the node that wrote it: between two nodes it orders nothing.
                sequencer=_hexadecimal(self.s3.object.sequencer) if self.source == "aws:s3" else None,
                time=self.time,
            )
        ]


class _Notice(_Foreign):
    records: list[_Record] = Field(alias="Records", max_length=MAX_RECORDS)


class _BridgeObject(_Foreign):
    key: Key
    size: Size | None = None
    etag: Etag | None = None
    version: Version | None = Field(default=None, alias="version-id")
    sequencer: str | None = None


class _BridgeDetail(_Foreign):
    bucket: _BucketName
    object: _BridgeObject


class _BridgeEvent(_Foreign):
    source: Literal["aws.s3"]
    kind: str = Field(alias="detail-type")
    time: datetime | None = None
    detail: _BridgeDetail

    def events(self) -> list[ObjectEvent]:
        if self.kind not in {"Object Created", "Object Deleted"}:
            return []
        return [
            ObjectEvent(
                bucket=self.detail.bucket.name,
                key=self.detail.object.key,
                created=self.kind == "Object Created",
                size=self.detail.object.size,
                etag=self.detail.object.etag,
                version=self.detail.object.version,
                sequencer=_hexadecimal(self.detail.object.sequencer),
                time=self.time,
            )
        ]


def _hexadecimal(sequencer: str | None) -> str | None:
    return sequencer if sequencer and re.fullmatch("[0-9A-Fa-f]{1,64}", sequencer) else None


class _FilerAttributes(_Foreign):
    size: Size | None = Field(default=None, alias="file_size")
    #: seconds
    mtime: int | None = Field(default=None, ge=0, lt=1 << 35)


class _FilerEntry(_Foreign):
    name: str
    is_directory: bool = False
    attributes: _FilerAttributes = _FilerAttributes()
    extended: dict[str, str] = Field(default_factory=dict)


class _FilerChange(_Foreign):
    old_entry: _FilerEntry | None = None
    new_entry: _FilerEntry | None = None
    new_parent_path: str = ""


class _FilerPath(_Foreign):
    """A file below the folder of buckets, as an object."""

    bucket: Bucket
    key: Key


class _FilerEvent(_Foreign):
    key: str
    message: _FilerChange

    def events(self) -> list[ObjectEvent]:
        old, new = self.message.old_entry, self.message.new_entry
        path = self.key
        if new is not None and self.message.new_parent_path:
            path = f"{self.message.new_parent_path.rstrip('/')}/{new.name}"
        changes = []
        if old is not None and (new is None or path != self.key):
            changes.append(_filer_event(self.key, old, created=False))
        if new is not None:
            changes.append(_filer_event(path, new, created=True))
        return [event for event in changes if event is not None]


_FILER_FILE = re.compile(r"/buckets/(?P<bucket>[^/.][^/]*)/(?P<key>(?!\.uploads/).+)", re.DOTALL)
_FILER_VERSION = re.compile(r"(?P<key>.+)\.versions/v_(?P<version>[0-9a-f]{32})", re.DOTALL)


def _filer_event(path: str, entry: _FilerEntry, *, created: bool) -> ObjectEvent | None:
    """Return what a change of a file means for an object; None when the file is none."""
    file = _FILER_FILE.fullmatch(path)
    if file is None or entry.is_directory:
        return None
    versioned = _FILER_VERSION.fullmatch(file["key"])
    place = _read(_FilerPath, {"bucket": file["bucket"], "key": versioned["key"] if versioned else file["key"]})
    mtime = entry.attributes.mtime
    return ObjectEvent(
        bucket=place.bucket,
        key=place.key,
        created=created and "Seaweed-X-Amz-Delete-Marker" not in entry.extended,
        size=entry.attributes.size,
        etag=_from_base64(entry.extended.get("Seaweed-X-Amz-ETag")),
        version=versioned["version"] if versioned else None,
        time=None if mtime is None else datetime.fromtimestamp(mtime, UTC),
    )


def _from_base64(text: str | None) -> str | None:
    try:
        return _unquoted(base64.b64decode(text, validate=True).decode("ascii")) if text else None
    except (binascii.Error, ValueError):
        return None
