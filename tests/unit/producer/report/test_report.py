from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ocrfleet import keys
from ocrfleet.errors import Reason
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageResult, PageWarning, WarningCode
from ocrfleet.records.priority import Priority
from ocrfleet.records.runs import Attempt, RunRecord
from producer.cli.main import app
from producer.documents.views import State
from producer.errors import UsageError
from producer.report.csv_file import CsvReport
from producer.report.html_file import Content, ListedDocument, ShownPage, write_html
from producer.report.language import script_and_language
from producer.report.pages import Effort, Excluded, PageState, Reported, ReportedPage
from producer.report.summary import Summary
from producer.report.table import Table
from producer.report.worst import WorstPages
from tests.support.shelf import Shelf, page_result

HOSTILE = "</script><script>alert(1)</script><!--\u2028.pdf"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("OCRFLEET_STORE", str(tmp_path / "store"))
    return Shelf(tmp_path)


def replace(shelf: Shelf, document: str, page: int, **fields: Any) -> None:
    result = PageResult.model_validate(page_result(page).model_dump() | fields)
    shelf.store.put(keys.page_done(document, page), result.to_bytes())


def run_record(shelf: Shelf, document: str, *attempts: Attempt, finished: float = 60.0) -> None:
    pages = [attempt.page for attempt in attempts]
    job = PageJob(document=document, generation=1, queue=Priority.BULK, first=min(pages), last=max(pages))
    record = RunRecord(job=job, worker="w", finished=finished, attempts=attempts)
    shelf.store.put(keys.run_record(document, 1, job.first, f"{finished:.0f}"), record.to_bytes())


def reported(tmp_path: Path, *options: str) -> tuple[list[dict[str, str]], dict[str, Any], str]:
    """Make the report of the collection; return its CSV, its data, and its HTML."""
    arguments = ["report", "--collection", "c", "-o", str(tmp_path), "--worst", "0", *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "report.html").read_text()
    lines = io.StringIO((tmp_path / "report.csv").read_text())
    return list(csv.DictReader(lines)), data_of(html), html


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_page_is_counted_once_with_what_became_of_it(shelf: Shelf, tmp_path: Path) -> None:
    document = shelf.ended("torn.pdf", failed={2: Reason.TRUNCATED})
    torn = PageWarning(code=WarningCode.DATA_ENDED_EARLY, detail="the last third is missing")
    replace(shelf, document, 1, confidence=0.31, review=True, review_reason="it is faint", warnings=(torn,))
    replace(shelf, document, 3, blank=True, text="", confidence=1.0)
    run_record(shelf, document, Attempt(page=1, outcome="empty", recognise_seconds=2), finished=30)
    again = Attempt(page=1, outcome="done", rung=1, render_seconds=0.5, recognise_seconds=3, tokens=70)
    run_record(shelf, document, again, Attempt(page=2, outcome="truncated", tokens=900), finished=300)
    shelf.waiting("later.pdf")
    shelf.arrive("new.pdf")

    rows, data, _ = reported(tmp_path)

    assert [(row["source"], row["page"], row["status"]) for row in rows] == [
        *(("later.pdf", str(page), "open") for page in (1, 2, 3)),
        ("torn.pdf", "1", "done"),
        ("torn.pdf", "2", "failed"),
        ("torn.pdf", "3", "done"),
        ("new.pdf", "", "excluded"),
    ]
    first, second = rows[3], rows[4]
    assert (first["confidence"], first["review"], first["warnings"]) == ("0.310", "1", "data_ended_early")
    assert first["detail"] == "it is faint; the last third is missing"
    assert (first["attempts"], first["render_seconds"], first["recognise_seconds"]) == ("2", "0.500", "5.000")
    assert (second["reason"], second["tokens"], second["confidence"]) == ("truncated", "900", "")
    summary = data["summary"]
    assert summary["states"] == {"open": 3, "done": 2, "failed": 1}
    assert (summary["reasons"], summary["warnings"]) == ({"truncated": 1}, {"data_ended_early": 1})
    assert (summary["blank"], summary["review"], summary["warned"], summary["pages"]) == (1, 1, 1, 6)
    assert (summary["confidence"][6], summary["confidence"][-1]) == (1, 1)
    # Throughput: three pages ended in two minutes with work; the pause between them does not count
    assert (summary["ended_by_workers"], summary["working_seconds"]) == (3, 120.0)
    assert (summary["tokens"], summary["attempts"], summary["recognise_seconds"]) == (970, 3, 5.0)
    assert data["excluded"] == [["new.pdf", "s3://archive/new.pdf", "it waits for intake: its pages are not known yet"]]


def test_a_document_with_several_names_is_reported_once(shelf: Shelf, tmp_path: Path) -> None:
    manifest = shelf.manifest(pages=1)
    shelf.want(manifest, "a.pdf")
    shelf.want(manifest, "b.pdf")
    rows, data, _ = reported(tmp_path)
    assert [(row["source"], row["other_names"]) for row in rows] == [("a.pdf", "b.pdf")]
    assert data["summary"]["pages"] == 1


def test_purged_and_damaged_records_are_said(shelf: Shelf, tmp_path: Path) -> None:
    document = shelf.ended("a.pdf")
    shelf.store.delete(keys.page_done(document, 1))
    shelf.store.put(keys.page_done(document, 2), b"{")
    rows, _, _ = reported(tmp_path)
    assert [row["status"] for row in rows] == ["no_record", "no_record", "done"]
    assert rows[0]["detail"] == "the page's record was purged"
    assert "can't be read" in rows[1]["detail"]


