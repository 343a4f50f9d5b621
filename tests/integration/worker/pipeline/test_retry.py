"""Retries: each kind of failure is detected and followed by the retry steps that are its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.broker.celery_app import queue_names
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Faults
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement, Profile, RetryStep, Sampling, resolve
from ocrfleet.records.documents import DocumentStatus, Manifest, Marker, Status
from ocrfleet.records.pages import PageResult
from ocrfleet.records.priority import Priority
from ocrfleet.records.runs import RunRecord
from ocrfleet.records.workers import WorkerState
from producer.intake.register import Registered
from tests.support.fakes.misbehaving import INVENTED, LIMIT, PRINT, write_prints
from tests.support.servers import Valkey
from tests.support.stage import Stage

WARM, OTHER_PROMPT, NOBODY, OTHER, LAST = 1, 2, 3, 4, 5


def asking(profile: Profile, *ladder: RetryStep) -> Profile:
    changes = {
        "prompt": "<image>\nRead.",
        "sampling": Sampling(max_tokens=LIMIT),
        "judgement": Judgement(scripts=("LATIN",)),
        "ladder": ladder,
    }
    return Profile.model_validate(profile.model_dump() | changes)


#: A page that goes there stays there: its last step is that of LAST.
OTHERS = asking(resolve("misbehaving:OtherMisbehavingEngine"), RetryStep(text_layer=True))
PROFILE = asking(
    resolve("misbehaving:MisbehavingEngine"),
    RetryStep(temperature=0.2, after=(Reason.TRUNCATED, Reason.REPETITION, Reason.ENGINE_FAILED)),
    RetryStep(prompt="<image>\nOnly the text."),
    RetryStep(profile="nobody"),
    RetryStep(profile=OTHERS.name, max_tokens=LIMIT // 2),
    RetryStep(text_layer=True),
)


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey, profile=PROFILE)
    yield made
    made.close()


def registered(stage: Stage, acts: dict[int, list[str]], *, pages_per_job: int = 1) -> Registered:
    """Register a document with a page of each number, and plan what becomes of it."""
    stage.plan["acts"] = {str(number): ways for number, ways in acts.items()}
    write_prints(stage.folder / "a.tif", sorted(acts))
    return stage.register("a", sorted(acts), pages_per_job=pages_per_job)


def attempts(stage: Stage, book: Registered, page: int) -> list[tuple[int, str]]:
    """Return rung and outcome of each attempt at a page, in order."""
    records = [
        RunRecord.from_bytes(stage.store.get(key)) for key in stage.store.list(f"documents/{book.document}/runs/")
    ]
    found = sorted(records, key=lambda record: record.finished)
    return [(one.rung, one.outcome) for record in found for one in record.attempts if one.page == page]


def failed(stage: Stage, book: Registered, page: int) -> PageResult:
    return PageResult.from_bytes(stage.store.get(keys.page_failed(book.document, page, book.generation)))


def markdown(stage: Stage, status: Status) -> str:
    return stage.store.get(status.outputs["md"].key).decode()


def test_each_failure_is_followed_by_its_retry_steps(stage: Stage) -> None:
    # Given two profiles that are served, and pages that each fail in a way of their own
    book = registered(
        stage,
        {
            1: ["well"],
            2: ["loop", "well"],
            3: ["truncate", "truncate", "well"],
            4: ["invent", "well"],
            5: ["stay silent", "stay silent", "well"],
            6: ["write garbage"],
            7: ["write another script", "well"],
            8: ["fail", "well"],
        },
    )
    stage.start_worker(OTHERS)
    stage.await_(stage.ledger.workers)
    # When they are read
    (status,) = stage.finish(book, workers=2)
    # Then each was tried by the steps that are remedies for what it failed with, and by no others
    assert [attempts(stage, book, page) for page in range(1, 9)] == [
        [(0, "done")],
        [(0, "repetition"), (WARM, "done")],
        [(0, "truncated"), (WARM, "truncated"), (OTHER_PROMPT, "done")],
        [(0, "invented"), (OTHER_PROMPT, "done")],
        [(0, "empty"), (OTHER_PROMPT, "empty"), (NOBODY, "skipped"), sent(), (OTHER, "done")],
        [
            (0, "unparsable"),
            (OTHER_PROMPT, "unparsable"),
            (NOBODY, "skipped"),
            sent(),
            (OTHER, "unparsable"),
            (LAST, "skipped"),
        ],
        [(0, "wrong_script"), (OTHER_PROMPT, "done")],
        [(0, "engine_failed"), (WARM, "done")],
    ]
    # And the document is right: what is done, by whom, and what is not, with the text that there was
    assert status.status is DocumentStatus.PARTIAL
    assert [(failure.page, failure.reason) for failure in status.failures] == [(6, Reason.UNPARSABLE)]
    results = {page: stage.result(book, page) for page in (1, 2, 3, 4, 5, 7, 8)}
    assert {page: result.rung for page, result in results.items()} == {1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 7: 2, 8: 1}
    assert {result.profile for page, result in results.items() if page != 5} == {PROFILE.name}
    assert results[5].profile == OTHERS.name
    assert all(result.text == f"page number {page}\n\n{PRINT}" for page, result in results.items())
    assert failed(stage, book, 6).text.startswith("page number 6")
    written = markdown(stage, status)
    assert [written.count(f"page number {page}") for page in range(1, 9)] == [1] * 8
    assert INVENTED[:40] not in written
    # And nothing is left on the way
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    profiles = [PROFILE.name, OTHERS.name]
    queues = [name for profile in profiles for name in queue_names(profile)]
    assert MessageInspector(stage.valkey.client).jobs(queues) == ([], set())


def sent() -> tuple[int, str]:
    return OTHER, f"the page goes to profile {OTHERS.name}"


def test_a_loop_is_stopped_long_before_the_limit(stage: Stage) -> None:
    book = registered(stage, {1: ["loop"]})
    stage.finish(book, workers=1)
    result = failed(stage, book, 1)
    assert (result.reason, result.finish_reason) == (Reason.REPETITION, "loop")
    assert result.tokens is not None
    assert result.tokens < LIMIT / 4
    # What was written until then is kept
    assert result.text.startswith("and the sea was calm, and")


def test_the_best_text_is_kept_when_none_is_accepted(stage: Stage) -> None:
    # Given pages whose later attempts are worse than an earlier one, in what is doubted or in how much there is
    book = registered(
        stage,
        {
            1: ["truncate", "stay silent"],
            2: ["truncate early", "truncate", "loop"],
            3: ["stay silent", "write garbage"],
        },
    )
    (status,) = stage.finish(book, workers=1)
    # Then each record has the best text, and the step of that attempt
    assert status.status is DocumentStatus.FAILED
    best = [failed(stage, book, page) for page in (1, 2, 3)]
    assert [(result.reason, result.rung) for result in best] == [
        (Reason.TRUNCATED, 0),
        (Reason.TRUNCATED, WARM),
        (Reason.UNPARSABLE, OTHER_PROMPT),
    ]
    assert [len(result.text) > 20 for result in best] == [True] * 3
    assert best[1].text in f"page number 2\n\n{PRINT}"


def test_an_error_at_a_later_step_does_not_lose_the_text_of_an_earlier(stage: Stage) -> None:
    book = registered(stage, {1: ["truncate", "fail"]})
    stage.finish(book, workers=1)
    assert (failed(stage, book, 1).reason, failed(stage, book, 1).rung) == (Reason.TRUNCATED, 0)


def test_a_page_that_is_refused_is_not_asked_for_again_in_the_same_way(stage: Stage) -> None:
    # Given pages that an engine refuses: at home, and where the ladder sends them
    book = registered(stage, {1: ["refuse", "well"], 2: ["stay silent", "stay silent", "refuse"]})
    stage.start_worker(OTHERS)
    stage.await_(stage.ledger.workers)
    (status,) = stage.finish(book, workers=2)
    # Then the one is read in another way, and the other comes to an end
    assert attempts(stage, book, 1) == [(0, "engine_failed"), (WARM, "done")]
    assert [(failure.page, failure.reason) for failure in status.failures] == [(2, Reason.EMPTY)]
    assert stage.recognised().count(2) <= 4


def test_a_source_that_vanished_before_a_retry_is_the_reason_of_the_failure(stage: Stage) -> None:
    # Given a page whose text was rejected, and whose source is gone when it is tried again after a restart
    book = registered(stage, {1: ["truncate", "well"]})
    stage.plan["crash_at"] = {"1": 2}
    first = stage.start_worker()
    stage.await_(lambda: first.poll() is not None)
    (stage.folder / "a.tif").unlink()
    (status,) = stage.finish(book, workers=1)
    # Then that is the reason, so that it is tried again once the source is back; the text so far is kept
    assert [failure.reason for failure in status.failures] == [Reason.SOURCE_MISSING]
    assert failed(stage, book, 1).text.startswith("page number 1")


def test_the_best_text_is_kept_over_later_generations_without_text(stage: Stage) -> None:
    # Given a page that was cut off in every way, in a first generation
    book = registered(stage, {1: ["truncate"]})
    stage.finish(book, workers=1)
    # When its source is gone in the second, and in the third
    (stage.folder / "a.tif").rename(stage.folder / "b.tif")
    for generation in (2, 3):
        (status,) = stage.finish(opened_again(stage, book, generation), workers=1)
        # Then that is what it failed with, and the text of the first is still there
        assert [failure.reason for failure in status.failures] == [Reason.SOURCE_MISSING]
        assert PRINT[:40] in markdown(stage, status)


def opened_again(stage: Stage, book: Registered, generation: int) -> Registered:
    """Open a generation of a document whose source can't be registered any more, as a retry does."""
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    marker = Marker(
        generation=generation,
        queue=Priority.BULK,
        collection="all",
        profile=manifest.profile,
        profile_digest=manifest.profile_digest,
        pages_per_job=1,
        routes=PROFILE.destinations,
    )
    stage.store.put(keys.waiting(Priority.BULK, "all", manifest.created, book.document, generation), marker.to_bytes())
    return replace(book, generation=generation)


