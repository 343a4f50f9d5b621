"""Uploads become intake batches through SQS, as moto's server sends its messages: at least once, in any order, none lost."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.markdown.escape import figure_path
from ocrfleet.records.documents import DocumentStatus, Output, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, Submission, SubmissionOptions
from ocrfleet.storage.store import FolderStore
from producer.delivery.to_s3 import S3Delivery
from producer.triggers.filters import Filter, Prefix
from producer.triggers.notifications import ObjectEvent
from producer.triggers.sqs import SqsWatcher, sqs_client
from producer.triggers.watcher import Watcher
from tests.support.servers import Moto
from tests.support.waiting import scaled, until

TERMS = SubmissionOptions(profile_digest="0" * 64, queue=Priority.BULK, collection="inbox")


class Desk:
    """A bucket that notifies a queue, and the registered references."""

    def __init__(self, moto: Moto, folder: Path) -> None:
        self.moto = moto
        self.bucket = f"inbox-{random.getrandbits(40):x}"
        self.store = FolderStore(folder / "store")
        moto.s3.create_bucket(Bucket=self.bucket)
        self.queue = moto.queue()

    def notify(self, **target: str) -> None:
        """Let the bucket notify what is given: QueueArn or TopicArn."""
        (name,) = target
        kind = {"QueueArn": "QueueConfigurations", "TopicArn": "TopicConfigurations"}[name]
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        self.moto.s3.put_bucket_notification_configuration(
            Bucket=self.bucket,
            NotificationConfiguration={kind: [{**target, "Events": events}]},  # type: ignore[misc]
        )

    def put(self, key: str, data: bytes = b"%PDF-1.7") -> None:
        self.moto.s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def put_in_parts(self, key: str) -> None:
        s3 = self.moto.s3
        upload = s3.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        where: Any = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
        parts = [
            {"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=data)["ETag"]}
            for n, data in ((1, b"1" * (5 << 20)), (2, b"2"))
        ]
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})  # type: ignore[typeddict-item]

    def copy(self, key: str, to: str) -> None:
        self.moto.s3.copy_object(Bucket=self.bucket, Key=to, CopySource={"Bucket": self.bucket, "Key": key})

    def event(self, key: str, name: str = "ObjectCreated:Put", **more: str) -> str:
        record = {
            "eventSource": "aws:s3",
            "eventName": name,
            "s3": {"bucket": {"name": self.bucket}, "object": {"key": key, **more}},
        }
        return json.dumps({"Records": [record]})

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.moto.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def waiting(self) -> int:
        """Return the number of messages on the queue, including received ones."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.moto.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    @contextmanager
    def watching(
        self, on_events: Callable[[Sequence[ObjectEvent]], object], *, visibility: int = 60
    ) -> Iterator[SqsWatcher]:
        client = sqs_client(self.queue, self.moto.settings())
        watcher = SqsWatcher(client, self.queue, on_events, visibility=visibility)
        thread = threading.Thread(target=watcher.run)
        thread.start()
        try:
            yield watcher
        finally:
            watcher.stop()
            thread.join(timeout=scaled(5))
            client.close()
            assert not thread.is_alive()

    @contextmanager
    def registering(self, wanted: Filter | None = None) -> Iterator[None]:
        """Watch the queue as `ocrfleet watch` does."""
        with (
            Watcher(self.store, TERMS, wanted or Filter(), self.moto.settings()) as watcher,
            self.watching(functools.partial(watcher.register, source="sqs")),
        ):
            yield

    def wishes(self) -> list[SourceReference]:
        keys = list(self.store.list("arrivals/bulk/inbox/"))
        return [wish for key in keys for wish in IntakeBatch.from_bytes(self.store.get(key)).wishes]


@pytest.fixture
def desk(moto: Moto, tmp_path: Path) -> Desk:
    return Desk(moto, tmp_path)


def taken_from(moto: Moto, queue: str) -> list[str]:
    bodies = []
    while messages := moto.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        bodies += [message["Body"] for message in messages]
    return bodies


