"""A stage for integration tests: a real Valkey, a local store, real worker processes with an engine of the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ocrfleet import keys
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Faults, Ledger
from ocrfleet.errors import TransientError
from ocrfleet.profiles.profile import Profile, resolve
from ocrfleet.records.documents import Status
from ocrfleet.records.pages import PageResult
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import SubmissionOptions
from ocrfleet.settings import Settings
from ocrfleet.storage.open import open_store
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep
from producer.intake.discover import Candidate
from producer.intake.inspect import Intake
from producer.intake.register import Registered, Registration
from producer.state.backlog import Backlog
from tests.support.fakes.numbered import write_book
from tests.support.servers import FAKES, Valkey
from tests.support.waiting import scaled, until

ENGINE = "numbered:NumberedEngine"


class Stage:
    def __init__(
        self,
        folder: Path,
        valkey: Valkey,
        *,
        engine: str = ENGINE,
        profile: Profile | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.valkey = valkey
        known: dict[str, Any] = {"store": str(folder / "store"), "cache": folder / "cache", "lease_seconds": scaled(3)}
        self.settings = Settings(redis_url=valkey.url, **known | settings)
        self.store = open_store(self.settings)
        self.ledger = Ledger(valkey.url)
        self.app = make_app(self.settings)
        self.profile = profile or resolve(engine)
        self.intake = Intake(self.settings, self.store)
        self.plan: dict[str, object] = {"log": str(folder / "recognised.log"), "overlaps": str(folder / "overlaps.log")}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.dispatcher = self.new_dispatcher()
        self.sweep = Sweep(self.dispatcher, self.store, self.ledger, self.app)
        self._swept = 0.0

    def new_dispatcher(self) -> Dispatcher:
        return Dispatcher(self.store, self.ledger, self.app, backlog=Backlog(self.ledger, self.settings).limit)

    def register(
        self,
        name: str,
        numbers: list[int],
        *,
        queue: Priority = Priority.BULK,
        collection: str = "all",
        retry_failed: bool = False,
        pages_per_job: int = 1,
    ) -> Registered:
        path = self.folder / f"{name}.tif"
        if not path.exists():
            write_book(path, numbers)
        registrar = Registration(
            self.store,
            self.intake,
            profile=self.profile.model_copy(update={"pages_per_job": pages_per_job}),
            terms=SubmissionOptions(profile_digest=self.profile.digest, queue=queue, collection=collection),
            retry_failed=retry_failed,
            ledger=self.ledger,
        )
        return registrar.register(Candidate(name, (path,)))

    def start_worker(self, profile: Profile | None = None, **environ: str) -> subprocess.Popen[bytes]:
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps(self.plan))
        environment = {
            **os.environ,
            "PYTHONPATH": str(FAKES),
            "OCRFLEET_TEST_PLAN": str(plan),
            "OCRFLEET_PROFILE": (profile or self.profile).model_dump_json(),
            "OCRFLEET_REDIS_URL": self.valkey.url,
            "OCRFLEET_STORE": str(self.settings.store),
            "OCRFLEET_CACHE": str(self.settings.cache),
            "OCRFLEET_LEASE_SECONDS": str(self.settings.lease_seconds),
            "OCRFLEET_JOB_DEADLINE": str(self.settings.job_deadline),
            **({"OCRFLEET_PAGE_DEADLINE": str(self.settings.page_deadline)} if self.settings.page_deadline else {}),
            **environ,
        }
        log = (self.folder / f"worker-{len(self.workers)}.log").open("ab")
        with log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                env=environment,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def keep_workers(self, number: int) -> None:
        """Supervise: start workers up to the given number."""
        for _ in range(number - sum(worker.poll() is None for worker in self.workers)):
            self.start_worker()

    def finish(self, *registered: Registered, workers: int = 0, seconds: float = 90) -> list[Status]:
        """Dispatch and sweep, as a producer process does, until the documents have ended; return their statuses."""
        wanted = [keys.status(item.document, item.generation) for item in registered]

        def produce() -> None:
            if workers:
                self.keep_workers(workers)
            self.tick()

        until(
            lambda: all(self.store.exists(key) for key in wanted),
            seconds=seconds,
            meanwhile=produce,
            otherwise=self.logs,
        )
        return [Status.from_bytes(self.store.get(key)) for key in wanted]

    def tick(self) -> None:
        with suppress(TransientError):
            self.dispatcher.tick()
            if time.monotonic() - self._swept > 1.0:
                self._swept = time.monotonic()
                self.sweep.run()

    def await_(self, condition: Callable[[], object], seconds: float = 30) -> None:
        until(condition, seconds=seconds, pause=0.02, meanwhile=self.tick, otherwise=self.logs)

    def recognised(self) -> list[int]:
        """The page numbers that the engines received, in order."""
        log = self.folder / "recognised.log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def overlaps(self) -> int:
        """How often an engine got a page while another was in progress."""
        log = self.folder / "overlaps.log"
        return len(log.read_text().split()) if log.exists() else 0

    def stored(self, item: Registered) -> list[str]:
        return [key.rpartition("/")[2] for key in self.store.list(keys.pages(item.document))]

    def result(self, item: Registered, page: int) -> PageResult:
        return PageResult.from_bytes(self.store.get(keys.page_done(item.document, page)))

    def text(self, item: Registered, page: int) -> str:
        return self.result(item, page).text

    def faults(self, item: Registered) -> dict[int, Faults]:
        """Faults of each page, as a worker that takes it now would get them."""
        return {
            page: self.ledger.inspect(item.document, item.generation, page, worker="nobody")
            for page in range(1, item.total + 1)
        }

    def leased(self) -> set[tuple[str, int]]:
        """The pages of the leased messages."""
        jobs, _ = MessageInspector(self.valkey.client).jobs([])
        return {(job.document, page) for job in jobs for page in range(job.first, job.last + 1)}

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("worker-*.log")))

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        self.intake.close()
        self.app.close()
