"""The engines, which recognise pages. Each is imported only in a worker that uses it, because of its libraries."""

from __future__ import annotations

import importlib
from typing import cast

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from worker.engines.base import Engine

_ENGINES = {
    "rapidocr": "worker.engines.rapidocr:RapidOcrEngine",
    "tesseract": "worker.engines.tesseract:TesseractEngine",
    "vllm": "worker.engines.vllm.engine:VllmEngine",
    "openai": "worker.engines.openai.engine:OpenAiEngine",
}


def create(profile: Profile, settings: Settings) -> Engine:
    """Return the engine of a profile, not yet started: one of ours, or `package.module:Class` of the user's.

    Raises ConfigurationError when there is none of that name.
    """
    module, _, name = _ENGINES.get(profile.engine, profile.engine).partition(":")
    try:
        engine = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the engine {profile.engine!r} can't be loaded: {error}") from error
    return cast("Engine", engine(profile, settings))
