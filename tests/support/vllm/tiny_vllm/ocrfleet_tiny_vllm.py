"""A vLLM plugin of the tests: towers of one layer, and a device that is too small on request.

vLLM loads it in each of its processes. The depths of the vision towers are constants in vLLM, so a tiny checkpoint
(tests/support/vllm/checkpoint.py) needs them patched; everything else is vLLM as it is.

    OCRFLEET_TINY=1           one layer in each tower
    OCRFLEET_TINY_FITS=4      a device on which an engine for more pages at once runs out of memory
"""

from __future__ import annotations

import functools
import os


def register() -> None:
    if os.environ.get("OCRFLEET_TINY"):
        _make_towers_small()
    fits = os.environ.get("OCRFLEET_TINY_FITS")
    if fits:
        _make_device_small(int(fits))


def _make_towers_small() -> None:
    import vllm.model_executor.models.deepencoder as encoder
    import vllm.model_executor.models.deepseek_ocr as first
    import vllm.model_executor.models.deepseek_ocr2 as second

    if getattr(first, "_ocrfleet_tiny", False):
        return  # patching a patch would nest them
    first._ocrfleet_tiny = True
    first.build_sam_vit_b = lambda: encoder._build_sam(768, 1, 12, [2, 5, 8, 11])
    clip, sam = first.CLIPVisionConfig, second.ImageEncoderViT
    first.CLIPVisionConfig = lambda **options: clip(**{**options, "num_hidden_layers": 1})
    second.ImageEncoderViT = lambda **options: sam(**{**options, "depth": 1})
    second.build_qwen2_decoder_as_encoder = functools.partial(second.build_qwen2_decoder_as_encoder, decoder_layer=1)


def _make_device_small(fits: int) -> None:
    import torch
    from vllm.v1.worker.cpu_worker import CPUWorker

    measure = CPUWorker.determine_available_memory

    def determine_available_memory(self: CPUWorker) -> int:
        if self.scheduler_config.max_num_seqs > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (said by a test)")
        return measure(self)  # type: ignore[no-any-return]

    CPUWorker.determine_available_memory = determine_available_memory
