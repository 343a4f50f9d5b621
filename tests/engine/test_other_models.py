"""The real vLLM with the models that have a chat template and no resolution modes: tiny random checkpoints."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.models.model import image_tokens
from ocrfleet.profiles.profile import Canary, Profile
from ocrfleet.profiles.select import choose
from ocrfleet.settings import Settings, VllmSettings
from tests.support.engine_contract import EngineContract, Use, printed
from tests.support.vllm.running import Running
from worker.engines.base import Engine, Recognition
from worker.engines.picture import written_out

#: model, and the image token of its chat template
IMAGE = {
    "olmocr-2": "<|image_pad|>",
    "glm-ocr": "<|image|>",
    "paddleocr-vl": "<|IMAGE_PLACEHOLDER|>",
    "dots-ocr": "<|imgpad|>",
}
#: of a page image of 1000 x 700 pixels, in patches of 28 x 28
PAGE_TOKENS = 36 * 25


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    from tests.support.vllm.other_checkpoints import write_checkpoint  # torch is in vLLM's environment only

    folder = tmp_path_factory.mktemp("checkpoints")
    return functools.cache(lambda model: write_checkpoint(folder / model, model))


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[Profile], Running]]:
    """Start an engine for a profile, or take the one that runs: one at a time, as memory and cores are few."""
    current: list[Running] = []

    def start(profile: Profile) -> Running:
        if not current or current[0].profile.digest != profile.digest:
            if current:
                current.pop().close()
            current.append(Running(profile, Settings(vllm=VllmSettings(max_num_seqs=2))))
        return current[0]

    yield start
    if current:
        current.pop().close()


@pytest.mark.parametrize("model", IMAGE, scope="class")
class TestOtherModels(EngineContract):
    longest_hold = 0.9  # two cores, which torch has most of the time

    @pytest.fixture
    def folder(self, model: str, checkpoints: Callable[[str], Path]) -> Path:
        return checkpoints(model)

    @pytest.fixture
    def profile(self, folder: Path) -> Profile:
        profile = choose(model=str(folder))
        assert profile.sampling is not None
        # vLLM 0.32 dies on a CPU when a prompt of more than 2,048 tokens (all that it takes in one step) is answered with
        # a seed and some warmth: "CPU Generator does not use offset".
        few = profile.sampling.model_copy(update={"max_tokens": 16, "temperature": 0.0})
        return profile.model_copy(update={"sampling": few, "canary": Canary(twice=True)})

    @pytest.fixture
    def use(self, profile: Profile, started: Callable[[Profile], Running]) -> Use:
        return started(profile).use

    def test_the_image_stands_in_the_chat_once_and_takes_its_tokens(
        self, use: Use, model: str, folder: Path, profile: Profile
    ) -> None:
        async def told(engine: Any) -> list[int]:
            rendered = await engine.rendered(written_out(profile), Image.fromarray(printed().pixels))
            return list(rendered["prompt_token_ids"])

        tokens = use(told)
        added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        ids = {token["content"]: token["id"] for token in added}
        # The chat's own tags were read as tags, and the image's place is as large as the image is
        tags = {id_ for tag, id_ in ids.items() if tag in written_out(profile)}
        assert tags <= set(tokens)
        assert tokens.count(ids[IMAGE[model]]) == PAGE_TOKENS <= image_tokens(profile)

    def test_a_page_is_read_and_its_tokens_are_counted(self, use: Use, profile: Profile) -> None:
        async def read(engine: Engine) -> Recognition:
            return await engine.recognise(printed(), profile)

        recognition = use(read)
        assert recognition.text
        assert recognition.tokens is not None
        assert 0 < recognition.tokens <= 16
        assert recognition.finish_reason in {"stop", "length"}

    def test_the_published_warmth_gives_the_same_text_again(self, use: Use, profile: Profile) -> None:
        assert profile.sampling is not None
        warm = profile.model_copy(update={"sampling": profile.sampling.model_copy(update={"temperature": 0.1})})

        async def read(engine: Engine) -> list[Recognition]:
            return [await engine.recognise(printed(), warm) for _ in range(2)]

        first, second = use(read)
        assert first == second

    def test_another_prompt_is_another_text(self, use: Use, profile: Profile) -> None:
        other = profile.model_copy(update={"prompt": "<image>\nWhat else is there to be seen on this page?"})

        async def both(engine: Engine) -> set[str]:
            return {(await engine.recognise(printed(), asked)).text for asked in (profile, other)}

        assert len(use(both)) == 2


def test_every_model_with_a_chat_template_is_tested_here() -> None:
    assert set(IMAGE) == {model.name for model in MODELS if model.template is not None}
