"""Notifications of object stores, in all formats, and malicious ones."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.triggers.notifications import MAX_MESSAGE_BYTES, ObjectEvent, UnparsableEventError, newest, parse

ETAG = "9dd4e461268c8034f5c8564e155c67a6"


def record(
    key: str = "inbox/a.pdf", *, name: str = "ObjectCreated:Put", source: str = "aws:s3", **object_: Any
) -> dict[str, Any]:
    return {
        "eventVersion": "2.6",
        "eventSource": source,
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-25T03:56:42.614Z",
        "eventName": name,
        "userIdentity": {"principalId": "someone"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "archive", "arn": "arn:aws:s3:::archive"},
            "object": {"key": key, "size": 11, "eTag": ETAG, **object_},
        },
    }


def notice(*records: dict[str, Any], **more: Any) -> str:
    return json.dumps({"Records": records, **more})


def sns(message: str) -> str:
    return json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:…", "Message": message})


def bridge(kind: str = "Object Created", key: str = "inbox/a.pdf", source: str = "aws.s3") -> str:
    return json.dumps(
        {
            "version": "0",
            "detail-type": kind,
            "source": source,
            "time": "2026-11-25T03:56:42Z",
            "detail": {
                "version": "0",
                "bucket": {"name": "archive"},
                "object": {"key": key, "size": 5, "etag": ETAG, "version-id": "v1", "sequencer": "617f08299329d189"},
                "reason": "PutObject",
            },
        }
    )


def entry(name: str, *, size: int = 11, directory: bool = False, **extended: str) -> dict[str, Any]:
    attributes = {"file_size": size, "mtime": 1_795_578_995, "file_mode": 432, "md5": "omHZOTg1/ev1tzDTQbRthg=="}
    encoded = {name.replace("_", "-"): base64.b64encode(value.encode()).decode() for name, value in extended.items()}
    made: dict[str, Any] = {"name": name, "attributes": attributes, "extended": encoded, "chunks": [{"size": size}]}
    return made | ({"is_directory": True} if directory else {})


def filer(
    key: str,
    *,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    parent: str | None = None,
    kind: str = "create",
) -> str:
    message: dict[str, Any] = {"delete_chunks": True, "signatures": [-855909119]}
    if old is not None:
        message["old_entry"] = old
    if new is not None:
        message |= {"new_entry": new, "new_parent_path": parent or key.rpartition("/")[0]}
    return json.dumps({"event_type": kind, "key": key, "message": message})


def only(message: bytes | str) -> ObjectEvent:
    (event,) = parse(message)
    return event


def test_an_event_of_s3_tells_bucket_key_size_etag_version_sequencer_and_time() -> None:
    event = only(notice(record(versionId="v1", sequencer="0055AED6DCD90281E5")))

    assert event == ObjectEvent(
        bucket="archive",
        key="inbox/a.pdf",
        created=True,
        size=11,
        etag=ETAG,
        version="v1",
        sequencer="0055AED6DCD90281E5",
        time=datetime(2026, 11, 25, 3, 56, 42, 614000, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b.pdf", "a b.pdf"),
        ("a%2Bb.pdf", "a+b.pdf"),
        ("a%2541.pdf", "a%41.pdf"),
        ("a+b%2F%C3%A4%2B%C3%BC%2541.pdf", "a b/ä+ü%41.pdf"),
        ("%E6%96%87%E6%9B%B8.pdf", "文書.pdf"),
        ("plain/with/slashes.pdf", "plain/with/slashes.pdf"),
    ],
)
def test_keys_in_s3_notifications_are_url_encoded(encoded: str, key: str) -> None:
    assert only(notice(record(encoded))).key == key


@pytest.mark.parametrize("key", ["a+b.pdf", "a%41.pdf", "a b/ä.pdf"])
def test_keys_of_eventbridge_and_of_the_filer_are_as_they_are(key: str) -> None:
    assert only(bridge(key=key)).key == key
    assert only(filer(f"/buckets/archive/{key}", new=entry(key.rpartition("/")[2]))).key == key


@pytest.mark.parametrize(
    ("name", "created"),
    [
        ("ObjectCreated:Put", True),
        ("s3:ObjectCreated:CompleteMultipartUpload", True),
        ("ObjectCreated:Copy", True),
        ("ObjectRemoved:Delete", False),
        ("s3:ObjectRemoved:DeleteMarkerCreated", False),
        ("LifecycleExpiration:Delete", False),
    ],
)
def test_writes_and_removals_are_distinguished(name: str, *, created: bool) -> None:
    assert only(notice(record(name=name))).created is created


@pytest.mark.parametrize("name", ["ObjectTagging:Put", "s3:ObjectAccessed:Get", "ObjectRestore:Post", "SomethingNew"])
def test_a_notification_without_an_object_change_has_no_event(name: str) -> None:
    assert parse(notice(record(name=name))) == []


def test_the_test_event_of_a_new_notification_is_no_event() -> None:
    test = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "archive"})

    assert parse(test) == []
    assert parse(sns(test)) == []


def test_sns_carries_events_of_s3_and_of_eventbridge() -> None:
    assert only(sns(notice(record("a+b.pdf")))) == only(notice(record("a+b.pdf")))
    assert only(sns(bridge())) == only(bridge())


def test_eventbridge_notifications_become_events() -> None:
    assert only(bridge()) == ObjectEvent(
        bucket="archive",
        key="inbox/a.pdf",
        created=True,
        size=5,
        etag=ETAG,
        version="v1",
        sequencer="617f08299329d189",
        time=datetime(2026, 11, 25, 3, 56, 42, tzinfo=UTC),
    )
    assert not only(bridge("Object Deleted")).created
    assert parse(bridge("Object Tags Added")) == []


def test_minio_notifications_become_events_without_order() -> None:
    of_minio = record(
        "inbox%2Fa+b.pdf", name="s3:ObjectCreated:Put", source="minio:s3", sequencer="17D5C2E8B4F2A1C3", versionId=""
    )

    event = only(notice(of_minio, EventName="s3:ObjectCreated:Put", Key="archive/inbox/a b.pdf"))

    assert (event.bucket, event.key, event.created) == ("archive", "inbox/a b.pdf", True)
    assert (event.sequencer, event.version) == (None, None)


def test_the_filer_tells_of_a_written_object_with_its_etag() -> None:
    written = entry("ä+ü%41.pdf", Seaweed_X_Amz_ETag=ETAG)

    event = only(filer("/buckets/inbox/a b/ä+ü%41.pdf", new=written))

    assert (event.bucket, event.key, event.created) == ("inbox", "a b/ä+ü%41.pdf", True)
    assert (event.size, event.etag, event.version) == (11, ETAG, None)


def test_the_filer_tells_of_replaced_removed_and_renamed_objects() -> None:
    path = "/buckets/inbox/a.pdf"
    replaced = parse(filer(path, old=entry("a.pdf"), new=entry("a.pdf", size=12), kind="update"))
    removed = parse(filer(path, old=entry("a.pdf"), kind="delete"))
    renamed = parse(filer(path, old=entry("a.pdf"), new=entry("b.pdf"), parent="/buckets/inbox/done", kind="rename"))

    assert [(e.key, e.created, e.size) for e in replaced] == [("a.pdf", True, 12)]
    assert [(e.key, e.created) for e in removed] == [("a.pdf", False)]
    assert [(e.key, e.created) for e in renamed] == [("a.pdf", False), ("done/b.pdf", True)]


def test_versions_in_the_filer_are_objects_under_their_own_name() -> None:
    version = "6714d26abdd2cc3a2cb3f3b09225310b"
    path = f"/buckets/inbox/v.pdf.versions/v_{version}"

    written = only(filer(path, new=entry(f"v_{version}")))
    deleted = only(filer(path, new=entry(f"v_{version}", Seaweed_X_Amz_Delete_Marker="true")))

    assert (written.key, written.version, written.created) == ("v.pdf", version, True)
    assert (deleted.key, deleted.created) == ("v.pdf", False)


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/buckets/inbox", True),
        ("/buckets/inbox/folder", True),
        ("/buckets/inbox/.uploads/93c2/0001_953b.part", False),
        ("/buckets/.system/owners/admin", False),
        ("/topics/.system/log/x", False),
        ("/elsewhere/a.pdf", False),
    ],
)
def test_filer_notifications_about_other_files_have_no_event(path: str, *, directory: bool) -> None:
    assert parse(filer(path, new=entry(path.rpartition("/")[2], directory=directory))) == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"Records"',
        b"{}",
        b'{"Records": 1}',
        b'{"Records": [{}]}',
        b'{"Records": [{"eventName": "ObjectCreated:Put"}]}',
        b"[" * 100_000,
        b'{"Records":' * 50_000,
        json.dumps({"Type": "SubscriptionConfirmation", "Message": "{}"}).encode(),
        json.dumps({"Type": "Notification", "Message": "no JSON"}).encode(),
        sns(sns(sns("{}"))).encode(),
        notice(record("")).encode(),
        notice(record("%FF%FE.pdf")).encode(),
        notice(record("a" * 1025)).encode(),
        notice(record(quote_plus("ä" * 513))).encode(),
        notice(record(size=-1)).encode(),
        notice(record(size="NaN")).encode(),
        notice(record(eTag=["x"])).encode(),
        notice(*[record()] * 1001).encode(),
        notice(record(padding="x" * MAX_MESSAGE_BYTES)).encode(),
        bridge(source="com.example").encode(),
        bridge(key="").encode(),
        filer("/buckets/in box\n/a.pdf", new=entry("a.pdf")).encode(),
        filer("/buckets/inbox/a.pdf", new={"name": 1}).encode(),
        b'{"Records": [], "Records": 7}',
        notice(record("\\ud800")).replace("\\\\", "\\").encode(),
    ],
)
def test_an_unparsable_message_has_a_short_reason(message: bytes) -> None:
    with pytest.raises(UnparsableEventError) as caught:
        parse(message)

    assert 0 < len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bucket", ["", "a", "../etc", "a/b", "-x", "a b", "arn:aws:s3:::x", "x" * 300, "abc\n"])
def test_names_that_no_bucket_has_are_refused(bucket: str) -> None:
    bad = record()
    bad["s3"]["bucket"]["name"] = bucket

    with pytest.raises(UnparsableEventError):
        parse(notice(bad))


def test_an_error_does_not_contain_the_message() -> None:
    secret = record("the-secret")
    secret["s3"]["bucket"]["name"] = "se cret"

    with pytest.raises(UnparsableEventError) as caught:
        parse(notice(secret))

    assert "se cret" not in str(caught.value)
    assert "the-secret" not in str(caught.value)
    assert "Records.0.s3.bucket.name" in str(caught.value)


def test_the_event_with_the_greatest_sequencer_wins() -> None:
    created = ObjectEvent("b", "k", created=True, sequencer="0055AED6DCD9")
    removed = ObjectEvent("b", "k", created=False, sequencer="0055AED6DCD90281E5")
    other = ObjectEvent("b", "other", created=True)

    assert newest([created, removed, other]) == newest([removed, other, created][::-1])
    assert set(newest([removed, created, other])) == {removed, other}


def test_sequencers_of_different_length_are_padded_at_their_right_end() -> None:
    shorter = ObjectEvent("b", "k", created=True, sequencer="1f")
    longer = ObjectEvent("b", "k", created=False, sequencer="0F00")

    assert newest([shorter, longer]) == [shorter]
    assert newest([longer, shorter]) == [shorter]


def test_without_a_sequencer_a_write_wins_over_a_removal() -> None:
    created = ObjectEvent("b", "k", created=True)
    removed = ObjectEvent("b", "k", created=False, sequencer="FF")

    assert newest([created, removed]) == newest([removed, created]) == [created]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    _parse_or_refuse(data)


@settings(deadline=None)
@given(json_values, st.sampled_from(["Records", "detail", "detail-type", "message", "key", "event_type", "Message"]))
def test_no_json_in_a_place_that_counts_makes_it_raise_anything_else(value: Any, place: str) -> None:
    for whole in (notice(record()), sns(notice(record())), bridge(), filer("/buckets/inbox/a", new=entry("a"))):
        _parse_or_refuse(json.dumps(json.loads(whole) | {place: value}))
    _parse_or_refuse(notice({**record(), "s3": value}))
    _parse_or_refuse(notice(record(key=value) if isinstance(value, str) else {**record(), "eventTime": value}))
    _parse_or_refuse(filer("/buckets/inbox/a", new=value if isinstance(value, dict) else entry("a", size=3)))


@settings(deadline=None)
@given(st.text(min_size=1, max_size=300, alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_encoded_key_is_decoded(key: str) -> None:
    assert only(notice(record(quote_plus(key)))).key == key
    assert only(bridge(key=key)).key == key


def _parse_or_refuse(message: bytes | str) -> None:
    try:
        events = parse(message)
    except UnparsableEventError:
        return
    for event in events:
        assert event.key
        assert len(event.key.encode()) <= 1024
