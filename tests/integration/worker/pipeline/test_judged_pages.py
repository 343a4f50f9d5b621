"""Outcomes of checked pages: the text layer, limits of retry steps, attempts of another profile, figures."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrfleet import keys
from ocrfleet.broker.celery_app import TASK_PAGES, publish_pages, queue_names
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement, Parser, Profile, Render, RetryStep, Sampling, resolve
from ocrfleet.records.documents import DocumentStatus, Status
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageResult, Role
from ocrfleet.records.runs import Attempt, RunRecord
from ocrfleet.records.workers import WorkerState
from producer.delivery.delivered_files import STATE_FOLDER
from producer.delivery.to_folder import deliver
from producer.intake.register import Registered
from tests.support.fakes.misbehaving import FIGURE_BOX, LIMIT, PRINT, TEXT_LAYER, draw_plate, write_pdf, write_prints
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.waiting import scaled

#: A page of 256 x 256 points is drawn so that engines of the tests can read its number.
SIDE = 256


def asking(engine: str, *ladder: RetryStep, **changes: Any) -> Profile:
    told = {
        "prompt": "<image>\nRead.",
        "sampling": Sampling(max_tokens=LIMIT),
        "judgement": Judgement(scripts=("LATIN",)),
        "render": Render(long_side=SIDE),
        "ladder": ladder,
    }
    return Profile.model_validate(resolve(engine).model_dump() | told | changes)


OTHER_PROMPT = RetryStep(prompt="<image>\nOnly the text.")
OTHER = asking("misbehaving:OtherMisbehavingEngine", OTHER_PROMPT)


@pytest.fixture
def staged(tmp_path: Path, valkey: Valkey) -> Iterator[Callable[..., Stage]]:
    """Make a stage for a profile."""
    made: list[Stage] = []

    def make(profile: Profile, **settings: Any) -> Stage:
        made.append(Stage(tmp_path, valkey, profile=profile, **settings))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


def registered(stage: Stage, acts: dict[int, list[str]], *, pages_per_job: int = 1) -> Registered:
    """Register a document with a page of print for each number, and plan the outcomes."""
    stage.plan["acts"] = {str(number): ways for number, ways in acts.items()}
    write_prints(stage.folder / "a.tif", sorted(acts))
    return stage.register("a", sorted(acts), pages_per_job=pages_per_job)


def registered_pdf(stage: Stage, texts: dict[int, str | None]) -> Registered:
    """Register a PDF with a page for each number and a text layer. The kind does not depend on the name."""
    write_pdf(stage.folder / "a.tif", texts)
    return stage.register("a", sorted(texts))


def tries(stage: Stage, book: Registered, page: int) -> list[Attempt]:
    """Return the attempts at a page, in order."""
    records = [
        RunRecord.from_bytes(stage.store.get(key)) for key in stage.store.list(f"documents/{book.document}/runs/")
    ]
    found = sorted(records, key=lambda record: record.finished)
    return [one for record in found for one in record.attempts if one.page == page]


def attempts(stage: Stage, book: Registered, page: int) -> list[tuple[int, str]]:
    return [(one.rung, one.outcome) for one in tries(stage, book, page)]


def sent(rung: int) -> tuple[int, str]:
    return rung, f"the page goes to profile {OTHER.name}"


def failed(stage: Stage, book: Registered, page: int) -> PageResult:
    return PageResult.from_bytes(stage.store.get(keys.page_failed(book.document, page, book.generation)))


def output(stage: Stage, status: Status, kind: str) -> str:
    return stage.store.get(status.outputs[kind].key).decode()


# ---- the text layer


def test_a_page_that_no_attempt_reads_is_done_from_its_text_layer(staged: Callable[..., Stage]) -> None:
    # Given a PDF with a text layer on its first page only, and an engine that returns empty texts
    ladder = RetryStep(temperature=0.2, after=(Reason.TRUNCATED,)), RetryStep(text_layer=True, after=(Reason.EMPTY,))
    stage = staged(asking("misbehaving:MisbehavingEngine", *ladder))
    stage.plan["acts"] = {"5": ["stay silent"], "6": ["stay silent"], "7": ["well"]}
    book = registered_pdf(stage, {5: TEXT_LAYER, 6: None, 7: TEXT_LAYER})
    # When it is read
    (status,) = stage.finish(book, workers=1)
    # Then the first page is done with its text layer, at the retry step for it
    own = stage.result(book, 1)
    assert (own.text_layer, own.rung, own.reason, own.blank) == (True, 2, None, False)
    assert own.text.split() == TEXT_LAYER.split()
    assert {line.text for line in own.lines} == set(own.text.split("\n"))
    assert attempts(stage, book, 1) == [(0, "empty"), (2, "done")]
    # And the second page is not, and no recognised page uses its text layer
    assert failed(stage, book, 2).reason is Reason.EMPTY
    assert attempts(stage, book, 2) == [(0, "empty"), (2, "skipped")]
    assert (stage.result(book, 3).text_layer, stage.result(book, 3).rung) == (False, 0)
    assert sorted(stage.recognised()) == [5, 6, 7]
    # And the document lists it; nothing was saved, because the engine had read the page first
    assert (status.status, status.done, status.text_layer) == (DocumentStatus.PARTIAL, 2, 0)
    assert [(failure.page, failure.reason) for failure in status.failures] == [(2, Reason.EMPTY)]
    assert TEXT_LAYER in " ".join(output(stage, status, "md").split())


@pytest.mark.parametrize("engine", ["misbehaving:MisbehavingEngine", "misbehaving:StubbornMisbehavingEngine"])
def test_a_page_that_hangs_in_every_attempt_is_done_from_its_text_layer(
    staged: Callable[..., Stage], engine: str
) -> None:
    # Given an engine that hangs in two pages, one that can be interrupted and one that can't, and the text of one of them
    hangs = (Reason.ENGINE_DEADLINE,)
    ladder = RetryStep(temperature=0.2, after=hangs), RetryStep(text_layer=True, after=hangs)
    stage = staged(asking(engine, *ladder), page_deadline=scaled(1))
    stage.plan |= {"hang": [5, 6], "acts": {}}
    book = registered_pdf(stage, {4: None, 5: TEXT_LAYER, 6: None})
    # When it is read by as many consecutive workers as necessary
    (status,) = stage.finish(book, workers=1)
    # Then the page with a text layer is done after the maximum number of attempts, and the other fails
    assert stage.settings.page_attempts == 2
    hung = [(0, "engine_deadline"), (1, "engine_deadline")]
    ends = {*Reason, "done", "skipped"}  # other jobs were requeued, because the engine hung on the page before
    assert {page: [one for one in attempts(stage, book, page) if one[1] in ends] for page in (2, 3)} == {
        2: [*hung, (2, "done")],
        3: [*hung, (2, "skipped")],
    }
    own = stage.result(book, 2)
    assert (own.text_layer, own.rung) == (True, 2)
    assert own.text.split() == TEXT_LAYER.split()
    assert [(failure.page, failure.reason) for failure in status.failures] == [(3, Reason.ENGINE_DEADLINE)]
    assert [stage.recognised().count(number) for number in (4, 5, 6)] == [1, 2, 2]
    # And the other page is done
    assert (stage.text(book, 1), stage.result(book, 1).rung) == (f"page number 4\n\n{PRINT}", 0)
    assert status.done == 2


# ---- the limits of a retry step


def test_an_attempt_takes_no_longer_than_its_retry_step_allows(staged: Callable[..., Stage]) -> None:
    # Given a retry step that allows less time than the profile, and two pages that take long: at that step, and at the bottom
    deadline = round(scaled(0.5), 1)
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(temperature=0.2, deadline=deadline)))
    stage.plan["long"] = 6 * deadline
    book = registered(stage, {1: ["truncate", "take long", "well"], 2: ["take long"]})
    # When they are read
    (status,) = stage.finish(book, workers=1)
    # Then only the attempt at that step exceeded its deadline, and counts as a fault of the page
    assert status.status is DocumentStatus.COMPLETED
    assert attempts(stage, book, 1) == [(0, "truncated"), (1, "engine_deadline"), (1, "done")]
    assert attempts(stage, book, 2) == [(0, "done")]
    cut = tries(stage, book, 1)[1]
    assert cut.detail == f"the engine did not answer within {deadline:g} seconds"
    assert cut.recognise_seconds is not None
    assert cut.recognise_seconds >= deadline


def test_another_profile_takes_no_longer_than_the_retry_step_allows_that_sent_it_the_page(
    staged: Callable[..., Stage],
) -> None:
    # Given another profile with far higher limits than the retry step, and without retry steps
    other_profile = asking("misbehaving:OtherMisbehavingEngine")
    deadline = round(scaled(0.5), 1)
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=OTHER.name, deadline=deadline)))
    stage.plan["long"] = 6 * deadline
    book = registered(stage, {1: ["truncate", "take long", "well"]})
    stage.start_worker(other_profile)
    stage.await_(stage.ledger.workers)
    (status,) = stage.finish(book, workers=2)
    assert attempts(stage, book, 1)[:3] == [(0, "truncated"), sent(1), (1, "engine_deadline")]
    assert tries(stage, book, 1)[2].detail == f"the engine did not answer within {deadline:g} seconds"
    # And the fault may be temporary: the other profile tries the page again
    assert status.status is DocumentStatus.COMPLETED
    assert (stage.result(book, 1).profile, stage.result(book, 1).rung) == (OTHER.name, 1)


# ---- pictures


def test_the_pictures_of_a_page_lie_beside_its_text_where_the_text_shows_them(
    staged: Callable[..., Stage], tmp_path: Path
) -> None:
    # Given two plates, and an engine that returns the box of a picture
    stage = staged(asking("misbehaving:FigureEngine", parser=Parser.GROUNDING))
    plates = [draw_plate(number) for number in (1, 2)]
    plates[0].save(stage.folder / "a.tif", save_all=True, append_images=plates[1:], dpi=(72, 72))
    book = stage.register("a", [1, 2])
    # When they are read and delivered
    (status,) = stage.finish(book, workers=1)
    written, _ = deliver(stage.store, status, name="box/a.tif", folder=tmp_path / "out")
    # Then each page's picture is stored, and its block names it
    assert (status.status, status.figures) == (DocumentStatus.COMPLETED, 2)
    results = [stage.result(book, page) for page in (1, 2)]
    blocks = [[(block.role, block.figure is not None) for block in result.blocks] for result in results]
    assert blocks == [[(Role.TITLE, False), (Role.FIGURE, True), (Role.CAPTION, False), (Role.TEXT, False)]] * 2
    names = [block.figure for result in results for block in result.blocks if block.figure is not None]
    assert len(set(names)) == 2
    # And it is a JPEG of that part of the page
    for name, plate in zip(names, plates, strict=True):
        with Image.open(io.BytesIO(stage.store.get(keys.figure(book.document, name)))) as picture:
            seen = plate.crop(FIGURE_BOX)
            assert (picture.format, picture.size) == ("JPEG", seen.size)
            assert np.abs(np.asarray(picture.convert("L"), float) - np.asarray(seen, float)).mean() < 5
    # And the text shows it by its caption, in its place
    text = written.read_text()
    assert text == output(stage, status, "md")
    links = re.findall(r"!\[((?:[^\[\]\\]|\\.)*)\]\(([^)]*)\)", text)
    assert [alt for alt, _ in links] == [rf"The harbour \[in {number}\] at night" for number in (1, 2)]
    marks = ["# Plate 1", links[0][1], "No ship", "# Plate 2", links[1][1]]
    assert sorted(marks, key=text.index) == marks
    assert "<|" not in text
    # And its link in the text leads to the same bytes, and no other file is there
    delivered = [written.parent / path for _, path in links]
    assert [path.read_bytes() for path in delivered] == [
        stage.store.get(keys.figure(book.document, name)) for name in names
    ]
    out = tmp_path / "out"
    files = {path for path in out.rglob("*") if path.is_file() and not path.is_relative_to(out / STATE_FOLDER)}
    assert files == {written, written.with_suffix(".json"), *delivered}


def test_a_page_whose_text_shows_no_picture_has_none(staged: Callable[..., Stage], tmp_path: Path) -> None:
    # Given the same engine, whose tags are not looked for
    stage = staged(asking("misbehaving:FigureEngine", parser=Parser.TEXT))
    draw_plate(1).save(stage.folder / "a.tif", dpi=(72, 72))
    book = stage.register("a", [1])
    (status,) = stage.finish(book, workers=1)
    deliver(stage.store, status, name="a.tif", folder=tmp_path / "out")
    assert status.figures == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {STATE_FOLDER, "a.tif.md", "a.tif.json"}


# ---- pages that a retry step sends to another profile


def sent_to_other(stage: Stage) -> list[PageJob]:
    """The jobs that wait for the other profile, or are with it."""
    jobs, _ = MessageInspector(stage.valkey.client).jobs(queue_names(OTHER.name))
    return [job for job in jobs if job.routed is not None]


def at_home(stage: Stage) -> list[int]:
    """The pages that wait for their document's own profile, or are with it."""
    jobs, _ = MessageInspector(stage.valkey.client).jobs(queue_names(stage.profile.name))
    return sorted(page for job in jobs if job.routed is None for page in range(job.first, job.last + 1))


