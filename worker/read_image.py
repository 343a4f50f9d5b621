"""Reads page images one after the other with the engine of a profile: `python -m worker.read_image`.

For programs that want an engine without a queue and a store, as ocrfleet/ocrmypdf_plugin.py. Each line of standard input is
`{"path": …}`, each line of standard output `{"page": …}`, the page's record, or `{"error": …}`. It ends with its input.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from typing import Any

from ocrfleet.errors import OcrfleetError, PermanentError, Reason
from ocrfleet.profiles.profile import RAPIDOCR, Profile
from ocrfleet.profiles.select import find
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Engine
from worker.rendering.pool import RenderPool


async def main() -> None:
    """Load the engine of OCRFLEET_PROFILE, by default the CPU's, and read what is asked for."""
    settings = Settings()
    profile = find(os.environ.get("OCRFLEET_PROFILE", RAPIDOCR.name))
    engine = engines.create(profile, settings)
    await engine.start()
    pool = RenderPool(1, memory=settings.render_memory_mb << 20, max_pixels=profile.render.max_pixels)
    try:
        for line in sys.stdin:
            answer: dict[str, Any]
            try:
                page = await _read(json.loads(line)["path"], pool, engine, profile, settings.render_deadline)
                answer = {"page": page.model_dump(mode="json")}
            except (OcrfleetError, OSError) as error:
                answer = {"error": str(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        pool.close()
        await engine.stop()


async def _read(path: str, pool: RenderPool, engine: Engine, profile: Profile, deadline: float) -> PageResult:
    with open(path, "rb") as file:  # noqa: ASYNC230, PTH123 - one image at a time
        kind = sniff(file.read(SNIFF_BYTES))
        if kind is None:
            raise PermanentError(Reason.UNSUPPORTED, "the file is no image that can be read")
        file.seek(0)
        name = hashlib.file_digest(file, "sha256").hexdigest()
        image = await pool.render(name, file.fileno(), kind, 0, profile.render, deadline=deadline)
    recognition = await engine.recognise(image, profile)
    return PageResult(
        page=1,
        status=PageStatus.DONE,
        profile=profile.name,
        engine=profile.engine,
        engine_version=engine.version,
        model=profile.model,
        revision=profile.revision,
        width_px=image.width,
        height_px=image.height,
        text=recognition.text,
        lines=recognition.lines,
        words=recognition.words,
        blocks=recognition.blocks,
    )


if __name__ == "__main__":
    asyncio.run(main())
