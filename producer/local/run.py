"""`ocrfleet run`: reads a folder of scans on this machine, through an embedded queue and without a server.

Three things go on at once: a thread takes in and registers the inputs; the main loop dispatches, sweeps, watches over
the processes and delivers what has ended; the workers work. All that must survive is in the store.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from ocrfleet import keys
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError, DamagedRecordError, NotFoundError, TransientError
from ocrfleet.formats import DEFAULT_FORMATS, FormatName, stored_formats
from ocrfleet.markdown.style import AS_STORED, Style
from ocrfleet.records.base import digest_of
from ocrfleet.records.documents import DocumentStatus, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import SubmissionOptions
from ocrfleet.storage.outputs import Outputs, outputs_of
from ocrfleet.storage.store import FolderStore
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep
from producer.delivery.delivered_files import STATE_FOLDER
from producer.delivery.earlier_outputs import DocumentsByName
from producer.delivery.to_folder import deliver
from producer.errors import DeliveryError, UsageError
from producer.intake.discover import Candidate, Skipped, discover
from producer.intake.inspect import Intake
from producer.intake.page_ranges import Selection
from producer.intake.register import Registered, Registration
from producer.local.embedded_fleet import EmbeddedFleet
from producer.local.progress import Ended, Report, Tally
from producer.processes.converter import Converter
from producer.state.backlog import Backlog

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from producer.state.active import ActiveDocument

log = structlog.get_logger(__name__)

#: Seconds between two rounds of the main loop, and between two inspections of the sweep: one machine, a short backlog.
_ROUND = 0.25
_SWEEP = 3.0
#: Backlog limit in pages for each worker: minutes of work, and a short queue. How many pages other engines read at once is not
#: known.
_BACKLOG = {"rapidocr": 32, "tesseract": 32, "openai": 256}
_LONGEST_BACKLOG = 1024
#: Seconds of a lease, unless OCRFLEET_LEASE_SECONDS is set: short, so that the pages of a dead worker are read again soon.
_LEASE = 10.0
#: Seconds that workers get for the pages in flight when the run is interrupted, unless OCRFLEET_DRAIN_SECONDS is set; and
#: seconds more before they are killed, in which they give back the other pages.
_DRAIN, _END = 10.0, 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """The options of a run."""

    inputs: tuple[Path, ...]
    output: Path
    profile: Profile
    selection: Selection = ()
    group_folders: bool = False
    retry_failed: bool = False
    workers: int = 1
    #: return the states of the workers after the last page
    measured: bool = False
    #: of the delivered Markdown; the stored text does not depend on it
    style: Style = AS_STORED
    formats: tuple[FormatName, ...] = DEFAULT_FORMATS

    @property
    def state(self) -> Path:
        return self.output / STATE_FOLDER

    @property
    def collection(self) -> str:
        """The same for the same order, so that a second run resumes the first."""
        asked = [str(path.absolute()) for path in self.inputs]
        return "run-" + digest_of(*asked, str(self.selection), str(self.group_folders), self.profile.digest)[:16]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A document that has ended, the names that want it, and its outputs, which may still be made."""

    status: Status
    names: Sequence[str]
    outputs: Future[Outputs]


class AlreadyRunningError(UsageError):
    """Another run works on the same output folder."""


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Lock the output folder. The kernel releases the lock when this process ends. Raises AlreadyRunningError."""
    state = output / STATE_FOLDER
    try:
        output.mkdir(parents=True, exist_ok=True)
        _make_private(state)
        (state / "logs").mkdir(exist_ok=True)
        fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = os.pread(fd, 32, 0).decode() or "unknown"
            raise AlreadyRunningError(f"another run (process {other}) is writing to {output}") from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except OSError as error:  # a full disk
            raise _unwritable(output, error) from error
        yield
    finally:
        os.close(fd)


def _make_private(state: Path) -> None:
    """Make the state folder, in which no other user may write or read. Raises UsageError, OSError."""
    with suppress(FileExistsError):
        state.mkdir(mode=0o700)
    status = state.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{state} is a link or a file, and no folder: remove it, or name another output folder")
    if status.st_uid == os.geteuid():
        state.chmod(0o700)
    elif status.st_mode & 0o022:
        raise UsageError(f"{state} is another user's, and others may write to it: name another output folder")


def _of_one_machine(settings: Settings, order: Order) -> Settings:
    """Return the settings of an embedded fleet: shorter times than a fleet's, unless they are set."""
    defaults = {
        "lease_seconds": _LEASE,
        "sweep_seconds": _SWEEP,
        "drain_seconds": _DRAIN,
        "backlog_pages": _BACKLOG.get(order.profile.engine, _LONGEST_BACKLOG) * order.workers,
    }
    used = {name: getattr(settings, name) if name in settings.model_fields_set else defaults[name] for name in defaults}
    log.info("run.settings", **used)
    return settings.model_copy(update={**used, "store": str((order.state / "store").absolute())})


