"""The real vLLM in this process: the engine contract, and what is specific to vLLM."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocrfleet.errors import ConfigurationError, FatalError, PermanentError
from ocrfleet.profiles.models import DEEPSEEK_OCR
from ocrfleet.profiles.profile import Mode, Profile
from ocrfleet.settings import Settings, VllmSettings
from tests.support.engine_contract import EngineContract, Use, crowded, page_image, printed
from tests.support.fakes.numbered import draw
from tests.support.vllm.running import Running, gone
from worker.engines.base import Engine, Recognition
from worker.engines.vllm.plugin import set_mode

#: model, mode, and the tokens that a page image of 1000 x 700 pixels takes in it; the last one runs on for the other tests
MODES = [
    ("deepseek-ocr", "gundam", 16 * 17 + 1 + 2 * 10 * (3 * 10 + 1)),
    ("deepseek-ocr-2", "dynamic", 16 * 16 + 1 + 2 * 12 * 3 * 12),
    ("deepseek-ocr", "tiny", 8 * 9 + 1),
]


@pytest.mark.parametrize("made_of", MODES, ids=lambda mode: f"{mode[0]}-{mode[1]}", scope="class")
class TestVllm(EngineContract):
    longest_hold = 0.9  # two cores, which torch has most of the time

    @pytest.fixture(scope="class")
    def profile(self, made_of: tuple[str, str, int], tiny: Callable[..., Profile]) -> Profile:
        return tiny(made_of[0], mode=made_of[1])

    @pytest.fixture
    def use(self, profile: Profile, running: Callable[[Profile], Running]) -> Use:
        return running(profile).use

    def test_the_mode_decides_how_many_tokens_an_image_takes(
        self, use: Use, profile: Profile, made_of: tuple[str, str, int]
    ) -> None:
        # The plugin set the mode in every process: else vLLM's front and its engine would not agree, and it would die.
        async def tokens(engine: Any) -> int:
            picture = Image.fromarray(printed().pixels)
            rendered = await engine.rendered(profile.prompt, picture)
            return list(rendered["prompt_token_ids"]).count(128815)

        assert use(tokens) == made_of[2]
        assert profile.mode is not None
        assert made_of[2] <= profile.mode.image_tokens


def test_a_mode_is_set_in_every_module_that_has_bound_another() -> None:
    # Given the state of vllm's modules after another engine in this process: each has its own constants
    from vllm.model_executor.models import deepseek_ocr, deepseek_ocr2
    from vllm.transformers_utils.processors import deepseek_ocr as processor

    sizes = {"base_size": processor.BASE_SIZE, "image_size": processor.IMAGE_SIZE, "tiles": processor.CROP_MODE}
    before = Mode(name="before", image_tokens=1, **sizes)
    try:
        for name in ("tiny", "gundam"):
            mode = DEEPSEEK_OCR.modes[name].mode
            assert mode is not None
            set_mode(mode)
            bound = {(module.BASE_SIZE, module.CROP_MODE) for module in (processor, deepseek_ocr, deepseek_ocr2)}
            assert bound == {(mode.base_size, mode.tiles)}
            assert deepseek_ocr2.IMAGE_SIZE == 768  # DeepSeek-OCR-2 has no other
    finally:
        set_mode(before)


@pytest.fixture
def profile(tiny: Callable[..., Profile]) -> Profile:
    return tiny(mode="tiny")


@pytest.fixture
def use(profile: Profile, running: Callable[[Profile], Running]) -> Use:
    return running(profile).use


def asked_for(profile: Profile, **changes: Any) -> Profile:
    assert profile.sampling is not None
    return profile.model_copy(update={"sampling": profile.sampling.model_copy(update=changes)})


def test_a_page_that_takes_too_long_frees_its_place(use: Use, profile: Profile) -> None:
    # Given as many endless pages as the engine takes
    endless = asked_for(profile, max_tokens=8000, ngram_size=None)

    async def crowd(engine: Any) -> tuple[int, Recognition]:
        async def one() -> None:
            async with asyncio.timeout(1.5):
                await engine.recognise(crowded(), endless)

        ends = await asyncio.gather(*(one() for _ in range(engine.concurrency)), return_exceptions=True)
        assert {type(end) for end in ends} <= {TimeoutError, type(None)}
        assert TimeoutError in {type(end) for end in ends}
        # When their deadlines are over
        left = engine.unfinished
        # Then nothing is left of them in the engine, and it reads on
        return left, await engine.recognise(printed(), profile)

    left, after = use(crowd)
    assert left == 0
    assert after.text.strip()


def test_a_prompt_that_is_too_long_is_the_pages_fault_alone(use: Use, profile: Profile) -> None:
    long = profile.model_copy(update={"prompt": "<image>\n" + "word " * 9000})

    async def both(engine: Engine) -> Recognition:
        with pytest.raises(PermanentError, match="vLLM refuses the page"):
            await engine.recognise(printed(), long)
        return await engine.recognise(printed(), profile)

    assert use(both).text.strip()


def test_warmth_changes_the_text_and_the_same_seed_gives_the_same(use: Use, profile: Profile) -> None:
    warm = asked_for(profile, temperature=1.5)

    async def read(engine: Engine) -> list[str]:
        asked = (profile, warm, warm)
        return [(await engine.recognise(printed(), at)).text for at in asked]

    cold, first, second = use(read)
    assert first == second != cold


def test_the_guard_keeps_runs_from_coming_twice(use: Use, profile: Profile) -> None:
    # Given a guard that forbids pairs to come twice, and none
    strict, off = (asked_for(profile, max_tokens=300, ngram_size=size, ngram_window=1000) for size in (2, None))

    async def read(engine: Engine) -> list[str]:
        return [(await engine.recognise(page_image(draw(5)), at)).text for at in (strict, off)]

    guarded, free = (text.split() for text in use(read))
    pairs = list(itertools.pairwise(guarded))
    assert len(set(pairs)) == len(pairs)
    assert guarded != free


def test_engine_processes_have_their_own_group_and_end_with_the_worker(profile: Profile, tmp_path: Path) -> None:
    # Given an engine in a separate process
    script = tmp_path / "holder.py"
    script.write_text(_HOLDER)
    holder = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PROFILE": profile.model_dump_json()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        told = next(line for line in holder.stdout if line.startswith("processes "))
        children = [int(pid) for pid in told.split()[1:]]
        # Then none of vLLM's processes gets the signals of its group
        assert len(children) >= 2
        assert os.getpgid(holder.pid) not in {os.getpgid(child) for child in children}
    finally:
        # When it is killed
        holder.kill()
        holder.communicate()
    # Then none of them is left behind to hold the device
    assert gone(children, within=5)


_HOLDER = """
import asyncio, os, time
import psutil
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from worker import engines

