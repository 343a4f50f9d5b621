"""DeepSeek-OCR and DeepSeek-OCR-2.

The prompts `ocr`, `markdown`, `figure`, `describe` and `locate` are those that the models' authors publish (README of
deepseek-ai/DeepSeek-OCR and of DeepSeek-OCR-2); `table`, `math` and `fields` are requests of our own in the same
English, without a published score. Sizes, token counts and the n-gram guard's numbers are the published ones
(config.py and run_dpsk_ocr_image.py of DeepSeek-OCR-vllm). There is no chat: a prompt is given as it is.
"""

from __future__ import annotations

from ocrfleet.errors import Reason
from ocrfleet.profiles.models.model import ATTEMPT, DOUBTED, TRIED_TINY, WARMER, Model, Prompt, Resolution
from ocrfleet.profiles.profile import Mode, Parser, Render, RetryStep, Route, Sampling

#: Ids of <td> and </td>, which a table may repeat.
_TABLE_CELLS = (128821, 128822)

PROMPTS = {
    "ocr": Prompt(text="<image>\nFree OCR.", gives="text only", reads=True),
    "markdown": Prompt(
        text="<image>\n<|grounding|>Convert the document to markdown.",
        parser=Parser.GROUNDING,
        gives="Markdown, and a box for each block",
        reads=True,
    ),
    "figure": Prompt(text="<image>\nParse the figure.", gives="what a chart or a drawing shows"),
    "describe": Prompt(text="<image>\nDescribe this image in detail.", gives="a description"),
    "locate": Prompt(
        text="<image>\nLocate <|ref|>{}<|/ref|> in the image.", parser=Parser.GROUNDING, gives="boxes of what is named"
    ),
    "table": Prompt(text="<image>\nConvert the tables to HTML.", gives="tables as HTML"),
    "math": Prompt(text="<image>\nConvert the formulas to LaTeX.", gives="formulas as LaTeX"),
    "fields": Prompt(text="<image>\nExtract these fields as JSON: {}.", gives="the fields that are named, as JSON"),
}

_SAMPLING = Sampling(max_tokens=8192, ngram_size=30, ngram_window=90, ngram_whitelist=_TABLE_CELLS)

_LADDER = (
    WARMER,
    # Without boxes a page takes fewer tokens, and the output has no tags that may be damaged.
    RetryStep(
        after=tuple(reason for reason in DOUBTED if reason is not Reason.WRONG_SCRIPT),
        prompt=PROMPTS["ocr"].text,
        parser=PROMPTS["ocr"].parser,
        deadline=ATTEMPT,
    ),
)

DEEPSEEK_OCR = Model(
    name="deepseek-ocr",
    model="deepseek-ai/DeepSeek-OCR",
    revision="9f30c71f441d010e5429c532364a86705536c53a",
    architecture="DeepseekOCRForCausalLM",
    context=8192,
    prompts=PROMPTS,
    prompt="markdown",
    # Tokens as vLLM's processor counts them: one ends each row of the grid, and one ends the image. The published scripts
    # render at 144 dpi: an A4 page is 1,684 pixels long.
    modes={
        "tiny": Resolution(
            render=Render(long_side=512),
            mode=Mode(name="tiny", base_size=512, image_size=512, tiles=False, image_tokens=8 * 9 + 1),
        ),
        "small": Resolution(
            render=Render(long_side=640),
            mode=Mode(name="small", base_size=640, image_size=640, tiles=False, image_tokens=10 * 11 + 1),
        ),
        "base": Resolution(
            render=Render(long_side=1024),
            mode=Mode(name="base", base_size=1024, image_size=1024, tiles=False, pad=True, image_tokens=16 * 17 + 1),
        ),
        "large": Resolution(
            render=Render(long_side=1280),
            mode=Mode(name="large", base_size=1280, image_size=1280, tiles=False, pad=True, image_tokens=20 * 21 + 1),
        ),
        # Up to six tiles, in three rows of two at most tokens, and the whole page.
        "gundam": Resolution(
            render=Render(long_side=1684),
            mode=Mode(
                name="gundam", base_size=1024, image_size=640, tiles=True, image_tokens=16 * 17 + 1 + 6 * 10 * (10 + 1)
            ),
        ),
    },
    mode="gundam",
    sampling=_SAMPLING,
    ladder=_LADDER,
    # The whole page at once: no tile cuts a line in two.
    largest="large",
    routes=(
        # A postcard or an index card gains nothing from tiles; a faint or nearly empty page holds little text.
        Route(to="deepseek-ocr-base", max_inches=6.5),
        Route(to="deepseek-ocr-large", max_ink=0.015),
    ),
    weights_gib=6.7,
    # 12 layers x 10 heads x 128 x (key, value) x 2 bytes
    kv_kib=60.0,
    tried=TRIED_TINY,
)

DEEPSEEK_OCR_2 = Model(
    name="deepseek-ocr-2",
    model="deepseek-ai/DeepSeek-OCR-2",
    revision="aaa02f3811945a91062062994c5c4a3f4c0af2b0",
    architecture="DeepseekOCR2ForCausalLM",
    context=8192,
    prompts=PROMPTS,
    prompt="markdown",
    modes={
        "dynamic": Resolution(
            render=Render(long_side=1684),
            mode=Mode(
                name="dynamic", base_size=1024, image_size=768, tiles=True, image_tokens=16 * 16 + 1 + 6 * 12 * 12
            ),
        )
    },
    mode="dynamic",
    sampling=_SAMPLING,
    ladder=_LADDER,
    weights_gib=6.8,
    # The same language model.
    kv_kib=60.0,
    tried=TRIED_TINY,
)
