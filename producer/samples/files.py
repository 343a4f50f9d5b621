"""The sample documents and their truths, as files of this package."""

from __future__ import annotations

import shutil
from pathlib import Path

from ocrfleet.durable import new_file

_DOCUMENTS = Path(__file__).with_name("documents")
_TRUTHS = Path(__file__).with_name("truths")

#: Paths of the documents in the samples' folder.
SAMPLES = (
    "letter.pdf",
    "scan.pdf",
    "two-columns.pdf",
    "ledger.tif",
    "notice.jpg",
    "book/page-1.png",
    "book/page-2.png",
    "book/page-10.png",
)


def write_samples(folder: Path) -> list[Path]:
    """Copy every sample below `folder`, which is made if need be; return their paths in the order of SAMPLES."""
    paths = [folder / name for name in SAMPLES]
    for name, path in zip(SAMPLES, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (_DOCUMENTS / name).open("rb") as content, new_file(path.parent) as (aside, copy):
            shutil.copyfileobj(content, copy)
            Path(aside).replace(path)
    return paths


def truth(name: str) -> list[str]:
    """Return the text of each page of the sample `name`, in reading order."""
    return (_TRUTHS / f"{name}.txt").read_text(encoding="utf-8").split("\f")


def expected_words(name: str) -> list[list[str]]:
    """Return the words of each page of the sample `name`, in reading order, punctuation included."""
    return [page.split() for page in truth(name)]
