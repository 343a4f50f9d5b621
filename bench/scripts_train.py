"""Fits the script classifier (worker/engines/scripts.npz) to drawn lines, and prints its accuracy on held-out fonts.

    python -m bench.scripts_train --fonts FOLDER [--pages FOLDER] [--lines 150] [--out worker/engines/scripts.npz]

`--fonts` holds fonts of all scripts: those of Debian's fonts-noto-core, fonts-noto-cjk, culmus, fonts-indic, fonts-thai-tlwg,
fonts-nanum, fonts-gfs-*, fonts-bpg-georgian, fonts-hosny-amiri, fonts-kacst and others. `--pages` holds images of print that
the recogniser can read: old print differs from all these fonts. The stored weights used pages of impresso's
NZZ-black-letter-ground-truth and OCR-D's gt_structure_text. A quarter of the font families is held out.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.script_lines import OTHERS, Fonts, Pixels, Words, draw, kinds, letters, texture
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.profiles.scripts import OTHER
from worker.engines import scripts
from worker.engines.line_finder import LineFinder
from worker.engines.rapidocr import load
from worker.imaging.marks import find_marks

#: Hyperparameters: feature components, hidden units, epochs, batch size; learning rate, weight decay, dropout.
_COMPONENTS, _UNITS, _EPOCHS, _BATCH = 96, 64, 30, 64
_RATE, _DECAY, _DROPPED = 2e-3, 1e-3, 0.1

Sample = tuple[str, bool, NDArray[np.float32]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, action="append", required=True)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--lines", type=int, default=150, help="number of lines per script")
    parser.add_argument("--out", type=Path, default=Path("worker/engines/scripts.npz"))
    arguments = parser.parse_args()
    recogniser = _Recogniser()
    samples = list(recogniser.drawn(arguments.fonts, arguments.lines))
    if arguments.pages is not None:
        samples += recogniser.printed(sorted(arguments.pages.iterdir()))
    fitted = fit(samples)
    report(fitted, samples)
    np.savez_compressed(arguments.out, allow_pickle=False, **fitted)
    return 0


class _Recogniser:
    """The recogniser; records the features of its input lines."""

    def __init__(self) -> None:
        self._ocr = load(RAPIDOCR)
        # the decoder of RapidOCR, without the wrapper of the engine
        self._decode = self._ocr.text_rec.postprocess_op.decode
        self._ocr.text_rec.postprocess_op = self
        self._last: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def __call__(self, chances: NDArray[np.float32], *arguments: Any, **sizes: Any) -> Any:
        self._last = scripts.features(scripts.used_columns(chances, 0, sizes))
        return self._decode(chances, *arguments, **sizes)

    def features(self, line: Pixels) -> NDArray[np.float32]:
        """Return the features of the columns of a line, shape (columns, 256)."""
        self._ocr.recognize_txt([line])
        return self._last

    def drawn(self, folders: list[Path], count: int) -> Iterator[Sample]:
        """Yield drawn lines: class, whether the font family is held out, features."""
        rng, noise = random.Random(1), np.random.default_rng(1)
        words, fonts = Words(frozenset(self._decode.character)), Fonts(folders)
        wanted = [(name, kind, weight * count) for name, kind, weight in kinds()]
        wanted += [(OTHER.name, other, count // 12) for other in OTHERS]
        for name, kind, lines in wanted:
            if kind == "texture":
                yield from ((name, False, self.features(texture(rng, noise))) for _ in range(lines))
                continue
            drawn = "LATIN" if kind in ("figures", "rotated") else kind
            sample = "".join("".join(locale[::7]) for locale in words.by_script[drawn]) or "".join(letters(drawn))
            families = fonts.of(sample)
            made = 0
            while families and made < lines:
                family = rng.choice(sorted(families))
                text = words.figures(rng) if kind == "figures" else words.line(drawn, rng)
                size = int(np.clip(rng.gauss(34, 12), 12, 80))
                line = draw(text, rng.choice(families[family]), size, rng, noise)
                if line is None or line.shape[1] > 40 * line.shape[0]:
                    continue
                if kind == "rotated":
                    line = np.ascontiguousarray(np.rot90(line, rng.choice((1, 2, 2, 3))))
                made += 1
                yield name, held_out(family), self.features(line)
            print(f"{name} ({kind}): {made} lines in {len(families)} families of fonts", flush=True)

    def printed(self, pages: list[Path]) -> Iterator[Sample]:
        """Yield up to 30 lines of each page, with the class of readable print."""
        rng = random.Random(1)
        finder = LineFinder(self._ocr)
        for page in pages:
            image = Image.open(page).convert("RGB")
            image.thumbnail((2500, 2500))
            pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
            quads, _ = finder.find(pixels, find_marks(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)))
            crops = finder.crops(pixels, quads) if len(quads) else []
            for crop in rng.sample(crops, min(30, len(crops))):
                yield "Latin", held_out(page.name), self.features(crop)


def held_out(name: str) -> bool:
    """Return whether a font family, or a page, is held out (a quarter of them)."""
    return hashlib.sha256(name.encode()).digest()[0] < 64


def fit(samples: list[Sample]) -> dict[str, NDArray[Any]]:
    """Fit a network with one hidden layer per column, and mean and maximum pooling of the hidden units over a line.

    Rare classes have a higher weight; Vietnamese has the highest, because the recogniser loses few of its letters.
    """
    rng = np.random.default_rng(0)
    learnt = [(scripts.CLASSES.index(name), columns) for name, held, columns in samples if not held]
    sampled = np.concatenate([columns[:: max(len(columns) // 6, 1)] for _, columns in learnt])
    center, sampled = sampled.mean(axis=0), sampled[rng.permutation(len(sampled))[:20_000]]
    _, singular, directions = np.linalg.svd(sampled - center, full_matrices=False)
    whitening = (directions[:_COMPONENTS] / singular[:_COMPONENTS, None] * np.sqrt(len(sampled))).T
    lines = [((columns - center) @ whitening).astype(np.float32) for _, columns in learnt]
    truth = np.array([number for number, _ in learnt])
    weight = 1 / np.sqrt(np.bincount(truth, minlength=len(scripts.CLASSES)))[truth]
    weight[truth == scripts.CLASSES.index("Vietnamese")] *= 3
    network = Network(rng, _COMPONENTS, _UNITS, len(scripts.CLASSES))
    for epoch in range(_EPOCHS):
        order = rng.permutation(len(lines))
        for chosen in np.split(order, range(_BATCH, len(order), _BATCH)):
            network.step(
                [lines[number] for number in chosen],
                truth[chosen],
                weight[chosen] / weight.mean(),
                rate=_RATE * (1 - epoch / _EPOCHS) + 1e-4,
            )
    hidden, hidden_offsets, weights, offsets = network.parameters
    return {
        "columns": (whitening @ hidden).astype(np.float16),
        "column_offsets": (hidden_offsets - center @ whitening @ hidden).astype(np.float32),
        "weights": weights.astype(np.float16),
        "offsets": offsets,
    }


class Network:
    """Columns → ReLU units → mean and maximum over a line → classes; fitted by Adam with dropout."""

    def __init__(self, rng: np.random.Generator, inputs: int, units: int, classes: int) -> None:
        self._rng = rng
        shapes = ((inputs, units), (units,), (2 * units, classes), (classes,))
        scales = (np.sqrt(2 / inputs), 0, 0.1, 0)
        self.parameters = [
            (scale * rng.standard_normal(shape)).astype(np.float32) for shape, scale in zip(shapes, scales, strict=True)
        ]
        self._first = [np.zeros_like(parameter) for parameter in self.parameters]
        self._second = [np.zeros_like(parameter) for parameter in self.parameters]
        self._steps = 0

    def step(
        self, lines: list[NDArray[np.float32]], truth: NDArray[np.intp], weight: NDArray[Any], *, rate: float
    ) -> None:
        hidden, hidden_offsets, weights, offsets = self.parameters
        lengths = np.array([len(line) for line in lines])
        columns, starts = np.concatenate(lines), np.cumsum(lengths) - lengths
        line_of = np.repeat(np.arange(len(lines)), lengths)
        units = np.maximum(columns @ hidden + hidden_offsets, 0)
        highest = np.maximum.reduceat(units, starts)
        kept = (self._rng.random((len(lines), len(weights))) > _DROPPED) / np.float32(1 - _DROPPED)
        pooled = np.hstack([np.add.reduceat(units, starts) / lengths[:, None], highest]) * kept
        logits = pooled @ weights + offsets
        wrong = np.exp(logits - logits.max(axis=1, keepdims=True))
        wrong /= wrong.sum(axis=1, keepdims=True)
        wrong[np.arange(len(lines)), truth] -= 1
        wrong *= weight[:, None] / len(lines)
        by_mean, by_highest = np.hsplit((wrong @ weights.T) * kept, 2)
        back = (by_mean / lengths[:, None])[line_of] + by_highest[line_of] * (units == highest[line_of])
        back *= units > 0
        gradients = (columns.T @ back, back.sum(axis=0), pooled.T @ wrong, wrong.sum(axis=0))
        self._steps += 1
        for number, gradient in enumerate(gradients):
            parameter = self.parameters[number]
            decayed = gradient + (_DECAY * parameter if parameter.ndim > 1 else 0)
            self._first[number] = 0.9 * self._first[number] + 0.1 * decayed
            self._second[number] = 0.999 * self._second[number] + 0.001 * decayed**2
            first = self._first[number] / (1 - 0.9**self._steps)
            second = self._second[number] / (1 - 0.999**self._steps)
            self.parameters[number] = (parameter - rate * first / (np.sqrt(second) + 1e-8)).astype(np.float32)


def report(fitted: dict[str, NDArray[Any]], samples: list[Sample]) -> None:
    """Print for lines in held-out fonts how often each class is classified as readable or not, and correctly."""
    classifier = scripts.ScriptClassifier(fitted)
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for name, held, columns in samples:
        if held:
            scores = classifier.scores(columns)
            lacks = np.exp(scores[len(scripts.READABLE) :]).sum() > 0.9
            rows.setdefault(name, []).append((bool(lacks), scripts.CLASSES[int(scores.argmax())] == name))
    for name, found in sorted(rows.items()):
        lacks, right = np.mean(found, axis=0)
        print(f"{name:28} {len(found):5} held-out lines: {lacks:6.1%} classified as lacking, {right:6.1%} correct")


if __name__ == "__main__":
    sys.exit(main())
