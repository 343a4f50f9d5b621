"""olmOCR 2, a Qwen2.5-VL of 7 billion parameters.

The prompt is `build_no_anchoring_v4_yaml_prompt` of olmocr/prompts/prompts.py, and the numbers are those of
olmocr/pipeline.py (github.com/allenai/olmocr at f7cfe4c): 1,288 pixels along the longer side, 8,000 tokens, a context of
16,384, the published FP8 weights, and a temperature that rises from try to try.
"""

from __future__ import annotations

from ocrfleet.profiles.models.model import ATTEMPT, DOUBTED, ENGINE_FAULTS, TRIED_TINY, Model, Prompt, Resolution
from ocrfleet.profiles.profile import Parser, Render, RetryStep, Sampling

OLMOCR_2 = Model(
    name="olmocr-2",
    model="allenai/olmOCR-2-7B-1025-FP8",
    # The revision in the authors' container (alleninstituteforai/olmocr:latest-with-model).
    revision="19133a8e683f7203f37c49000377c11a896c8d9b",
    architecture="Qwen2_5_VLForConditionalGeneration",
    context=16_384,
    prompts={
        "markdown": Prompt(
            text=(
                "<image>\nAttached is one page of a document that you must process. Just return the plain text "
                "representation of this document as if you were reading it naturally. Convert equations to LateX and "
                "tables to HTML.\nIf there are any figures or charts, label them with the following markdown syntax "
                "![Alt text describing the contents of the figure](page_startx_starty_width_height.png)\nReturn your "
                "output as markdown, with a front matter section on top specifying values for the primary_language, "
                "is_rotation_valid, rotation_correction, is_table, and is_diagram parameters."
            ),
            parser=Parser.OLMOCR,
            gives="Markdown, tables as HTML",
            reads=True,
        )
    },
    prompt="markdown",
    # Its pipeline puts the words before the image.
    template=(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{prompt}<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    ),
    modes={"native": Resolution(render=Render(long_side=1288))},
    sampling=Sampling(max_tokens=8000, temperature=0.1),
    # TEMPERATURE_BY_ATTEMPT, without its second try at 0.1: with the same seed that would be the first one again.
    ladder=tuple(
        RetryStep(after=(*DOUBTED, *ENGINE_FAULTS), temperature=temperature, deadline=ATTEMPT)
        for temperature in (0.2, 0.3, 0.5, 0.8, 0.9, 1.0)
    ),
    # Three files of 4.94, 4.03 and 1.09 GB, as they are listed of its predecessor of the same size and precision.
    weights_gib=9.4,
    # 28 layers x 4 heads x 128 x (key, value) x 2 bytes
    kv_kib=56.0,
    tried=TRIED_TINY,
)
