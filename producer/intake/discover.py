"""Discovery: the documents in files and folders, and the names of their outputs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from natsort import natsorted

from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from producer.errors import UsageError

#: Formats by file suffix. A file with such a suffix and other bytes is reported as broken, not skipped.
SUFFIXES = {
    ".pdf": Kind.PDF,
    ".png": Kind.PNG,
    ".jpg": Kind.JPEG,
    ".jpeg": Kind.JPEG,
    ".jpe": Kind.JPEG,
    ".tif": Kind.TIFF,
    ".tiff": Kind.TIFF,
    ".webp": Kind.WEBP,
    ".bmp": Kind.BMP,
    ".jp2": Kind.JPEG2000,
    ".j2k": Kind.JPEG2000,
    ".j2c": Kind.JPEG2000,
    ".jpx": Kind.JPEG2000,
    ".jpf": Kind.JPEG2000,
}
#: Hidden names that are not reported as skipped: the state of a run, and files of desktops.
_OURS = {".ocrfleet", ".DS_Store", ".directory"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that was found: one file, or the images of a folder in order."""

    #: relative path that names its outputs
    name: str
    files: tuple[Path, ...]
    grouped: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A skipped file, with the reason."""

    name: str
    reason: str
    #: the user named this path: skipping it is a failure
    named: bool = False


def discover(
    inputs: Sequence[Path], *, group_folders: bool, leave_out: Path | None = None
) -> Iterator[Candidate | Skipped]:
    """Yield the documents in the inputs, folder by folder, files in natural order.

    A file is named by its own name, a file in a folder by its path below that folder. `leave_out` (the output folder)
    is not searched. A file in a folder that is no document is skipped; one that is an input itself is a broken document. Raises UsageError for an input that does not exist, and for two files that would share a name.
    """
    check_inputs(inputs, output=leave_out)
    names: dict[str, Path] = {}
    for path in inputs:
        found = _walk(path, group_folders=group_folders, leave_out=leave_out) if path.is_dir() else iter([_named(path)])
        for item in found:
            if isinstance(item, Candidate):
                first = item.files[0].parent if item.grouped else item.files[0]
                other = names.get(item.name)
                if other is not None:
                    if other.resolve() == first.resolve():
                        continue
                    raise UsageError(
                        f"{other} and {first} would both be written to {item.name}.md; "
                        "run them one by one with outputs of their own, or give the folder above them"
                    )
                names[item.name] = first
            yield item


def check_inputs(inputs: Sequence[Path], *, output: Path | None) -> None:
    """Raise UsageError for an input that does not exist, or that is the output folder."""
    for path in inputs:
        if not path.exists():
            raise UsageError(f"there is no {path}")
        if output is not None and path.resolve() == output.resolve():
            raise UsageError(f"{path} is both input and output; write to another folder, which may lie in it")


def _walk(root: Path, *, group_folders: bool, leave_out: Path | None) -> Iterator[Candidate | Skipped]:
    unreadable: list[OSError] = []
    for folder, subfolders, files in os.walk(root, onerror=unreadable.append):
        here = Path(folder)
        for name in natsorted(subfolders):
            if (here / name).is_symlink() and not name.startswith("."):
                yield Skipped(str(here.relative_to(root) / name), "a link to a folder; give the folder itself")
        for name in natsorted(name for name in (*subfolders, *files) if name.startswith(".") and name not in _OURS):
            yield Skipped(str(here.relative_to(root) / name), "hidden: its name begins with a dot")
        subfolders[:] = natsorted(name for name in subfolders if not name.startswith("."))
        if leave_out is not None and here.resolve() == leave_out.resolve():
            subfolders.clear()
            continue
        below = here.relative_to(root)
        items = [_file(here / name, str(below / name)) for name in natsorted(files) if not name.startswith(".")]
        if group_folders:
            yield from _grouped(items, name=str(below) if below.parts else root.resolve().name or "images")
        else:
            yield from items
    for error in unreadable:
        yield Skipped(str(Path(error.filename).relative_to(root)), f"the folder can't be read: {error.strerror}")


def _grouped(items: Sequence[Candidate | Skipped], *, name: str) -> Iterator[Candidate | Skipped]:
    """Yield the images among a folder's files as one document, and the rest as they are."""
    images = {item.files[0]: None for item in items if isinstance(item, Candidate) and not _is_pdf(item.files[0])}
    if images:
        yield Candidate(name, tuple(images), grouped=True)
    for item in items:
        if isinstance(item, Skipped) or item.files[0] not in images:
            yield item


def _is_pdf(path: Path) -> bool:
    kind = kind_of(path)
    return (kind or SUFFIXES.get(path.suffix.lower())) is Kind.PDF


def _named(path: Path) -> Candidate | Skipped:
    """Return the file at a path that the user named. A file of another format is reported as a broken document."""
    item = _file(path, path.name)
    if isinstance(item, Candidate):
        return item
    return Candidate(path.name, (path,)) if path.is_file() else replace(item, named=True)


def _file(path: Path, name: str) -> Candidate | Skipped:
    try:
        mode = path.stat().st_mode
    except OSError:
        return Skipped(name, "a broken link")
    if not stat.S_ISREG(mode):
        return Skipped(name, "not a regular file")
    if path.suffix.lower() in SUFFIXES or kind_of(path) is not None:
        return Candidate(name, (path,))
    return Skipped(name, "neither a PDF nor an image of a supported format (PNG, JPEG, TIFF, WebP, BMP, JPEG 2000)")


def kind_of(path: Path) -> Kind | None:
    """Return the format of a file by its first bytes; None when it is unknown or the file can't be read."""
    try:
        with path.open("rb") as stream:
            return sniff(stream.read(SNIFF_BYTES))
    except OSError:
        return None
