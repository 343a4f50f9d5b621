"""Quality of the page confidence on pages with a known text, and the fit of its coefficients.

    python -m bench.confidence --corpus ../shared/corpus [--page-xml FOLDER …] [--cache FOLDER] [--write]

Pages: the ground truths of the corpus in ten variants each (blurred, noisy, small, faint, …), the samples, drawn pages in sixteen
languages, and folders of PAGE XML beside images, each page of these unchanged and in one variant. Every third page is also used
with half of its lines removed, as if the detector had missed them. RapidOCR and Tesseract (`eng`) read each page; each is the
second reading of the other. A page is right if less than 5 % of its characters are wrong, and wrong if more than 10 % are.

Coefficients are fitted by logistic regression to whether a page is right. The printed results are cross-validated: the pages of a
document, with all variants, get the confidence of coefficients fitted to the other documents. `--write` stores coefficients fitted
to all documents in worker/pipeline/confidence.json. `--cache` keeps the readings.

Targets for RapidOCR: AUROC of the confidence for wrong pages 0.9; at most 2 % wrong pages among those not marked for review.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.pages_with_truth import KnownPage, known_pages
from ocrfleet.profiles.profile import RAPIDOCR, TESSERACT
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Recognition
from worker.parsers import Parsed
from worker.pipeline import confidence
from worker.pipeline.confidence import Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.engines.base import Engine

    Floats = NDArray[np.float64]

RIGHT, WRONG = 0.05, 0.10
LEAST_AUROC, MOST_WRONG = 0.9, 0.02
#: L2 penalty on coefficients; features have a standard deviation of 1.
_PENALTY = 1.0
_ROUNDS = 50
#: One of this many pages is also used with half of its lines removed.
_EVERY = 3
_BANDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
SCORES = ("score", "low_score")
OTHERS = ("misspelt", "mixed", "unread")
FEATURES = {
    "rapidocr": (*SCORES, *OTHERS),
    "tesseract": (*SCORES, *OTHERS),
    "any": OTHERS,
    "rapidocr+audit": (*SCORES, *OTHERS, "agreement"),
    "tesseract+audit": (*SCORES, *OTHERS, "agreement"),
    "any+audit": (*OTHERS, "agreement"),
}
COEFFICIENTS = Path(confidence.__file__).with_name("confidence.json")


@dataclass(frozen=True, slots=True)
class Read:
    """The reading of a page by an engine."""

    document: str
    page: int
    variant: str
    engine: str
    text: str
    cer: float
    #: the same, independent of the order of lines
    cer_in_any_order: float
    evidence: Evidence
    #: CPU seconds to compute the evidence
    seconds: float
    #: share of the text that the other engine also read
    agreement: float | None = None

    @property
    def name(self) -> tuple[str, int, str]:
        return self.document, self.page, self.variant


async def read_all(pages: Iterable[KnownPage], cache: Path | None) -> list[Read]:
    """Read all pages with both engines, except pages in the cache."""
    found: list[Read] = []
    started: dict[str, Engine] = {}
    for number, page in enumerate(pages):
        for profile in (RAPIDOCR, TESSERACT):
            kept = None if cache is None else cache / f"{page.name}.{profile.engine}.json".replace("/", "_")
            if kept is not None and kept.is_file():
                found += [read_from(facts) for facts in json.loads(kept.read_text(encoding="utf-8"))]
                continue
            if profile.engine not in started:
                started[profile.engine] = engines.create(profile, Settings())
                await started[profile.engine].start()
            recognition = await started[profile.engine].recognise(page.image, profile)
            reads = [rated(page, recognition, profile.engine)]
            if number % _EVERY == 0:
                reads.append(rated(replace(page, variant=f"{page.variant}-half"), half(recognition), profile.engine))
            if kept is not None:
                kept.write_text(json.dumps([asdict(read) for read in reads], ensure_ascii=False), encoding="utf-8")
            found += reads
            print(f"{page.name} by {profile.engine}: CER {reads[0].cer:.3f}", file=sys.stderr)
    for engine in started.values():
        await engine.stop()
    return found


def half(recognition: Recognition) -> Recognition:
    """Return the first half of a reading, as if the detector had missed the rest."""
    lines = recognition.lines[: (len(recognition.lines) + 1) // 2]
    return Recognition(text="\n".join(line.text for line in lines), lines=lines)


def rated(page: KnownPage, recognition: Recognition, engine: str) -> Read:
    """Return the evidence for a reading, and its error rates."""
    begun = time.process_time()
    evidence = confidence.gather(Parsed(text=recognition.text, blocks=recognition.blocks), recognition, page.image)
    seconds = time.process_time() - begun
    text = recognition.text
    return Read(
        page.document,
        page.page,
        page.variant,
        engine,
        text,
        page.cer(text),
        page.cer_in_any_order(text),
        evidence,
        seconds,
    )


def read_from(facts: dict[str, Any]) -> Read:
    return Read(**facts | {"evidence": Evidence(**facts["evidence"])})


def with_agreement(reads: list[Read]) -> list[Read]:
    """Return the readings of pages that both engines read, with their agreement."""
    by = {(read.name, read.engine): read for read in reads}
    other = {"rapidocr": "tesseract", "tesseract": "rapidocr"}
    return [
        Read(
            **{field: getattr(read, field) for field in Read.__slots__}
            | {"agreement": confidence.agreement_of(read.text, second.text)}
        )
        for read in reads
        if (second := by.get((read.name, other[read.engine]))) is not None
    ]


def fitted(reads: list[Read], names: tuple[str, ...]) -> dict[str, float]:
    """Fit the coefficients by Newton's method on the logistic loss; each document has weight 1."""
    values = np.array([[read.evidence.features(read.agreement)[name] for name in names] for read in reads])
    right = np.array([read.cer_in_any_order < RIGHT for read in reads], np.float64)
    mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    inputs = np.column_stack(((values - mean) / deviation, np.ones(len(values))))
    penalty = np.diag([_PENALTY] * len(names) + [0.0])
    weights = np.zeros(len(names) + 1)
    for _ in range(_ROUNDS):
        chances = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (chances - right) + penalty @ weights
        curve = (inputs * (chances * (1 - chances))[:, None]).T @ inputs + penalty + 1e-6 * np.eye(len(weights))
        weights = weights - np.linalg.solve(curve, slope)
    plain = weights[:-1] / deviation
    constant = weights[-1] - float(plain @ mean)
    return {
        name: round(float(weight), 4) for name, weight in zip((*names, "constant"), (*plain, constant), strict=True)
    }