@pytest.mark.parametrize("through", ["SQS", "SNS and SQS"])
def test_each_write_of_an_object_is_submitted_once_with_repeated_and_shuffled_events(
    desk: Desk, moto: Moto, through: str
) -> None:
    # Given a bucket that notifies its own queue,
    notified = moto.queue()
    if through == "SQS":
        desk.notify(QueueArn=moto.arn(notified))
    else:
        topic = moto.sns.create_topic(Name=desk.bucket)["TopicArn"]
        moto.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=moto.arn(notified))
        desk.notify(TopicArn=topic)
    # and a client that writes to it by each S3 operation,
    desk.put("1890s/ä + b%41.pdf")
    desk.put_in_parts("large.pdf")
    desk.copy("large.pdf", "copies/large.PDF")
    desk.put("notes.txt")

    # when each message comes three times and in any order,
    bodies = taken_from(moto, notified)
    assert any("s3:TestEvent" in body for body in bodies)
    bodies *= 3
    random.Random(7).shuffle(bodies)  # noqa: S311 - no secret
    desk.send(*bodies)
    with desk.registering():
        until(lambda: desk.waiting() == 0)

    # then there is one source reference per document, with the ETag of the store.
    distinct = set(desk.wishes())
    assert {wish.name for wish in distinct} == {"1890s/ä + b%41.pdf", "large.pdf", "copies/large.PDF"}
    assert len(distinct) == 3
    for wish in distinct:
        head = moto.s3.head_object(Bucket=desk.bucket, Key=wish.name)
        assert (f'"{wish.etag}"', wish.size) == (head["ETag"], head["ContentLength"])
    assert f"s3://{desk.bucket}/1890s/%C3%A4%20%2B%20b%2541.pdf" in {wish.uri for wish in distinct}


def test_a_test_event_is_deleted_and_registers_nothing(desk: Desk, moto: Moto) -> None:
    desk.notify(QueueArn=moto.arn(desk.queue))
    assert desk.waiting() == 1

    with desk.registering():
        until(lambda: desk.waiting() == 0)

    assert desk.wishes() == []


def test_an_unparsable_message_moves_to_the_dead_letter_queue_of_the_redrive_policy(desk: Desk, moto: Moto) -> None:
    dead = moto.queue()
    policy = json.dumps({"deadLetterTargetArn": moto.arn(dead), "maxReceiveCount": 9})
    desk.queue = moto.queue(RedrivePolicy=policy)
    desk.put("a.pdf")
    desk.send("hello", desk.event("a.pdf"), '{"Records": [{}]}')

    with capture_logs() as logs, desk.registering():
        until(lambda: desk.waiting() == 0)

    assert sorted(taken_from(moto, dead)) == ["hello", '{"Records": [{}]}']
    assert [wish.name for wish in desk.wishes()] == ["a.pdf"]
    reasons = [line["reason"] for line in logs if line["event"] == "sqs.dead_lettered"]
    assert len(reasons) == 2
    assert not any("hello" in reason for reason in reasons)


def test_without_a_dead_letter_queue_an_unparsable_message_is_left(desk: Desk) -> None:
    desk.put("a.pdf")
    desk.send("hello", desk.event("a.pdf"))

    with capture_logs() as logs, desk.registering():
        until(lambda: desk.wishes() and desk.waiting() == 1)

    assert any(line["event"] == "sqs.unparsable_message_left" for line in logs)
    assert desk.waiting() == 1


def test_an_object_removed_before_its_event_is_no_document(desk: Desk) -> None:
    desk.put("there.pdf")
    desk.send(desk.event("gone.pdf", "ObjectRemoved:Delete"), desk.event("gone.pdf"), desk.event("there.pdf"))

    with capture_logs() as logs, desk.registering():
        until(lambda: desk.waiting() == 0)

    assert {wish.name for wish in desk.wishes()} == {"there.pdf"}
    assert [line["uri"] for line in logs if line["event"] == "watcher.object_gone"] == [f"s3://{desk.bucket}/gone.pdf"]