def _unwritable(output: Path, error: OSError) -> UsageError:
    return UsageError(f"--output {output} can't be written: {error.strerror}")


class Run:
    """One run of an order. `interrupt` may be called from a signal handler."""

    def __init__(self, order: Order, settings: Settings) -> None:
        self._order = order
        self._store = FolderStore(order.state / "store")
        self._store.clear_temporary()
        self._named = DocumentsByName(self._store)
        self._settings = _of_one_machine(settings, order)
        self.report = Report(Tally())
        self._lock = threading.Lock()
        #: registered documents that are not delivered yet, with their names
        self._wanted: dict[str, tuple[Registered, list[str]]] = {}
        #: wanted documents that have ended
        self._ended: set[str] = set()
        #: documents that have ended, some of whose outputs are still being made
        self._converting: list[_Delivery] = []
        self._converter = Converter(
            self._store,
            {**os.environ, **self._environment()},
            processes=order.workers,
            log_file=order.state / "logs" / "converter.log",
        )
        #: pages that this run recognised, of documents that have ended and are not delivered yet
        self._fresh: dict[str, int] = {}
        #: every document of this run: its pages count once, however many names it has
        self._known: set[str] = set()
        #: documents that the dispatcher has not taken over yet
        self._newcomers: deque[str] = deque()
        self._adopted = False
        self._swept = time.monotonic()
        self._intake: Intake | None = None
        #: why intake can't register the next input yet
        self._intake_waits_for: str | None = None
        #: delivered documents
        self._totals = Tally()
        self._failure: BaseException | None = None

    def interrupt(self, number: int) -> None:
        """Stop soon: begun pages are finished, all that is stored stays."""
        self.report.interrupted = number

    def run(self, progress: Callable[[Tally], None]) -> Report:
        """Run until every document has ended and is delivered, or until interrupted; then stop all processes.

        Raises UsageError when the inputs make no sense, FatalError when no worker can be started.
        """
        if len(self._order.inputs) > 1 or self._order.group_folders:
            # Names can clash: report that now and not after hours of work.
            for _ in self._discover():
                pass
        intake = threading.Thread(target=self._take_in, name="intake", daemon=True)
        begun = time.monotonic()
        with (
            closing(self._converter),
            EmbeddedFleet(
                state=self._order.state,
                workers=self._order.workers,
                profile=self._order.profile,
                environment=self._environment(),
                gpus_each=self._settings.vllm.tensor_parallel_size,
            ) as fleet,
        ):
            intake.start()
            settings = self._settings.model_copy(update={"redis_url": SecretStr(fleet.redis_url)})
            app = make_app(settings)
            ledger = Ledger(settings.redis_url.get_secret_value())
            dispatcher = Dispatcher(
                self._store,
                ledger,
                app,
                backlog=Backlog(ledger, settings).limit,
                collections=[self._order.collection],
            )
            sweep = Sweep(dispatcher, self._store, ledger, app)
            while self.report.interrupted is None and not self._finished(intake):
                fleet.watch()
                trouble = self._dispatch(dispatcher, sweep, fleet) or fleet.trouble() or self._intake_waits_for
                self.report.tally.note = f"waiting: {trouble}" if trouble else None
                self._deliver()
                self._count(dispatcher, time.monotonic() - begun)
                progress(self.report.tally)
                time.sleep(_ROUND)
            if self._order.measured:
                # Each worker has sent one more heartbeat by then (ocrfleet/broker/leases.py), also on a busy machine.
                time.sleep(self._settings.lease_seconds / 10 * 2)
                self.report.workers = ledger.workers()
            if self.report.interrupted is not None:
                self.report.tally.note = "stopping: begun pages are finished (again to stop at once)"
                progress(self.report.tally)
                if self._intake is not None:
                    self._intake.close()
                fleet.stop(grace=self._settings.drain_seconds + _END)
            app.close()
        if self._failure is not None:
            raise self._failure
        return self.report

    def _environment(self) -> dict[str, str]:
        """Return the settings of the processes that this run starts."""
        environment = {
            "OCRFLEET_STORE": self._settings.store,
            "OCRFLEET_AUDIT": str(self._settings.audit),
            "OCRFLEET_LEASE_SECONDS": str(self._settings.lease_seconds),
            "OCRFLEET_DRAIN_SECONDS": str(self._settings.drain_seconds),
        }
        if self._settings.openai.base_url is not None:
            environment["OCRFLEET_OPENAI_BASE_URL"] = self._settings.openai.base_url.get_secret_value()
        if self._settings.password_file is not None:
            environment["OCRFLEET_PASSWORD_FILE"] = str(self._settings.password_file.absolute())
        return environment

    def _discover(self) -> Iterator[Candidate | Skipped]:
        return discover(self._order.inputs, group_folders=self._order.group_folders, leave_out=self._order.output)

    def _take_in(self) -> None:
        """Register the inputs, one after the other, while the first of them are being read."""
        intake = self._intake = Intake(self._settings, self._store)
        registration = Registration(
            self._store,
            intake,
            profile=self._order.profile,
            terms=SubmissionOptions(
                profile_digest=self._order.profile.digest,
                queue=Priority.BULK,
                collection=self._order.collection,
                selection=tuple(self._order.selection),
                formats=stored_formats(self._order.formats),
            ),
            retry_failed=self._order.retry_failed,
        )
        try:
            for item in self._discover():
                if self.report.interrupted is not None:
                    return
                if isinstance(item, Skipped):
                    self.report.skipped.append(item)
                else:
                    self._register(registration, item)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            if self.report.interrupted is None:  # otherwise the error comes from closing the intake
                self._failure = error
        finally:
            intake.close()
            self.report.tally.discovering = False

    def _register(self, registration: Registration, candidate: Candidate) -> None:
        """Register a candidate, again and again while the store is full or away, until the run is interrupted."""
        while self.report.interrupted is None:
            try:
                self._want(registration.register(candidate))
            except TransientError as error:
                log.warning("run.registration_waits", error=str(error))
                self._intake_waits_for = str(error)
                time.sleep(1)
            except DamagedRecordError as error:
                advice = f"{error}; delete {self._order.state} to have everything read again"
                self.report.tally.documents += 1
                self._totals.documents_ended += 1
                self.report.ended.append(
                    _undelivered(Registered(candidate.name, "", 0, 0, ended=True), candidate.name, advice)
                )
                return
            else:
                self._intake_waits_for = None
                return

    def _want(self, registered: Registered) -> None:
        with self._lock:
            self.report.tally.documents += 1
            if registered.document in self._wanted:
                self._wanted[registered.document][1].append(registered.name)
            else:
                self._wanted[registered.document] = (registered, [registered.name])
                self._newcomers.append(registered.document)
                if registered.document not in self._known:
                    self._totals.pages += registered.total
        # The store is read after the document was noted: if it ends meanwhile, this or the dispatcher finds that.
        if registered.ended or self._store.exists(keys.status(registered.document, registered.generation)):
            with self._lock:
                self._ended.add(registered.document)

    def _dispatch(self, dispatcher: Dispatcher, sweep: Sweep, fleet: EmbeddedFleet) -> str | None:
        """Do one round of dispatching and, from time to time, of sweeping; return why it must wait, if it must."""
        try:
            if not self._adopted:
                dispatcher.adopt()
                self._adopted = True
            while self._newcomers:  # an earlier run with other inputs may have left them active
                dispatcher.want(self._newcomers[0])
                self._newcomers.popleft()
            self._note(dispatcher.tick())
            if dispatcher.active:
                fleet.start_workers()
            if time.monotonic() - self._swept > self._settings.sweep_seconds:
                sweep.run()
                self._swept = time.monotonic()
        except TransientError as error:  # an embedded Valkey that died is being restarted; a full disk may pass
            log.warning("run.dispatch_waits", error=str(error))
            return str(error)
        return None

    def _note(self, ended: Sequence[ActiveDocument]) -> None:
        with self._lock:
            for active in ended:
                self._fresh[active.document] = active.manifest.total - active.stored
                wanted = self._wanted.get(active.document)
                if wanted is not None and wanted[0].generation == active.generation:
                    self._ended.add(active.document)

    def _finished(self, intake: threading.Thread) -> bool:
        return self._failure is not None or not (intake.is_alive() or self._wanted or self._converting)

    def _deliver(self) -> None:
        """Deliver the outputs of the documents that have ended, under all of their names."""
        with self._lock:
            # Intake and dispatcher may both have found that it ended, one of them after its delivery.
            ready = [self._wanted.pop(document) for document in sorted(self._ended & self._wanted.keys())]
            self._ended.clear()
        for registered, names in ready:
            try:
                status = Status.from_bytes(self._store.get(keys.status(registered.document, registered.generation)))
            except (NotFoundError, DamagedRecordError) as error:
                self._totals.documents_ended += len(names)
                advice = f"{error}; delete {self._order.state} to have everything read again"
                self.report.ended += [_undelivered(registered, name, advice) for name in names]
                continue
            begun = self._converter.begin(status, self._order.formats)
            self._converting.append(_Delivery(status, names, begun))
        done = [delivery for delivery in self._converting if delivery.outputs.done()]
        self._converting = [delivery for delivery in self._converting if not delivery.outputs.done()]
        for delivery in done:
            self._deliver_document(delivery)

    def _deliver_document(self, delivery: _Delivery) -> None:
        """Write the outputs of one document to its names."""
        status, total = delivery.status, self._totals
        total.documents_ended += len(delivery.names)
        problems: list[str] = []
        try:
            outputs = delivery.outputs.result()
        except (NotFoundError, TransientError, ConfigurationError) as error:
            problems.append(str(error))
            outputs = outputs_of(self._store, status, self._order.formats)
        problems += [f"{name}: {detail}" for name, detail in outputs.refused.items()]
        for name in delivery.names:
            self.report.ended.append(self._deliver_to(name, status, outputs, problems))
        if status.document not in self._known:
            self._known.add(status.document)
            total.done += status.done
            total.failed += len(status.failures)
            total.reused += status.total - self._fresh.pop(status.document, 0)

    def _deliver_to(self, name: str, status: Status, outputs: Outputs, problems: Sequence[str]) -> Ended:
        """Deliver under one name. A failure (a name that is too long, a full disk) is reported and affects no other."""
        failures: list[tuple[int | None, str, str]] = [
            (failure.page, failure.reason, failure.detail) for failure in status.failures
        ]
        if status.problem is not None:
            failures.append((None, status.problem.reason, status.problem.detail))
        failures += [(None, "not_written", problem) for problem in problems]
        files: list[Path] = []
        try:
            files = deliver(
                self._store,
                status,
                name=name,
                folder=self._order.output,
                outputs=outputs.made,
                style=self._order.style,
                named=self._named,
            )
        except DeliveryError as error:
            failures.append((None, "not_delivered", str(error)))
        return Ended(
            name=name,
            document=status.document,
            status=status.status,
            total=status.total,
            done=status.done,
            text_layer=status.text_layer,
            warnings=status.warnings,
            review=status.review,
            failures=tuple(failures),
            files=tuple(files),
        )

    def _count(self, dispatcher: Dispatcher, seconds: float) -> None:
        """Update the counts: of delivered documents, and of the progress of the others."""
        total, tally = self._totals, self.report.tally
        tally.documents_ended, tally.pages, tally.reused = total.documents_ended, total.pages, total.reused
        tally.done, tally.failed = total.done, total.failed
        for active in dispatcher.active.values():
            if active.progress is not None and active.document in self._wanted:
                tally.failed += active.progress.failed
                tally.done += active.progress.terminal - active.progress.failed
                tally.reused += active.stored
        tally.measure(seconds, tally.done + tally.failed - tally.reused)


def _undelivered(registered: Registered, name: str, why: str) -> Ended:
    failure = (None, "not_delivered", why)
    return Ended(
        name=name,
        document=registered.document,
        status=DocumentStatus.FAILED,
        total=registered.total,
        done=0,
        text_layer=0,
        warnings={},
        review=(),
        failures=(failure,),
        files=(),
    )
