"""The Celery app: queues, routes, serializer, acknowledgement; publishing, and what is known of published messages.

An acknowledgement always means that every page of the job has a terminal record in the store. A job that raises goes
back to its queue; a job whose worker dies comes back when its lease ends (ocrfleet/broker/leases.py renews the leases of live
ones); a job that was lost all the same is published again by the sweep, which asks `published` what is on its way.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import redis
from celery import Celery
from kombu.entity import Queue as KombuQueue
from kombu.exceptions import KombuError, OperationalError

from ocrfleet import keys
from ocrfleet.errors import TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Priority
from ocrfleet.records.messages import AssemblyJob, IntakeJob, Message, PageJob

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}

TASK_INTAKE = "ocrfleet.intake"
TASK_PAGES = "ocrfleet.pages"
TASK_ASSEMBLE = "ocrfleet.assemble"
MESSAGES: dict[str, type[Message]] = {TASK_INTAKE: IntakeJob, TASK_PAGES: PageJob, TASK_ASSEMBLE: AssemblyJob}


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
def publish_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, KombuError, redis.RedisError, OSError) as error:
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"jobs can't be published: {error}") from error


def publish_pages(app: Celery, profile: str, jobs: Iterable[PageJob]) -> None:
    """Put page jobs onto the queues of their class and profile.

    Raises TransientError when it is uncertain whether they arrived: publishing is safe to repeat.
    """
    with publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
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
    with publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for arrival in arrivals:
            _send(app, producer, TASK_INTAKE, IntakeJob(arrival=arrival), keys.QUEUE_INTAKE)


def publish_assembly(app: Celery, document: str, generation: int) -> None:
    """Ask for a document's assembly. Raises TransientError; safe to repeat."""
    with publish_errors(), app.producer_or_acquire() as producer:
        job = AssemblyJob(document=document, generation=generation)
        _send(app, producer, TASK_ASSEMBLE, job, keys.QUEUE_ASSEMBLY)


def _send(app: Celery, producer: Any, task: str, job: Message, queue: str) -> None:
    # Names for humans (argsrepr) would double the message; a retry inside a batch would hide that it failed.
    args = [job.model_dump(mode="json")]
    app.send_task(task, args=args, queue=queue, producer=producer, retry=False, argsrepr="", kwargsrepr="")


def queue_names(profile: str) -> list[str]:
    """Return the queues that a worker of this profile consumes."""
    return [*(keys.queue_pages(queue, profile) for queue in Priority), keys.QUEUE_ASSEMBLY]
