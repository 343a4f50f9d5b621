"""Renders a page of a PDF with the first reader that shows something. Part of the sandboxed program, worker/rendering/rasterise.py.

If MuPDF renders a page as empty although it has content, PDFium renders it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox.decoder_messages import drew_on_after_errors, meanings
from ocrfleet.sandbox.pdf import PdfDocument, PdfiumDocument, is_flat, mupdf, pdf_errors, pdf_messages
from ocrfleet.sandbox.pdf_images import NoiseError, end_images, incomplete_images, refuse_noise, replace_spaces
from worker.rendering.jpeg_pages import only_scan
from worker.rendering.raster import Raster, enhance, enhances, fit, handed_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    from ocrfleet.profiles.profile import Render

#: Failures of a reader that another reader may not have.
_ANOTHER_MAY = frozenset({Reason.UNREADABLE, Reason.NO_SUCH_PAGES, Reason.NO_PAGES})


@dataclass(frozen=True, slots=True)
class _Drawing:
    raster: Raster
    #: all pixels have one colour
    flat: bool
    #: the reader continued after errors
    damaged: bool = False
    #: the page draws something, or has annotations
    holds_something: bool = True


def draw_pdf_page(document: PdfDocument | PdfiumDocument, index: int, render: Render, into: mmap) -> Raster:
    """Render page `index` as displayed into the memory: rotated, cropped, with annotations, on white. Raises PermanentError."""
    drawings: list[_Drawing] = []
    trouble: PermanentError | None = None
    for reader in _readers(document):
        try:
            drawing = _drawn(reader, index, render, into)
        except PermanentError as error:
            if error.reason not in _ANOTHER_MAY or isinstance(error, NoiseError):
                raise
            trouble = trouble or error
            continue
        if not drawing.flat or not (drawing.damaged or drawing.holds_something or drawings or trouble):
            return _as_known_before(drawing.raster, drawings)
        drawings.append(drawing)
    if trouble is not None:
        # Another reader may have found that the page is empty.
        if drawings and not (drawings[0].damaged or drawings[0].holds_something):
            return _white(drawings[0].raster, into)
        raise trouble
    empty = drawings[0]
    if empty.damaged:
        raise PermanentError(
            Reason.UNREADABLE, "nothing of the page could be drawn: its content is damaged; export the PDF again"
        )
    image = _hidden_image(document, index) if isinstance(document, PdfDocument) else None
    if image is not None:
        return _image_alone(image, empty.raster, into)
    return _white(empty.raster, into)


def _white(raster: Raster, into: mmap) -> Raster:
    into[: raster.size] = b"\xff" * raster.size  # others drew over it
    return raster


def _as_known_before(raster: Raster, drawings: list[_Drawing]) -> Raster:
    """Return the raster with the warnings of the first reader that rendered the page."""
    before = [drawing.raster for drawing in drawings[:1]]
    warnings = dict.fromkeys(warning for drawn in (raster, *before) for warning in drawn.warnings)
    return replace(raster, missing=max(drawn.missing for drawn in (raster, *before)), warnings=tuple(warnings))


def _readers(document: PdfDocument | PdfiumDocument) -> Iterator[PdfDocument | PdfiumDocument]:
    yield document
    if isinstance(document, PdfDocument):
        yield from document.others()


def _drawn(document: PdfDocument | PdfiumDocument, index: int, render: Render, into: mmap) -> _Drawing:
    if isinstance(document, PdfiumDocument):
        return _by_pdfium(document, index, render, into)
    return _by_mupdf(document, index, render, into)


def _by_mupdf(document: PdfDocument, index: int, render: Render, into: mmap) -> _Drawing:
    pymupdf = mupdf()
    warnings = document.warnings + (document.attachments if index == 0 else ())
    page = document.page(index)
    with pdf_errors("the page can't be drawn: its content is damaged; export the PDF again"):
        page = document.uncropped(page)
        width_pt, height_pt = page.rect.width, page.rect.height
        # A PDF page has no size in pixels: it may be rendered at any.
        width, height = fit(width_pt, height_pt, render, enlarge=True)
        scan = None if enhances(render) else only_scan(page, (width, height), len(into))
        if scan is not None:
            raster = handed_over(scan, (width, height), width_pt, height_pt, into)  # such a page is not rotated
            return _Drawing(replace(raster, warnings=warnings), flat=False)
        matrix = pymupdf.Matrix(width / width_pt, height / height_pt)
        pixmap, messages = _pixmap(page, matrix)
        missing = 0.0
        if messages or page.parent.is_repaired:
            refuse_noise(page)
        found = meanings(messages)
        if drew_on_after_errors(found):
            mended = replace_spaces(page)
            missing, incomplete = incomplete_images(page)
            mended += end_images(page)
            if mended:
                pixmap, messages = _pixmap(page, matrix)
                found = mended + meanings(messages)
            warnings += incomplete
        warnings += found
        flat = is_flat(pixmap)
        holds_something = flat and _holds_something(page)
    # MuPDF would keep up to 256 MB of fonts and images; half of them, the last used, serve the next page as well.
    pymupdf.TOOLS.store_shrink(50)
    pixels = pixmap.samples_mv  # the pixmap's own memory, freed with it
    if enhances(render):
        import PIL.Image  # noqa: PLC0415 - native code: under the limits

        pixels = enhance(PIL.Image.frombuffer("RGB", (pixmap.width, pixmap.height), pixels), render).tobytes()
    into[: len(pixels)] = pixels
    raster = Raster(
        stored_width=pixmap.width,
        stored_height=pixmap.height,
        channels=3,
        width=pixmap.width,
        height=pixmap.height,
        width_pt=width_pt,
        height_pt=height_pt,
        rotation=page.rotation,
        warnings=warnings,
        missing=missing,
    )
    return _Drawing(raster, flat=flat, damaged=drew_on_after_errors(found), holds_something=holds_something)


def _pixmap(page: Any, matrix: Any) -> tuple[Any, str]:
    """Render a page; return it and MuPDF's messages."""
    pymupdf = mupdf()
    pymupdf.TOOLS.reset_mupdf_warnings()
    pixmap = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False, annots=True)
    return pixmap, pdf_messages()


