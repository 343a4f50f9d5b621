"""Opens image files with Pillow, with Pillow tolerating damage, or with MuPDF. Every error here is caused by the input.

Runs inside sandboxes: the decoders are native code that parses untrusted bytes.
"""

from __future__ import annotations

import io
import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox import completeness, tiff
from ocrfleet.sandbox.decoder_messages import drew_on_after_errors, meanings
from ocrfleet.sandbox.limits import check_index, check_pages, check_pixels
from ocrfleet.sandbox.pdf import is_flat, mupdf, pdf_errors, pdf_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

    from ocrfleet.sandbox.mapped_file import MappedFile

#: The hungriest decoder is OpenJPEG: three components of 32 bits, twice (measured: 24 bytes a pixel).
_BYTES_PER_DECODED_PIXEL = 24
#: The most bytes of a PNG's comments: Pillow's default refuses a picture with 1 MB. The sandbox's memory is a limit, too.
_COMMENTS = 256 << 20
_MUPDF_NAMES = {Kind.JPEG2000: "jp2"}
#: Resolution of a page whose size in points is its image's size in pixels.
_POINTS_PER_INCH = 72.0


class ImageDocument:
    """An open image file; the pages of a TIFF are its frames. Raises PermanentError when it can't be opened."""

    def __init__(self, data: MappedFile, kind: Kind) -> None:
        self._kind = kind
        self._data = data
        self._image: Image | None = None
        # Pillow allocates a WebP's canvas when it opens it, and that of other formats when it decodes.
        self._canvas = _webp_pixels(data[:30]) if kind is Kind.WEBP else 0
        #: number and offset of the directory of each page of a TIFF
        self._directories: list[tuple[int, int]] = []
        #: of the first page
        self.left_out: tuple[PageWarning, ...] = ()
        self.pages = self._count_pages()
        check_pages(self.pages)

    @property
    def data(self) -> MappedFile:
        """The bytes of the file."""
        return self._data

    def frame(self, index: int) -> Image:
        """Return page `index`, from 0, not yet decoded. Raises PermanentError for a damaged frame, a huge one or none."""
        check_index(index, self.pages)
        with self.errors(self._canvas):
            # A new object for each decoding, because one that was decoded at half its size keeps that; not two at a time.
            self._image = None
            self._image = image = self._open(index)
            width, height = image.size
        check_pixels(width, height)
        return image

    @contextmanager
    def tolerate_truncation(self) -> Iterator[None]:
        """Decode frames inside this block as far as they are intact."""
        self._image = None
        with completeness.tolerate_truncation():
            yield
        self._image = None

    def decode_with_other_library(self, index: int) -> tuple[Image, tuple[PageWarning, ...]]:
        """Return page `index` decoded by MuPDF, or by tiles for a TIFF, and its warnings. Raises PermanentError."""
        with self.errors():
            if self._kind is Kind.TIFF:
                tags = self._tags(index)
                picture = tiff.tiles(self._data, tags)
                if picture is not None:
                    return picture, ()
                if (why := tiff.unsupported(tags)) is not None:
                    raise PermanentError(Reason.UNSUPPORTED, why)
            if self._kind is Kind.JPEG2000 and (picture := self._ended()) is not None:
                return picture, ()
            return self._by_mupdf(index)

    def _ended(self) -> Image | None:
        """Return the picture of a truncated JPEG 2000; None if it has another defect."""
        import PIL.Image  # noqa: PLC0415 - native code: under the limits

        data = completeness.ended_jpeg2000(self._data[:])
        if data is None:
            return None
        try:
            picture: Image = PIL.Image.open(io.BytesIO(data), formats=["JPEG2000"])
            picture.load()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - Pillow's errors are of many types: MuPDF may do better
            return None
        return picture

    def own_decoding(self, image: Any) -> Image | None:
        """Return the picture of a TIFF's frame whose format Pillow mistakes; None for other frames."""
        return tiff.planes(self._data, image.tag_v2) if image.format == "TIFF" else None

    def is_negative(self, image: Any) -> bool:
        """Say whether Pillow does not invert a frame's 16-bit grey although zero is white."""
        return image.format == "TIFF" and image.mode.startswith("I;16") and tiff.is_negative(image.tag_v2)

    def missing(self, index: int) -> float:
        """Return the share of a truncated picture that is missing in the file, 0 to 1."""
        match self._kind:
            case Kind.JPEG:
                return completeness.missing_of_jpeg(self._data[:])
            case Kind.PNG:
                return completeness.missing_of_png(self._data[:])
            case Kind.JPEG2000:
                return completeness.missing_of_jpeg2000(self._data[:])
            case Kind.BMP:
                return completeness.missing_of_bmp(self._data[:])
            case Kind.TIFF:
                return tiff.missing(self._data, self._tags(index))
            case _:
                return 0.0

    @property
    def measures_missing(self) -> bool:
        """Whether `missing` is measured by decoding, so that a picture of one colour may be complete."""
        return self._kind in (Kind.JPEG, Kind.PNG)

    def is_noise(self) -> bool:
        """Say whether a JPEG was damaged by a text transfer: it can be decoded, but is only noise."""
        return self._kind is Kind.JPEG and completeness.went_through_text_transfer(self._data)

    def ends_too_early(self) -> bool:
        """Say whether the file is shorter than its header says, in the formats whose decoders don't check it."""
        size = len(self._data)
        match self._kind:
            case Kind.TIFF:
                return tiff.ends_too_early(self._data)
            case Kind.WEBP:
                return int.from_bytes(self._data[4:8], "little") + 8 > size
            case Kind.JPEG2000:
                return self._data[-2:] != b"\xff\xd9"
            case _:
                return False

    @contextmanager
    def errors(self, pixels: int = 0) -> Iterator[None]:
        """Turn Pillow's errors into MemoryError, or PermanentError UNREADABLE, which names truncation as the cause.

        `pixels` is the number of pixels to decode.
        """
        try:
            yield
        except (PermanentError, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError...
            # OpenJPEG and libwebp report a lack of memory as a damaged stream: check whether there was enough.
            if not _could_allocate(pixels * _BYTES_PER_DECODED_PIXEL):
                raise MemoryError from error
            truncated = isinstance(error, EOFError) or "truncated" in str(error).lower() or self.ends_too_early()
            detail = "the image is truncated, its file ends too early" if truncated else "the image is damaged"
            raise PermanentError(Reason.UNREADABLE, f"{detail}: copy, scan or export it again") from error

    def close(self) -> None:
        self._image = None

    def _count_pages(self) -> int:
        """Return the number of pages. Raises PermanentError, as Pillow does, when no reader opens the file."""
        trouble: PermanentError | None = None
        if self._kind is Kind.TIFF:
            with self.errors():
                self._directories = tiff.page_directories(self._data)
        ways: tuple[Callable[[], int], ...] = (
            self._pages_by_pillow,
            self._pages_by_tolerant_pillow,
            self._pages_by_other_library,
        )
        for count in ways:
            try:
                with self.errors(self._canvas):
                    return count()
            except PermanentError as error:
                self._image = None
                trouble = trouble or error
        raise trouble or AssertionError

    def _pages_by_tolerant_pillow(self) -> int:
        with self.tolerate_truncation():
            return self._pages_by_pillow()

    def _pages_by_pillow(self) -> int:
        self._image = image = self._open(0)
        if self._kind is Kind.TIFF:
            return len(self._directories)
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            detail = f"the file holds {frames} pictures; only the first one was read"
            self.left_out = (PageWarning(code=WarningCode.FRAMES_NOT_READ, detail=detail),)
        return 1

    def _pages_by_other_library(self) -> int:
        if self._directories and self._directories[0][1] < len(self._data):
            return len(self._directories)
        with pdf_errors("the image is damaged: copy, scan or export it again"), self._opened_by_mupdf() as document:
            # Only decoding its page shows whether it is an image at all.
            return document.page_count if document[0].rect.width > 0 else 0

    def _tags(self, index: int) -> Any:
        return tiff.tags_at(self._data, self._directories[index][1])

    def _open(self, index: int) -> Image:
        import PIL.Image  # noqa: PLC0415 - native code: only in a sandbox, under its limits
        from PIL import PngImagePlugin  # noqa: PLC0415 - as above

        # Our MAX_IMAGE_PIXELS replaces Pillow's limit, beyond which Pillow only warns.
        PIL.Image.MAX_IMAGE_PIXELS = None
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _COMMENTS
        self._data.seek(0)
        # Pillow finds a frame by all those before it, in a time that grows with their square.
        file = tiff.FromDirectory(self._data, self._directories[index][1]) if self._directories else self._data
        # One format by name: Pillow would otherwise try all its formats, PostScript among them.
        return PIL.Image.open(cast("BinaryIO", file), formats=[self._kind.upper()])

    def _opened_by_mupdf(self) -> Any:
        return mupdf().open(stream=memoryview(self._data), filetype=_MUPDF_NAMES.get(self._kind, self._kind.value))

    def _by_mupdf(self, index: int) -> tuple[Image, tuple[PageWarning, ...]]:
        import PIL.Image  # noqa: PLC0415 - native code: under the limits

        pymupdf = mupdf()
        with (
            pdf_errors("the image is damaged: copy, scan or export it again"),
            self._opened_by_mupdf() as document,
        ):
            page = document[self._directories[index][0] if self._directories else index]
            found = page.get_image_info()
            width, height = (found[0]["width"], found[0]["height"]) if found else (page.rect.width, page.rect.height)
            if page.rect.width > page.rect.height != width > height:
                width, height = height, width
            check_pixels(round(width), round(height))
            matrix = pymupdf.Matrix(width / page.rect.width, height / page.rect.height)
            pixmap = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False)
            messages = pdf_messages()
            if is_flat(pixmap) and drew_on_after_errors(meanings(messages)):
                raise PermanentError(
                    Reason.UNREADABLE, "nothing of the image could be decoded: copy, scan or export it again"
                )
            picture = PIL.Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)
            picture.info["dpi"] = (
                width / page.rect.width * _POINTS_PER_INCH,
                height / page.rect.height * _POINTS_PER_INCH,
            )
        warning = PageWarning(code=WarningCode.OTHER_DECODER, detail="decoded by MuPDF, as Pillow could not")
        return picture, (warning,)


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
