"""Command and environment of worker processes: profile, device, threads."""

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

#: -P: do not import a file worker.py in the current folder.
COMMAND = [sys.executable, "-P", "-m", "worker"]


def environment_of(profile: Profile, *, device: str | None, options: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker process for a profile and a device (a GPU's number; None for any)."""
    # Pass API keys only to the engine that needs one.
    inherited = {
        name: value for name, value in os.environ.items() if profile.engine == "openai" or not name.endswith("_API_KEY")
    }
    environment = {**inherited, **options, "OCRFLEET_PROFILE": profile.model_dump_json(exclude_none=True)}
    if profile.engine != "vllm":
        # One thread per process: with all cores busy, more threads are slower.
        environment |= {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return environment


def gpus() -> list[str]:
    """Return the numbers of this machine's NVIDIA GPUs, or those in CUDA_VISIBLE_DEVICES when it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in {"", "-1"}]
    with suppress(Exception):  # no driver, no library: no GPU
        import pynvml  # noqa: PLC0415 - comes with vLLM

        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    return []


def read_gpus(text: str | None) -> list[str]:
    """Return the devices in the option --gpus; an empty list without it. Raises UsageError."""
    if text is None:
        return []
    if text == "all":
        found = gpus()
        if not found:
            raise UsageError("--gpus all: no NVIDIA GPU found (does nvidia-smi show one?)")
        return found
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--gpus {text!r}: write all, or numbers such as 0,2")
    return parts


def grouped(devices: Sequence[str], size: int) -> list[str]:
    """Return the devices of each worker: `size` GPUs share one model. Raises UsageError if some would be left over."""
    if len(devices) % size:
        raise UsageError(
            f"{len(devices)} GPUs can't be divided among workers with {size} each (OCRFLEET_VLLM_TENSOR_PARALLEL_SIZE)"
        )
    return [",".join(devices[first : first + size]) for first in range(0, len(devices), size)]


def default_workers(profile: Profile, settings: Settings) -> int:
    """Return the number of worker processes for this machine: one per GPU (group), one for an OpenAI server, or one per core."""
    match profile.engine:
        case "vllm":
            return max(1, len(grouped(gpus(), settings.vllm.tensor_parallel_size)))
        case "openai":
            return 1
        case _:
            return len(os.sched_getaffinity(0))
