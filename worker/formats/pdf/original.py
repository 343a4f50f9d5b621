"""The sandboxed program that inspects an original PDF and writes a copy with text, started by a Sandbox.

qpdf copies every stream of the original byte by byte. Each page draws one additional form before its other content, so that the
content can't change the position of the text. The program writes the copy to the shared memory of the parent, which is a file.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pikepdf

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import load_decoders, open_document
from ocrfleet.sandbox.mapped_file import MappedFile
from ocrfleet.sandbox.pdf import PdfDocument
from worker.formats.pdf.archival import conform
from worker.formats.pdf.old_text import OldText
from worker.formats.pdf.visible_text import visible_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from ocrfleet.sandbox.child import Handler

#: Maximum depth of the page tree and of form fields: deeper trees are malicious.
_DEEPEST = 64
#: Maximum number of form fields that are searched for a signature.
_MOST_FIELDS = 100_000
#: Size of a page without a media box in points, as in MuPDF.
_LETTER = (0.0, 0.0, 612.0, 792.0)

Box = tuple[float, float, float, float]


class Original:
    """Keeps the last document open, in MuPDF for inspection and in qpdf for the copy."""

    def __init__(self) -> None:
        self._seen: PdfDocument | None = None
        self._pdf: pikepdf.Pdf | None = None

    def __call__(self, request: dict[str, Any], fd: int | None, shared: mmap | None) -> dict[str, Any]:
        """Answer one of four requests; all but the last include the original.

        `check` raises PermanentError if no copy is possible. `visible` returns the boxes of the visible words of a page. `save`
        follows `open`; it includes the PDF with the text forms and returns the size of the copy.
        """
        if fd is None:
            raise ValueError("the request needs a file")
        match request["do"]:
            case "check":
                with _opened(fd, request["passwords"]) as pdf:
                    _refuse(pdf, pages=request["pages"], decrypt=request["decrypt"])
                return {}
            case "visible":
                if self._seen is None:
                    document = open_document(fd, Kind.PDF, request["passwords"])
                    if not isinstance(document, PdfDocument):
                        return {"boxes": []}  # MuPDF can't read it
                    self._seen = document
                return {"boxes": visible_text(self._seen, request["page"])}
            case "open":
                if self._seen is not None:
                    self._seen.close()
                    self._seen = None
                self._pdf = _opened(fd, request["passwords"])
                return {}
            case "save" if self._pdf is not None and shared is not None:
                with _opened(fd, ()) as texts:
                    return {"size": _save(self._pdf, texts, shared, request)}
            case _:
                raise ValueError(f"unknown request: {request['do']}")


def handler() -> Handler:
    load_decoders()
    return Original()


def _opened(fd: int, passwords: Sequence[str]) -> pikepdf.Pdf:
    data = MappedFile(fd, os.fstat(fd).st_size)
    for password in ("", *passwords):
        try:
            data.seek(0)
            return pikepdf.open(data, password=password, suppress_warnings=True)  # type: ignore[arg-type]
        except pikepdf.PasswordError:
            continue
        except MemoryError:
            raise
        except Exception as error:  # qpdf raises errors of several types
            raise PermanentError(Reason.UNREADABLE, "qpdf can't read the PDF: export it again") from error
    raise PermanentError(Reason.NEEDS_PASSWORD, "the PDF needs a password: pass --password-file")


def _refuse(pdf: pikepdf.Pdf, *, pages: int, decrypt: bool) -> None:
    """Raise PermanentError for a PDF that must not or can't be copied with its text."""
    if pdf.is_encrypted and not decrypt:
        raise PermanentError(
            Reason.UNSUPPORTED,
            "the PDF is encrypted, and a copy with text would not be: ask for the format pdf-decrypted if that may be",
        )
    if _is_signed(pdf):
        raise PermanentError(
            Reason.UNSUPPORTED,
            "the PDF is signed, and with text added its signature would no longer hold: use its text beside it",
        )
    if len(pdf.pages) != pages:
        raise PermanentError(
            Reason.UNREADABLE, f"qpdf finds {len(pdf.pages)} pages in the damaged PDF, not {pages}: export it again"
        )


