"""The CPU engines ask no host and write nothing outside of their folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.system_calls import reached

#: Starts an engine, reads a page and stops it.
PROGRAM = """
import asyncio, sys
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from ocrfleet.profiles.profile import resolve
from ocrfleet.settings import Settings
from worker import engines
from worker.imaging.page_image import PageImage

sheet = Image.new("RGB", (300, 80), "white")
ImageDraw.Draw(sheet).text((20, 20), "quiet words", "black", ImageFont.load_default(30))

async def read(profile):
    engine = engines.create(profile, Settings())
    await engine.start()
    recognition = await engine.recognise(PageImage(pixels=np.array(sheet), width_pt=300, height_pt=80), profile)
    await engine.stop()
    assert "quiet" in recognition.text.lower(), recognition.text

asyncio.run(read(resolve(sys.argv[1])))
"""


@pytest.mark.parametrize("engine", ["rapidocr", "tesseract"])
def test_an_engine_asks_no_host_and_writes_nothing_outside_of_its_folders(tmp_path: Path, engine: str) -> None:
    # Given a home and a folder for temporary files
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_THREAD_LIMIT": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}

    # When an engine starts and reads a page
    seen = reached(PROGRAM, engine, log=tmp_path / "strace.log", environment=environment)

    # Then no name is resolved, nothing is sent, and nothing stays behind
    assert seen.hosts == []
    assert [path for path in seen.written if not path.startswith(str(tmp_path / "tmp"))] == []
    assert list((tmp_path / "home").rglob("*")) == []
