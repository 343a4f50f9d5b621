"""Routed pages end for all combinations of retry steps and served profiles."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import RAPIDOCR, Profile, RetryStep
from ocrfleet.records.documents import Manifest
from ocrfleet.records.messages import PageJob, Routed
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.records.priority import Priority
from ocrfleet.records.workers import WorkerState
from ocrfleet.settings import Settings
from ocrfleet.storage.open import open_store
from tests.support.servers import Valkey
from worker.engines.base import Engine
from worker.pipeline import reader
from worker.pipeline.attempt import page_result
from worker.pipeline.context import WorkerContext
from worker.pipeline.errors import RoutedError
from worker.pipeline.page import Page
from worker.pipeline.reader import PageReader
from worker.rendering.pool import RenderPool

NAMES = ("home", "a", "b", "c")
DOCUMENT = "0" * 32


class Fleet:
    """Workers of some profiles in this process, with engines that return empty texts."""

    def __init__(self, folder: Path, valkey: Valkey, profiles: list[Profile]) -> None:
        self.settings = Settings(redis_url=valkey.url, store=str(folder / "store"))
        self.store = open_store(self.settings)
        self.ledger = Ledger(valkey.url)
        self.profiles = {profile.name: profile for profile in profiles}
        home = self.profiles["home"]
        self.manifest = Manifest(
            document=DOCUMENT,
            created="20261130T000000.000000Z",
            profile=home.name,
            profile_digest=home.digest,
            selection=((1, 1),),
        )
        self.store.put(keys.manifest(DOCUMENT), self.manifest.to_bytes())
        self.ledger.seed(DOCUMENT, 1, total=1, done=[], failed=[])

    def serve(self, *names: str) -> None:
        for name, profile in self.profiles.items():
            if name in names:
                state = WorkerState(worker=name, profile=name, profile_digest=profile.digest)
                self.ledger.heartbeat(state, 300)
            else:
                self.ledger.leave(name)

    def work(self, routed: Routed | None) -> Routed | None:
        """Let a new worker have the page; return where it sends the page, None when the page has its record."""
        profile = self.profiles["home" if routed is None else routed.profile]
        context = WorkerContext(
            worker=profile.name,
            settings=self.settings,
            profile=profile,
            engine=cast("Engine", SimpleNamespace(version="1")),
            renderers=cast("RenderPool", None),
            store=self.store,
            sources=cast("Any", None),
            ledger=self.ledger,
        )
        job = PageJob(document=DOCUMENT, generation=1, queue=Priority.BULK, first=1, last=1, routed=routed)
        faults = self.ledger.inspect(DOCUMENT, 1, 1, worker=profile.name)
        sent_on = dict(routed.sent_on or {}) if routed is not None else {}
        page = Page(job, self.manifest, 1, faults, [], sent_on)
        try:
            asyncio.run(PageReader(context).process(page))
        except RoutedError as error:
            return error.routed
        finally:
            context.store_retry.close()
            context.source_threads.shutdown()
        return None

    @property
    def ended(self) -> bool:
        return self.store.exists(keys.page_failed(DOCUMENT, 1, 1))


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace attempts by ones whose text is empty; return profile and rung of each."""
    made: list[tuple[str, int]] = []

    class EmptyAttempts:
        def __init__(self, context: WorkerContext, _router: object) -> None:
            self._context = context

        async def make(self, page: Page, step: Any) -> PageResult:
            made.append((self._context.profile.name, step.number))
            fields = {"page": page.number, "reason": Reason.EMPTY, "detail": "nothing", "rung": step.rung}
            return page_result(self._context, step.profile, PageStatus.FAILED, **fields)

    monkeypatch.setattr(reader, "Attempts", EmptyAttempts)
    return made


def any_profiles(seed: int) -> list[Profile]:
    """Return profiles whose retry steps name each other, and themselves, at random."""
    draw = random.Random(seed)  # noqa: S311
    steps = [RetryStep(temperature=0.5), *(RetryStep(profile=name) for name in NAMES)]
    return [
        RAPIDOCR.model_copy(
            update={"name": name, "revision": name, "ladder": tuple(draw.choices(steps, k=draw.randint(0, 4)))}
        )
        for name in NAMES
    ]


@pytest.mark.parametrize("seed", range(30))
def test_a_page_passes_each_profile_once_at_most(
    tmp_path: Path, valkey: Valkey, blind: list[tuple[str, int]], seed: int
) -> None:
    # Given profiles that send pages to each other in any way
    fleet = Fleet(tmp_path, valkey, any_profiles(seed))
    fleet.serve(*NAMES)
    # When a page is read that no engine sees anything on
    visits, routed = ["home"], fleet.work(None)
    while routed is not None:
        visits.append(routed.profile)
        routed = fleet.work(routed)
    # Then it comes to each of them once at most, to each way to read it once, and ends
    assert len(set(visits)) == len(visits)
    assert len(set(blind)) == len(blind)
    assert fleet.ended


@pytest.mark.parametrize("seed", range(30))
def test_a_page_between_profiles_with_changing_workers_ends_after_limited_attempts(
    tmp_path: Path, valkey: Valkey, blind: list[tuple[str, int]], seed: int
) -> None:
    # Given the same, where profiles are served or not as it happens, and messages are lost
    fleet, draw = Fleet(tmp_path, valkey, any_profiles(seed)), random.Random(seed)  # noqa: S311
    routed: Routed | None = None
    for _ in range(40):
        fleet.serve("home", *(name for name in NAMES if draw.random() < 0.7))
        if routed is not None and draw.random() < 0.3:
            routed = None  # the sweep publishes it at home
        routed = fleet.work(routed)
        if fleet.ended:
            break
    # When all is quiet again
    fleet.serve(*NAMES)
    for _ in itertools.takewhile(lambda _: not fleet.ended, range(len(NAMES) * 2)):
        routed = fleet.work(routed)
    # Then it ends, with its own profile's ways tried once each
    assert fleet.ended
    assert len(at_home := [step for name, step in blind if name == "home"]) == len(set(at_home))
