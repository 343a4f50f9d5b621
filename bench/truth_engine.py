"""An engine for OCRmyPDF without OCR: returns the words of the file in OCRFLEET_BENCH_TRUTH (bench/searchable_pdf.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ocrmypdf import OcrEngine, hookimpl
from PIL import Image

from ocrfleet.ocrmypdf_plugin import OcrfleetEngine, tree


class TruthEngine(OcrfleetEngine):
    @staticmethod
    def generate_ocr(input_file: Path, options: Any, page_number: int = 0) -> Any:  # noqa: ARG004 - OCRmyPDF's interface
        page = json.loads(Path(os.environ["OCRFLEET_BENCH_TRUTH"]).read_text())[page_number]
        with Image.open(input_file) as image:
            return tree(page, image.size, dpi=float(image.info["dpi"][0]), page_number=page_number), page["text"]


@hookimpl
def get_ocr_engine(options: Any) -> OcrEngine:  # noqa: ARG001 - as above
    return TruthEngine()
