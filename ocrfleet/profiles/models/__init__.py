"""Models that take prompts: their prompts, modes and limits.

Each family is a module of data (deepseek.py is the longest). To add a model, add a module, and its name to MODELS.
"""

from ocrfleet.profiles.build import profile_of
from ocrfleet.profiles.models.deepseek import DEEPSEEK_OCR, DEEPSEEK_OCR_2
from ocrfleet.profiles.models.model import PROMPT_ROOM, Model, Prompt, Resolution, image_tokens
from ocrfleet.profiles.select import MODELS, SERVED, choose, find, named, read_file

__all__ = [
    "DEEPSEEK_OCR",
    "DEEPSEEK_OCR_2",
    "MODELS",
    "PROMPT_ROOM",
    "SERVED",
    "Model",
    "Prompt",
    "Resolution",
    "choose",
    "find",
    "image_tokens",
    "named",
    "profile_of",
    "read_file",
]
