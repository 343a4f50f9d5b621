"""The sandboxed program that turns pages into pixels: `python -m worker.rendering.rasterise`, started by a Sandbox.

Asked for a page's `text` instead, it answers the text that a PDF page has already (worker/text_layer/extract.py).

A PDF page is drawn by MuPDF straight into pixels, an image file is decoded by Pillow at no more than the size needed; so
is a PDF page that is nothing but one JPEG, as MuPDF's decoder takes twice the time (bench/rendering.py). Pixels go through
the shared memory: uint8, row after row, grey or RGB. The parent makes them RGB and takes the last few per cent off their
size, with OpenCV: that has too many libraries for this process's limits.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import (
    Document,
    ImageDocument,
    PdfDocument,
    image_errors,
    lost_pdf_content,
    met_pdf_errors,
    mupdf,
    open_document,
    pdf_errors,
)
from ocrfleet.sandbox.sandbox import serve
from worker.rendering.jpeg_pages import nearly, only_scan
from worker.text_layer.extract import extract

if TYPE_CHECKING:
    from mmap import mmap

    from PIL.Image import Image
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

POINTS_PER_INCH = 72.0
#: Resolutions that a scanner or camera may have meant; others are mistakes of whoever wrote the tag, in dpi.
SANE_DPI = (50.0, 2400.0)
#: What archives scan at, where the file does not say, in dpi.
ASSUMED_DPI = 300.0
#: A narrow page is drawn at no more than this for its narrowness.
_FINEST_DPI = 600.0

#: EXIF's tag for how a camera or scanner was held, and its values with the first row at the left or right.
_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
#: How each is turned upright, in Pillow's words.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

#: Names of two settings (glibc's malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True, kw_only=True, slots=True)
class Raster:
    """What was drawn: its size in the memory and as it shall be, in pixels, and the page as displayed."""

    stored_width: int
    stored_height: int
    #: 1 for grey, 3 for RGB
    channels: int
    width: int
    height: int
    #: of the page as displayed, in points
    width_pt: float
    height_pt: float
    #: degrees, clockwise, by which a PDF page was turned to be displayed: 0, 90, 180 or 270
    rotation: int = 0


class Rasteriser:
    """Keeps the last document open, as opening a large PDF for each of its pages costs more than drawing them."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._document: Document | None = None

    def __call__(self, request: dict[str, Any], fd: int | None, shared: mmap | None) -> dict[str, Any]:
        """Draw the page of `request` into `shared` and answer its size, or answer its text when that is wanted."""
        if fd is None or shared is None:
            raise ValueError("drawing needs a document and memory to draw into")
        document = self._open(request["document"], fd, Kind(request["kind"]), request["passwords"])
        if request["want"] == "text":
            if not isinstance(document, PdfDocument):
                raise ValueError("only a PDF page has text of its own")
            return extract(document, request["page"])
        render = Render.model_validate(request["render"])
        if isinstance(document, PdfDocument):
            raster = draw_pdf_page(document, request["page"], render, shared)
        else:
            raster = draw_image(document, request["page"], render, shared)
        return asdict(raster)

    def _open(self, key: str, fd: int, kind: Kind, passwords: list[str]) -> Document:
        if self._document is None or self._key != key:
            if self._document is not None:
                self._document.close()
                self._document = None
            self._document = open_document(fd, kind, passwords)
            self._key = key
        return self._document


