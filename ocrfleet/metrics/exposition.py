"""Exposition of metrics: those of the process, of its children, and measured gauges, on one page."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.definitions import ObservedGauge

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Values of a gauge by its label values, in the order of the labels.
Values = Mapping[tuple[str, ...], float]

#: prometheus_client reads this at import, and then keeps each value in files that another process can read.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
#: vLLM's own metrics get a label for the worker, as their gauges can't be summed (the share of a cache in use).
_FOREIGN = "vllm:"
#: Attempts to read files that a process is just creating, and seconds between two.
_TRIES, _PAUSE = 5, 0.02
#: Seconds after which a silent client is disconnected, and connections at the same time.
_TIMEOUT, _AT_ONCE = 10, 16
_OK = "200 OK", "application/json", b'{"status":"ok"}'


def read_by_others() -> bool:
    """Return whether the metrics of this process are exposed by its parent."""
    return _FOLDER in os.environ


class ObservedGauges(Collector):
    """Gauges whose values are replaced together; without any before the first time."""

    def __init__(self) -> None:
        self._seen: Mapping[ObservedGauge, Values] = {}

    def replace(self, seen: Mapping[ObservedGauge, Values]) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        for observed, values in self._seen.items():
            family = GaugeMetricFamily(observed.name, observed.documentation, labels=observed.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


class ChildMetrics(Collector):
    """Metrics of child processes, each of which writes them to a folder of its own.

    Counters of a dead process are kept, since a counter that decreases would be read as a restart. Its gauges are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._departed: Sequence[Metric] = ()

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment variables with which a child writes its metrics for this process."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return {_FOLDER: str(folder)}

    def record_exit(self, name: str) -> None:
        """Record the exit of a child: keep its counters, and empty its folder for the next process of this name."""
        folder = self._folder / name
        if not folder.is_dir():
            return
        with self._lock:
            try:
                counted = [family for family in _written(folder) if family.type != "gauge"]
            except (OSError, ValueError, RuntimeError) as error:
                log.warning("metrics.files_not_readable", process=name, error=str(error))
                counted = []
            self._departed = _added_up([*self._departed, *counted])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
            families = [*self._departed, *(family for folder in folders for family in _written(folder))]
        yield from families


class Exposition(Collector):
    """All metrics that a process exposes, with the fleet as a label.

    Collectors may be added at any time; samples with equal labels are summed.
    """

    def __init__(self, settings: Settings) -> None:
        disable_created_metrics()
        self._fleet = fleet_of(settings)
        metrics.BUILD_INFO.labels(version("ocrfleet")).set(1)
        price = ObservedGauges()
        if settings.price_per_gpu_hour is not None:
            price.replace({metrics.PRICE: {(): settings.price_per_gpu_hour}})
        self._collectors: list[Collector] = [REGISTRY, price]

    def add(self, collector: Collector) -> None:
        self._collectors.append(collector)

    def collect(self) -> Iterable[Metric]:
        families = _added_up(family for collector in list(self._collectors) for family in collector.collect())
        return [_labelled(family, "fleet", self._fleet) for family in families]

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self)


def fleet_of(settings: Settings) -> str:
    """Return the name of the fleet: as it is set, else bucket and prefix of the store, or the path of its folder."""
    if settings.fleet is not None:
        return settings.fleet
    scheme, separator, place = settings.store.partition("://")
    if scheme == "s3" and separator:
        return place.strip("/")
    return str(Path(settings.store).absolute())


@contextmanager
def served(
    exposition: Exposition, settings: Settings, *, missing: Callable[[], Sequence[str]] | None = None
) -> Iterator[None]:
    """Serve /metrics and /healthz at OCRFLEET_METRICS_HOST:OCRFLEET_METRICS_PORT until the block ends, if a port is set.

    `missing` returns the names of what can't be reached: with it there is /readyz as well. Raises ConfigurationError when the
    port can't be used.
    """
    if settings.metrics_port is None:
        yield
        return
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = make_server(host, port, _app(exposition, missing), _server(host), _Handler)
    except OSError as error:
        raise ConfigurationError(
            f"OCRFLEET_METRICS_HOST {host}, OCRFLEET_METRICS_PORT {port}: can't be listened on ({error.strerror})"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info("metrics.served", host=host, port=port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _app(exposition: Exposition, missing: Callable[[], Sequence[str]] | None) -> WSGIApplication:
    def ready() -> tuple[str, str, bytes]:
        away = missing() if missing is not None else ()
        if away:
            return "503 Service Unavailable", "text/plain", f"no response from {' and '.join(away)}\n".encode()
        return _OK

    pages: dict[str, Callable[[], tuple[str, str, bytes]]] = {
        "/metrics": lambda: ("200 OK", CONTENT_TYPE_LATEST, exposition.page()),
        "/healthz": lambda: _OK,
    }
    if missing is not None:
        pages["/readyz"] = ready

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "GET" else None
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [f"GET {', '.join(pages)} is all there is.\n".encode()]
        status, media, body = page()
        start_response(status, [("Content-Type", media)])
        return [body]

    return answer


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves several connections at once, and closes those beyond the limit."""

    daemon_threads = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class _MetricsServer6(_MetricsServer):
    address_family = socket.AF_INET6


def _server(host: str) -> type[_MetricsServer]:
    return _MetricsServer6 if ":" in host else _MetricsServer


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Log nothing: scrapes come every few seconds."""


def _written(folder: Path) -> list[Metric]:
    """Return the metrics that processes have written to a folder. Raises OSError, ValueError, RuntimeError."""
    for number in range(_TRIES):
        try:
            families = list(MultiProcessCollector(None, path=str(folder)).collect())
        except Exception as error:
            # A file that is just being created has no header yet. Leaving it out would be worse than an error: its counters
            # would seem to be reset.
            if number == _TRIES - 1:
                raise RuntimeError(f"the metrics in {folder} can't be read ({error})") from error
            time.sleep(_PAUSE)
        else:
            return [
                _labelled(family, "worker", folder.name) if family.name.startswith(_FOREIGN) else family
                for family in families
            ]
    return []


def _labelled(family: Metric, label: str, value: str) -> Metric:
    family.samples = [sample._replace(labels={**sample.labels, label: value}) for sample in family.samples]
    return family


def _added_up(families: Iterable[Metric]) -> list[Metric]:
    """Return families with distinct names and samples with distinct labels: equal ones are summed."""
    found: dict[str, tuple[Metric, dict[tuple[str, frozenset[tuple[str, str]]], float]]] = {}
    for family in families:
        _, values = found.setdefault(family.name, (Metric(family.name, family.documentation, family.type), {}))
        for sample in family.samples:
            at = sample.name, frozenset(sample.labels.items())
            values[at] = values.get(at, 0.0) + sample.value
    for family, values in found.values():
        for (name, labels), value in values.items():
            family.add_sample(name, dict(sorted(labels)), value)
    return [family for family, _ in found.values()]