def test_hostile_names_and_texts_are_inert(shelf: Shelf, tmp_path: Path) -> None:
    document = shelf.ended(HOSTILE)
    replace(shelf, document, 1, review=True, review_reason=HOSTILE, text=HOSTILE)
    shelf.ended("=HYPERLINK(1).pdf")
    shelf.ended("bad\x1b[2J\u202egpj.pdf")

    rows, data, html = reported(tmp_path)

    # The file has no more tags than one without documents
    assert html.count("<script") == 2
    assert html.count("<!--") == 0
    assert "alert(1)</" not in html
    assert "\u202e" not in html
    names = {row[0] for row in data["documents"]}
    assert HOSTILE.replace("\u2028", r"\u2028") in names
    assert "'=HYPERLINK(1).pdf" in {row["source"] for row in rows}
    assert "\x1b" not in (tmp_path / "report.csv").read_text()
    assert "default-src 'none'" in html
    assert "unsafe" not in html


def test_the_report_leaves_an_output_of_its_name_alone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.ended("report")
    (tmp_path / "report.html").write_text("<!DOCTYPE html><p>an output")
    arguments = ["report", "--collection", "c", "-o", str(tmp_path)]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, UsageError)
    assert "name another folder with --output" in str(error)
    assert (tmp_path / "report.html").read_text() == "<!DOCTYPE html><p>an output"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of the two"),
        (["out", "--collection", "c"], "one of the two"),
        (["."], "is no output folder of `ocrfleet run`"),
        (["--collection", "nothing"], "there is no document to report"),
        (["--collection", "../c"], "--collection"),
    ],
)
def test_usage_errors_say_what_to_do(shelf: Shelf, tmp_path: Path, words: list[str], said: str) -> None:
    error = CliRunner().invoke(app, ["report", *words, "-o", str(tmp_path / "r")]).exception
    assert isinstance(error, UsageError)
    assert said in str(error)
    assert not (tmp_path / "r" / "report.html").exists()


def test_worst_pages_are_failed_ones_and_those_with_the_least_confidence() -> None:
    worst = WorstPages(4)
    for number in range(100):
        worst.add(number, "d", ReportedPage(page=number, state=PageState.FAILED, reason="needs_password"))
    for number in range(100, 200):
        worst.add(number, "d", ReportedPage(page=number, state=PageState.DONE, confidence=number / 200, text="t"))
    worst.add(200, "d", ReportedPage(page=200, state=PageState.DONE, review=True, confidence=0.9, text="t"))
    worst.add(201, "d", ReportedPage(page=201, state=PageState.DONE, blank=True, confidence=0.0))
    assert [page.page for page in worst.ordered()] == [0, 1, 200, 100]


def test_a_hundred_thousand_pages_stay_a_file_that_opens() -> None:
    # Given 100,000 pages, the worst case of each column, and long texts
    table, summary, worst, documents = Table(), Summary(), WorstPages(50), []
    lines = io.StringIO()
    rows = CsvReport(lines)
    for number in range(500):
        document = Reported(
            f"{number:032x}", f"archive/box-{number}/register {number}.pdf", "s3://b/k", State.PARTIAL, 200
        )
        documents.append(ListedDocument(document))
        for place in range(200):
            page = ReportedPage(
                page=place + 1,
                state=PageState.FAILED if place % 7 == 0 else PageState.DONE,
                reason="truncated" if place % 7 == 0 else "",
                detail=f"page {number * 200 + place} was cut off at the limit of 4,000 tokens",
                confidence=((number * 31 + place * 17) % 1000) / 1000,
                words=place * 13 % 700,
                effort=Effort(1, 0.1, place * 0.37 % 9, place * 97 % 4000),
                text="a long text " * 1000,
            )
            worst.add(len(table), document.document, page)
            table.add(number, page)
            summary.add(page)
            rows.page(document, page)
    shown = [ShownPage(page, None, None) for page in worst.ordered()]
    out = io.StringIO()
    excluded = [Excluded(f"{number}.txt", "", "skipped") for number in range(100_000)]

    # When the report is written
    write_html(
        Content(
            title="t",
            made="now",
            fleet=True,
            summary=summary,
            table=table,
            documents=documents,
            excluded=excluded,
            worst=shown,
        ),
        out,
    )

    # Then every page is in it, and its size is bounded: numbers of all pages, texts of the worst ones only
    data = data_of(out.getvalue())
    assert lines.getvalue().count("\n") == 100_001
    assert len(data["columns"]["confidence"]) == 100_000
    assert sum(data["columns"]["document"]["runs"][1::2]) == 100_000
    assert len(data["worst"]) == 50
    assert len(data["details"]) <= 20_001
    assert len(out.getvalue()) < 8_000_000


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("The keeper of the lighthouse was there before the ships had come to it.", "latin", "en"),
        ("Der Wärter war schon da, bevor die Schiffe zu ihm gekommen sind, und das ist nicht alles.", "latin", "de"),
        ("Это не так, и все же они были там, когда он пришел к ним.", "cyrillic", "ru"),
        ("これは灯台の記録です。", "japanese", "ja"),
        ("12 34 1897", "", ""),
        ("Zqxv Brkl Wrt", "latin", ""),
    ],
)
def test_script_and_language_of_a_text(text: str, script: str, language: str) -> None:
    assert script_and_language(text) == (script, language)