def draw_pdf_page(document: PdfDocument, index: int, render: Render, into: mmap) -> Raster:
    """Draw page `index` as displayed into the memory: rotated, cropped, with its annotations, on white. Raises PermanentError."""
    pymupdf = mupdf()
    page = document.page(index)
    with pdf_errors("the page can't be drawn: its content is damaged; export the PDF again"):
        width_pt, height_pt = page.rect.width, page.rect.height
        # What a PDF draws has no size of its own in pixels: it may be drawn at any.
        width, height = fit(width_pt, height_pt, render, enlarge=True)
        scan = None if _enhances(render) else only_scan(page, (width, height), len(into))
        if scan is not None:
            return _handed_over(scan, (width, height), width_pt, height_pt, into)  # such a page is not rotated
        matrix = pymupdf.Matrix(width / width_pt, height / height_pt)
        pixmap = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False, annots=True)
        # A scan whose only image can't be decoded would otherwise pass for an empty page.
        if met_pdf_errors() and pixmap.is_unicolor:
            raise PermanentError(
                Reason.UNREADABLE, "nothing of the page could be drawn: its content is damaged; export the PDF again"
            )
        # Half a page must not pass for a whole one.
        if lost_pdf_content():
            raise PermanentError(
                Reason.UNREADABLE, "part of the page is torn and can't be drawn: copy, scan or export it again"
            )
    # MuPDF would keep up to 256 MB of fonts and images; half of them, the last used, serve the next page as well.
    pymupdf.TOOLS.store_shrink(50)
    pixels = pixmap.samples_mv  # the pixmap's own memory: gone with it
    if _enhances(render):
        import PIL.Image  # noqa: PLC0415 - native code: under the limits

        pixels = _enhance(PIL.Image.frombuffer("RGB", (pixmap.width, pixmap.height), pixels), render).tobytes()
    into[: len(pixels)] = pixels
    size = pixmap.width, pixmap.height
    return _raster(size, 3, size, width_pt, height_pt, rotation=page.rotation)


def draw_image(document: ImageDocument, index: int, render: Render, into: mmap) -> Raster:
    """Decode image `index` into the memory, upright and on white, downscaled as asked. Raises PermanentError.

    Its size in points comes from its resolution tag, if that is sane, or from ASSUMED_DPI.
    """
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    image = document.frame(index)
    with image_errors(document, image.width * image.height):
        dpi_x, dpi_y = _dpi(image)
        width_pt, height_pt = image.width / dpi_x * POINTS_PER_INCH, image.height / dpi_y * POINTS_PER_INCH
        # A fax has half as many dots down as across: square pixels first, at the finer of both.
        finer = max(dpi_x, dpi_y)
        size = fit(image.width * finer / dpi_x, image.height * finer / dpi_y, render, enlarge=False, dpi=finer)
        image = _decode(document, index, image, size)
        orientation = _orientation(image)
        image = _continuous(image)
        upright = orientation not in _TURNS and not _enhances(render)
        shrunk = nearly(image, size, len(into)) if upright else None
        if shrunk is None:
            # Down by whole numbers first (BOX), then the rest by a short filter: 11 ms for a bilevel A4 page instead of 41.
            shrinks = size[0] <= image.width
            smooth = PIL.Image.Resampling.HAMMING if shrinks else PIL.Image.Resampling.LANCZOS
            image = image.resize(size, smooth, reducing_gap=1.0)
            image = _enhance(_upright(_on_white(image), orientation), render)
            size = image.size
        else:
            image = shrunk
    if orientation in _SIDEWAYS:
        width_pt, height_pt = height_pt, width_pt
    return _handed_over(image, size, width_pt, height_pt, into)


def _handed_over(image: Image, size: tuple[int, int], width_pt: float, height_pt: float, into: mmap) -> Raster:
    """Put a grey or RGB image into the memory, for the parent to bring it to its size."""
    pixels = image.tobytes()
    into[: len(pixels)] = pixels
    return _raster(image.size, len(image.mode), size, width_pt, height_pt)


def _raster(
    stored: tuple[int, int],
    channels: int,
    size: tuple[int, int],
    width_pt: float,
    height_pt: float,
    *,
    rotation: int = 0,
) -> Raster:
    return Raster(
        stored_width=stored[0],
        stored_height=stored[1],
        channels=channels,
        width=size[0],
        height=size[1],
        width_pt=width_pt,
        height_pt=height_pt,
        rotation=rotation,
    )