@pytest.fixture
def sent_away(staged: Callable[..., Stage]) -> tuple[Stage, Registered]:
    """A document whose two pages, in one job, wait on the queue of another profile that no worker serves yet."""
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=OTHER.name), OTHER_PROMPT))
    # Given the other profile, which seems to be served
    state = WorkerState(worker="the other profile's", profile=OTHER.name, profile_digest=OTHER.digest)
    stage.ledger.heartbeat(state, 300)
    acts = {1: ["stay silent", "well"], 2: ["stay silent", "stay silent", "well"]}
    book = registered(stage, acts, pages_per_job=2)
    home = stage.start_worker()
    stage.await_(lambda: sent_to_other(stage) and stage.valkey.client.hlen(keys.UNACKED) == 0)
    home.terminate()
    home.wait(scaled(30))
    return stage, book


def test_a_routed_page_stays_where_it_lands(sent_away: tuple[Stage, Registered]) -> None:
    stage, book = sent_away
    (job,) = sent_to_other(stage)
    assert (job.first, job.last) == (1, 2)
    # When the other profile's worker comes, accepts one text, and rejects the other
    stage.start_worker(OTHER)
    (status,) = stage.finish(book)
    # Then it retries that page by its own retry steps, and no other worker does
    assert status.status is DocumentStatus.COMPLETED
    assert {page: attempts(stage, book, page) for page in (1, 2)} == {
        1: [(0, "empty"), sent(1), (1, "done")],
        2: [(0, "empty"), sent(1), (1, "empty"), (2, "done")],
    }
    assert {page: (stage.result(book, page).profile, stage.result(book, page).rung) for page in (1, 2)} == {
        1: (OTHER.name, 1),
        2: (OTHER.name, 2),
    }
    assert all(stage.text(book, page) == f"page number {page}\n\n{PRINT}" for page in (1, 2))
    assert at_home(stage) == []
    # And a job that comes again, as when its worker could not say that it was done, reads nothing again
    publish_pages(stage.app, OTHER.name, [job])
    stage.await_(lambda: not sent_to_other(stage))
    assert sorted(stage.recognised()) == [1, 1, 2, 2, 2]


