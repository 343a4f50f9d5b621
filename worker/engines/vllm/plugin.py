"""The plugin for vLLM's processes, an entry point of `vllm.general_plugins`.

It sets the resolution mode, registers the config of dots.ocr, and ties the engine's processes to their worker.

vLLM calls `register` in each of its processes. `register` does nothing unless these variables are set, by our worker or
by whoever starts `vllm serve`:

    OCRFLEET_VLLM_MODE      a mode of DeepSeek-OCR: its name, or JSON (ocrfleet.profiles.profile.Mode)
    OCRFLEET_VLLM_WORKER    process id of the worker that owns the engine
    OCRFLEET_VLLM_TROUBLE   path of a file for the errors that an engine logs in its own process
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.models import DEEPSEEK_OCR
from ocrfleet.profiles.profile import Mode

_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Apply the environment's settings to this vLLM process. Idempotent."""
    mode = os.environ.get("OCRFLEET_VLLM_MODE")
    if mode:
        set_mode(Mode.model_validate_json(mode) if mode.startswith("{") else _named(mode))
    worker = os.environ.get("OCRFLEET_VLLM_WORKER")
    if worker:
        _register_dots_ocr()
    if worker and int(worker) != os.getpid():
        _detach_from_process_group()
        errors = os.environ.get("OCRFLEET_VLLM_TROUBLE")
        if errors:
            _record_errors(Path(errors))


def set_mode(mode: Mode) -> None:
    """Set the resolution of DeepSeek-OCR, which vLLM keeps in module constants: one mode for each engine.

    `mm_processor_kwargs` is no alternative: it changes the image tensors but not the number of placeholder tokens.
    """
    from vllm.model_executor.models import deepseek_ocr, deepseek_ocr2  # noqa: PLC0415 - only where vLLM runs
    from vllm.transformers_utils.processors import deepseek_ocr as processor  # noqa: PLC0415

    # Each module has its own copy, bound at import.
    for module in (processor, deepseek_ocr, deepseek_ocr2):
        module.BASE_SIZE, module.CROP_MODE = mode.base_size, mode.tiles
    for module in (processor, deepseek_ocr):  # DeepSeek-OCR-2 has its own tile size
        module.IMAGE_SIZE = mode.image_size
    # Default arguments were bound at import, too.
    for function in (processor.DeepseekOCRProcessor.process_one, processor.DeepseekOCRProcessor.__call__):
        if function.__defaults__:
            function.__defaults__ = (mode.tiles,)
        if function.__kwdefaults__ and "crop_mode" in function.__kwdefaults__:
            function.__kwdefaults__["crop_mode"] = mode.tiles


def _register_dots_ocr() -> None:
    """Register the config of dots.ocr with transformers.

    vLLM 0.32 ships this config but does not register it, and would run the Python file that comes with the model.
    """
    from transformers import AutoConfig  # noqa: PLC0415 - only where vLLM runs
    from vllm.transformers_utils.configs.dotsocr import DotsOCRConfig  # noqa: PLC0415

    AutoConfig.register(DotsOCRConfig.model_type, DotsOCRConfig, exist_ok=True)


def _named(name: str) -> Mode:
    resolution = DEEPSEEK_OCR.modes.get(name)
    if resolution is None or resolution.mode is None:
        raise ConfigurationError(f"OCRFLEET_VLLM_MODE={name!r}: there are {', '.join(DEEPSEEK_OCR.modes)}")
    return resolution.mode


def _detach_from_process_group() -> None:
    """Leave the worker's process group, and end when the worker ends.

    Terminals and service managers send signals to the whole group, which would end the engine before the worker has
    drained.
    """
    with suppress(PermissionError):  # already a group leader
        os.setsid()
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the worker ended before prctl took effect


def _record_errors(file: Path) -> None:
    """Append the errors that vLLM logs to a file. The worker reads it: vLLM only reports that a process has ended."""
    logger = logging.getLogger("vllm")
    if any(isinstance(handler, _ErrorFile) for handler in logger.handlers):
        return
    logger.addHandler(_ErrorFile(file))


class _ErrorFile(logging.Handler):
    def __init__(self, file: Path) -> None:
        super().__init__(logging.ERROR)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = f"{type(error).__name__}: {error}" if error else record.getMessage()
        with suppress(OSError), self._file.open("a", encoding="utf-8") as out:
            out.write(" ".join(text.split())[:1000] + "\n")
