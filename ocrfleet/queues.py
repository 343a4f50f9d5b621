"""The Celery app: queues, routes, serializer, acknowledgement; publishing, and what is known of published messages.

An acknowledgement always means that every page of the job has a terminal record in the store. A job that raises goes
back to its queue; a job whose worker dies comes back when its lease ends (ocrfleet/lease.py renews the leases of live
ones); a job that was lost all the same is published again by the sweep, which asks `published` what is on its way.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

import redis
from celery import Celery
from kombu.entity import Queue as KombuQueue
from kombu.exceptions import KombuError, OperationalError

from ocrfleet import keys, metrics
from ocrfleet.errors import PermanentError, TransientError
from ocrfleet.jobs import AssemblyJob, IntakeJob, Message, PageJob, Queue

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}

TASK_INTAKE = "ocrfleet.intake"
TASK_PAGES = "ocrfleet.pages"
TASK_ASSEMBLE = "ocrfleet.assemble"
_MESSAGES: dict[str, type[Message]] = {TASK_INTAKE: IntakeJob, TASK_PAGES: PageJob, TASK_ASSEMBLE: AssemblyJob}


def make_app(settings: Settings, *, consume: Iterable[str] = ()) -> Celery:
    """Return the Celery app; a worker names the queues that it consumes."""
    app = Celery("ocrfleet", set_as_current=False)
    app.conf.update(
        broker_url=_kombu_url(settings.redis_url),
        broker_use_ssl=_tls(settings.redis_url),
        broker_transport_options={
            "visibility_timeout": settings.lease_seconds,
            # kombu looks for expired leases every 10 s x 10; its lock would outlive a killed holder by 5 minutes.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "socket_connect_timeout": 5,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that is full, or read-only as in a failover, refuses a command: that passes, and ends no worker.
        broker_channel_error_retry=True,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=False,
        task_reject_on_worker_lost=True,
        # A worker holds only what it runs: what it reserved would be invisible to the others.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_queues=[KombuQueue(name) for name in consume] or None,
    )
    return app


def _kombu_url(url: str) -> str:
    """Return what kombu calls a Redis that redis-py calls so: a socket by another scheme, TLS without its options."""
    if url.startswith("rediss://"):
        return url.partition("?")[0]
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url


def _tls(url: str) -> dict[str, Any] | None:
    """Return kombu's options for a rediss:// URL, with what the URL says, as in ?ssl_ca_certs=/etc/redis/ca.pem.

    Unless it is told to, kombu verifies no certificate; redis-py does.
    """
    if not url.startswith("rediss://"):
        return None
    options = {name: value for name, value in parse_qsl(urlsplit(url).query) if name in _TLS_OPTIONS}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **options}


@contextmanager
def _publish_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, KombuError, redis.RedisError, OSError) as error:
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"jobs can't be published: {error}") from error


def publish_pages(app: Celery, profile: str, jobs: Iterable[PageJob]) -> None:
    """Put page jobs onto the queues of their class and profile.

    Raises TransientError when it is uncertain whether they arrived: publishing is safe to repeat.
    """
    with _publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for job in jobs:
            _send(app, producer, TASK_PAGES, job, keys.queue_pages(job.queue, profile))


def ranges(pages: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield ascending page numbers as inclusive ranges of neighbours, `size` pages long at most."""
    first = last = 0
    for page in pages:
        if first and page == last + 1 and page - first < size:
            last = page
            continue
        if first:
            yield first, last
        first = last = page
    if first:
        yield first, last


def publish_intake(app: Celery, arrivals: Iterable[str]) -> None:
    """Ask for the intake of arrivals, by their keys. Raises TransientError; safe to repeat."""
    with _publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for arrival in arrivals:
            _send(app, producer, TASK_INTAKE, IntakeJob(arrival=arrival), keys.QUEUE_INTAKE)