def test_a_job_of_the_version_before_is_worked_off(sent_away: tuple[Stage, Registered]) -> None:
    # Given a job as 0.1 wrote it, for a single attempt of the other profile
    stage, book = sent_away
    (job,) = sent_to_other(stage)
    assert job.routed is not None
    climbing = job.routed.model_dump(mode="json", exclude={"sent_on"})
    message = job.model_dump(mode="json") | {"routed": None, "climbing": climbing}
    for queue in queue_names(OTHER.name):
        stage.valkey.client.delete(queue)
    stage.app.send_task(TASK_PAGES, args=[message], queue=keys.queue_pages(job.queue, OTHER.name))
    assert [each.routed for each in sent_to_other(stage)] == [job.routed.model_copy(update={"sent_on": None})]
    # When it is worked off
    stage.start_worker(OTHER)
    (status,) = stage.finish(book)
    # Then its pages are read by that profile
    assert status.status is DocumentStatus.COMPLETED
    assert {(stage.result(book, page).profile, stage.result(book, page).rung) for page in (1, 2)} == {
        (OTHER.name, 1),
        (OTHER.name, 2),
    }


def test_pages_returned_by_an_earlier_version_continue_on_their_own_profile(staged: Callable[..., Stage]) -> None:
    # Given a page that another profile read without success, as 0.1 noted that: by the step of the page's own profile
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=OTHER.name), OTHER_PROMPT))
    book = registered(stage, {1: ["well"]})
    old = {"schema_version": 1, "profile_digest": stage.profile.digest, "rung": 1, "fell": "empty"}
    stage.store.put(keys.retry_state(book.document, book.generation, 1), json.dumps(old).encode())
    stage.ledger.count_failed_attempt(book.document, book.generation, 1)
    # When it is at home again
    (status,) = stage.finish(book, workers=1)
    # Then the next step is tried there
    assert status.status is DocumentStatus.COMPLETED
    assert attempts(stage, book, 1) == [(2, "done")]