def _is_signed(pdf: pikepdf.Pdf) -> bool:
    """Return whether a PDF has a signature: of a person, or for usage rights."""
    if "/Perms" in pdf.Root:
        return True
    form = pdf.Root.get("/AcroForm")
    fields = form.get("/Fields") if isinstance(form, pikepdf.Dictionary) else None
    waiting = [(field, 0) for field in fields] if isinstance(fields, pikepdf.Array) else []
    for _ in range(_MOST_FIELDS):
        if not waiting:
            break
        field, depth = waiting.pop()
        if not isinstance(field, pikepdf.Dictionary):
            continue
        value = field.get("/V")
        if isinstance(value, pikepdf.Dictionary) and "/ByteRange" in value:
            return True
        kids = field.get("/Kids")
        if isinstance(kids, pikepdf.Array) and depth < _DEEPEST:
            waiting.extend((kid, depth + 1) for kid in kids)
    return False


def _save(pdf: pikepdf.Pdf, texts: pikepdf.Pdf, shared: mmap, options: dict[str, Any]) -> int:
    """Add the texts to their pages, write the copy, and return its size in bytes."""
    keep, old = options["keep"], OldText(pdf)
    for index, form in texts.Root.Forms:
        page = pdf.pages[number := int(index)]
        if keep and old.is_on(page):
            continue
        if not keep:
            old.remove(page)
        _add(pdf, page, number, pdf.copy_foreign(form))
    if options["archival"]:
        conform(pdf)
    out = _Output(shared)
    pdf.save(
        out,  # type: ignore[arg-type]
        # Copy the streams of the original without decoding or compressing them.
        compress_streams=False,
        stream_decode_level=pikepdf.StreamDecodeLevel.none,
        fix_metadata_version=False,
        encryption=False,
        linearize=options["linear"],
        deterministic_id=True,
    )
    return out.size


def _add(pdf: pikepdf.Pdf, page: pikepdf.Page, number: int, form: pikepdf.Object) -> None:
    """Make a page draw the form of its text before its other content."""
    resources = _inherited(page.obj, "/Resources")
    if not isinstance(resources, pikepdf.Dictionary):
        resources = page.obj.Resources = pikepdf.Dictionary()
    forms = resources.get("/XObject")
    if not isinstance(forms, pikepdf.Dictionary):
        forms = resources.XObject = pikepdf.Dictionary()
    # Pages may share the dictionary, so each form needs its own name.
    while (name := f"/ocrfleet-{number}") in forms:
        number += len(pdf.pages)
    forms[name] = form
    width, height = (float(side) for side in list(form.BBox)[2:])
    matrix = " ".join(f"{entry:.8g}" for entry in _placement(page, width, height))
    page.contents_add(pikepdf.Stream(pdf, f"q {matrix} cm {name} Do Q\n".encode()), prepend=True)


def _placement(page: pikepdf.Page, width: float, height: float) -> tuple[float, ...]:
    """Return the matrix that maps a form of this size to a page as displayed: cropped, and rotated clockwise."""
    x0, y0, x1, y1 = _displayed(page.obj)
    rotate = _inherited(page.obj, "/Rotate")
    turn = round(float(rotate) / 90) % 4 if isinstance(rotate, int | Decimal) else 0
    across, down = (x1 - x0, y1 - y0) if turn % 2 == 0 else (y1 - y0, x1 - x0)
    x, y = across / width, down / height
    match turn:
        case 1:
            return 0, x, -y, 0, x1, y0
        case 2:
            return -x, 0, 0, -y, x1, y1
        case 3:
            return 0, -x, y, 0, x0, y1
        case _:
            return x, 0, 0, y, x0, y0


def _displayed(page: Any) -> Box:
    """Return the visible box of a page: its crop box within its media box; the media box if they do not overlap."""
    media = _box(_inherited(page, "/MediaBox")) or _LETTER
    crop = _box(_inherited(page, "/CropBox")) or media
    both = max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3])
    return both if both[0] < both[2] and both[1] < both[3] else media


def _box(value: Any) -> Box | None:
    """Return a box with its corners in order; None if it is not a valid box."""
    try:
        x0, y0, x1, y1 = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    return box if all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3] else None


def _inherited(page: Any, name: str) -> Any:
    """Return an entry of a page, possibly inherited from the page tree."""
    for _ in range(_DEEPEST):
        if not isinstance(page, pikepdf.Dictionary):
            return None
        if name in page:
            return page[name]
        page = page.get("/Parent")
    return None


@dataclass
class _Output:
    """A write-only file in the shared memory, for sequential writes of qpdf."""

    memory: mmap
    size: int = 0

    def write(self, data: bytes) -> int:
        if self.size + len(data) > len(self.memory):
            raise PermanentError(Reason.TOO_LARGE, "the PDF with its text would be more than twice as large")
        self.memory[self.size : self.size + len(data)] = data
        self.size += len(data)
        return len(data)

    def seek(self, *_: int) -> int:
        raise OSError("qpdf writes from the beginning to the end")

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""
