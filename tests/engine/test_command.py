"""The commands of the README with the real vLLM: from a folder of scans to text, in this process and over HTTP."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocrfleet.profiles.profile import Canary, Profile
from ocrfleet.settings import OpenAiSettings, Settings
from tests.support.desk import Desk
from tests.support.engine_contract import EngineContract, Use, printed
from tests.support.fakes.numbered import write_book
from tests.support.vllm.running import Running
from tests.support.waiting import scaled, until
from worker.pipeline.retry import REJECTIONS


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_run_with_vllm_from_end_to_end(desk: Desk, tiny: Callable[..., Profile], checkpoints: dict[str, Path]) -> None:
    # Given scans, and a profile of one's own that extends a shipped one
    write_book(desk.scans / "a.tif", list(range(12)))
    write_book(desk.scans / "b.tif", list(range(100, 104)))
    (desk.folder / "tiny.json").write_text(
        json.dumps(
            {
                "extends": "deepseek-ocr-tiny-ocr",
                "name": "tiny",
                "model_path": os.path.relpath(checkpoints["deepseek-ocr"], desk.folder),
                "sampling": {"max_tokens": 16, "ngram_size": 30},
                "canary": {"twice": True},
                # Random weights write noise until they are cut off.
                "judgement": {"ignored": REJECTIONS},
            }
        )
    )
    # When they are read
    result = desk.run("run", "in", "-o", "out", "--profile", "tiny.json", "--json", seconds=250)
    # Then it is as with any engine
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["pages"], summary["pages_done"]) == (16, 16)
    document = json.loads(desk.outputs()["a.tif.json"])
    page = document["pages"][0]
    assert (page["profile"], page["engine"], page["model"]) == ("tiny", "vllm", "deepseek-ai/DeepSeek-OCR")
    assert page["tokens"] > 0
    assert page["finish_reason"] in {"stop", "length"}
    assert desk.gone()
    # And a second run has nothing to do, so it starts no engine: one could not even be imported
    (desk.folder / "vllm.py").write_text(f"open({str(desk.folder / 'imported')!r}, 'w').close()")
    environment = {"PYTHONPATH": str(desk.folder)}
    again = desk.run("run", "in", "-o", "out", "--profile", "tiny.json", "--json", environment=environment)
    assert json.loads(again.stdout)["pages_done"] == 16
    assert not (desk.folder / "imported").exists()


@pytest.fixture(scope="module")
def server(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `vllm serve` with our plugin, as the documentation says to start one; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("vllm")), "serve", str(checkpoints["deepseek-ocr"])),
                *("--served-model-name", "deepseek-ocr", "--host", "127.0.0.1", "--port", str(port)),
                *("--logits-processors", "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"),
                *("--no-enable-prefix-caching", "--mm-processor-cache-gb", "0", "--max-model-len", "8192"),
                *("--chat-template", "{{ messages[0]['content'] }}", "--enforce-eager", "--max-num-seqs", "8"),
            ],
            env={**os.environ, "OCRFLEET_VLLM_MODE": "tiny"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )

    def healthy() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=scaled(5)).close()
        except OSError:
            return False
        return True

    try:
        until(healthy, seconds=240, pause=0.5, otherwise=lambda: log.read_text()[-3000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(scaled(30))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class TestServedByVllm(EngineContract):
    longest_hold = 0.9

    @pytest.fixture
    def profile(self, tiny: Callable[..., Profile]) -> Profile:
        local = tiny(mode="tiny")
        return local.model_copy(update={"engine": "openai", "model_path": None})

    @pytest.fixture
    def use(self, profile: Profile, server: str) -> Iterator[Use]:
        running = Running(profile, Settings(openai=OpenAiSettings(base_url=server, concurrency=4)))
        yield running.use
        running.close()

    def test_the_guard_works_over_http_too(self, use: Use, profile: Profile) -> None:
        assert profile.sampling is not None
        strict, off = (
            profile.model_copy(
                update={
                    "sampling": profile.sampling.model_copy(
                        update={"max_tokens": 200, "ngram_size": size, "ngram_window": 1000}
                    )
                }
            )
            for size in (2, None)
        )

        async def read(engine: object) -> list[list[str]]:
            return [(await engine.recognise(printed(), at)).text.split() for at in (strict, off)]  # type: ignore[attr-defined]

        guarded, free = use(read)
        pairs = list(itertools.pairwise(guarded))
        assert len(set(pairs)) == len(pairs)
        assert guarded != free


def test_run_against_a_server(desk: Desk, server: str, tiny: Callable[..., Profile]) -> None:
    write_book(desk.scans / "a.tif", list(range(10)))
    profile = tiny(mode="tiny").model_copy(
        update={"name": "served", "engine": "openai", "model_path": None, "canary": Canary(twice=True)}
    )
    (desk.folder / "served.json").write_text(profile.model_dump_json())
    result = desk.run("run", "in", "-o", "out", "--profile", "served.json", "--base-url", server, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["pages_done"] == 10
    page = json.loads(desk.outputs()["a.tif.json"])["pages"][0]
    assert (page["engine"], page["engine_version"][:12]) == ("openai", "openai vllm ")
    assert page["tokens"] > 0


def test_a_model_that_the_server_lacks_is_named(desk: Desk, server: str) -> None:
    write_book(desk.scans / "a.tif", [1])
    result = desk.run("run", "in", "-o", "out", "--engine", "openai", "--base-url", server, "--model", "someone/else")
    assert result.returncode == 3
    assert "it serves: deepseek-ocr" in result.stderr
