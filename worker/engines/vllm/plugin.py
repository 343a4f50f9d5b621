"""What we change in vLLM's processes: an entry point of `vllm.general_plugins`.

That is the resolution mode, a config that it does not tell of, and whom they obey.

vLLM calls `register` in each of its processes. It does nothing unless OCRFLEET_VLLM_* is set: our worker sets it, and
whoever starts `vllm serve` may.

    OCRFLEET_VLLM_MODE      a mode of DeepSeek-OCR: its name, or JSON (ocrfleet.profiles.Mode)
    OCRFLEET_VLLM_WORKER    process id of the worker that owns the engine
    OCRFLEET_VLLM_TROUBLE   a file for the errors that an engine logs in its own process
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
    """Do what the environment asks for; doing it twice changes nothing."""
    mode = os.environ.get("OCRFLEET_VLLM_MODE")
    if mode:
        set_mode(Mode.model_validate_json(mode) if mode.startswith("{") else _named(mode))
    worker = os.environ.get("OCRFLEET_VLLM_WORKER")
    if worker:
        _make_dots_ocr_known()
    if worker and int(worker) != os.getpid():
        _obey_the_worker_alone()
        trouble = os.environ.get("OCRFLEET_VLLM_TROUBLE")
        if trouble:
            _tell_errors(Path(trouble))


def set_mode(mode: Mode) -> None:
    """Set the resolution of DeepSeek-OCR, which vLLM has as constants of modules: one mode for each engine.

    `mm_processor_kwargs` would change the image's tensors and not the number of their places in the prompt.
    """
    from vllm.model_executor.models import deepseek_ocr, deepseek_ocr2  # noqa: PLC0415 - only where vLLM runs
    from vllm.transformers_utils.processors import deepseek_ocr as processor  # noqa: PLC0415

    # Each module bound them when it was read, which may have been before.
    for module in (processor, deepseek_ocr, deepseek_ocr2):
        module.BASE_SIZE, module.CROP_MODE = mode.base_size, mode.tiles
    for module in (processor, deepseek_ocr):  # DeepSeek-OCR-2 has a size of tiles of its own
        module.IMAGE_SIZE = mode.image_size
    # Default arguments were bound when the module was read.
    for function in (processor.DeepseekOCRProcessor.process_one, processor.DeepseekOCRProcessor.__call__):
        if function.__defaults__:
            function.__defaults__ = (mode.tiles,)
        if function.__kwdefaults__ and "crop_mode" in function.__kwdefaults__:
            function.__kwdefaults__["crop_mode"] = mode.tiles


def _make_dots_ocr_known() -> None:
    """Tell transformers of dots.ocr's config: vLLM 0.32 has it, but would run the Python file that comes with the model."""
    from transformers import AutoConfig  # noqa: PLC0415 - only where vLLM runs
    from vllm.transformers_utils.configs.dotsocr import DotsOCRConfig  # noqa: PLC0415

    AutoConfig.register(DotsOCRConfig.model_type, DotsOCRConfig, exist_ok=True)


def _named(name: str) -> Mode:
    resolution = DEEPSEEK_OCR.modes.get(name)
    if resolution is None or resolution.mode is None:
        raise ConfigurationError(f"OCRFLEET_VLLM_MODE={name!r}: there are {', '.join(DEEPSEEK_OCR.modes)}")
    return resolution.mode


def _obey_the_worker_alone() -> None:
    """Leave the worker's process group, and die when it dies.

    A terminal or a service manager sends its signals to the whole group: the engine would be gone before its last page.
    """
    with suppress(PermissionError):  # done already
        os.setsid()
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was asked


def _tell_errors(file: Path) -> None:
    """Write the last line of what vLLM logs as an error to a file: its parent only learns that a process has ended."""
    logger = logging.getLogger("vllm")
    if any(isinstance(handler, _Trouble) for handler in logger.handlers):
        return
    logger.addHandler(_Trouble(file))


class _Trouble(logging.Handler):
    def __init__(self, file: Path) -> None:
        super().__init__(logging.ERROR)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = f"{type(error).__name__}: {error}" if error else record.getMessage()
        with suppress(OSError), self._file.open("a", encoding="utf-8") as out:
            out.write(" ".join(text.split())[:1000] + "\n")
