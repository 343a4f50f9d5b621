"""GLM-OCR, a model of 0.9 billion parameters.

Prompts, temperature, 200 dpi and 8,192 tokens are those of its SDK (github.com/zai-org/GLM-OCR at cef4d0e,
glmocr/config.yaml), which cuts a page up with a layout model and asks for one region at a time; here it is asked for a
whole page. The SDK's repetition penalty of 1.1 is left out: a table repeats. 6,144 tokens of an image at most (its
image_expect_length) are the limit of the model's processor as well; the chat is that of chat_template.jinja.
"""

from __future__ import annotations

from ocrfleet.profiles.models.model import TRIED_TINY, WARMER, Model, Prompt, Resolution
from ocrfleet.profiles.profile import Render, Sampling

GLM_OCR = Model(
    name="glm-ocr",
    model="zai-org/GLM-OCR",
    revision="ca5d8b3e287e52589e37c28385d9655ee4372f9d",
    architecture="GlmOcrForConditionalGeneration",
    # The model's own is 131,072: no page needs that much.
    context=16_384,
    prompts={
        "ocr": Prompt(text="<image>\nText Recognition:", gives="text and Markdown", reads=True),
        "table": Prompt(text="<image>\nTable Recognition:", gives="tables as HTML"),
        "formula": Prompt(text="<image>\nFormula Recognition:", gives="formulas as LaTeX"),
    },
    prompt="ocr",
    template="[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>{prompt}<|assistant|>\n",
    # An A4 page at 200 dpi.
    modes={"native": Resolution(render=Render(long_side=2339, max_pixels=6_144 * 28 * 28))},
    sampling=Sampling(max_tokens=8192),
    ladder=(WARMER,),
    # One file of 2,650,579,464 bytes, the layer for speculative decoding included.
    weights_gib=2.5,
    # 16 layers x 8 heads x 128 x (key, value) x 2 bytes
    kv_kib=64.0,
    tried=TRIED_TINY,
)
