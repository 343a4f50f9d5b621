"""`ocrfleet run` from outside: what it prints, how it ends, what survives when it is killed."""

from __future__ import annotations

import json
import os
import signal
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.support.desk import COMMAND, NUMBERED, Desk
from tests.support.fakes.numbered import draw, write_book
from tests.support.waiting import scaled, until

BOOKS = {"a.tif": range(10), "sub/b.tif": range(100, 120), "sub/c.tif": range(200, 210)}


@pytest.fixture
def books(desk: Desk) -> Desk:
    (desk.scans / "sub").mkdir()
    for name, numbers in BOOKS.items():
        write_book(desk.scans / name, list(numbers))
    return desk


def test_a_folder_becomes_text(books: Desk) -> None:
    # Given a folder with books and another file
    (books.scans / "notes.txt").write_text("not a scan")
    # When it is run
    result = books.run("run", "in", "-o", "out", *NUMBERED)
    # Then the outputs mirror the input tree and the pages are in order
    assert result.returncode == 0, result.stderr
    assert sorted(books.outputs()) == sorted(f"{name}.{kind}" for name in BOOKS for kind in ("md", "json"))
    text = books.outputs()["sub/b.tif.md"].decode()
    assert [line for line in text.split("\n") if line.startswith("page number")] == [
        f"page number {n}" for n in BOOKS["sub/b.tif"]
    ]
    # And the report lists done and skipped files, and the folder of the outputs
    assert "40 pages done, 0 failed" in result.stdout
    assert "notes.txt: neither a PDF nor an image" in result.stdout
    assert "out/sub/b.tif.md" in result.stdout


def test_the_json_has_all_of_a_page_and_nothing_of_the_run(books: Desk) -> None:
    books.plan["fail"] = [105]
    assert books.run("run", "in/sub", "-o", "out", *NUMBERED).returncode == 1
    document = json.loads(books.outputs()["b.tif.json"])
    assert document["status"] == "partial"
    assert "pixels" in document["coordinates"]
    assert [page["page"] for page in document["pages"]] == list(range(1, 21))
    done, failed = document["pages"][0], document["pages"][5]
    assert done["status"] == "done"
    assert (done["engine"], done["revision"], done["profile"]) == (
        "numbered:NumberedEngine",
        "custom",
        "numbered-numberedengine",
    )
    assert (done["width_px"], done["height_px"], done["width_pt"], done["height_pt"]) == (256, 256, 256.0, 256.0)
    assert done["lines"] == [{"text": "page number 100", "box": [64, 128, 192, 144], "confidence": 1.0}]
    assert (failed["status"], failed["reason"], failed["text"]) == ("failed", "engine_failed", "")
    # A placeholder replaces the page
    text = books.outputs()["b.tif.md"].decode()
    assert "> **Page 6 is missing:**" in text
    assert text.index("page number 104") < text.index("Page 6 is missing") < text.index("page number 106")
    # Attempts, seconds and worker are elsewhere
    runs = books.out / ".ocrfleet" / "store" / "documents" / document["document"] / "runs"
    (record,) = [json.loads(path.read_text()) for path in runs.rglob("000006-*.json")]
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["engine_failed", "engine_failed"]
    assert record["worker"]
    assert record["worker"] not in books.outputs()["b.tif.json"].decode()


def test_failures_are_listed_and_stay_until_they_are_asked_for_again(books: Desk) -> None:
    books.plan["fail"] = [105, 3]
    result = books.run("run", "in", "-o", "out", *NUMBERED)
    assert result.returncode == 1
    assert "a.tif page 4: engine_failed: it said no" in result.stdout
    assert "b.tif page 6: engine_failed: it said no" in result.stdout
    # A second run of the same command reads no page and prints the same
    attempts = len(books.recognised())
    assert books.run("run", "in", "-o", "out", *NUMBERED).returncode == 1
    assert len(books.recognised()) == attempts
    # Until a retry of the pages is requested
    books.plan["fail"] = []
    assert books.run("run", "in", "-o", "out", *NUMBERED, "--retry-failed").returncode == 0
    assert sorted(books.recognised()[attempts:]) == [3, 105]
    assert "Page" not in books.outputs()["a.tif.md"].decode()


