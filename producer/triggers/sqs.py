"""Events from an SQS queue: a message is deleted only when its events have been registered, or when it is no use.

SQS delivers at least once and in any order. A message that is left comes back when its visibility timeout is over, and goes
where the queue's redrive policy says when that happened too often.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3.session
import botocore.exceptions
import structlog
from botocore.config import Config

from ocrfleet.errors import ConfigurationError, OcrfleetError, TransientError
from ocrfleet.metrics import definitions as metrics
from producer.triggers.notifications import ObjectEvent, UnparsableEventError, newest, parse

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from ocrfleet.settings import S3Settings

log = structlog.get_logger(__name__)

#: SQS's limits: seconds that a request may wait for messages, and messages that one request may carry
LONG_POLL_SECONDS = 20
BATCH = 10
#: Seconds that a received message is hidden from others; prolonged three times as often while it is being registered.
VISIBILITY_SECONDS = 60
#: Seconds between two tries while SQS is away: boto3 has tried several times by then.
PAUSE_SECONDS = 5.0
_DENIED = {"AccessDenied", "AccessDeniedException"}
_MISSING = {"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"}
_REFUSED = {
    *_DENIED,
    *_MISSING,
    *("InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException"),
    *(
        "InvalidAddress",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "KmsAccessDenied",
        "KMS.AccessDeniedException",
    ),
}


def sqs_client(queue_url: str, settings: S3Settings) -> SQSClient:
    """Return a client for the queue's own endpoint and region. Raises ConfigurationError."""
    url = urlsplit(queue_url)
    if url.scheme not in {"http", "https"} or not url.hostname or not url.path.strip("/"):
        raise ConfigurationError(
            "--sqs takes a queue's URL, like https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
        )
    region = re.search(r"(?:^|\.)sqs\.([a-z0-9-]+)\.", url.hostname)
    config = Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=LONG_POLL_SECONDS + 10,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        tcp_keepalive=True,
    )
    try:
        return boto3.session.Session().client(
            "sqs",
            endpoint_url=f"{url.scheme}://{url.netloc}",
            region_name=region[1] if region else settings.region,
            config=config,
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise ConfigurationError(
            f"no SQS client can be made ({type(error).__name__}): look at the queue's URL, at OCRFLEET_S3_REGION and at "
            "boto3's own variables and files (AWS_*, ~/.aws)"
        ) from None


@dataclass(frozen=True, slots=True)
class _Received:
    """A message that holds events, and what deletes it."""

    message: MessageTypeDef
    events: Sequence[ObjectEvent]

    @property
    def name(self) -> str:
        return self.message.get("MessageId", "")


class SqsWatcher:
    """Receives messages and hands their events to `on_events`, one event for each object, until it is stopped.

    Several watchers may share a queue. `on_events` returns when the events are safely registered; an error of it leaves the
    messages on the queue. It gets up to ten messages' events at once, and each message's by themselves when that fails.
    """

    def __init__(
        self,
        client: SQSClient,
        queue_url: str,
        on_events: Callable[[Sequence[ObjectEvent]], object],
        *,
        dead_letter_url: str | None = None,
        visibility: int = VISIBILITY_SECONDS,
    ) -> None:
        """Take where unparsable messages go; without `dead_letter_url` the queue's redrive policy says it.

        `visibility` is in seconds.
        """
        self._client = client
        self._queue = queue_url
        self._on_events = on_events
        self._dead_letters = dead_letter_url
        self._visibility = visibility
        self._stopped = threading.Event()
        #: batches of messages, and None when there is nothing more to wait for
        self._inbox: queue.SimpleQueue[Sequence[MessageTypeDef] | OcrfleetError | None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Let `run` return when what it has in hand is registered. A request that waits for messages is abandoned."""
        self._stopped.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Receive until stopped. Raises ConfigurationError for a queue that can't be used from the first; later that may pass."""
        self._find_dead_letters()
        answered = False
        while not self._stopped.is_set():
            # A thread that is not waited for: a request may take 20 seconds, and nothing ends it early.
            threading.Thread(target=self._receive, name="sqs-receive", daemon=True).start()
            match self._inbox.get():
                case None:
                    return
                case ConfigurationError() as error if not answered:
                    raise error
                case OcrfleetError() as error:
                    self._pause(error)
                case messages if self._stopped.is_set():
                    self._give_back(messages)
                case messages:
                    answered = True
                    if not messages:
                        metrics.WATCH_LAST_SUCCESS.labels("sqs").set_to_current_time()
                        continue
                    with self._kept(messages):
                        self._handle(messages)

    def _pause(self, error: OcrfleetError) -> None:
        log.warning("the queue of events is away", error=str(error))
        self._stopped.wait(PAUSE_SECONDS)

    def _receive(self) -> None:
        try:
            with _errors(self._queue):
                answer = self._client.receive_message(
                    QueueUrl=self._queue,
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=LONG_POLL_SECONDS,
                    VisibilityTimeout=self._visibility,
                )
        except OcrfleetError as error:
            self._inbox.put(error)
            return
        messages = answer.get("Messages", [])
        if self._stopped.is_set():
            self._give_back(messages)
        else:
            self._inbox.put(messages)

    def _handle(self, messages: Sequence[MessageTypeDef]) -> None:
        received = [parsed for message in messages if (parsed := self._parsed(message)) is not None]
        if received:
            self._register(received)

    def _parsed(self, message: MessageTypeDef) -> _Received | None:
        """Return a message's events; None when it was no notification and has been dealt with."""
        try:
            return _Received(message, parse(message["Body"]))
        except UnparsableEventError as error:
            metrics.EVENTS.labels("sqs", "unparsable").inc()
            self._bury(message, str(error))
            return None

    def _register(self, received: Sequence[_Received]) -> None:
        """Hand over the events, then delete the messages; what fails is left, for the queue's redrive policy at last."""
        events = newest(event for one in received for event in one.events)
        try:
            if events:
                self._on_events(events)
        except TransientError as error:
            log.warning("events can't be registered now: they come back", messages=len(received), error=str(error))
        except Exception as error:
            if len(received) > 1:
                # One that can't be registered shall not hold up the others.
                for one in received:
                    self._register([one])
            elif isinstance(error, OcrfleetError):
                log.warning("a message can't be registered: it comes back", message=received[0].name, error=str(error))
            else:
                log.exception("a message can't be registered: it comes back", message=received[0].name)
        else:
            metrics.WATCH_LAST_SUCCESS.labels("sqs").set_to_current_time()
            self._delete([one.message for one in received])

    def _bury(self, message: MessageTypeDef, reason: str) -> None:
        """Move a message that can't be parsed to the dead-letter queue; without one it is left to the queue's redrive."""
        about = {"message": message.get("MessageId"), "reason": reason}
        if self._dead_letters is None:
            log.error("a message is no event; there is no dead-letter queue to put it on: it is left", **about)
            return
        try:
            with _errors(self._dead_letters):
                self._client.send_message(
                    QueueUrl=self._dead_letters,
                    MessageBody=message["Body"],
                    MessageAttributes={"ocrfleet-reason": {"DataType": "String", "StringValue": reason}},
                )
        except OcrfleetError as error:
            log.warning("a message is no event, and can't be put on the dead-letter queue", **about, error=str(error))
            return
        log.error("a message is no event: it was put on the dead-letter queue", **about)
        self._delete([message])

    def _delete(self, messages: Sequence[MessageTypeDef]) -> None:
        """Delete messages; one that stays comes back, which is harmless."""
        try:
            with _errors(self._queue):
                answer = self._client.delete_message_batch(
                    QueueUrl=self._queue,
                    Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)],
                )
        except OcrfleetError as error:
            log.warning("messages can't be deleted: they come back", messages=len(messages), error=str(error))
            return
        for failed in answer.get("Failed", []):
            log.warning("a message can't be deleted: it comes back", code=failed["Code"])

    def _give_back(self, messages: Sequence[MessageTypeDef]) -> None:
        """Show messages to others at once that were received when nobody wanted them any more."""
        if messages:
            self._hide(messages, 0)

    @contextmanager
    def _kept(self, messages: Sequence[MessageTypeDef]) -> Iterator[None]:
        """Keep messages hidden from others for as long as it takes."""
        done = threading.Event()

        def prolong() -> None:
            while not done.wait(self._visibility / 3):
                self._hide(messages, self._visibility)

        heartbeat = threading.Thread(target=prolong, name="sqs-heartbeat", daemon=True)
        heartbeat.start()
        try:
            yield
        finally:
            done.set()
            heartbeat.join()

    def _hide(self, messages: Sequence[MessageTypeDef], seconds: int) -> None:
        try:
            with _errors(self._queue):
                # A part may fail: of messages that have been deleted meanwhile.
                self._client.change_message_visibility_batch(
                    QueueUrl=self._queue,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": seconds}
                        for n, m in enumerate(messages)
                    ],
                )
        except OcrfleetError as error:
            log.warning("messages can't be kept: others may get them, too", messages=len(messages), error=str(error))

    def _find_dead_letters(self) -> None:
        """Look up where the queue's redrive policy sends messages, unless that was said. Raises ConfigurationError."""
        while self._dead_letters is None and not self._stopped.is_set():
            try:
                self._dead_letters = self._redrive_target()
            except _DeniedError as error:
                log.warning("the queue's redrive policy can't be read: name the dead-letter queue", error=str(error))
                return
            except TransientError as error:
                self._pause(error)
            else:
                return

    def _redrive_target(self) -> str | None:
        with _errors(self._queue):
            answer = self._client.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["RedrivePolicy"])
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        if policy is None:
            return None
        # arn:aws:sqs:region:account:name
        *_, account, name = str(json.loads(policy)["deadLetterTargetArn"]).split(":")
        with _errors(f"{name} (the dead-letter queue of {self._queue})"):
            return self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]


class _DeniedError(ConfigurationError):
    """What is asked for is not permitted."""


@contextmanager
def _errors(queue_url: str) -> Iterator[None]:
    """Turn boto3's errors about a queue into TransientError or ConfigurationError."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _DENIED:
            raise _DeniedError(
                f"the queue {queue_url}: there is no permission for {error.operation_name}; it takes sqs:ReceiveMessage, "
                "sqs:DeleteMessage, sqs:ChangeMessageVisibility and sqs:GetQueueAttributes, and sqs:SendMessage on the "
                "dead-letter queue"
            ) from error
        if code in _MISSING:
            raise ConfigurationError(f"there is no queue {queue_url}: make it, or correct its URL") from error
        if code in _REFUSED:
            raise ConfigurationError(
                f"the queue {queue_url}: the key pair isn't accepted ({code}): look at AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, the profile or the role"
            ) from error
        raise TransientError(f"the queue {queue_url} can't do {error.operation_name} now ({code})") from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise ConfigurationError(
            f"the queue {queue_url}: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
            "or give this machine a role"
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise TransientError(f"the queue {queue_url} can't be reached ({type(error).__name__})") from error
