"""A page that is suspected of killing workers: it is blamed alone only while it is the only page in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ocrfleet.broker.ledger import Faults, Ledger
from ocrfleet.errors import FatalError, PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import Manifest
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageStatus
from ocrfleet.records.priority import Priority
from ocrfleet.settings import Settings
from ocrfleet.storage.open import open_store
from tests.support.servers import Valkey
from worker.engines.base import Engine
from worker.pipeline.attempt import Attempts, page_result
from worker.pipeline.context import WorkerContext
from worker.pipeline.page import Page
from worker.pipeline.retry import Step
from worker.rendering.pool import RenderPool

DOCUMENT = "0" * 32


@pytest.mark.parametrize(
    ("end", "deaths"),
    [
        (None, (1, 0)),
        (PageFaultError(Reason.ENGINE_FAILED, "it said no"), (1, 0)),
        (PermanentError(Reason.UNREADABLE, "it is torn"), (1, 0)),
        (FatalError("the engine is gone"), (0, 1)),
    ],
    ids=["read", "fault", "unreadable", "worker broken"],
)
def test_a_death_while_its_record_is_stored_is_not_its_own(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, end: Exception | None, deaths: tuple[int, int]
) -> None:
    # Given a page with which two workers died, beside others
    settings = Settings(redis_url=valkey.url, store=str(tmp_path / "store"))
    ledger = Ledger(valkey.url)
    ledger.seed(DOCUMENT, 1, total=2, done=(), failed=())
    context = WorkerContext(
        worker="first",
        settings=settings,
        profile=RAPIDOCR,
        engine=cast("Engine", SimpleNamespace(version="1", concurrency=1, ahead=0)),
        renderers=cast("RenderPool", SimpleNamespace(size=1)),
        store=open_store(settings),
        sources=cast("Any", None),
        ledger=ledger,
    )
    manifest = Manifest(
        document=DOCUMENT,
        created="20261130T000000.000000Z",
        profile=RAPIDOCR.name,
        profile_digest=RAPIDOCR.digest,
        selection=((1, 2),),
    )
    job = PageJob(document=DOCUMENT, generation=1, queue=Priority.BULK, first=1, last=2)
    page = Page(job, manifest, 1, Faults(deaths=settings.suspect_deaths), [], {})
    attempts = Attempts(context, cast("Any", None))

    # When a worker reads it alone, and dies before its result or its fault is stored
    async def read(*_: object) -> Any:
        if end is not None:
            raise end
        return page_result(context, RAPIDOCR, PageStatus.DONE, page=1, text="read", rung=0)

    monkeypatch.setattr(attempts, "_read", read)
    step = cast("Step", SimpleNamespace(rung=0, number=0, profile=RAPIDOCR))
    try:
        if end is None:
            asyncio.run(attempts.make(page, step))
        else:
            with pytest.raises(type(end)):
                asyncio.run(attempts.make(page, step))
    finally:
        context.store_retry.close()
        context.source_threads.shutdown()

    # Then the death counts as one beside others, unless the worker died of this page
    found = ledger.inspect(DOCUMENT, 1, 1, worker="second")
    assert (found.deaths, found.deaths_alone) == deaths