def fit(width: float, height: float, render: Render, *, enlarge: bool, dpi: float = POINTS_PER_INCH) -> tuple[int, int]:
    """Return the size in pixels at which a page of `width` x `height` is to be drawn, in the same proportion.

    An inch of the page is `dpi` units of its width and height: a PDF's are points, an image's pixels. Raises PermanentError
    for a page without extent.
    """
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise PermanentError(Reason.UNREADABLE, "the page has no size: its page box is damaged; export it again")
    scale = render.long_side / max(width, height)
    if render.short_side is not None:
        finest = _FINEST_DPI / dpi if enlarge else 1.0
        scale = max(scale, min(render.short_side / min(width, height), finest))
    if render.min_dpi is not None:
        scale = max(scale, render.min_dpi / dpi)
    if not enlarge:
        scale = min(scale, 1.0)
    if render.min_side is not None:
        scale = max(scale, render.min_side / min(width, height))
    # A strip a thousand times longer than wide still has to stay under the bound when its width is rounded up to 1.
    scale = min(scale, math.sqrt(render.max_pixels / (width * height)), render.max_pixels / max(width, height))
    if round(width * scale) * round(height * scale) > render.max_pixels:
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _dpi(image: Image) -> tuple[float, float]:
    low, high = SANE_DPI
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ASSUMED_DPI, ASSUMED_DPI
    if low <= across <= high and low <= down <= high:
        return across, down
    return ASSUMED_DPI, ASSUMED_DPI


def _decode(document: ImageDocument, index: int, image: Image, size: tuple[int, int]) -> Image:
    """Decode the pixels, at a fraction of their number where the format can, but at no fewer than `size`."""
    fraction = min(image.width // size[0], image.height // size[1])
    if image.format == "JPEG2000" and fraction > 1:
        levels = fraction.bit_length() - 1
        try:
            cast("Jpeg2KImageFile", image).reduce = levels
            image.load()
        except OSError:
            # The file holds fewer levels than that; a damaged one fails again.
            image = document.frame(index)
    else:
        image.draft(None, size)  # JPEG; nothing in other formats
    image.load()
    return image


def _orientation(image: Image) -> int:
    """Return the EXIF orientation that is still to be applied (Pillow applies a TIFF's by itself)."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - whatever is wrong with the tags, the picture is whole
        return 1


def _continuous(image: Image) -> Image:
    """Return the image as L, LA, RGB or RGBA, which can be scaled."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _eight_bits(image)
    if mode in ("PA", "RGBa") or (mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        return image.convert("RGBA")
    if mode == "La":
        return image.convert("LA")
    if mode == "LAB":
        return image.getchannel("L")
    if mode == "1":
        return image.convert("L")
    return image if mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")


def _eight_bits(image: Image) -> Image:
    """Scale deep grey to eight bits: by the depth that its brightest pixel needs, as 12 bits often come in 16."""
    low, high = cast("tuple[float, float]", image.getextrema())
    if image.mode == "F":
        # No white is agreed upon for real numbers.
        scale = 255.0 / (high - low) if low < high else 1.0
        return image.point(lambda value: value * scale - low * scale).convert("L")
    scale = 1.0 / (1 << max(0, int(high).bit_length() - 8))
    return image.convert("I").point(lambda value: value * scale).convert("L")


def _on_white(image: Image) -> Image:
    import PIL.Image  # noqa: PLC0415 - as above

    if not image.mode.endswith("A"):
        return image
    colours = image.mode[:-1]
    paper = PIL.Image.new(colours, image.size, "white")
    paper.paste(image.convert(colours), mask=image.getchannel("A"))
    return paper


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose  # noqa: PLC0415 - as above

    return image.transpose(Transpose[_TURNS[orientation]]) if orientation in _TURNS else image


def _enhances(render: Render) -> bool:
    return render.contrast or render.sharpen > 0


def _enhance(image: Image, render: Render) -> Image:
    """Apply the preprocessing that the profile asks for."""
    from PIL import ImageFilter, ImageOps  # noqa: PLC0415 - as above

    if render.contrast:
        image = ImageOps.autocontrast(image)
    if render.sharpen:
        image = image.filter(ImageFilter.UnsharpMask(percent=render.sharpen))
    return image


def _keep_freed_memory() -> None:
    """Have the C library keep the memory of a page, up to 64 MB, for the next one.

    Giving it back to the kernel and taking it anew, 4 KB at a time, is a third of a colour scan's time (bench/rendering.py).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # larger blocks are given back all the same; it allows no more
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


if __name__ == "__main__":
    _keep_freed_memory()
    serve(Rasteriser())
