"""The real OCRmyPDF with ocrfleet's engine: by a server with a worker, and on this machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.support.desk import Desk
from tests.support.fakes.numbered import draw
from tests.support.fakes.webhook_receiver import IntakeScheduler
from tests.support.searchable_pdf import pdf_words
from tests.support.served import TOKEN, Served
from tests.support.servers import SeaweedFS, Valkey
from tests.support.waiting import scaled


def ocrmypdf(source: Path, target: Path, *options: str, **environment: str) -> None:
    command = [sys.executable, "-m", "ocrmypdf", "--plugin", "ocrfleet.ocrmypdf_plugin", "--jobs", "1", *options]
    ended = subprocess.run(
        [*command, "--output-type", "pdf", "--optimize", "0", "--image-dpi", "300", str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        timeout=scaled(120),
    )
    assert ended.returncode == 0, ended.stderr


def test_ocrmypdf_has_its_pages_read_by_a_fleet(desk: Desk, valkey: Valkey, seaweed: SeaweedFS, tmp_path: Path) -> None:
    draw(77).save(tmp_path / "page.png", dpi=(300, 300))
    with IntakeScheduler() as receiver:
        served = Served(desk, valkey, seaweed, receiver)
        served.start()
        url = f"http://127.0.0.1:{served.port}"
        ocrmypdf(tmp_path / "page.png", tmp_path / "read.pdf", "--ocrfleet-url", url, OCRFLEET_TOKEN=TOKEN)
        served.stop()

    assert any("77" in text for text, _ in pdf_words(tmp_path / "read.pdf"))


def test_ocrmypdf_has_its_pages_read_by_the_engine_of_this_machine(tmp_path: Path) -> None:
    page = Image.new("L", (1000, 500), 255)
    font = ImageFont.truetype("DejaVuSans.ttf", 48)
    ImageDraw.Draw(page).text((100, 200), "Searchable archive", font=font, fill=0)
    page.save(tmp_path / "page.png", dpi=(300, 300))

    ocrmypdf(tmp_path / "page.png", tmp_path / "read.pdf", OCRFLEET_URL="")

    found = pdf_words(tmp_path / "read.pdf")
    assert [text for text, _ in found] == ["Searchable", "archive"]
    x0, y0, x1, y1 = (side / 72 * 300 for side in found[0][1])
    assert (x0, x1) == pytest.approx((100, 100 + font.getlength("Searchable")), abs=30)
    assert 180 <= (y0 + y1) / 2 <= 270