def test_json_summary_is_all_that_is_printed(books: Desk) -> None:
    result = books.run("run", "in", "-o", "out", *NUMBERED, "--json")
    summary = json.loads(result.stdout)
    assert (summary["documents"], summary["pages"], summary["pages_done"]) == (3, 40, 40)
    assert {item["name"] for item in summary["results"]} == set(BOOKS)
    assert all(Path(books.folder, file).is_file() for item in summary["results"] for file in item["files"])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(books: Desk) -> None:
    (books.scans / "broken.pdf").write_bytes(b"")
    (books.scans / "notes.txt").write_text("x")
    result = books.run("run", "in", "-o", "out", *NUMBERED, "--dry-run", "--json")
    facts = json.loads(result.stdout)
    assert (facts["documents"], facts["pages"], facts["pages_done_already"]) == (4, 40, 0)
    assert [problem["reason"] for problem in facts["problems"]] == ["empty_file"]
    assert [item["name"] for item in facts["skipped"]] == ["notes.txt"]
    assert not books.out.exists()
    assert not books.recognised()


def test_the_same_file_under_two_names_is_read_once_and_delivered_twice(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", [1, 2])
    (desk.scans / "copy.tif").write_bytes((desk.scans / "a.tif").read_bytes())
    assert desk.run("run", "in", "-o", "out", *NUMBERED).returncode == 0
    assert sorted(desk.recognised()) == [1, 2]
    assert desk.outputs()["a.tif.md"] == desk.outputs()["copy.tif.md"]


def test_a_changed_file_is_done_again(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", [1, 2])
    write_book(desk.scans / "b.tif", [8])
    desk.run("run", "in", "-o", "out", *NUMBERED)
    write_book(desk.scans / "a.tif", [1, 3])
    assert desk.run("run", "in", "-o", "out", *NUMBERED).returncode == 0
    assert sorted(desk.recognised()) == [1, 1, 2, 3, 8]
    assert "page number 3" in desk.outputs()["a.tif.md"].decode()


def test_a_file_that_changes_while_it_waits_is_said_to_have_changed(desk: Desk) -> None:
    desk.plan["seconds"] = 0.3
    write_book(desk.scans / "a.tif", list(range(12)))
    process = desk.start("run", "in", "-o", "out", *NUMBERED, "--json")
    until(lambda: len(desk.recognised()) >= 2, pause=0.02)
    write_book(desk.scans / "a.tif", list(range(50, 62)))
    out, _ = process.communicate(timeout=scaled(120))
    assert process.returncode == 1
    (item,) = json.loads(out)["results"]
    assert item["status"] == "partial"
    assert {failure["reason"] for failure in item["failures"]} == {"source_changed"}
    # The next run reads the new file
    assert desk.run("run", "in", "-o", "out", *NUMBERED).returncode == 0
    assert "page number 61" in desk.outputs()["a.tif.md"].decode()


def test_the_images_of_a_folder_are_one_book_in_natural_order(desk: Desk) -> None:
    (desk.scans / "book").mkdir()
    for number in (1, 2, 10):
        draw(number).save(desk.scans / "book" / f"page-{number}.png")
    (desk.scans / "book" / "page-3.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_book(desk.scans / "apart.tif", [99])
    result = desk.run("run", "in/book", "-o", "out", *NUMBERED, "--group", "folder")
    # The broken image fails at its place: page numbers do not shift
    assert result.returncode == 1, result.stdout
    text = desk.outputs()["book.md"].decode()
    marks = ["page number 1\n", "page number 2\n", "Page 3 is missing", "page number 10\n"]
    assert sorted(marks, key=text.index) == marks


def test_pages_are_chosen_and_keep_their_numbers(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", list(range(1, 13)))
    assert desk.run("run", "in", "-o", "out", *NUMBERED, "--pages", "3-4,11-").returncode == 0
    assert [page["page"] for page in json.loads(desk.outputs()["a.tif.json"])["pages"]] == [3, 4, 11, 12]
    assert sorted(desk.recognised()) == [3, 4, 11, 12]
    result = desk.run("run", "in", "-o", "out", *NUMBERED, "--pages", "20-30")
    assert result.returncode == 1
    assert "no_such_pages: the document has 12 pages" in result.stdout


def test_a_file_name_of_any_bytes(desk: Desk) -> None:
    name = os.fsdecode(b"caf\xe9 <b>[x]\n.tif")
    write_book(desk.scans / "plain.tif", [5])
    (desk.scans / "plain.tif").rename(desk.scans / name)
    result = desk.run("run", "in", "-o", "out", *NUMBERED)
    assert result.returncode == 0, result.stderr
    assert "page number 5" in (desk.out / (name + ".md")).read_text()
    # Control characters are escaped in the output
    assert r"caf\udce9 <b>[x]\n.tif" in result.stdout


# ---- killed, interrupted, left alone


def undisturbed(desk: Desk) -> dict[str, bytes]:
    plan = dict(desk.plan)
    desk.plan = {}
    assert desk.run("run", "in", "-o", "calm", *NUMBERED).returncode == 0
    desk.plan = plan
    return desk.outputs(desk.folder / "calm")


@pytest.mark.parametrize("victim", ["command", "everything"])
def test_a_killed_run_resumes_and_writes_the_same_bytes(books: Desk, victim: str) -> None:
    expected = undisturbed(books)
    books.plan["seconds"] = 0.15
    # Given a run that was killed
    process = books.start("run", "in", "-o", "out", *NUMBERED)
    until(lambda: books.stored_pages() >= 8, pause=0.02)
    family = books.family(process)
    process.kill()
    if victim == "everything":
        for one in family:
            one.kill()
    process.communicate()
    # Then no process stays behind
    assert books.gone()
    stored, before = books.stored_pages(), len(books.recognised())
    assert stored < 40
    # When it is run again
    process = books.start("run", "in", "-o", "out", *NUMBERED, "--json")
    until(lambda: len(books.recognised()) > before, seconds=15, pause=0.02)
    out, err = process.communicate(timeout=scaled(120))
    # Then it continues, reads no page with a stored result, and the outputs equal those of an uninterrupted run
    assert process.returncode == 0, err
    assert json.loads(out)["pages_reused"] == stored
    assert len(books.recognised()) - before == 40 - stored
    assert books.outputs() == expected


@pytest.mark.parametrize(
    ("victim", "parent"),
    [("valkey-server", ""), ("-P -m worker", ""), ("ocrfleet.sandbox.fork_server_main", "-P -m worker")],
    ids=["valkey", "worker", "renderers"],
)
def test_a_member_that_is_killed_is_replaced(books: Desk, victim: str, parent: str) -> None:
    expected = undisturbed(books)
    books.plan["seconds"] = 0.15
    process = books.start("run", "in", "-o", "out", *NUMBERED)
    until(lambda: books.stored_pages() >= 6, pause=0.02)
    books.member(process, victim, parent=parent).kill()
    _, err = process.communicate(timeout=scaled(90))
    assert process.returncode == 0, err
    assert books.outputs() == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_stops_cleanly_and_resumes(books: Desk, number: signal.Signals) -> None:
    books.plan["seconds"] = 0.2
    process = books.start("run", "in", "-o", "out", *NUMBERED)
    until(lambda: books.stored_pages() >= 4, pause=0.02)
    books.family(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=scaled(120))
    assert process.returncode == 128 + number, err
    assert "Run the same command again" in out
    assert books.gone(seconds=2)
    # Pages in flight were finished and stored: no page is read twice
    assert len(books.recognised()) == books.stored_pages()
    assert books.run("run", "in", "-o", "out", *NUMBERED).returncode == 0
    assert len(books.recognised()) == 40


def test_a_closed_terminal_leaves_no_process(books: Desk) -> None:
    books.plan["seconds"] = 0.2
    plan = books.folder / "plan.json"
    plan.write_text(json.dumps(books.plan))
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(books.folder)
        from tests.support.servers import FAKES  # noqa: PLC0415 - in the child

        environment = {**os.environ, "PYTHONPATH": str(FAKES), "OCRFLEET_TEST_PLAN": str(plan), "TERM": "xterm"}
        os.execve(COMMAND[0], [*COMMAND, "run", "in", "-o", "out", *NUMBERED], environment)  # noqa: S606
    seen = b""
    while b"pages" not in seen or books.stored_pages() < 4:
        seen += os.read(terminal, 4096)
    members = books.family(type("Process", (), {"pid": pid})())
    assert len(members) >= 3
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in {128 + signal.SIGHUP, -signal.SIGHUP}
    assert books.gone()


def test_two_runs_on_one_output_folder_do_not_mix(books: Desk) -> None:
    # Given a run that is blocked at one of its pages
    books.plan |= {"wait": [BOOKS["a.tif"][-1]], "until": str(books.folder / "never")}
    process = books.start("run", "in", "-o", "out", *NUMBERED)
    until(lambda: books.stored_pages() >= 1, pause=0.02)
    # When another one is started
    result = books.run("run", "in", "-o", "out", *NUMBERED)
    # Then it exits, because the first one uses the folder
    assert result.returncode == 2
    assert f"another run (process {process.pid})" in result.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=scaled(120))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere", "-o", "out"], "there is no nowhere"),
        (["run", "in"], "Missing option '--output'"),
        (["run", "in", "-o", "out", "--pages", "x"], "write it like 3-10"),
        (["run", "in", "-o", "out", "--engine", "magic"], "there is no engine 'magic'"),
        (["run", "in", "-o", "out", "--language", "fra"], "needs no --language"),
        (["run", "in", "-o", "out", "--group", "file"], "--group takes 'folder'"),
        (["run", "in", "-o", "in/a.tif"], "must be a folder"),
        (["run", "in", "-o", "in/a.tif/out"], "can't be written"),
        (["run", "in", "-o", "in"], "both input and output"),
        (["run", "in", "-o", "out", "--password-file", "none"], "can't be read"),
        (["run", "empty", "-o", "out"], "no document was found"),
        (["run", "in", "in/a.tif", "twin", "-o", "out"], "would both be written to"),
    ],
)
def test_a_wrong_use_is_reported_in_one_line(desk: Desk, arguments: list[str], words: str) -> None:
    write_book(desk.scans / "a.tif", [1])
    (desk.folder / "empty").mkdir()
    (desk.folder / "twin").mkdir()
    write_book(desk.folder / "twin" / "a.tif", [2])
    result = desk.run(*arguments)
    assert result.returncode == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_an_engine_that_cannot_start_is_reported_in_one_line(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", [1])
    result = desk.run("run", "in", "-o", "out", "--engine", "no.such.module:Engine")
    assert result.returncode == 3
    assert "the engine 'no.such.module:Engine' can't be loaded" in " ".join(result.stderr.split())


def test_a_page_that_kills_workers_harms_no_other(books: Desk) -> None:
    books.plan["crash"] = [110]
    result = books.run("run", "in/sub", "-o", "out", *NUMBERED)
    assert result.returncode == 1
    assert "b.tif page 11: worker_died" in result.stdout
    assert "29 pages done, 1 failed" in result.stdout


def test_a_worker_that_is_killed_repeatedly_is_restarted_each_time(desk: Desk) -> None:
    desk.plan["crash"] = [2]
    write_book(desk.scans / "a.tif", [1, 2, 3])
    result = desk.run("run", "in", "-o", "out", *NUMBERED, "--workers", "1")
    assert result.returncode == 1, result.stderr
    assert "a.tif page 2: worker_died" in result.stdout
    assert "2 pages done, 1 failed" in result.stdout


def test_help_has_examples_and_the_version_is_printed(desk: Desk) -> None:
    assert "Exit code: 0 every page done" in " ".join(desk.run("run", "--help").stdout.split())
    assert desk.run("--version").stdout.startswith("ocrfleet 0.")
    assert "OCRFLEET_REDIS_URL" in desk.run("worker", "--help").stdout


def test_a_page_that_exhausts_its_renderer_or_is_truncated_fails_alone_after_limited_attempts(desk: Desk) -> None:
    # Given a book with a bomb (a small file of 900 million pixels) and a torn page among good ones
    book = desk.scans / "book"
    book.mkdir()
    for number in (1, 2, 3):
        draw(number).save(book / f"{number}.png")
    Image.new("1", (30000, 30000)).save(book / "4.png")
    torn = BytesIO()
    draw(5).resize((1200, 1200)).save(torn, "JPEG")
    (book / "5.jpg").write_bytes(torn.getvalue()[:9000])
    draw(6).save(book / "6.png")
    # When it is read with little memory for a renderer
    environment = {"OCRFLEET_RENDER_MEMORY_MB": "128"}
    result = desk.run("run", "in", "-o", "out", *NUMBERED, "--group", "folder", "--json", environment=environment)
    # Then those two pages fail with their reasons, and the others are done
    assert result.returncode == 1, result.stderr
    (item,) = json.loads(result.stdout)["results"]
    assert {(failure["page"], failure["reason"]) for failure in item["failures"]} == {
        (4, "render_memory"),
        (5, "unreadable"),
    }
    assert sorted(desk.recognised()) == [1, 2, 3, 6]
    # And deterministic failures were not retried, others were
    runs = desk.out / ".ocrfleet" / "store" / "documents" / item["document"] / "runs"
    attempts = {
        page: [
            a["outcome"] for path in runs.rglob(f"{page:06d}-*.json") for a in json.loads(path.read_text())["attempts"]
        ]
        for page in (4, 5)
    }
    assert attempts == {4: ["render_memory", "render_memory"], 5: ["unreadable"]}


def test_a_renderer_beyond_its_deadline_is_killed_and_reported(desk: Desk) -> None:
    write_book(desk.scans / "a.tif", [1])
    environment = {"OCRFLEET_RENDER_DEADLINE": "0.001"}
    result = desk.run("run", "in", "-o", "out", *NUMBERED, "--json", environment=environment)
    assert result.returncode == 1
    (item,) = json.loads(result.stdout)["results"]
    assert [failure["reason"] for failure in item["failures"]] == ["render_deadline"]


def test_an_interrupted_run_resumes_with_more_inputs(books: Desk) -> None:
    # Given a run that was interrupted during a document
    books.plan["seconds"] = 0.2
    process = books.start("run", "in/sub", "-o", "out", *NUMBERED)
    until(lambda: books.stored_pages() >= 4, pause=0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=scaled(120))
    # When another command has the same documents and more
    write_book(books.folder / "more.tif", [300])
    result = books.run("run", "in/sub", "more.tif", "-o", "out", *NUMBERED, seconds=120)
    # Then all of them are read, and no page twice
    assert result.returncode == 0, result.stderr
    assert sorted(books.recognised()) == [*range(100, 120), *range(200, 210), 300]
    # And the first command finds everything done
    assert books.run("run", "in/sub", "-o", "out", *NUMBERED, seconds=120).returncode == 0
    assert len(books.recognised()) == 31


def test_failed_pages_of_a_file_with_two_names_are_tried_again_once(desk: Desk) -> None:
    desk.plan["fail"] = [2]
    write_book(desk.scans / "a.tif", [1, 2])
    (desk.scans / "z.tif").write_bytes((desk.scans / "a.tif").read_bytes())
    desk.run("run", "in", "-o", "out", *NUMBERED)
    before = len(desk.recognised())
    result = desk.run("run", "in", "-o", "out", *NUMBERED, "--retry-failed", "--json")
    assert len(desk.recognised()) - before == 2  # the two attempts of one generation
    summary = json.loads(result.stdout)
    assert (summary["documents"], summary["pages"], summary["pages_failed"]) == (2, 2, 1)


def test_an_engine_that_fails_every_page_stops_the_run_and_blames_no_page(books: Desk) -> None:
    result = books.run("run", "in", "-o", "out", "--engine", "numbered:BrokenEngine")
    assert result.returncode == 3
    assert "no memory on the device" in result.stderr
    assert books.stored_pages() == 0


def test_modules_in_the_current_folder_are_not_imported(books: Desk) -> None:
    for name in ("worker.py", "ocrfleet.py", "json.py", "redis.py"):
        (books.folder / name).write_text("raise SystemExit('imported from the current folder')")
    assert books.run("run", "in/a.tif", "-o", "out", *NUMBERED).returncode == 0


def test_a_damaged_record_harms_one_document(books: Desk) -> None:
    books.run("run", "in", "-o", "out", *NUMBERED)
    status = next((books.out / ".ocrfleet" / "store").rglob("status/00001.json"))
    status.write_bytes(b"{}")
    result = books.run("run", "in", "-o", "out", *NUMBERED, "--json")
    assert result.returncode == 1, result.stderr
    broken = [item for item in json.loads(result.stdout)["results"] if item["failures"]]
    assert [failure["reason"] for item in broken for failure in item["failures"]] == ["not_delivered"]
    assert "have everything read again" in broken[0]["failures"][0]["detail"]


def test_an_interrupt_during_intake_leaves_no_process(desk: Desk) -> None:
    # Given a file whose pages take long to count
    frames = Image.new("1", (8, 8))
    frames.save(desk.scans / "many.tif", save_all=True, append_images=[frames] * 2000)
    process = desk.start("run", "in", "-o", "out", *NUMBERED)
    until(
        lambda: any("ocrfleet.sandbox.fork_server_main" in " ".join(one.cmdline()) for one in desk.family(process)),
        pause=0.02,
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=scaled(120))
    assert process.returncode == 130
    assert desk.gone(seconds=3)