def test_a_page_is_not_routed_back_to_a_profile_that_routed_it(staged: Callable[..., Stage]) -> None:
    # Given two profiles with retry steps to each other, and an engine that returns empty texts
    back = asking(
        "misbehaving:OtherMisbehavingEngine", RetryStep(profile=resolve("misbehaving:MisbehavingEngine").name)
    )
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=back.name)))
    book = registered(stage, {1: ["stay silent"]})
    stage.start_worker(back)
    stage.await_(stage.ledger.workers)
    # When the page is read
    (status,) = stage.finish(book, workers=2)
    # Then each of them had it once, and it ends
    assert attempts(stage, book, 1) == [(0, "empty"), sent(1), (1, "empty"), (2, "skipped")]
    assert tries(stage, book, 1)[-1].detail == f"{stage.profile.name} had the page before"
    assert [(failure.page, failure.reason) for failure in status.failures] == [(1, Reason.EMPTY)]


def test_a_page_returned_to_its_own_profile_continues_after_the_routing_step(staged: Callable[..., Stage]) -> None:
    # Given a page with which a worker of another profile dies, after a first attempt with an empty text
    other_profile = asking("misbehaving:OtherMisbehavingEngine", RetryStep(temperature=0.2))
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=other_profile.name), OTHER_PROMPT))
    stage.plan["crash_at"] = {"1": 3}
    book = registered(stage, {1: ["stay silent", "stay silent", "stay silent", "well"]})
    other = stage.start_worker(other_profile)
    stage.await_(stage.ledger.workers)
    stage.start_worker()
    stage.await_(lambda: other.poll() is not None)
    # When no worker serves that profile any more
    (status,) = stage.finish(book)
    # Then the page goes on at home by the next step, and by none that it was tried by before
    assert status.status is DocumentStatus.COMPLETED
    assert stage.recognised() == [1, 1, 1, 1]
    assert attempts(stage, book, 1)[-2:] == [(1, "skipped"), (2, "done")]
    assert stage.result(book, 1).profile == stage.profile.name


