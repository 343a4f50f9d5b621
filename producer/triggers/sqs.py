"""Events from an SQS queue: a message is deleted after its events are registered, or moved when it is unparsable.

SQS delivers at least once and in any order. A message that is not deleted is delivered again after its visibility timeout,
and moved by the queue's redrive policy after too many deliveries.
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

#: SQS's limits: seconds that a request may wait for messages, and messages in one request
LONG_POLL_SECONDS = 20
BATCH = 10
#: Seconds that a received message is hidden from others; prolonged three times as often while it is being registered.
VISIBILITY_SECONDS = 60
#: Seconds between two requests while SQS is unreachable; boto3 has retried each several times.
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
    """A message and its events."""

    message: MessageTypeDef
    events: Sequence[ObjectEvent]

    @property
    def name(self) -> str:
        return self.message.get("MessageId", "")


class SqsWatcher:
    """Receives messages and passes their events to `on_events`, one event an object, until it is stopped.

    Several watchers may share a queue. `on_events` returns after the events are registered; when it raises, the messages stay
    on the queue. It gets the events of up to ten messages, and after an error those of each message separately.
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
        """Unparsable messages are moved to `dead_letter_url`, by default the one in the queue's redrive policy.

        `visibility` is in seconds.
        """
        self._client = client
        self._queue = queue_url
        self._on_events = on_events
        self._dead_letters = dead_letter_url
        self._visibility = visibility
        self._stopped = threading.Event()
        #: received messages; None after `stop`
        self._inbox: queue.SimpleQueue[Sequence[MessageTypeDef] | OcrfleetError | None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Make `run` return after the messages in hand. Abandons a request that waits for messages."""
        self._stopped.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Receive until stopped. Raises ConfigurationError when the first request is refused; later refusals are retried."""
        self._find_dead_letters()
        answered = False
        while not self._stopped.is_set():
            # A thread that is not joined: a request may take 20 seconds and can't be cancelled.
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
        log.warning("sqs.queue_unreachable", error=str(error))
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
        """Return the events of a message; None for an unparsable one, which is moved to the dead-letter queue."""
        try:
            return _Received(message, parse(message["Body"]))
        except UnparsableEventError as error:
            metrics.EVENTS.labels("sqs", "unparsable").inc()
            self._dead_letter(message, str(error))
            return None

    def _register(self, received: Sequence[_Received]) -> None:
        """Pass the events on, then delete the messages. Messages that fail stay, in the end for the queue's redrive policy."""
        events = newest(event for one in received for event in one.events)
        try:
            if events:
                self._on_events(events)
        except TransientError as error:
            log.warning("sqs.batch_not_registered", messages=len(received), error=str(error))
        except Exception as error:
            if len(received) > 1:
                # Separately, so that one message does not hold up the others.
                for one in received:
                    self._register([one])
            elif isinstance(error, OcrfleetError):
                log.warning("sqs.message_not_registered", message=received[0].name, error=str(error))
            else:
                log.exception("sqs.message_raised", message=received[0].name)
        else:
            metrics.WATCH_LAST_SUCCESS.labels("sqs").set_to_current_time()
            self._delete([one.message for one in received])

    def _dead_letter(self, message: MessageTypeDef, reason: str) -> None:
        """Move an unparsable message to the dead-letter queue; without one it is left on the queue."""
        about = {"message": message.get("MessageId"), "reason": reason}
        if self._dead_letters is None:
            log.error("sqs.unparsable_message_left", **about)
            return
        try:
            with _errors(self._dead_letters):
                self._client.send_message(
                    QueueUrl=self._dead_letters,
                    MessageBody=message["Body"],
                    MessageAttributes={"ocrfleet-reason": {"DataType": "String", "StringValue": reason}},
                )
        except OcrfleetError as error:
            log.warning("sqs.dead_letter_failed", **about, error=str(error))
            return
        log.error("sqs.dead_lettered", **about)
        self._delete([message])

    def _delete(self, messages: Sequence[MessageTypeDef]) -> None:
        """Delete messages; one that stays is delivered again, which is harmless."""
        try:
            with _errors(self._queue):
                answer = self._client.delete_message_batch(
                    QueueUrl=self._queue,
                    Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)],
                )
        except OcrfleetError as error:
            log.warning("sqs.delete_failed", messages=len(messages), error=str(error))
            return
        for failed in answer.get("Failed", []):
            log.warning("sqs.message_delete_failed", code=failed["Code"])

    def _give_back(self, messages: Sequence[MessageTypeDef]) -> None:
        """Make messages visible again that were received after `stop`."""
        if messages:
            self._hide(messages, 0)

    @contextmanager
    def _kept(self, messages: Sequence[MessageTypeDef]) -> Iterator[None]:
        """Prolong the visibility timeout of messages until the block ends."""
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
                # Fails for messages that were deleted meanwhile.
                self._client.change_message_visibility_batch(
                    QueueUrl=self._queue,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": seconds}
                        for n, m in enumerate(messages)
                    ],
                )
        except OcrfleetError as error:
            log.warning("sqs.visibility_failed", messages=len(messages), error=str(error))

    def _find_dead_letters(self) -> None:
        """Find the dead-letter queue in the queue's redrive policy, unless it was given. Raises ConfigurationError."""
        while self._dead_letters is None and not self._stopped.is_set():
            try:
                self._dead_letters = self._redrive_target()
            except _DeniedError as error:
                log.warning("sqs.redrive_policy_unreadable", error=str(error))
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
    """The request is not permitted."""


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
