"""PaddleOCR-VL, a model of 0.9 billion parameters for the elements of a page.

Its authors cut a page up with a layout model and ask for one element at a time; here it is asked for a whole page, for
which no score is published. Prompts and temperature are those of its model card and of vLLM's recipe
(github.com/vllm-project/recipes at 8959cf6, models/PaddlePaddle/PaddleOCR-VL.yaml), the limit of pixels that of its
preprocessor_config.json, the chat that of its chat_template.jinja. A number of tokens for a page is not published.
"""

from __future__ import annotations

from ocrfleet.profiles.models.model import AGAIN, TRIED_TINY, WARMER, Model, Prompt, Resolution
from ocrfleet.profiles.profile import Parser, Render, Sampling

PADDLEOCR_VL = Model(
    name="paddleocr-vl",
    model="PaddlePaddle/PaddleOCR-VL",
    revision="baee27eebcbf26cdeab160116679d765f13a3f27",
    architecture="PaddleOCRVLForConditionalGeneration",
    # The model's own is 131,072: no page needs that much.
    context=16_384,
    prompts={
        "ocr": Prompt(text="<image>\nOCR:", parser=Parser.PADDLEOCR, gives="text only", reads=True),
        "table": Prompt(text="<image>\nTable Recognition:", parser=Parser.PADDLEOCR, gives="a table"),
        "formula": Prompt(text="<image>\nFormula Recognition:", parser=Parser.PADDLEOCR, gives="a formula as LaTeX"),
        "chart": Prompt(text="<image>\nChart Recognition:", parser=Parser.PADDLEOCR, gives="a chart as a table"),
    },
    prompt="ocr",
    template=("<|begin_of_sentence|>User: <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>{prompt}\nAssistant:\n"),
    # The size at which its processor takes an A4 page.
    modes={"native": Resolution(render=Render(long_side=1997, max_pixels=2_822_400))},
    sampling=Sampling(max_tokens=2 * AGAIN),
    ladder=(WARMER,),
    # Somewhat more than 0.9 billion parameters x 2 bytes
    weights_gib=1.8,
    # 18 layers x 2 heads x 128 x (key, value) x 2 bytes
    kv_kib=18.0,
    tried=TRIED_TINY,
)
