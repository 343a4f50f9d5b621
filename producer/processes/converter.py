"""Converter: writes ended documents in further formats, in child processes (worker/convert.py)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ocrfleet.errors import NotFoundError, TransientError
from ocrfleet.formats import FORMATS, FormatName
from ocrfleet.records.conversions import ConversionAnswer, ConversionRequest
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.storage.outputs import Outputs, outputs_of
from producer.processes.line_process import LineProcess

if TYPE_CHECKING:
    from ocrfleet.records.documents import Status
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore


class Converter:
    """Converts up to `processes` documents of a store at the same time. Thread-safe. `close` ends its processes.

    Starts a process at first use. `environment` has the OCRFLEET_* settings, including those of the store. Logs are appended to
    `log_file`, or written to stderr.
    """

    def __init__(
        self, store: ObjectStore, environment: Mapping[str, str], *, processes: int, log_file: Path | None = None
    ) -> None:
        self._store = store
        self._environment = environment
        self._log_file = log_file
        # A child is killed when the thread that started it ends, so each thread has its own child.
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="converter")
        self._own = threading.local()
        self._children: list[LineProcess] = []
        self._begun: dict[tuple[str, int, tuple[str, ...]], Future[Outputs]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of_fleet(cls, settings: Settings, store: ObjectStore, *, processes: int, log_file: Path | None = None) -> Self:
        """Return a converter for the store of the fleet, with the environment and the password file of this process."""
        environment = {**os.environ, "OCRFLEET_STORE": settings.store}
        if settings.password_file is not None:
            environment["OCRFLEET_PASSWORD_FILE"] = str(settings.password_file.absolute())
        return cls(store, environment, processes=processes, log_file=log_file)

    def close(self) -> None:
        """End the processes after their current conversions."""
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.close()

    def outputs(self, status: Status, formats: Iterable[str]) -> Outputs:
        """Return the outputs of a document in these formats; convert missing ones first.

        Raises NotFoundError if the document or its page records were removed, TransientError if a process died or the store is
        unreachable, ConfigurationError if a process is misconfigured.
        """
        return self.begin(status, formats).result()

    def begin(self, status: Status, formats: Iterable[str], *, retry_refused: bool = False) -> Future[Outputs]:
        """Start to convert missing outputs; return the future of all outputs. Equal calls share one conversion."""
        formats = tuple(formats)
        there = outputs_of(self._store, status, formats)
        if retry_refused:
            there = Outputs(there.made)
        missing = tuple(FormatName(name) for name in there.missing(formats) if name in FORMATS)
        if not missing or status.status is DocumentStatus.CANCELLED:
            done: Future[Outputs] = Future()
            done.set_result(there)
            return done
        task = (status.document, status.generation, formats)
        with self._lock:
            begun = self._begun.get(task)
            if begun is None or begun.done():
                begun = self._begun[task] = self._threads.submit(self._convert, status, missing, there)
                begun.add_done_callback(lambda _: self._begun.pop(task, None))
            return begun

    def _convert(self, status: Status, missing: tuple[FormatName, ...], there: Outputs) -> Outputs:
        request = ConversionRequest(document=status.document, generation=status.generation, formats=missing)
        answer = self._ask(request)
        if answer.gone is not None:
            raise NotFoundError(answer.gone)
        if answer.error is not None:
            raise TransientError(f"document {status.document} can't be converted now: {answer.error}")
        return Outputs(there.made | answer.made, there.refused | answer.refused)

    def _ask(self, request: ConversionRequest) -> ConversionAnswer:
        child = self._child()
        line = child.ask(request.to_bytes())
        if line is None:
            raise TransientError(
                f"the process that converted document {request.document} ended with {child.exit_code}: see its log"
            )
        return ConversionAnswer.from_bytes(line)

    def _child(self) -> LineProcess:
        """Return the child process of this thread."""
        child: LineProcess | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = LineProcess("worker.convert", self._environment, log_file=self._log_file)
            with self._lock:
                self._children.append(child)
        return child
