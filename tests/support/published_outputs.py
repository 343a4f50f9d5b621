"""Outputs of models as people published them, with their sources."""

from __future__ import annotations

DEEPSEEK_END = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the token is written so
DEEPSEEK_TAGS = ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", DEEPSEEK_END)
# https://github.com/deepseek-ai/DeepSeek-OCR/issues/75
DEEPSEEK_MARKDOWN = (
    "<|ref|>title<|/ref|><|det|>[[175, 155, 852, 234]]<|/det|>\n# LORA: LOW-RANK ADAPTATION OF LARGE LANGUAGE MODELS"
)
DEEPSEEK_TEXT = (
    "<|ref|>一段接一段<|/ref|><|det|>[[549, 653, 616, 679]]<|/det|>\n"
    "<|ref|>越过高峰<|/ref|><|det|>[[547, 703, 604, 730]]<|/det|>\n"
    "<|ref|>另一峰却又见<|/ref|><|det|>[[547, 754, 630, 780]]<|/det|>"
)

DOTS_PAGE = (  # https://cloudernative.com/ai-models/model/sljeff/dots.ocr: the model run by others, on a page of 2,480 x 3,508
    '[{"bbox": [1355, 199, 2103, 262], "category": "Page-header", "text": "A PREPRINT - SEPTEMBER 5, 2022"}, '
    '{"bbox": [698, 455, 1846, 1010], "category": "Picture"}, {"bbox": [441, 1051, 2103, 1153], "category": "Caption", '
    '"text": "Figure 7: Algorithmic performance measured in ES/s (effective samples per second), for the eight highest '
    'energy KL coefficients $\\\\theta_k$, $k = 1, \\\\dots, 8$, for both RWMH (blue) and MLDA (red)."}, '
    '{"bbox": [450, 1208, 1251, 1782], "category": "Picture"}]'
)
DOTS_LOOPING = (  # https://github.com/studio-dots-ai/dots.ocr/issues/245, where it goes on to the limit
    '[{"bbox": [0, 0, 503, 335], "category": "Table", "text": "<table><thead><tr><th>项目名称</th><th>数量/单位</th>'
    "<th>金额(元)</th><th>备注</th></tr></thead><tbody><tr><td>检查费</td><td></td><td>135.00</td><td></td></tr></tbody>"
    '</table>"}, {"bbox": [503, 0, 1036, 335], "category": "Table", "text": "<table><thead><tr><th>项目名称</th>'
    "<th>数量/单位</th></tr></thead><tbody><tr><td></td><td></td></tr><tr><td></td><td></td></tr><tr><td></td>"
)
DOTS_VERTICAL = (  # https://github.com/studio-dots-ai/dots.ocr/issues/91, a sample to train it on
    '[{"bbox": [67, 151, 87, 179], "category": "Page-header", "text": "2"}, {"bbox": [34, 625, 73, 903], '
    '"category": "Page-header", "text": "陈\\n士\\n铎\\n医\\n学\\n丛\\n书"}, {"bbox": [150, 148, 235, 207], "category": "Picture"}]'
)

#: https://huggingface.co/allenai/olmOCR-2-7B-1025, cut off after 50 tokens there
OLMOCR_PAGE = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: False\nis_diagram: False\n"
    "---\nolmOCR: Unlocking Trillions of Tokens in PDFs with Vision Language Models\n\nJake Poz"
)
#: https://github.com/allenai/olmocr/blob/main/tests/sample_dataset/synth_table/untable.md, the first rows
OLMOCR_TABLE = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: True\nis_diagram: False\n"
    "---\nAnnex I: Annual mid-year population, United Nations estimates: 2003 - 2012\n\n<table>\n<thead>\n<tr>\n"
    '<th rowspan="2">Continent and country or area<br/>Continent et pays ou zone</th>\n</tr>\n</thead>\n</table>'
)
#: https://github.com/allenai/olmocr/blob/main/tests/sample_dataset/empty_document/blanktext.md
OLMOCR_EMPTY = "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: False\nis_diagram: False\n---"

# The first three are the authors' examples for training: https://github.com/PaddlePaddle/ERNIE, docs/paddleocr_vl_sft_zh.md
PADDLEOCR_TABLE = (
    "<fcel>分组<fcel>频数<fcel>频率<nl><fcel>[41,51)<fcel>2<fcel>\\( \\frac{2}{30} \\)<nl>"
    "<fcel>[51,61)<fcel>1<fcel>\\( \\frac{1}{30} \\)<nl>"
)
PADDLEOCR_FORMULA = "\\[t_{n}\\in[0,\\infty]\\]"
PADDLEOCR_CHART = "  | 22Q3 | 22Q3yoy\n电商 | 85 | 100%\n川渝 | 140 | 8%"
# https://github.com/PaddlePaddle/ERNIE/issues/1427, an answer of its authors, two columns of it
PADDLEOCR_EMPTY_CELLS = "<fcel>3<ecel><nl><fcel>4<fcel>L911<nl>"
