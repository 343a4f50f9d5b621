"""Opening documents: what a file is, how many pages it has, and each page. Every error here is the input's own.

Apart from `sniff`, this runs inside sandboxes: MuPDF and Pillow are native code on bytes from anywhere. Files are opened
by descriptor and read as needed, so that a document of two gigabytes costs no more memory than a small one.
"""

from __future__ import annotations

import importlib
import mmap
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image
    from PIL.TiffImagePlugin import TiffImageFile

#: Bytes that `sniff` wants: readers accept a PDF whose header stands anywhere in the first 1,024 (PDF 1.7, appendix H).
SNIFF_BYTES = 1024
#: A page tree can claim any number of pages, and each gets a record; the largest archives' volumes have 20,000.
MAX_PAGES = 200_000
#: A header can claim any size. A0 at 600 dpi is 560 million pixels; one byte each is what Pillow needs at least.
MAX_IMAGE_PIXELS = 1_000_000_000

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (b"\xff\xd8\xff", Kind.JPEG),
    (b"II*\x00", Kind.TIFF),
    (b"MM\x00*", Kind.TIFF),
    (b"II+\x00", Kind.TIFF),  # BigTIFF
    (b"MM\x00+", Kind.TIFF),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Kind.JPEG2000),
    (b"\xff\x4f\xff\x51", Kind.JPEG2000),  # a bare codestream
)
#: "BM" begins many a text: the size of the header behind it tells a bitmap.
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
#: Thumbnails and the smaller levels of a pyramid (bit 0), and masks (bit 2), are no pages: TIFF 6.0, NewSubfileType.
_TIFF_SUBFILE_TYPE = 254
_TIFF_NO_PAGE = 0b101
#: The version that a BigTIFF has in its header, where others have 42.
_BIG_TIFF = 43

#: The hungriest decoder is OpenJPEG: three components of 32 bits, twice (measured: 24 bytes a pixel).
_BYTES_PER_DECODED_PIXEL = 24


def sniff(head: bytes) -> Kind | None:
    """Tell what a file is by its first SNIFF_BYTES bytes, or None for what this program can't read."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return Kind.BMP
    if b"%PDF-" in head[:SNIFF_BYTES]:
        return Kind.PDF
    return None


class PdfDocument:
    """An open PDF. Raises PermanentError when it can't be opened or has no pages."""

    def __init__(self, path: str, passwords: Sequence[str]) -> None:
        with pdf_errors("the PDF is damaged beyond repair: export or download it again"):
            self._document = _open_pdf(path)
            try:
                self._unlock(passwords)
                self.pages: int = self._document.page_count
                _check_pages(self.pages)
            except BaseException:
                self._document.close()
                raise

    def page(self, index: int) -> Any:
        """Return page `index`, from 0, as a pymupdf.Page. Raises PermanentError for a damaged page or none."""
        _check_index(index, self.pages)
        with pdf_errors("the page can't be loaded: the PDF's page tree is damaged; export it again"):
            return self._document[index]

    def close(self) -> None:
        self._document.close()

    def _unlock(self, passwords: Sequence[str]) -> None:
        if self._document.needs_pass and not any(self._document.authenticate(word) for word in passwords):
            raise PermanentError(
                Reason.NEEDS_PASSWORD,
                "none of the given passwords opens the PDF: put the right one into the file of --password-file"
                if passwords
                else "the PDF needs a password: put it in a file and pass --password-file",
            )


