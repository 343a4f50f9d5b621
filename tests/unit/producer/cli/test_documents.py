from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ocrfleet import keys
from ocrfleet.errors import Reason
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.records.workers import WorkerState
from producer.cli import documents
from producer.cli.render.documents import write_csv
from producer.documents.views import SourceRow, State
from producer.errors import UsageError
from tests.support.servers import Valkey
from tests.support.shelf import Shelf


class Desk(Shelf):
    """Documents in a store, and a command line."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        super().__init__(folder, redis_url)
        self._app = typer.Typer(pretty_exceptions_enable=False)
        for command in ("status", "results", "retry", "cancel", "delete", "pause", "resume", "purge"):
            self._app.command(command)(getattr(documents, command))

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(self._app, words, env={"COLUMNS": "200"})  # type: ignore[return-value]

    def refused(self, *words: str) -> str:
        """The error of an invalid command, which exits with 2."""
        error = self.run(*words).exception
        assert isinstance(error, UsageError)
        return str(error)


@pytest.fixture
def desk(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("OCRFLEET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OCRFLEET_REDIS_URL", valkey.url)
    desk = Desk(tmp_path, valkey.url)
    yield desk
    desk.registry.close()


def test_status_of_a_document_lists_failed_pages_with_reasons(desk: Desk) -> None:
    document = desk.ended("letter.pdf", failed={2: Reason.TRUNCATED})

    shown = desk.run("status", document)
    facts = json.loads(desk.run("status", document, "--json").stdout)

    assert shown.exit_code == 0
    assert "partial: 2 of 3 pages done, 1 failed" in shown.stdout
    assert "page 2: truncated" in shown.stdout
    assert (facts["state"], facts["failures"][0]["page"]) == ("partial", 2)


def test_status_of_a_collection_lists_every_source_and_the_pages_left(desk: Desk) -> None:
    desk.ended("done.pdf")
    desk.ended("torn.pdf", failed={1: Reason.EMPTY})
    desk.waiting("bad\x1b[2J.pdf")
    desk.arrive("new.pdf")

    shown = desk.run("status", "--collection", "c").stdout
    rows = list(csv.DictReader(io.StringIO(desk.run("status", "--collection", "c", "--csv").stdout)))
    lines = [json.loads(line) for line in desk.run("status", "--collection", "c", "--json").stdout.splitlines()]

    assert "4 sources (" in shown
    assert "5 of 9 pages done, 1 failed" in shown
    assert "3 pages are left; 1 sources are not counted yet" in shown
    assert "\x1b[2J" not in shown
    assert [row["status"] for row in rows] == ["arriving", "completed", "partial", "waiting"]
    assert rows[2]["reasons"] == "empty 1"
    assert [line["state"] for line in lines] == ["arriving", "completed", "partial", "waiting"]


def test_status_without_more_shows_the_fleet(desk: Desk) -> None:
    assert "No worker is registered" in desk.run("status").stdout


def test_status_names_workers_that_lack_a_part_of_the_sandbox(desk: Desk) -> None:
    def heartbeat(worker: str, missing: tuple[str, ...] | None) -> None:
        state = WorkerState(worker=worker, profile="rapidocr", profile_digest="0" * 64, sandbox_missing=missing)
        desk.ledger.heartbeat(state, 60)

    heartbeat("old", ("Landlock",))
    heartbeat("new", None)
    shown = desk.run("status").stdout
    assert "old opens documents without Landlock" in shown
    assert "new opens" not in shown


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_of_the_csv_is_a_formula(name: str) -> None:
    written = io.StringIO()
    write_csv([SourceRow(name=name, uri=name, state=State.ARRIVING)], written.write)

    (row,) = csv.DictReader(io.StringIO(written.getvalue()))

    assert row["source"][0] in {"'", "\\"}
    assert row["uri"][0] in {"'", "\\"}


def test_results_are_fetched_under_the_name_of_the_source(desk: Desk, tmp_path: Path) -> None:
    document = desk.ended("box/letter.pdf")

    fetched = desk.run("results", document, "-o", str(tmp_path / "out"))

    assert fetched.exit_code == 0
    assert (tmp_path / "out" / "box" / "letter.pdf.md").read_text() == "text"


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../../escaped", "./escaped"])
def test_results_stay_inside_their_folder(desk: Desk, tmp_path: Path, name: str) -> None:
    document = desk.ended(name)

    assert desk.run("results", document, "-o", str(tmp_path / "deep" / "out")).exit_code == 0

    (written,) = tmp_path.rglob("escaped.md")
    assert (tmp_path / "deep" / "out") in written.parents


def test_results_report_incomplete_and_missing_outputs(desk: Desk, tmp_path: Path) -> None:
    partial, waiting = desk.ended(failed={1: Reason.EMPTY}), desk.waiting()

    fetched = desk.run("results", partial, "-o", str(tmp_path / "out"))

    assert fetched.exit_code == 1
    assert "2 of 3 pages done" in fetched.stderr
    assert "has not ended yet" in desk.refused("results", waiting, "-o", str(tmp_path / "out"))
    assert "no document" in desk.refused("results", "0" * 32, "-o", str(tmp_path / "out"))
    assert "all of them" in desk.refused("status", partial[:8])


def test_a_collection_is_tried_again_where_pages_failed(desk: Desk) -> None:
    desk.ended()
    partial = desk.ended(failed={1: Reason.EMPTY})
    failed = desk.ended(failed=dict.fromkeys((1, 2, 3), Reason.EMPTY))

    said = desk.run("retry", "--collection", "c")

    assert said.exit_code == 0
    assert [line[:32] for line in said.stdout.splitlines()] == [partial, failed]
    assert len(list(desk.store.list(keys.WAITING))) == 2


def test_a_document_with_every_page_is_not_tried_again(desk: Desk) -> None:
    said = desk.run("retry", desk.ended())

    assert said.exit_code == 1
    assert "nothing to try again" in said.stderr


def test_a_failure_for_one_document_does_not_stop_the_others(desk: Desk) -> None:
    ended, active = desk.ended(), desk.active()

    said = desk.run("cancel", ended, active)

    assert said.exit_code == 1
    assert "ended already" in said.stderr
    assert desk.registry.view(active).state == DocumentStatus.CANCELLED  # type: ignore[comparison-overlap]


def test_nothing_is_deleted_without_confirmation(desk: Desk) -> None:
    document = desk.ended()

    assert "--yes" in desk.refused("delete", document)
    assert "--yes" in desk.refused("purge", "--older-than", "0d", "--what", "documents")
    assert desk.registry.view(document).state is State.COMPLETED
    assert desk.run("delete", document, "--yes").exit_code == 0
    assert "no document" in desk.refused("status", document)


def test_a_purge_counts_before_it_removes(desk: Desk) -> None:
    document = desk.ended(day="20200101")

    dry = desk.run("purge", "--older-than", "30d", "--what", "pages", "--dry-run")
    assert "pages would be removed: 1 documents, 3 objects" in dry.stdout
    assert len(list(desk.store.list(keys.pages(document)))) == 3

    assert desk.run("purge", "--older-than", "30d", "--what", "pages", "--yes").exit_code == 0
    assert list(desk.store.list(keys.pages(document))) == []


def test_a_collection_is_paused_and_resumed(desk: Desk) -> None:
    desk.waiting()

    assert desk.run("pause", "--collection", "c").exit_code == 0
    assert "Paused." in desk.run("status", "--collection", "c").stdout
    assert desk.run("resume", "--collection", "c").exit_code == 0
    assert desk.registry.paused() == []


@pytest.mark.parametrize("words", [("status", "0" * 32, "--collection", "c"), ("status", "--csv"), ("retry",)])
def test_commands_that_contradict_themselves_are_refused(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.refused(*words)


@pytest.mark.parametrize(("text", "age"), [("30d", timedelta(30)), ("4w", timedelta(28)), ("48h", timedelta(2))])
def test_ages_are_written_as_people_write_them(text: str, age: timedelta) -> None:
    assert documents.read_age(text) == age


@pytest.mark.parametrize("text", ["30", "d", "-1d", "30 d", "1y", ""])
def test_an_invalid_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="30d"):
        documents.read_age(text)