def test_pages_that_are_routed_together_end_each_in_its_way(staged: Callable[..., Stage]) -> None:
    # Given pages of one job that are routed together to another profile: it reads one, and rejects, finds no text on, or fails on the others
    stage = staged(asking("misbehaving:MisbehavingEngine", RetryStep(profile=OTHER.name)))
    book = registered(
        stage,
        {
            1: ["stay silent", "well"],
            2: ["stay silent", "write another script", "well"],
            3: ["stay silent"],
            4: ["stay silent", "fail", "well"],
            5: ["well"],
        },
        pages_per_job=5,
    )
    stage.start_worker(OTHER)
    stage.await_(stage.ledger.workers)
    # When they are read
    (status,) = stage.finish(book, workers=2)
    # Then each goes on from there as it should, and no other with it
    away = [(0, "empty"), sent(1)]
    assert {page: attempts(stage, book, page) for page in range(1, 6)} == {
        1: [*away, (1, "done")],
        2: [*away, (1, "wrong_script"), (2, "done")],
        3: [*away, (1, "empty"), (2, "empty")],
        4: [*away, (1, "engine_failed"), (2, "done")],
        5: [(0, "done")],
    }
    # And each record names the profile and the step of its last attempt
    assert (status.status, status.done) == (DocumentStatus.PARTIAL, 4)
    assert [(failure.page, failure.reason) for failure in status.failures] == [(3, Reason.EMPTY)]
    results = {page: stage.result(book, page) for page in (1, 2, 4, 5)}
    assert {page: (result.profile, result.rung) for page, result in results.items()} == {
        1: (OTHER.name, 1),
        2: (OTHER.name, 2),
        4: (OTHER.name, 2),
        5: (stage.profile.name, 0),
    }
    assert all(result.text == f"page number {page}\n\n{PRINT}" for page, result in results.items())
    # And nothing is left on the way
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    assert sent_to_other(stage) == []
    assert at_home(stage) == []