async def main():
    engine = engines.create(Profile.model_validate_json(os.environ["PROFILE"]), Settings())
    await engine.start()
    children = psutil.Process().children(recursive=True)
    print("processes", *(child.pid for child in children if "VLLM" in child.name()), flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


class TestStart:
    """Start of an engine, and its errors."""

    @pytest.fixture(autouse=True)
    def _alone(self, running: Callable[[Profile], Running]) -> None:
        """Nothing to do but to come after the tests that share an engine."""

    def test_out_of_memory_a_smaller_engine_is_tried(self, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a device that is too small for four pages at once
        monkeypatch.setenv("OCRFLEET_TINY_FITS", "4")
        engine = Running(profile)
        # Then eight are tried first, and four are taken
        try:
            assert engine.engine.concurrency == 4
        finally:
            engine.close()

    def test_a_device_too_small_for_the_settings_is_a_configuration_error(
        self, profile: Profile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCRFLEET_TINY_FITS", "1")
        settings = Settings(
            vllm=VllmSettings(max_num_seqs=2, max_model_len=2048, gpu_memory_utilization=0.5, enforce_eager=True)
        )
        with pytest.raises(ConfigurationError, match="does not fit into the device's memory"):
            Running(profile, settings)

    def test_a_model_that_is_not_there_is_named(self, profile: Profile, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"no model in .*nowhere"):
            Running(profile.model_copy(update={"model_path": tmp_path / "nowhere"}))

    def test_a_model_that_can_not_be_had_is_a_matter_of_configuration(self, profile: Profile) -> None:
        with pytest.raises(ConfigurationError, match="can't start someone/nothing"):
            Running(profile.model_copy(update={"model_path": None, "model": "someone/nothing"}))

    def test_weights_that_are_damaged_are_said_to_be(
        self, profile: Profile, checkpoints: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = tmp_path / "damaged"
        folder.mkdir()
        for file in checkpoints["deepseek-ocr"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes()[: 1 << 20])
        with pytest.raises(FatalError, match=r"can't start .*: \w+"):
            Running(profile.model_copy(update={"model_path": folder}))
