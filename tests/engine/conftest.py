"""Fixtures of the tests with vLLM: tiny checkpoints, their profiles, and one engine for many tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocrfleet.profiles.profile import Canary, Judgement, Profile, Sampling
from ocrfleet.profiles.select import choose
from ocrfleet.settings import Settings, VllmSettings
from tests.support.servers import Valkey, lacking
from tests.support.stage import Stage
from tests.support.vllm.running import Running
from worker.pipeline.retry import REJECTIONS

#: vLLM on a CPU: a tiny model (tiny_vllm), 1 GiB of KV cache, nothing compiled, nothing from the network.
ENVIRONMENT = {
    "OCRFLEET_TINY": "1",
    "OCRFLEET_VLLM_ENFORCE_EAGER": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Two threads that wait for each other on two busy cores took 3 s for a page instead of 0.4.
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    if importlib.util.find_spec("vllm") is None:
        lacking("vLLM (make test-vllm)")
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.support.vllm.checkpoint import (  # torch and safetensors are in vLLM's environment only
        ARCHITECTURES,
        write_checkpoint,
    )

    folder = tmp_path_factory.mktemp("checkpoints")
    return {model: write_checkpoint(folder / model, model) for model in ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny(checkpoints: dict[str, Path]) -> Callable[..., Profile]:
    """Make a profile for a tiny checkpoint: few tokens, and a canary that must come back twice as noise of one kind."""

    def make(model: str = "deepseek-ocr", *, mode: str | None = None, max_tokens: int = 16, **more: Any) -> Profile:
        profile = choose(engine="vllm", model=str(checkpoints[model]), mode=mode, prompt="ocr")
        assert profile.sampling is not None
        sampling: Sampling = profile.sampling.model_copy(update={"max_tokens": max_tokens})
        # Random weights generate noise up to the limit: no verdict, unless a test enables it.
        unjudged = Judgement(ignored=REJECTIONS)
        changes = {"sampling": sampling, "canary": Canary(twice=True), "judgement": unjudged, **more}
        return profile.model_copy(update=changes)

    return make


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[Profile], Running]]:
    """Start an engine for a profile, or take the one that runs: one at a time, as memory and cores are few."""
    current: list[Running] = []

    def start(profile: Profile) -> Running:
        if not current or current[0].profile.digest != profile.digest:
            if current:
                current.pop().close()
            # Pages of full size take seconds here: a full batch of them is smaller.
            tiny = profile.mode is not None and profile.mode.name == "tiny"
            current.append(Running(profile, Settings(vllm=VllmSettings(max_num_seqs=None if tiny else 3))))
        return current[0]

    yield start
    if current:
        current.pop().close()


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey, tiny: Callable[..., Profile]) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey, profile=tiny(mode="tiny"))
    yield made
    made.close()