def publish_assembly(app: Celery, document: str, generation: int) -> None:
    """Ask for a document's assembly. Raises TransientError; safe to repeat."""
    with _publish_errors(), app.producer_or_acquire() as producer:
        job = AssemblyJob(document=document, generation=generation)
        _send(app, producer, TASK_ASSEMBLE, job, keys.QUEUE_ASSEMBLY)


def _send(app: Celery, producer: Any, task: str, job: Message, queue: str) -> None:
    # Names for humans (argsrepr) would double the message; a retry inside a batch would hide that it failed.
    args = [job.model_dump(mode="json")]
    app.send_task(task, args=args, queue=queue, producer=producer, retry=False, argsrepr="", kwargsrepr="")


def queue_names(profile: str) -> list[str]:
    """Return the queues that a worker of this profile consumes."""
    return [*(keys.queue_pages(queue, profile) for queue in Queue), keys.QUEUE_ASSEMBLY]


class Published:
    """What is on its way: on a queue, or leased to a worker. Reads kombu's own bookkeeping, and only here."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def waiting(self, profiles: Iterable[str]) -> dict[str, int]:
        """Return how many page jobs wait on the queues of each profile; those leased to workers are not among them."""
        with _publish_errors():
            return {
                profile: sum(int(self._redis.llen(keys.queue_pages(queue, profile))) for queue in Queue)
                for profile in profiles
            }

    def intakes(self) -> set[str]:
        """Return the keys of the arrivals whose intake waits or is leased; see `jobs`."""
        return {job.arrival for job in self._messages([keys.QUEUE_INTAKE]) if isinstance(job, IntakeJob)}

    def jobs(self, queues: Iterable[str]) -> tuple[list[PageJob], set[tuple[str, int]]]:
        """Return the page jobs and the (document, generation) of the assemblies that wait or are leased.

        Queues are read before leases, so a message that is being taken is seen; one that is being given back may be
        missed: ask twice before believing that something is gone.
        """
        messages = self._messages(queues)
        pages = [job for job in messages if isinstance(job, PageJob)]
        return pages, {(job.document, job.generation) for job in messages if isinstance(job, AssemblyJob)}

    def leases(self, *, begun_before: float) -> dict[str, float]:
        """Return the tags of the messages whose leases were last renewed before that time, and when."""
        with _publish_errors():
            found: Any = self._redis.zrangebyscore(keys.UNACKED_INDEX, "-inf", begun_before, withscores=True)
        return {tag.decode(): float(since) for tag, since in found}

    def leased_since(self, tags: Sequence[str]) -> dict[str, float | None]:
        """Return when the leases of these messages were last renewed; None for those that are not leased."""
        if not tags:
            return {}
        with _publish_errors():
            since: Any = self._redis.zmscore(keys.UNACKED_INDEX, list(tags))
        return dict(zip(tags, since, strict=True))

    def pull_back_leases(self, now: float, lease_seconds: float) -> int:
        """Let no lease begin in the future, as one does after a clock was set back; return how many did. Raises TransientError.

        Otherwise the jobs of a worker that died would come back only when the clocks have caught up.
        """
        with _publish_errors():
            ahead = cast("list[bytes]", self._redis.zrangebyscore(keys.UNACKED_INDEX, now + lease_seconds, "+inf"))
            if ahead:
                self._redis.zadd(keys.UNACKED_INDEX, dict.fromkeys(ahead, now), xx=True)
        return len(ahead)

    def _messages(self, queues: Iterable[str]) -> list[Message]:
        found: list[Message] = []
        with _publish_errors():
            bodies = [(message, False) for queue in queues for message in self._redis.lrange(queue, 0, -1)]
            bodies += [(leased, True) for leased in self._redis.hvals(keys.UNACKED)]
        for body, leased in bodies:
            # What is no message of ours, or of another version, is no job of ours, whatever becomes of it.
            with suppress(PermanentError, LookupError, TypeError, ValueError):
                message = json.loads(body)[0] if leased else json.loads(body)
                task, argument = message["headers"]["task"], json.loads(base64.b64decode(message["body"]))[0][0]
                found.append(_MESSAGES[task].from_message(argument))
        return found
