"""The Celery app (queues, serializer, acknowledgement) and the publishing of jobs.

A worker acknowledges a job when each of its pages has a terminal record in the store. Celery requeues a job that raises. kombu
requeues a job of a dead worker when its lease expires (ocrfleet/broker/leases.py renews the leases of running workers). The
sweep inspects the queues (ocrfleet/broker/inspection.py) and publishes lost jobs again.
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
from ocrfleet.records.messages import AssemblyJob, IntakeJob, Message, PageJob
from ocrfleet.records.priority import Priority
from ocrfleet.redis_url import TLS_OPTIONS, sentinel_options, sentinels

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

TASK_INTAKE = "ocrfleet.intake"
TASK_PAGES = "ocrfleet.pages"
TASK_ASSEMBLE = "ocrfleet.assemble"
MESSAGES: dict[str, type[Message]] = {TASK_INTAKE: IntakeJob, TASK_PAGES: PageJob, TASK_ASSEMBLE: AssemblyJob}


def make_app(settings: Settings, *, consume: Iterable[str] = ()) -> Celery:
    """Return the Celery app. `consume` are the queues that a worker consumes."""
    app = Celery("ocrfleet", set_as_current=False)
    app.conf.update(
        broker_url=_kombu_url(settings.redis_url.get_secret_value()),
        broker_use_ssl=_tls(settings.redis_url.get_secret_value()),
        broker_transport_options={
            "visibility_timeout": settings.lease_seconds,
            # By default, kombu checks for expired leases every 10 s x 10, and its lock outlives a killed holder by 5 minutes.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "socket_connect_timeout": 5,
            **_sentinel_transport(settings.redis_url.get_secret_value()),
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A full Redis, or a read-only one during a failover, refuses commands for a while: the worker must not exit.
        broker_channel_error_retry=True,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=False,
        task_reject_on_worker_lost=True,
        # A worker takes only jobs that it runs at once: other workers can't see reserved jobs.
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
    """Return a redis-py URL as kombu expects it: another scheme for sockets, TLS without its options, a URL for each sentinel."""
    named = sentinels(url)
    if named is not None:
        # The credentials of Redis are in each, because kombu may begin with any of them.
        credentials = url.removeprefix("sentinel://").rpartition("@")[0]
        prefix = f"sentinel://{credentials}@" if credentials else "sentinel://"
        return ";".join(f"{prefix}{host}:{port}/{named.database}" for host, port in named.addresses)
    if url.startswith("rediss://"):
        return url.partition("?")[0]
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url


def _sentinel_transport(url: str) -> dict[str, Any]:
    named = sentinels(url)
    return {"master_name": named.master, "sentinel_kwargs": sentinel_options(named)} if named is not None else {}


def _tls(url: str) -> dict[str, Any] | None:
    """Return kombu's TLS options for a rediss:// URL, with those in its query, as ?ssl_ca_certs=/etc/redis/ca.pem.

    By default, kombu does not verify certificates; redis-py does.
    """
    if not url.startswith("rediss://"):
        return None
    options = {name: value for name, value in parse_qsl(urlsplit(url).query) if name in TLS_OPTIONS}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **options}


@contextmanager
def publish_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, KombuError, redis.RedisError, OSError) as error:
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"jobs can't be published: {error}") from error


def publish_pages(app: Celery, profile: str, jobs: Iterable[PageJob]) -> None:
    """Publish page jobs to the queues of their priority and profile.

    Raises TransientError when it is uncertain whether they arrived; safe to repeat.
    """
    with publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for job in jobs:
            _send(app, producer, TASK_PAGES, job, keys.queue_pages(job.queue, profile))


def ranges(pages: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield ascending page numbers as inclusive ranges of consecutive pages, `size` pages long at most."""
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
    """Publish intake jobs for batches, by their keys. Raises TransientError; safe to repeat."""
    with publish_errors(), app.producer_or_acquire() as producer, producer.batch(max_size=500):
        for arrival in arrivals:
            _send(app, producer, TASK_INTAKE, IntakeJob(arrival=arrival), keys.QUEUE_INTAKE)


def publish_assembly(app: Celery, document: str, generation: int) -> None:
    """Publish an assembly job. Raises TransientError; safe to repeat."""
    with publish_errors(), app.producer_or_acquire() as producer:
        job = AssemblyJob(document=document, generation=generation)
        _send(app, producer, TASK_ASSEMBLE, job, keys.QUEUE_ASSEMBLY)


def _send(app: Celery, producer: Any, task: str, job: Message, queue: str) -> None:
    # Empty argsrepr: it would double the size of the message. No retry: inside a batch it would hide a failure.
    args = [job.model_dump(mode="json", exclude_none=True)]
    app.send_task(task, args=args, queue=queue, producer=producer, retry=False, argsrepr="", kwargsrepr="")


def queue_names(profile: str) -> list[str]:
    """Return the queues that a worker of this profile consumes."""
    return [*(keys.queue_pages(queue, profile) for queue in Priority), keys.QUEUE_ASSEMBLY]