def test_a_removal_is_deleted_and_registers_nothing(desk: Desk) -> None:
    desk.put("written-again.pdf")
    desk.send(desk.event("written-again.pdf", "ObjectRemoved:Delete"))

    with desk.registering():
        until(lambda: desk.waiting() == 0)

    assert desk.wishes() == []


def test_an_old_event_registers_the_object_as_it_is_now(desk: Desk) -> None:
    desk.put("a.pdf", b"newest")
    desk.send(desk.event("a.pdf", eTag="0" * 32, versionId="old"))

    with desk.registering():
        until(lambda: desk.waiting() == 0)

    (wish,) = desk.wishes()
    assert (wish.size, wish.etag, wish.version) == (
        6,
        desk.moto.s3.head_object(Bucket=desk.bucket, Key="a.pdf")["ETag"].strip('"'),
        None,
    )


def test_own_outputs_trigger_no_submission(desk: Desk) -> None:
    desk.put("out/a.pdf.pdf")
    desk.put("drafts/b.pdf")
    desk.put("c.pdf")
    desk.send(*map(desk.event, ("out/a.pdf.pdf", "drafts/b.pdf", "c.pdf")))
    ours = (Prefix.parse_folder(f"s3://{desk.bucket}/out"),)

    with desk.registering(Filter(exclude=("drafts/",), ours=ours)):
        until(lambda: desk.waiting() == 0)

    assert [wish.name for wish in desk.wishes()] == ["c.pdf"]


def test_results_in_a_watched_bucket_are_recognised_by_their_metadata(desk: Desk, moto: Moto) -> None:
    # Given a document with a picture and a searchable PDF, with results in the watched bucket
    document, picture = "0" * 32, "000001-01-0123456789ab.jpg"
    texts = {"md": f"![]({figure_path(document, picture)})\n".encode(), "pdf": b"%PDF-1.7 searchable"}
    desk.store.put(keys.figure(document, picture), b"\xff\xd8\xff picture")
    outputs = {}
    for extension, data in texts.items():
        digest = hashlib.sha256(data).hexdigest()
        outputs[extension] = Output(key=keys.output(document, 1, digest, extension), sha256=digest, size=len(data))
        desk.store.put(outputs[extension].key, data)
    ended = Status(
        document=document,
        generation=1,
        status=DocumentStatus.COMPLETED,
        total=1,
        done=1,
        figures=1,
        outputs=outputs,
    )
    submission = Submission(
        name="in/a.pdf",
        document=document,
        uri=f"s3://{desk.bucket}/in/a.pdf",
        submitted="20261125T000000.000000Z",
        terms=TERMS.model_copy(update={"results": f"s3://{desk.bucket}/", "formats": ("md", "pdf")}),
    )
    desk.notify(QueueArn=moto.arn(desk.queue))
    # When they are delivered beside their source, and an object is uploaded, with a watcher that does not know the results prefix
    S3Delivery(desk.store, moto.settings()).deliver(ended, submission)
    desk.put("in/b.pdf")
    delivered = {entry["Key"] for entry in moto.s3.list_objects_v2(Bucket=desk.bucket)["Contents"]}
    assert {"in/a.pdf.pdf", f"in/{figure_path(document, picture)}", "in/b.pdf"} <= delivered
    until(lambda: desk.waiting() >= len(delivered))
    with desk.registering():
        until(lambda: desk.waiting() == 0)
    # Then only the upload is to be read, although a PDF and a picture were written
    assert [wish.name for wish in desk.wishes()] == ["in/b.pdf"]


