"""Models that take prompts: their prompts, modes and limits.

Each family is a module of data (deepseek.py is the longest). To add a model, add a module, and its name to MODELS.
"""

from ocrfleet.profiles.models.deepseek import DEEPSEEK_OCR, DEEPSEEK_OCR_2
from ocrfleet.profiles.models.dots import DOTS_OCR
from ocrfleet.profiles.models.glm import GLM_OCR
from ocrfleet.profiles.models.olmocr import OLMOCR_2
from ocrfleet.profiles.models.paddleocr import PADDLEOCR_VL

MODELS = (DEEPSEEK_OCR, DEEPSEEK_OCR_2, DOTS_OCR, GLM_OCR, OLMOCR_2, PADDLEOCR_VL)

__all__ = ["DEEPSEEK_OCR", "DEEPSEEK_OCR_2", "MODELS"]
