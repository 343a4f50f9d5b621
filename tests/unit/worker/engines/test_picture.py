"""Model input, and the size of the engine."""

from __future__ import annotations

import pytest

from ocrfleet.profiles.build import profile_of
from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.models.model import Model
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.profiles.select import choose, find
from ocrfleet.settings import VllmSettings
from worker.engines.picture import words, written_out
from worker.engines.vllm.sizing import sizes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deepseek-ocr-ocr", "<image>\nFree OCR."),
        (
            "dots-ocr-ocr",
            "<|user|><|img|><|imgpad|><|endofimg|>Extract the text content from this image.<|endofuser|><|assistant|>",
        ),
        (
            "glm-ocr",
            "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>Text Recognition:<|assistant|>\n",
        ),
        (
            "paddleocr-vl-table",
            "<|begin_of_sentence|>User: <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>Table Recognition:\nAssistant:\n",
        ),
    ],
)
def test_words_stand_in_the_models_own_chat(name: str, text: str) -> None:
    assert written_out(find(name)) == text


def test_the_prompt_of_olmocr_precedes_the_image() -> None:
    text = written_out(find("olmocr-2"))
    before, image, after = text.partition("<|vision_start|><|image_pad|><|vision_end|>")
    assert before.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAttached is one"
    )
    assert before.endswith("is_table, and is_diagram parameters.")
    assert image
    assert after == "<|im_end|>\n<|im_start|>assistant\n"


def test_words_of_a_users_own_are_words_and_no_template() -> None:
    own = choose(model="glm-ocr", prompt="<image>What does {prompt} mean?")
    assert "<|end_of_image|>What does {prompt} mean?<|assistant|>" in written_out(own)


def test_a_prompt_without_the_images_place_is_its_words() -> None:
    assert words("<image>\nFree OCR.") == "Free OCR."
    assert words("Read this: <image>") == "Read this: "
    assert written_out(RAPIDOCR) == ""


# ---- sizes


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_an_engine_takes_as_many_pages_as_its_cache_holds(model: Model) -> None:
    profile = profile_of(model)
    small, large = (next(sizes(profile, VllmSettings(), gpu_gib=gib)) for gib in (24.0, 80.0))
    assert 1 < small.max_num_seqs <= large.max_num_seqs <= 256
    assert small.max_model_len == large.max_model_len


def test_pages_that_take_more_tokens_are_fewer_at_once() -> None:
    # 24 GiB x 0.9 - 6.7 - 2 for the cache, half of it for pages of 933 + 1,080 and of 73 + 1,080 tokens of 60 KiB
    gundam, tiny = (
        next(sizes(find(name), VllmSettings(), gpu_gib=24.0)).max_num_seqs
        for name in ("deepseek-ocr", "deepseek-ocr-tiny")
    )
    assert (gundam, tiny) == (int(12.9 / 2 * 1024**2 / (2013 * 60)), int(12.9 / 2 * 1024**2 / (1153 * 60)))
