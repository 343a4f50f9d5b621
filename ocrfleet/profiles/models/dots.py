"""dots.ocr, a model of 3 billion parameters that writes a page's layout as JSON.

The prompts are `prompt_layout_all_en` and `prompt_ocr` of dots_ocr/utils/prompts.py; 200 dpi, 11,289,600 pixels at most,
the temperature and 16,384 tokens are those of dots_ocr/parser.py and consts.py (github.com/rednote-hilab/dots.ocr at
03ac012, the version of this model). The chat is what its README makes of it with vLLM: the image's tags as text before
the words (dots_ocr/model/inference.py, with --chat-template-content-format string).
"""

from __future__ import annotations

from ocrfleet.profiles.models.model import AGAIN, ATTEMPT, DOUBTED, ENGINE_FAULTS, TRIED_TINY, Model, Prompt, Resolution
from ocrfleet.profiles.profile import Parser, Render, RetryStep, Sampling

_LAYOUT = """\
Please output the layout information from the PDF image, including each layout element's bbox, its category, and the \
corresponding text content within the bbox.

1. Bbox format: [x1, y1, x2, y2]

2. Layout Categories: The possible categories are ['Caption', 'Footnote', 'Formula', 'List-item', 'Page-footer', \
'Page-header', 'Picture', 'Section-header', 'Table', 'Text', 'Title'].

3. Text Extraction & Formatting Rules:
    - Picture: For the 'Picture' category, the text field should be omitted.
    - Formula: Format its text as LaTeX.
    - Table: Format its text as HTML.
    - All Others (Text, Title, etc.): Format their text as Markdown.

4. Constraints:
    - The output text must be the original text from the image, with no translation.
    - All layout elements must be sorted according to human reading order.

5. Final Output: The entire output must be a single JSON object.
"""
_OCR = Prompt(text="<image>\nExtract the text content from this image.", gives="text only", reads=True)

DOTS_OCR = Model(
    name="dots-ocr",
    model="rednote-hilab/dots.ocr",
    revision="c0111ce6bc07803dbc267932ffef0ae3a51dc951",
    architecture="DotsOCRForCausalLM",
    # The model's own is 131,072: no page needs that much.
    context=32_768,
    prompts={
        "ocr": _OCR,
        "layout": Prompt(
            text=f"<image>\n{_LAYOUT}",
            parser=Parser.DOTS,
            gives="Markdown, and a box for each block",
            reads=True,
        ),
    },
    prompt="layout",
    template="<|user|><|img|><|imgpad|><|endofimg|>{prompt}<|endofuser|><|assistant|>",
    # An A4 page at 200 dpi.
    modes={"native": Resolution(render=Render(long_side=2339, max_pixels=11_289_600))},
    sampling=Sampling(max_tokens=16_384, temperature=0.1),
    ladder=(
        # Its sampling is never greedy: the same step again, with a higher temperature.
        RetryStep(after=(*DOUBTED, *ENGINE_FAULTS), temperature=0.3, deadline=ATTEMPT),
        # Without boxes a page takes fewer tokens, and the output has no JSON that may be damaged.
        RetryStep(after=DOUBTED, prompt=_OCR.text, parser=_OCR.parser, max_tokens=2 * AGAIN, deadline=ATTEMPT),
    ),
    # 3.04 billion parameters x 2 bytes
    weights_gib=5.7,
    # 28 layers x 2 heads x 128 x (key, value) x 2 bytes
    kv_kib=28.0,
    tried=TRIED_TINY,
)