def _by_pdfium(document: PdfiumDocument, index: int, render: Render, into: mmap) -> _Drawing:
    width_pt, height_pt = document.size(index)
    size = fit(width_pt, height_pt, render, enlarge=True)
    image = enhance(document.draw(index, size), render)
    raster = handed_over(image, size, width_pt, height_pt, into)
    raster = replace(raster, rotation=document.rotation(index), warnings=document.warnings)
    return _Drawing(raster, flat=_is_flat(image))


def _holds_something(page: Any) -> bool:
    """Say whether a page has content or annotations; without either it is empty."""
    try:
        return bool(page.read_contents().strip() or page.first_annot or page.first_widget)
    except Exception:  # noqa: BLE001 - MuPDF's errors are of many types: the content can't be read
        return True


def _is_flat(image: Any) -> bool:
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _hidden_image(document: PdfDocument, index: int) -> Any:
    """Return the page's largest image, without its mask, if it has content that the page doesn't show."""
    pymupdf = mupdf()
    with pdf_errors("the page's images are damaged"):
        page = document.page(index)
        for xref, *_ in sorted(page.get_images(full=True), key=lambda found: -found[2] * found[3]):
            try:
                pixmap = pymupdf.Pixmap(document.pdf, xref)
                if pixmap.colorspace is None or pixmap.colorspace.n not in (1, 3):
                    pixmap = pymupdf.Pixmap(pymupdf.csRGB, pixmap)
            except Exception:  # noqa: BLE001, S112 - MuPDF's errors are of many types: this image can't be had
                continue
            if not is_flat(pixmap):
                return pixmap
    return None


def _image_alone(pixmap: Any, raster: Raster, into: mmap) -> Raster:
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    mode = {1: "L", 3: "RGB"}[pixmap.n - pixmap.alpha]
    pixmap = pixmap if not pixmap.alpha else mupdf().Pixmap(pixmap, 0)
    image = PIL.Image.frombytes(mode, (pixmap.width, pixmap.height), pixmap.samples)
    size = raster.width, raster.height
    drawn = handed_over(image.resize(size), size, raster.width_pt, raster.height_pt, into)
    detail = "the page shows nothing: its largest image was read without its mask"
    warning = PageWarning(code=WarningCode.HIDDEN_IMAGE, detail=detail)
    return replace(drawn, warnings=(*raster.warnings, warning))
