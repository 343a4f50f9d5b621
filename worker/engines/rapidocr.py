"""RapidOCR: PP-OCRv6 on a CPU, with the models that are in RapidOCR's wheel. Nothing is downloaded."""

from __future__ import annotations

import asyncio
import importlib.metadata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocrfleet.errors import ConfigurationError, PageFaultError, Reason
from worker.engines.base import Recognition
from worker.engines.layout import regions
from worker.engines.line_finder import DETECTOR_SIDE
from worker.engines.page_reader import RapidOcrReader
from worker.engines.script_reader import ScriptReader
from worker.engines.scripts import ScriptClassifier, ScriptObserver, lacking_script

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.engines.scripts import Lacking
    from worker.imaging.page_image import PageImage

#: The files in the wheel, by a profile's model: detection, recognition.
_MODELS = {"PP-OCRv6-small": ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")}
_PARAMETERS = {
    "Global.log_level": "critical",
    # The classifier of upside-down lines turns upright ones: word F1 falls from 0.823 to 0.802 (bench/accuracy.py's pages).
    "Global.use_cls": False,
    # Boxes are in the pixels of the page image: RapidOCR adds no margins above and below a flat image.
    "Global.use_vertical_padding": False,
    # In which column of a line's image each character was seen.
    "Global.return_word_box": True,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    # Lines are found in a smaller image and read from the full one.
    "Det.limit_type": "max",
    "Det.limit_side_len": DETECTOR_SIDE,
    # A table may have more than the 1000 cells that are the default.
    "Det.max_candidates": 4000,
    "Det.unclip_ratio": 1.4,
    # In a batch each line is padded to the longest: up to a fifth slower, and the text depends on the neighbours.
    "Rec.rec_batch_num": 1,
}


class RapidOcrEngine:
    """One set of models and one thread. A page that hangs can't be interrupted."""

    concurrency = 1
    ahead = 0
    broken = None
    interruptible = False

    def __init__(self, profile: Profile, settings: Settings) -> None:  # noqa: ARG002 - the engine protocol
        self.version = f"rapidocr {profile.revision.removeprefix('rapidocr-')}"
        self._profile = profile
        self._ocr: Any = None
        self._scripts = ScriptReader()
        # A thread of its own: the event loop is not blocked, and the models read one page at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rapidocr")

    async def start(self) -> None:
        """Load the models. Raises ConfigurationError if this RapidOCR has another version than the profile, or lacks a model."""
        self._ocr = await asyncio.get_running_loop().run_in_executor(self._thread, load, self._profile)
        await self._scripts.start()

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:  # noqa: ARG002 - the engine protocol
        """Read one page. Raises PageFaultError if the models fail on it."""
        loop = asyncio.get_running_loop()
        try:
            recognition, lacking, quarter = await loop.run_in_executor(
                self._thread, read_with_scripts, self._ocr, image.pixels
            )
        except (
            Exception
        ) as error:  # RapidOCR, OpenCV and ONNX Runtime raise exceptions of their own, mostly plain Exception
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise PageFaultError(Reason.ENGINE_FAILED, f"RapidOCR failed on this page: {last}") from error
        if lacking is None:
            return recognition
        return await self._scripts.read(image, recognition, lacking, quarter=quarter)

    async def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._ocr = None


def load(profile: Profile) -> Any:
    """Load the models of a profile. Raises ConfigurationError if this RapidOCR has another version, or lacks a model."""
    wanted = profile.revision
    try:
        found = f"rapidocr-{importlib.metadata.version('rapidocr')}"
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    remedy = f"pip install {wanted.replace('-', '==')}"
    if found != wanted:
        raise ConfigurationError(
            f"the profile {profile.name!r} was made with {wanted} and {found} is installed, which may write "
            f"another text; {remedy}"
        )
    if profile.model not in _MODELS:
        raise ConfigurationError(
            f"{profile.model} is not in RapidOCR's wheel and nothing is downloaded; there is: {', '.join(_MODELS)}"
        )
    import cv2  # noqa: PLC0415 - these three take a second and 150 MB
    import rapidocr  # noqa: PLC0415

    cv2.setNumThreads(1)
    # Given by path, a model is never downloaded.
    paths = [Path(rapidocr.__file__).parent / "models" / name for name in _MODELS[profile.model]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} is missing from RapidOCR; {remedy} --force-reinstall")
    models = {"Det.model_path": str(paths[0]), "Rec.model_path": str(paths[1])}
    ocr = rapidocr.RapidOCR(params=_PARAMETERS | models)
    # Models are loaded at first use: use them.
    blank = np.full((64, 640, 3), 255, dtype=np.uint8)
    ocr(blank)
    ocr.recognize_txt([blank])
    recogniser: Any = ocr.text_rec
    recogniser.postprocess_op = ScriptObserver(recogniser.postprocess_op, ScriptClassifier())
    regions.ready()
    return ocr


def read(ocr: Any, pixels: NDArray[np.uint8], *, narrowed: float = 1.0) -> Recognition:
    """Read a page image, RGB, shape (height, width, 3), with loaded models.

    Lines are narrowed to this share of their widths before they are recognised: faster, and less exact.
    """
    return read_with_scripts(ocr, pixels, narrowed=narrowed)[0]


def read_with_scripts(
    ocr: Any, pixels: NDArray[np.uint8], *, narrowed: float = 1.0
) -> tuple[Recognition, Lacking | None, int]:
    """Read a page image; return what was read, the script that it lacks, and by how many quarters the page was rotated."""
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])  # what the models were trained on
    reader = RapidOcrReader(ocr, narrowed=narrowed)
    page = reader.read(bgr)
    recognition = Recognition(text=page.text, lines=page.lines, blocks=page.blocks, words=page.words)
    return recognition, lacking_script(reader.seen), reader.quarter