def test_another_worker_continues_from_the_stored_retry_state(stage: Stage) -> None:
    # Given a page whose text was rejected once, and kills its worker at the next attempt
    book = registered(stage, {1: ["truncate", "well"]})
    stage.plan["crash_at"] = {"1": 2}
    (status,) = stage.finish(book, workers=1)
    # Then the next worker did not begin at the bottom
    assert status.status is DocumentStatus.COMPLETED
    assert stage.result(book, 1).rung == WARM
    assert stage.recognised() == [1, 1, 1]


def test_routed_pages_return_to_their_own_profile_when_no_worker_serves_the_other(stage: Stage) -> None:
    # Given a page that was sent to another profile, whose worker dies before it takes it
    book = registered(stage, {1: ["stay silent", "stay silent", "well"]})
    other = WorkerState(worker="other", profile=OTHERS.name, profile_digest=OTHERS.digest)
    stage.ledger.heartbeat(other, 300)
    stage.start_worker()
    queues = queue_names(OTHERS.name)
    stage.await_(lambda: any(job.routed for job in MessageInspector(stage.valkey.client).jobs(queues)[0]))
    stage.ledger.leave(other.worker)
    (status,) = stage.finish(book)
    # Then it ends, because no worker serves the other profile
    assert [failure.reason for failure in status.failures] == [Reason.EMPTY]


def test_pages_of_one_job_are_routed_together(stage: Stage) -> None:
    book = registered(
        stage, {number: ["stay silent", "stay silent", "well"] for number in range(1, 7)}, pages_per_job=3
    )
    stage.start_worker(OTHERS)
    stage.await_(stage.ledger.workers)
    (status,) = stage.finish(book, workers=2)
    assert status.status is DocumentStatus.COMPLETED
    assert {stage.result(book, page).profile for page in range(1, 7)} == {OTHERS.name}
    assert len(stage.recognised()) == 18
    assert stage.faults(book) == dict.fromkeys(range(1, 7), Faults())
