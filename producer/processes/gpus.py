"""GPU metrics of this machine (utilisation, memory), read from NVML at each scrape, if there are NVML and a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector

from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import ObservedGauges

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class Gpus(Collector):
    """The GPUs of `devices`, each a number, a UUID, or a comma-separated list of these."""

    def __init__(self, devices: Sequence[str | None]) -> None:
        self._names = [name for device in devices if device is not None for name in device.split(",")]
        self._gauges = ObservedGauges()

    def collect(self) -> Iterator[Metric]:
        if self._names:
            self._gauges.replace({})
            with suppress(Exception):  # no driver, no library, or a lost GPU: no metrics
                self._look()
        yield from self._gauges.collect()

    def _look(self) -> None:
        import pynvml  # noqa: PLC0415 - comes with vLLM

        pynvml.nvmlInit()
        handles = {(name,): _handle(pynvml, name) for name in self._names}
        memory = {gpu: pynvml.nvmlDeviceGetMemoryInfo(handle) for gpu, handle in handles.items()}
        self._gauges.replace(
            {
                metrics.GPU_UTILIZATION: {
                    gpu: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for gpu, handle in handles.items()
                },
                metrics.GPU_MEMORY_USED: {gpu: float(of.used) for gpu, of in memory.items()},
                metrics.GPU_MEMORY_TOTAL: {gpu: float(of.total) for gpu, of in memory.items()},
            }
        )


def _handle(pynvml: Any, name: str) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID(name)
