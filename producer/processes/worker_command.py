"""How worker processes are started: what they serve, on which device, with how many threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from producer.errors import UsageError

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings

#: -P: a worker.py in the folder where somebody works is not ours.
COMMAND = [sys.executable, "-P", "-m", "worker"]


def environment_of(profile: Profile, *, device: str | None, told: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker process that serves a profile on a device (a GPU's number; None for any)."""
    # A key that an engine does not need is not given to it, nor to what it starts.
    inherited = {
        name: value for name, value in os.environ.items() if profile.engine == "openai" or not name.endswith("_API_KEY")
    }
    environment = {**inherited, **told, "OCRFLEET_PROFILE": profile.model_dump_json(exclude_none=True)}
    if profile.engine != "vllm":
        # One thread a process: two on two busy cores are slower than one.
        environment |= {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environment


def gpus() -> list[str]:
    """Return the numbers of this machine's NVIDIA GPUs, or those that CUDA_VISIBLE_DEVICES leaves of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in {"", "-1"}]
    with suppress(Exception):  # no driver, no library: no GPU
        import pynvml  # noqa: PLC0415 - comes with vLLM

        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    return []


def read_gpus(text: str | None) -> list[str]:
    """Return the devices that --gpus names; none when it was not given. Raises UsageError."""
    if text is None:
        return []
    if text == "all":
        found = gpus()
        if not found:
            raise UsageError("--gpus all: no NVIDIA GPU is to be seen here (does nvidia-smi show one?)")
        return found
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--gpus {text!r}: write all, or numbers such as 0,2")
    return parts


def grouped(devices: Sequence[str], size: int) -> list[str]:
    """Return the devices of each worker: as many as share one model. Raises UsageError when some would be left."""
    if len(devices) % size:
        raise UsageError(
            f"{len(devices)} GPUs can't be shared out among workers of {size} (OCRFLEET_VLLM_TENSOR_PARALLEL_SIZE)"
        )
    return [",".join(devices[first : first + size]) for first in range(0, len(devices), size)]


def default_workers(profile: Profile, settings: Settings) -> int:
    """Return how many worker processes use this machine well: one for each GPU, one for a server, or one a core."""
    match profile.engine:
        case "vllm":
            return max(1, len(grouped(gpus(), settings.vllm.tensor_parallel_size)))
        case "openai":
            return 1
        case _:
            return len(os.sched_getaffinity(0))