def test_a_message_that_cannot_be_registered_is_not_deleted_and_is_delivered_again(desk: Desk) -> None:
    # Given a store that is unreachable at first,
    calls: list[Sequence[ObjectEvent]] = []

    def register(events: Sequence[ObjectEvent]) -> None:
        calls.append(events)
        if len(calls) < 3:
            assert desk.waiting() == 1
            raise TransientError("the store is away")

    desk.send(desk.event("a.pdf"))
    with desk.watching(register, visibility=1):
        # then the message comes until it was registered.
        until(lambda: desk.waiting() == 0)

    assert [event.key for events in calls for event in events] == ["a.pdf"] * 3


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), ConfigurationError("there is no permission")])
def test_a_message_that_cannot_be_registered_delays_no_other(desk: Desk, error: Exception) -> None:
    registered = set()  # type: ignore[var-annotated]

    def register(events: Sequence[ObjectEvent]) -> None:
        if any(event.key == "bad.pdf" for event in events):
            raise error
        registered.update(event.key for event in events)

    desk.send(*map(desk.event, ("a.pdf", "bad.pdf", "b.pdf")))
    with capture_logs() as logs, desk.watching(register):
        until(lambda: desk.waiting() == 1)

    assert registered == {"a.pdf", "b.pdf"}
    events = {line["event"] for line in logs}
    assert events & {"sqs.message_not_registered", "sqs.message_raised"}


def test_a_message_stays_hidden_for_as_long_as_registering_takes(desk: Desk) -> None:
    # Given work that takes three times the visibility timeout,
    visibility = math.ceil(scaled(1))
    calls = []

    def register(events: Sequence[ObjectEvent]) -> None:
        calls.append(events)
        time.sleep(3 * visibility)

    desk.send(desk.event("a.pdf"))

    # when two watchers share the queue,
    with desk.watching(register, visibility=visibility), desk.watching(register, visibility=visibility):
        until(lambda: desk.waiting() == 0)

    # then only one of them gets the message.
    assert len(calls) == 1


def test_events_of_one_object_in_a_batch_are_merged(desk: Desk) -> None:
    calls: list[Sequence[ObjectEvent]] = []
    desk.send(
        desk.event("a.pdf", sequencer="0A"),
        desk.event("a.pdf", "ObjectRemoved:Delete", sequencer="0A01"),
        desk.event("a.pdf", sequencer="0A02"),
    )

    with desk.watching(calls.append):
        until(lambda: desk.waiting() == 0)

    assert [(event.key, event.sequencer) for event in calls[0]] == [("a.pdf", "0A02")]


def test_a_stop_does_not_wait_for_the_long_poll(desk: Desk) -> None:
    # Given a watcher whose request waits for a message
    asked, answered = threading.Event(), threading.Event()
    with desk.watching(lambda _: None) as watcher:
        handlers = watcher._client.meta.events
        handlers.register("before-send.sqs.ReceiveMessage", lambda **_: asked.set())
        handlers.register("after-call.sqs.ReceiveMessage", lambda **_: answered.set())
        asked.clear()
        until(asked.is_set, seconds=30)
        answered.clear()

    # Then it stops without an answer to it
    assert not answered.is_set()


def test_a_queue_that_is_not_there_is_said_at_once(moto: Moto, desk: Desk) -> None:
    client = sqs_client(desk.queue, moto.settings())
    watcher = SqsWatcher(client, f"{moto.endpoint}/123456789012/nowhere", lambda _: None)

    with pytest.raises(ConfigurationError, match="there is no queue"):
        watcher.run()
    client.close()


@pytest.mark.parametrize(
    "url", ["uploads", "arn:aws:sqs:eu-west-1:123456789012:uploads", "https://sqs.eu-west-1.amazonaws.com"]
)
def test_an_invalid_queue_url_is_refused(moto: Moto, url: str) -> None:
    with pytest.raises(ConfigurationError, match="--sqs takes a queue's URL"):
        sqs_client(url, moto.settings())


def test_a_queue_of_aws_is_asked_in_its_own_region(moto: Moto) -> None:
    client = sqs_client("https://sqs.eu-west-3.amazonaws.com/123456789012/uploads", moto.settings())

    assert client.meta.region_name == "eu-west-3"
    assert client.meta.endpoint_url == "https://sqs.eu-west-3.amazonaws.com"
    client.close()
