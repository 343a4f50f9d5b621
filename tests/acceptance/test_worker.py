"""`ocrfleet worker`, `models`, `bench` and `run` with profiles, from outside: processes, exit codes, what they print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.select import named
from ocrfleet.records.documents import DocumentStatus
from tests.support.desk import NUMBERED, Desk
from tests.support.fakes.numbered import write_book
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.waiting import rest, scaled, until


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    """The producer side of a fleet; a command starts the workers."""
    made = Stage(tmp_path, valkey)
    yield made
    made.close()


@pytest.fixture
def shared(stage: Stage) -> dict[str, str]:
    """The environment of a command for the stage."""
    return {
        "OCRFLEET_REDIS_URL": stage.valkey.url,
        "OCRFLEET_STORE": str(stage.settings.store),
        "OCRFLEET_LEASE_SECONDS": str(stage.settings.lease_seconds),
    }


def workers_of(desk: Desk, process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for one in desk.family(process):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if one.cmdline()[-2:] == ["-m", "worker"]:  # its renderers have other modules
                found.append(one)
    return found


# ---- ocrfleet worker


def test_workers_register_and_a_killed_one_is_restarted(desk: Desk, stage: Stage, shared: dict[str, str]) -> None:
    # Given two workers
    process = desk.start("worker", *NUMBERED, "--processes", "2", environment=shared)
    stage.await_(lambda: len(stage.ledger.workers()) == 2)
    first = stage.ledger.workers()
    assert {state.profile for state in first} == {stage.profile.name}
    assert {state.profile_digest for state in first} == {stage.profile.digest}
    # When one of them is killed
    victim = workers_of(desk, process)[0]
    victim.send_signal(signal.SIGKILL)
    # Then there are two again, one of them new
    stage.await_(lambda: len({s.worker for s in stage.ledger.workers()} - {s.worker for s in first}) == 1)
    stage.await_(lambda: len(stage.ledger.workers()) == 2)
    # And they read
    book = stage.register("a", list(range(6)))
    (status,) = stage.finish(book)
    assert status.status is DocumentStatus.COMPLETED
    # And they exit when the supervisor gets SIGTERM
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=scaled(120))
    assert process.returncode == 0, said
    assert desk.gone(seconds=2)
    assert stage.ledger.workers() == []
    assert "supervisor.restarting" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("how", ["SIGTERM to the supervisor", "SIGINT to the group"])
def test_workers_finish_begun_pages_on_sigterm(desk: Desk, stage: Stage, shared: dict[str, str], how: str) -> None:
    # Given a worker with a page in flight, in its own process group as in a terminal
    desk.plan["seconds"] = 1.5
    process = desk.start("worker", *NUMBERED, environment=shared, start_new_session=True)
    book = stage.register("a", [1, 2, 3], pages_per_job=1)
    stage.await_(stage.recognised)
    desk.family(process)
    # When it gets SIGTERM from an orchestrator, or SIGINT from Ctrl-C in a terminal
    if how.startswith("SIGINT"):
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.Signals[how.split(maxsplit=1)[0]])
    _, said = process.communicate(timeout=scaled(120))
    # Then it exits with code 0, the page is stored, and no process is left
    assert process.returncode == 0, said
    assert desk.gone(seconds=2)
    begun = stage.recognised()
    assert 1 <= len(begun) <= 2
    assert len(stage.stored(book)) == len(begun)
    assert "Traceback" not in said


def test_a_second_signal_ends_workers_at_once(desk: Desk, stage: Stage, shared: dict[str, str]) -> None:
    desk.plan["hang"] = [1]
    process = desk.start("worker", *NUMBERED, environment=shared)
    stage.register("a", [1])
    stage.await_(stage.recognised)
    desk.family(process)
    process.send_signal(signal.SIGINT)
    rest(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=scaled(20))
    assert process.returncode == 130
    assert desk.gone(seconds=2)


def test_a_killed_supervisor_leaves_no_worker(desk: Desk, stage: Stage, shared: dict[str, str]) -> None:
    process = desk.start("worker", *NUMBERED, "--processes", "2", environment=shared)
    stage.await_(lambda: len(stage.ledger.workers()) == 2)
    assert len(workers_of(desk, process)) == 2
    process.kill()
    process.communicate()
    assert desk.gone(seconds=5)


def test_workers_that_cannot_start_end_the_command_with_one_line(
    desk: Desk, stage: Stage, shared: dict[str, str]
) -> None:
    result = desk.run("worker", "--engine", "nowhere:Engine", "--processes", "2", environment=shared, seconds=120)
    assert result.returncode == 3
    assert "the engine 'nowhere:Engine' can't be loaded" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Can't start: worker-")
    assert "Traceback" not in result.stderr


def test_a_worker_at_its_limit_leaves_the_others_to_work_on(desk: Desk, stage: Stage, shared: dict[str, str]) -> None:
    # Given a spending limit that one worker reaches while another reads a page
    desk.plan |= {"limit": 2, "wait": [1], "until": str(desk.folder / "until")}
    process = desk.start("worker", *NUMBERED, "--processes", "2", environment=shared)
    stage.await_(lambda: len(stage.ledger.workers()) == 2)
    book = stage.register("a", [1])
    stage.await_(lambda: stage.recognised() == [1])
    stage.register("b", list(range(2, 9)))
    stage.await_(lambda: len(workers_of(desk, process)) == 1)
    (desk.folder / "until").touch()
    _, said = process.communicate(timeout=scaled(120))
    # Then that page is still stored; the other runs to its own limit, and the log has the reason
    assert process.returncode == 3
    assert "it may read no more" in said
    assert "Traceback" not in said
    assert stage.stored(book) == ["000001.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpus", "all"], "no NVIDIA GPU found"),
        (["--gpus", "0,x"], "write all, or numbers such as 0,2"),
        (["--gpus", "0,1", "--processes", "2"], "don't go together"),
        (["--profile", "nowhere"], "there is no profile 'nowhere'"),
    ],
)
def test_a_wrong_use_of_worker_is_reported_in_one_line(desk: Desk, arguments: list[str], words: str) -> None:
    result = desk.run("worker", *arguments, environment={"CUDA_VISIBLE_DEVICES": ""}, seconds=120)
    assert result.returncode == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_workers_wait_for_a_redis_that_is_away(desk: Desk, stage: Stage, shared: dict[str, str]) -> None:
    # Given workers that are started before their Redis
    stage.valkey.kill()
    process = desk.start("worker", *NUMBERED, environment=shared)
    until(lambda: workers_of(desk, process))
    rest(2)
    (worker,) = workers_of(desk, process)
    stage.valkey.start()
    # Then they are ready when Redis is, without a restart
    stage.await_(lambda: len(stage.ledger.workers()) == 1)
    assert workers_of(desk, process) == [worker]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=scaled(120))
    assert process.returncode == 0


# ---- ocrfleet models


def test_models_lists_prompts_and_modes(desk: Desk) -> None:
    result = desk.run("models")
    assert result.returncode == 0, result.stderr
    told = " ".join(result.stdout.split())
    for model in MODELS:
        assert model.model in told
        assert all(mode in told for mode in model.modes)
        assert all(prompt in told for prompt in model.prompts)
    assert all(profile.name in told for profile in named())
    assert "<|grounding|>Convert the document to markdown." in told


def test_models_as_json_has_all_fields(desk: Desk) -> None:
    facts = json.loads(desk.run("models", "--json").stdout)
    assert [model["name"] for model in facts["models"]] == [model.name for model in MODELS]
    assert all(model["gpu_memory_gib"] > model["weights_gib"] for model in facts["models"])
    profiles = {profile["name"]: profile for profile in facts["profiles"]}
    assert profiles.keys() == {profile.name for profile in named()}
    # What it lists can be written into a file and used
    (desk.folder / "mine.json").write_text(json.dumps(profiles["rapidocr"]))
    write_book(desk.scans / "a.tif", [1])
    assert desk.run("run", "in", "-o", "out", "--profile", "mine.json", "--dry-run").returncode == 0


# ---- ocrfleet bench


def test_bench_measures_pages_and_tokens(desk: Desk) -> None:
    desk.plan["seconds"] = 0.05
    for name, count in (("a", 12), ("b", 8)):
        write_book(desk.scans / f"{name}.tif", list(range(count)) if name == "a" else list(range(50, 50 + count)))
    result = desk.run("bench", "in/", *NUMBERED, "--workers", "2", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    # Then the numbers are consistent
    assert facts["pages_read"] == len(desk.recognised()) == 20
    assert facts["pages_failed"] == 0
    assert facts["workers"] == 2
    assert 20 * 0.05 <= facts["busy_seconds"] <= 2 * facts["seconds_in_all"]
    # 0.05 seconds a page are 1.7 million pages a day and worker; the machine may take longer
    assert 0 < facts["pages_per_day_per_worker"] <= 86_400 / 0.05
    assert facts["pages_per_day"] == pytest.approx(2 * facts["pages_per_day_per_worker"], abs=2)
    assert facts["starved_seconds"] >= 0
    assert (facts["tokens_per_page"], facts["tokens_per_second"]) == (0, 0)
    # And nothing is left behind
    assert sorted(path.name for path in desk.folder.iterdir()) == ["in", "plan.json", "recognised.log"]


def test_bench_prints_a_table_and_the_failed_pages(desk: Desk) -> None:
    desk.plan["fail"] = [2]
    write_book(desk.scans / "a.tif", [1, 2, 3])
    result = desk.run("bench", "in/", *NUMBERED, "--workers", "1")
    assert result.returncode == 1, result.stderr
    told = " ".join(result.stdout.split())
    assert "2 pages read" in told
    assert "1 pages failed" in told
    assert "pages a day, all workers" in told


# ---- ocrfleet run, with profiles


def test_a_run_with_a_profile_of_ones_own(desk: Desk) -> None:
    profile = {
        "name": "mine",
        "engine": "numbered:NumberedEngine",
        "model": "squares",
        "revision": "7",
        "render": {"long_side": 1000},
        "pages_per_job": 2,
        "canary": {"words": ["canary"]},
    }
    (desk.folder / "mine.json").write_text(json.dumps(profile))
    write_book(desk.scans / "a.tif", [1, 2, 3])
    result = desk.run("run", "in", "-o", "out", "--profile", "mine.json")
    assert result.returncode == 0, result.stderr
    document = json.loads(desk.outputs()["a.tif.json"])
    told = {(page["profile"], page["model"], page["revision"]) for page in document["pages"]}
    assert told == {("mine", "squares", "7")}


def test_a_run_whose_canary_is_misread_does_not_begin(desk: Desk) -> None:
    profile = {
        "name": "mine",
        "engine": "numbered:NumberedEngine",
        "model": "squares",
        "revision": "7",
        "render": {"long_side": 1000},
        "canary": {"words": ["ferry"]},
    }
    (desk.folder / "mine.json").write_text(json.dumps(profile))
    write_book(desk.scans / "a.tif", [1])
    result = desk.run("run", "in", "-o", "out", "--profile", "mine.json", "--workers", "1", seconds=120)
    assert result.returncode == 3
    assert "misreads the self-test page" in " ".join(result.stderr.split())
    assert desk.recognised() == []


def test_openai_without_a_server_is_reported_in_one_line(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", [1])
    result = desk.run("run", "in", "-o", "out", "--engine", "openai", seconds=120)
    assert result.returncode == 3
    assert "--engine openai needs the server's address: --base-url" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "rapidocr", "--mode", "tiny"], "leave out --engine"),
        (["--model", "deepseek-ocr", "--language", "deu"], "needs no --language"),
        (["--engine", "vllm", "--prompt", os.fsdecode(b"<image>\xff")], "no text in UTF-8"),
    ],
)
def test_incompatible_options_are_reported_in_one_line(desk: Desk, arguments: list[str], words: str) -> None:
    write_book(desk.scans / "a.tif", [1])
    result = desk.run("run", "in", "-o", "out", *arguments, seconds=120)
    assert result.returncode == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not desk.out.exists()
