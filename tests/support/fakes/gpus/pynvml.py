"""Fake NVML: a machine with GPUs at 75 % utilisation. Put its folder on PYTHONPATH to use it."""

from __future__ import annotations

from types import SimpleNamespace


def nvmlInit() -> None:  # noqa: N802 - NVML's own names, here and below
    pass


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(used=60e9, total=80e9)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(gpu=75)
