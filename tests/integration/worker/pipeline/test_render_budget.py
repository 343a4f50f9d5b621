"""A document whose pages can't be drawn in time costs its budget, not a rendering for each of its pages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pymupdf

from ocrfleet.errors import Reason
from ocrfleet.records.documents import DocumentStatus
from producer.documents.service import DocumentService
from tests.support.servers import Valkey
from tests.support.stage import Stage
from worker.pipeline.render_budget import allowed

_PAGES, _LEVELS = 60, 9


def write_nested_forms(path: Path) -> None:
    """Write a small PDF whose pages draw a form that draws ten others, each of which does the same, for hours."""
    with pymupdf.open() as document:
        inner = 0
        for level in range(_LEVELS):
            form = document.get_new_xref()
            resources = f"/Resources<</XObject<</F {inner} 0 R>>>>" if level else ""
            document.update_object(form, f"<</Type/XObject/Subtype/Form/BBox[0 0 200 200]{resources}>>")
            document.update_stream(form, b"/F Do " * 10 if level else b"0 0 100 100 re f ", new=True)
            inner = form
        for _ in range(_PAGES):
            page = document.new_page(width=200, height=200)
            content = document.get_new_xref()
            document.update_object(content, "<<>>")
            document.update_stream(content, b"/F Do", new=True)
            document.xref_set_key(page.xref, "Contents", f"{content} 0 R")
            document.xref_set_key(page.xref, "Resources", f"<</XObject<</F {inner} 0 R>>>>")
        document.save(path)


def test_the_budget_grows_with_the_pages() -> None:
    assert [allowed(pages) for pages in (1, 200, 201, 20_000)] == [10, 10, 11, 1000]


def test_after_so_many_late_renderings_the_other_pages_fail_at_once(tmp_path: Path, valkey: Valkey) -> None:
    # Given a document of pages that can't be drawn in time
    stage = Stage(tmp_path, valkey)
    write_nested_forms(tmp_path / "forms.tif")
    book = stage.register("forms", [], pages_per_job=20)
    stage.start_worker(OCRFLEET_RENDER_DEADLINE="0.1", OCRFLEET_RENDERERS="1")

    # When it is read
    (status,) = stage.finish(book)

    # Then few renderings were waited for, and every page has a reason
    assert (status.status, status.total, len(status.failures)) == (DocumentStatus.FAILED, _PAGES, _PAGES)
    reasons = Counter(failure.reason for failure in status.failures)
    assert set(reasons) == {Reason.RENDER_DEADLINE, Reason.RENDER_BUDGET}
    assert reasons[Reason.RENDER_BUDGET] >= _PAGES - allowed(_PAGES) - 2
    (detail,) = {failure.detail for failure in status.failures if failure.reason is Reason.RENDER_BUDGET}
    assert detail.startswith("not tried: 10 renderings of this document took longer than 0.1 s")

    # And a retry begins with a full budget
    service = DocumentService(stage.store, stage.ledger, stage.settings)
    retried = service.retry(book.document)
    assert retried.opened
    assert stage.ledger.inspect(book.document, 2, 1, worker="nobody").late_renderings == 0
    stage.await_(lambda: stage.ledger.inspect(book.document, 2, 1, worker="nobody").late_renderings)
    service.close()
    stage.close()
