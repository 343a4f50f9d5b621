"""The size of a vLLM engine: from the GPU's memory or the user's settings, with smaller sizes to fall back on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.profiles.models import DEEPSEEK_OCR, MODELS
from ocrfleet.profiles.models.model import image_tokens

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import VllmSettings

#: Share of a GPU's memory for vLLM: vLLM's default, which leaves room for the CUDA context and fragmentation.
_UTILISATION = 0.9
#: GiB for activations and CUDA graphs.
_ACTIVATIONS_GIB = 2.0
#: Output tokens of a typical page: 2,500 tokens a second at the published 200,000 pages a day. Image tokens come on top.
_TEXT_TOKENS = 1_080
#: Share of the KV cache to plan for. Dense pages need several times the typical tokens, and vLLM recomputes a page when
#: the cache is full.
_CAUTION = 0.5
#: Upper limit of pages at once: no published measurement is faster with more, and each page takes longer.
_MOST_PAGES = 256
#: Pages at once without a GPU (tests).
_CPU_PAGES = 8
#: Sizes to try, largest first, as shares of the pages at once, of the model's context, and of the memory. Fewer pages need
#: smaller activations; a shorter context fits into a smaller cache; the last step leaves room for other processes.
_STEPS = ((1.0, 1.0, _UTILISATION), (0.5, 1.0, _UTILISATION), (0.25, 0.5, _UTILISATION), (0.125, 0.5, 0.8))


@dataclass(frozen=True, slots=True)
class Size:
    """The vLLM arguments that decide how much memory an engine takes."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int


def sizes(profile: Profile, settings: VllmSettings, *, gpu_gib: float | None) -> Iterator[Size]:
    """Yield the sizes to try, largest first. Values that the user has set are kept.

    `gpu_gib` is the memory in GiB of one of the GPUs that share the model; None without a GPU.
    """
    model = next((model for model in MODELS if model.model == profile.model), DEEPSEEK_OCR)
    pages = float(_CPU_PAGES)
    if gpu_gib is not None:
        in_all = gpu_gib * settings.tensor_parallel_size
        cache_gib = in_all * _UTILISATION - model.weights_gib - _ACTIVATIONS_GIB * settings.tensor_parallel_size
        page_kib = (image_tokens(profile) + _TEXT_TOKENS) * model.kv_kib
        pages = min(cache_gib * _CAUTION * 1024**2 / page_kib, _MOST_PAGES)
    for of_pages, of_context, memory in _STEPS:
        yield Size(
            gpu_memory_utilization=settings.gpu_memory_utilization or memory,
            max_model_len=settings.max_model_len or int(model.context * of_context),
            max_num_seqs=settings.max_num_seqs or max(1, int(pages * of_pages)),
        )