def chances(
    reads: list[Read], names: tuple[str, ...], fit: Callable[[list[Read], tuple[str, ...]], dict[str, float]]
) -> Floats:
    """Return the confidence of each reading, from coefficients fitted without its document."""
    found = np.zeros(len(reads))
    documents = [read.document for read in reads]
    for document in sorted(set(documents)):
        weights = fit([read for read in reads if read.document != document], names)
        for number, read in enumerate(reads):
            if read.document == document:
                found[number] = chance_by(weights, read)
    return found


def chance_by(weights: dict[str, float], read: Read) -> float:
    features = read.evidence.features(read.agreement) | {"constant": 1.0}
    total = sum(weight * features[name] for name, weight in weights.items())
    return float(1 / (1 + np.exp(-np.clip(total, -7, 7))))


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive has a lower score than a negative; ties count half."""
    lower = scores[positive][:, None] < scores[~positive][None, :]
    ties = scores[positive][:, None] == scores[~positive][None, :]
    return float((lower + ties / 2).mean()) if lower.size else float("nan")


def report(kind: str, reads: list[Read], found: Floats, below: float) -> bool:
    """Print the results for one kind of confidence; return whether the targets are met."""
    errors = np.array([read.cer_in_any_order for read in reads])
    strict = np.array([read.cer for read in reads]) > WRONG
    wrong, right = errors > WRONG, errors < RIGHT
    sure = found >= below
    area, sure_wrong = auroc(found, wrong), float(wrong[sure].mean()) if sure.any() else 0.0
    documents = len({read.document for read in reads})
    print(f"\n{kind}: {len(reads)} pages of {documents} documents, {wrong.mean():.0%} wrong, {right.mean():.0%} right")
    print(f"  AUROC for wrong pages {area:.3f}; {auroc(found, strict):.3f} if lines in another order count as errors")
    print(
        f"  not for review (confidence at least {below:g}): {sure.mean():.0%} of the pages, {sure_wrong:.1%} of these wrong; "
        f"{(~sure)[right].mean():.0%} of the right pages are for review"
    )
    print("  confidence    pages  mean   right")
    for low, high in itertools.pairwise(_BANDS):
        band = (found >= low) & ((found < high) | (high == 1))
        if band.any():
            print(f"  {low:.2f} to {high:.2f} {int(band.sum()):6}  {found[band].mean():.2f}   {right[band].mean():.2f}")
    return area >= LEAST_AUROC and sure_wrong <= MOST_WRONG


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--corpus", type=Path, default=here.parent / "shared" / "corpus", help="holds manifest.csv")
    parser.add_argument("--page-xml", type=Path, nargs="*", default=[], help="folders of PAGE XML beside images")
    parser.add_argument("--cache", type=Path, help="folder of cached readings")
    parser.add_argument("--only-cache", action="store_true", help="use only cached readings, without rendering and OCR")
    parser.add_argument("--write", action="store_true", help=f"store the coefficients in {COEFFICIENTS.name}")
    arguments = parser.parse_args()
    if arguments.only_cache:
        reads = [
            read_from(facts)
            for path in sorted(arguments.cache.glob("*.json"))
            for facts in json.loads(path.read_text(encoding="utf-8"))
        ]
    else:
        reads = asyncio.run(read_all(known_pages(arguments.corpus, arguments.page_xml), arguments.cache))
    both = with_agreement(reads)
    met = True
    for kind, names in FEATURES.items():
        engine, _, audit = kind.partition("+")
        used = [read for read in (both if audit else reads) if engine in {"any", read.engine}]
        good = report(kind, used, chances(used, names, fitted), RAPIDOCR.review_below)
        met &= good or not kind.startswith("rapidocr")
    coefficients = {
        kind: fitted(
            [read for read in (both if "+" in kind else reads) if kind.partition("+")[0] in {"any", read.engine}], names
        )
        for kind, names in FEATURES.items()
    }
    if arguments.write:
        made = {"made_by": "python -m bench.confidence --write", "pages": len(reads), "coefficients": coefficients}
        COEFFICIENTS.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print("\n" + json.dumps(coefficients, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