class ImageDocument:
    """An open image file; the pages of a TIFF are its frames. Raises PermanentError when it can't be opened."""

    def __init__(self, path: str, kind: Kind) -> None:
        self._kind = kind
        self._file: BinaryIO = open(path, "rb")  # noqa: PTH123, SIM115 - a descriptor, kept open for the pages
        try:
            # Pillow makes room for a WebP's canvas when it opens it, for other formats' when it decodes.
            self._canvas = _webp_pixels(self._file.read(30)) if kind is Kind.WEBP else 0
            with image_errors(self, self._canvas):
                self._image: Image | None = self._open()
                self._frames = _tiff_pages(cast("TiffImageFile", self._image)) if kind is Kind.TIFF else [0]
            self.pages = len(self._frames)
            _check_pages(self.pages)
        except BaseException:
            self._file.close()
            raise

    def frame(self, index: int) -> Image:
        """Return page `index`, from 0, not yet decoded. Raises PermanentError for a damaged frame, a huge one or none."""
        _check_index(index, self.pages)
        with image_errors(self, self._canvas):
            if self.pages == 1:
                # A new object for each decoding, as one that was decoded at half its size stays so; not two at a time.
                self._image = None
            # For several frames the same object: finding one means reading the directories of those before it.
            self._image = self._image or self._open()
            self._image.seek(self._frames[index])
            width, height = self._image.size
        if width * height > MAX_IMAGE_PIXELS:
            raise PermanentError(
                Reason.TOO_LARGE,
                f"the image has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS}: split it or scale it down",
            )
        return self._image

    def ends_too_early(self) -> bool:
        """Tell whether the file is shorter than it says, in the formats whose decoders don't."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - 2))
        tail = self._file.read()
        self._file.seek(0)
        head = self._file.read(16)
        match self._kind:
            case Kind.TIFF:  # the first directory often stands at the end
                order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
                big = _BIG_TIFF in head[2:4]
                return int.from_bytes(head[8:16] if big else head[4:8], order) >= size
            case Kind.WEBP:
                return int.from_bytes(head[4:8], "little") + 8 > size
            case Kind.JPEG2000:
                return tail != b"\xff\xd9"
            case _:
                return False

    def close(self) -> None:
        self._image = None
        self._file.close()

    def _open(self) -> Image:
        import PIL.Image  # noqa: PLC0415 - native code: only in a sandbox, under its limits

        # MAX_IMAGE_PIXELS above takes the place of Pillow's own bound, which warns where we fail.
        PIL.Image.MAX_IMAGE_PIXELS = None
        self._file.seek(0)
        # One format by name: Pillow would otherwise try all that it knows, PostScript among them.
        return PIL.Image.open(self._file, formats=[self._kind.upper()])


Document = PdfDocument | ImageDocument


def open_document(fd: int, kind: Kind, passwords: Sequence[str] = ()) -> Document:
    """Open the file behind descriptor `fd`, which may be closed afterwards.

    Raises PermanentError: EMPTY_FILE, NEEDS_PASSWORD, NO_PAGES, UNREADABLE, UNSUPPORTED or TOO_LARGE; never with a
    password in its text.
    """
    if os.fstat(fd).st_size == 0:
        raise PermanentError(Reason.EMPTY_FILE, "the file has no bytes: copy or upload it again")
    # Opened anew by its descriptor's name, for a file position of our own: the same file may be open elsewhere.
    path = f"/dev/fd/{fd}"
    return PdfDocument(path, passwords) if kind is Kind.PDF else ImageDocument(path, kind)


def mupdf() -> Any:
    """Import MuPDF (untyped, native: only in a sandbox), silenced: its warnings are kept for `pdf_errors`."""
    pymupdf: Any = importlib.import_module("pymupdf")
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    # Grey to RGB through colour profiles takes a third of a scan's time (50 ms or 33), and no text reads better for it.
    pymupdf.TOOLS.set_icc(False)
    return pymupdf


@contextmanager
def pdf_errors(detail: str) -> Iterator[None]:
    """Turn what MuPDF raises into MemoryError, or PermanentError UNREADABLE with `detail`."""
    tools = mupdf().TOOLS
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # PyMuPDF's own exceptions hide MuPDF's words behind them.
        if _out_of_memory(f"{error}\n{error.__cause__}\n{tools.mupdf_warnings()}"):
            raise MemoryError from error
        if isinstance(error, PermanentError):
            raise
        raise PermanentError(Reason.UNREADABLE, detail) from error
    else:
        # MuPDF draws on after many an error, and the page then lacks what there was no memory for.
        if _out_of_memory(tools.mupdf_warnings()):
            raise MemoryError
    finally:
        tools.reset_mupdf_warnings()  # they pile up


def met_pdf_errors() -> bool:
    """Tell whether MuPDF, inside this `pdf_errors`, met errors that it went on after."""
    messages = mupdf().TOOLS.mupdf_warnings(reset=0)
    return "error" in messages or "truncated" in messages


#: What MuPDF says when it went on although data was missing. A wrong checksum ("ignoring zlib error") is not among it:
#: all the data is there.
_LOST = re.compile(r"premature end|truncated|read error|library error|openjpeg error|jbig2dec error", re.IGNORECASE)


def lost_pdf_content() -> bool:
    """Tell whether MuPDF, inside this `pdf_errors`, left out part of what it drew because its data is torn."""
    return _LOST.search(mupdf().TOOLS.mupdf_warnings(reset=0)) is not None


@contextmanager
def image_errors(document: ImageDocument, pixels: int = 0) -> Iterator[None]:
    """Turn what Pillow raises into MemoryError, or PermanentError UNREADABLE, naming truncation where it is that.

    `pixels` is how many were to be decoded.
    """
    try:
        yield
    except (PermanentError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError...
        # OpenJPEG and libwebp call a lack of memory a broken stream: look whether there would have been enough.
        if not _could_allocate(pixels * _BYTES_PER_DECODED_PIXEL):
            raise MemoryError from error
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower() or document.ends_too_early()
        detail = "the image is truncated, its file ends too early" if truncated else "the image is damaged"
        raise PermanentError(Reason.UNREADABLE, f"{detail}: copy, scan or export it again") from error


def _open_pdf(path: str) -> Any:
    pymupdf = mupdf()
    try:
        document = pymupdf.open(path, filetype="pdf")
    except Exception as error:
        if "encryption" in str(error.__cause__):
            raise PermanentError(
                Reason.UNSUPPORTED, "the PDF is encrypted for one program or person: export it without protection"
            ) from error
        raise
    if not document.is_pdf:
        document.close()
        raise PermanentError(Reason.UNSUPPORTED, "the file is no PDF, although it looks like one: convert it first")
    return document


def _tiff_pages(image: TiffImageFile) -> list[int]:
    """Return the frames that are pages."""
    pages = []
    frames = image.n_frames
    if frames <= MAX_PAGES:
        for frame in range(frames):
            image.seek(frame)
            if not int(image.tag_v2.get(_TIFF_SUBFILE_TYPE, 0)) & _TIFF_NO_PAGE:
                pages.append(frame)
    return pages or list(range(frames))


def _webp_pixels(head: bytes) -> int:
    """Return how many pixels a WebP's header claims (RFC 9649, sections 2.5 to 2.7)."""
    if head[12:16] == b"VP8X":
        return (int.from_bytes(head[24:27], "little") + 1) * (int.from_bytes(head[27:30], "little") + 1)
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(head[26:28], "little") & 0x3FFF) * (int.from_bytes(head[28:30], "little") & 0x3FFF)


def _could_allocate(size: int) -> bool:
    try:
        mmap.mmap(-1, max(1, size)).close()
    except OSError:
        return False
    return True


def _out_of_memory(messages: str) -> bool:
    """Tell MuPDF's "malloc (… bytes) failed" and its kin, and what OpenJPEG says instead."""
    return any(
        ("alloc" in line and "failed" in line) or "exceeds system limits" in line or "enough memory" in line
        for line in messages.lower().splitlines()
    )


def _check_pages(pages: int) -> None:
    if pages == 0:
        raise PermanentError(
            Reason.NO_PAGES, "the file has no pages: it is empty or its page tree is lost; export it again"
        )
    if pages > MAX_PAGES:
        raise PermanentError(Reason.TOO_LARGE, f"the file claims {pages} pages, more than {MAX_PAGES}: split it")


def _check_index(index: int, pages: int) -> None:
    if not 0 <= index < pages:
        raise PermanentError(Reason.NO_SUCH_PAGES, f"the file has {pages} pages, none with number {index + 1}")
