"""Pages become pixels: upright, on white, at most of the requested size; a bad page affects no other."""

from __future__ import annotations

import asyncio
import io
import math
import mmap
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pymupdf
import pytest
from PIL import Image, ImageCms, ImageDraw

from ocrfleet.errors import ConfigurationError, OcrfleetError, PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import WarningCode
from ocrfleet.sandbox.pdf import PdfDocument
from worker.pipeline.attempt import MOST_MISSING
from worker.rendering.pdf_pages import draw_pdf_page
from worker.rendering.pool import RenderPool, _page_image
from worker.rendering.raster import Raster, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from worker.imaging.page_image import PageImage

MAX_PIXELS = 4_000_000
#: internal name in pymupdf, unknown to type checkers.
PDF_ENCRYPT_AES_256 = 5
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
KINDS = {
    "PNG": Kind.PNG,
    "JPEG": Kind.JPEG,
    "TIFF": Kind.TIFF,
    "WEBP": Kind.WEBP,
    "BMP": Kind.BMP,
    "JPEG2000": Kind.JPEG2000,
}


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(1, memory=512 << 20, max_pixels=MAX_PIXELS)
    yield pool
    pool.close()


async def render_page(pool: RenderPool, path: Path, kind: Kind, page: int = 0, **options: Any) -> PageImage:
    passwords = options.pop("passwords", ())
    deadline = options.pop("deadline", 30)
    settings = Render(**{"long_side": 400, "max_pixels": MAX_PIXELS, **options})
    with path.open("rb") as file:
        return await pool.render(str(path), file.fileno(), kind, page, settings, passwords=passwords, deadline=deadline)


def render(pool: RenderPool, path: Path, kind: Kind, page: int = 0, **options: Any) -> PageImage:
    return asyncio.run(render_page(pool, path, kind, page, **options))


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Return the colours near the corners, clockwise from the top left, each channel rounded to 0 or 255."""
    near = [pixels[10, 10], pixels[10, -10], pixels[-10, -10], pixels[-10, 10]]
    return [tuple(255 if channel > 127 else 0 for channel in colour) for colour in near]


def marked(width: int = 400, height: int = 300) -> Image.Image:
    """Draw a page with red, green and blue corners, clockwise from the top left, and a white one."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 60, 60), fill=RED)
    draw.rectangle((width - 61, 0, width, 60), fill=GREEN)
    draw.rectangle((width - 61, height - 61, width, height), fill=BLUE)
    return image


def codes(page: PageImage) -> set[WarningCode]:
    return {warning.code for warning in page.warnings}


UPRIGHT = [RED, GREEN, BLUE, (255, 255, 255)]


def pdf_of(path: Path, *images: Image.Image, rotation: int = 0, **options: Any) -> Path:
    with pymupdf.open() as pdf:
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            page = pdf.new_page(width=image.width, height=image.height)
            page.insert_image(page.rect, stream=buffer.getvalue())
            page.set_rotation(rotation)
        pdf.save(path, **options)
    return path


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_pdf_page_is_rotated_as_it_says(pool: RenderPool, tmp_path: Path, rotation: int) -> None:
    image = render(pool, pdf_of(tmp_path / "page.pdf", marked(), rotation=rotation), Kind.PDF)
    turns = rotation // 90
    assert corners(image.pixels) == UPRIGHT[-turns:] + UPRIGHT[:-turns]
    sideways = rotation in (90, 270)
    assert (image.width, image.height) == ((300, 400) if sideways else (400, 300))
    assert (image.width_pt, image.height_pt) == ((300, 400) if sideways else (400, 300))
    assert image.rotation == rotation
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.owndata


def test_annotations_are_drawn_and_what_is_cropped_is_not(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    with pymupdf.open() as pdf:
        page = pdf.new_page(width=200, height=200)
        page.draw_rect((0, 0, 100, 200), fill=(1, 0, 0), color=None)
        page.set_cropbox((100, 0, 200, 200))
        annotation = page.add_rect_annot((20, 20, 80, 180))
        annotation.set_colors(stroke=(0, 0, 1), fill=(0, 0, 1))
        annotation.update()
        pdf.save(path)
    image = render(pool, path, Kind.PDF)
    assert (image.width, image.height) == (200, 400)
    assert tuple(image.pixels[200, 100]) == BLUE
    assert (image.pixels[:, 10] == 255).all()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_an_image_is_rotated_upright_by_its_exif_orientation(
    pool: RenderPool, tmp_path: Path, image_format: str, orientation: int, turn: Image.Transpose | None
) -> None:
    # Given a rotated image with an orientation tag
    image = marked() if turn is None else marked().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo"
    image.save(path, image_format, exif=exif, dpi=(100, 100))
    # When it is rendered, then it is as it was taken
    page = render(pool, path, KINDS[image_format])
    assert (page.width, page.height) == (400, 300)
    assert corners(page.pixels) == UPRIGHT
    dpi = 300 if image_format == "WEBP" else 100  # WebP has no resolution
    assert page.width_pt == pytest.approx(400 * 72 / dpi, rel=1e-3)
    assert page.height_pt == pytest.approx(300 * 72 / dpi, rel=1e-3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_a_large_image_is_scaled_down_and_a_small_one_unchanged(
    pool: RenderPool, tmp_path: Path, image_format: str
) -> None:
    path = tmp_path / "image"
    marked(2000, 1500).save(path, image_format)
    page = render(pool, path, KINDS[image_format], long_side=501)
    assert (page.width, page.height) == (501, 376)
    assert corners(page.pixels) == UPRIGHT
    assert render(pool, path, KINDS[image_format], long_side=3000).width == 2000
    # A file that was decoded small can still be decoded large, and the other way round.
    assert np.array_equal(render(pool, path, KINDS[image_format], long_side=501).pixels, page.pixels)


def test_a_jpeg2000_with_few_levels_is_scaled_down_all_the_same(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "image.jp2"
    marked(2000, 1500).save(path, num_resolutions=2)
    assert corners(render(pool, path, Kind.JPEG2000, long_side=400).pixels) == UPRIGHT


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (100, 80), 1), (255, 255, 255)),
        (Image.new("L", (100, 80), 77), (77, 77, 77)),
        (Image.new("P", (100, 80), 1), None),
        (Image.new("LA", (100, 80), (0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (100, 80), (0, 0, 0, 127)), (128, 128, 128)),
        (Image.new("I;16", (100, 80), 0x8080), (128, 128, 128)),
        (Image.new("I;16", (100, 80), 0x0FFF), (255, 255, 255)),  # 12 bits in 16
        (Image.new("CMYK", (100, 80), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("F", (100, 80), 1.0), None),
        (Image.new("LAB", (100, 80), (255, 0, 0)), (255, 255, 255)),
        (Image.new("YCbCr", (100, 80), (255, 128, 128)), (255, 255, 255)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_pixel_becomes_rgb(
    pool: RenderPool, tmp_path: Path, image: Image.Image, expected: tuple[int, int, int] | None
) -> None:
    path = tmp_path / "image.tif"
    if image.mode == "P":
        image.putpalette([0, 0, 0, 10, 200, 30])
        expected = (10, 200, 30)
    if image.mode == "F":
        image.putpixel((99, 79), 3.0)
        expected = (0, 0, 0)
    image.save(path)
    assert tuple(render(pool, path, Kind.TIFF).pixels[5, 5]) == expected


def test_a_transparent_png_stands_on_white(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("P", (100, 80), 0).save(path, transparency=0)
    assert (render(pool, path, Kind.PNG).pixels == 255).all()


def test_the_frames_of_a_tiff_come_in_any_order(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "frames.tif"
    first, *others = [Image.new("L", (100, 80), 50 * number) for number in range(4)]
    first.save(path, save_all=True, append_images=others)
    for frame in (3, 0, 0, 2):
        assert (render(pool, path, Kind.TIFF, frame).pixels == 50 * frame).all()


def test_a_fax_gets_square_pixels_and_an_implausible_resolution_is_ignored(pool: RenderPool, tmp_path: Path) -> None:
    fax, odd = tmp_path / "fax.tif", tmp_path / "odd.jpg"
    Image.new("1", (1728, 1078)).save(fax, dpi=(204, 98))
    page = render(pool, fax, Kind.TIFF, long_side=2000)
    assert page.height / page.width == pytest.approx(page.height_pt / page.width_pt, rel=1e-3)
    assert page.height_pt == pytest.approx(792)
    Image.new("L", (300, 300)).save(odd, dpi=(1, 1))
    assert render(pool, odd, Kind.JPEG).width_pt == 72


@pytest.mark.parametrize(
    ("width", "height", "options", "expected"),
    [
        (595, 842, {"long_side": 1684}, (1190, 1684)),
        (18_000, 36_000, {"long_side": 20_000, "max_pixels": 1_000_000}, (707, 1414)),
        (10_000, 50, {"long_side": 1000, "min_side": 64}, (12_800, 64)),
        # As before: A4, and what is smaller
        (595, 842, {"long_side": 2500, "min_dpi": 200, "short_side": 1250}, (1767, 2500)),
        (298, 421, {"long_side": 2500, "min_dpi": 200, "short_side": 1250}, (1770, 2500)),
        # Posters keep their resolution, and strips their width
        (2384, 3370, {"long_side": 2500, "min_dpi": 200, "short_side": 1250, "max_pixels": 10**8}, (6622, 9361)),
        (234, 14_295, {"long_side": 2500, "min_dpi": 200, "short_side": 1250, "max_pixels": 10**8}, (1250, 76_362)),
        # … as far as the page may have pixels; a hair's width is no strip
        (234, 14_295, {"long_side": 2500, "min_dpi": 200, "short_side": 1250}, (723, 44_213)),
        (5, 800, {"long_side": 2500, "min_dpi": 200, "short_side": 1250}, (42, 6667)),
        (1e9, 1, {"long_side": 1000, "max_pixels": 4096}, (1000, 1)),
        (1e9, 1, {"long_side": 20_000, "max_pixels": 4096}, (4096, 1)),
    ],
)
def test_a_page_fits_its_bounds(width: float, height: float, options: Any, expected: tuple[int, int]) -> None:
    assert fit(width, height, Render(**options), enlarge=True) == expected


def test_pixels_are_capped(pool: RenderPool, tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "page.pdf", marked(14_000, 14_000).resize((400, 400)))
    page = render(pool, path, Kind.PDF, long_side=20_000, max_pixels=250_000)
    assert (page.width, page.height) == (500, 500)
    with pytest.raises(ConfigurationError):
        render(pool, path, Kind.PDF, max_pixels=MAX_PIXELS + 1)


def test_the_profiles_preprocessing_is_applied(pool: RenderPool, tmp_path: Path) -> None:
    path, pdf = tmp_path / "grey.png", tmp_path / "grey.pdf"
    image = Image.new("L", (100, 80), 150)
    image.paste(100, (0, 0, 50, 80))
    image.save(path)
    pdf_of(pdf, image)
    for source, kind in ((path, Kind.PNG), (pdf, Kind.PDF)):
        stretched = render(pool, source, kind, contrast=True).pixels
        assert (stretched.min(), stretched.max()) == (0, 255)
        sharpened = render(pool, source, kind, long_side=100, sharpen=200).pixels
        assert sharpened.min() < 90
        assert sharpened.max() > 160
    assert render(pool, path, Kind.PNG, min_side=160).pixels.shape == (160, 200, 3)


def test_an_encrypted_page_is_drawn_with_its_password(pool: RenderPool, tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "locked.pdf", marked(), encryption=PDF_ENCRYPT_AES_256, user_pw="sesame")
    with pytest.raises(PermanentError) as caught:
        render(pool, path, Kind.PDF)
    assert caught.value.reason == Reason.NEEDS_PASSWORD
    assert corners(render(pool, path, Kind.PDF, passwords=["sesame"]).pixels) == UPRIGHT


def cut(path: Path, image_format: str) -> Path:
    """Write an image that lacks the second half of its bytes."""
    noise = Image.effect_noise((300, 300), 90)
    noise.save(path, image_format, **({"compression": "tiff_lzw"} if image_format == "TIFF" else {}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("image_format", ["TIFF", "WEBP"])
def test_a_truncated_image_without_any_decodable_part_fails_as_truncated(
    pool: RenderPool, tmp_path: Path, image_format: str
) -> None:
    with pytest.raises(PermanentError) as caught:
        render(pool, cut(tmp_path / "image", image_format), KINDS[image_format])
    assert (caught.value.reason, caught.value.detail) == (
        Reason.UNREADABLE,
        "the image is truncated, its file ends too early: copy, scan or export it again",
    )


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "JPEG2000"])
def test_the_intact_part_of_a_truncated_image_is_rendered(pool: RenderPool, tmp_path: Path, image_format: str) -> None:
    page = render(pool, cut(tmp_path / "image", image_format), KINDS[image_format])
    assert page.missing == pytest.approx(0.5, abs=0.05)
    assert codes(page) == {WarningCode.IMAGE_INCOMPLETE}
    assert page.pixels.std() > 10


def test_a_scan_that_can_not_be_decoded_is_no_empty_page(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(buffer, "JPEG2000")
    with pymupdf.open() as pdf:
        page = pdf.new_page()
        page.insert_image(page.rect, stream=buffer.getvalue())
        xref = page.get_images()[0][0]
        pdf.update_stream(xref, buffer.getvalue()[:500], compress=False)
        pdf.xref_set_key(xref, "Filter", "/JPXDecode")
        pdf.save(path)
    with pytest.raises(PermanentError) as caught:
        render(pool, path, Kind.PDF)
    assert caught.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("progressive", [False, True])
def test_a_scan_that_is_torn_inside_its_pdf_is_no_whole_page(
    pool: RenderPool, tmp_path: Path, *, progressive: bool
) -> None:
    # Given a PDF whose scan lacks the second half of its bytes
    jpeg = io.BytesIO()
    Image.effect_noise((600, 800), 90).save(jpeg, "JPEG", progressive=progressive)
    with pymupdf.open() as pdf:
        page = pdf.new_page()
        scan = page.insert_image(page.rect, stream=jpeg.getvalue())
        pdf.update_stream(scan, jpeg.getvalue()[: len(jpeg.getvalue()) // 2], compress=False)
        pdf.xref_set_key(scan, "Filter", "/DCTDecode")
        pdf.save(tmp_path / "torn.pdf")

    # Then it is drawn, and not as if it were all there, unless what is missing are its finest details
    drawing = render(pool, tmp_path / "torn.pdf", Kind.PDF)
    assert WarningCode.DATA_ENDED_EARLY in codes(drawing)
    assert (drawing.missing > MOST_MISSING) == (WarningCode.IMAGE_INCOMPLETE in codes(drawing)) == (not progressive)


#: Of a scan, and of the page that it becomes: half of it and a little less, as A4 at 300 dpi for a long side of 1684.
SCAN, HALF, LONG_SIDE = (620, 876), (310, 438), 420


def scan(mode: str = "L") -> Image.Image:
    image = marked(*SCAN).convert(mode)
    image.paste(Image.effect_noise((400, 600), 20).convert(mode), (100, 100))
    return image


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def scanned(
    path: Path,
    data: bytes,
    change: Callable[[pymupdf.Document, pymupdf.Page, int], object] | None = None,
    **options: Any,
) -> Path:
    """Write a PDF whose only page is a JPEG, then changed."""
    with pymupdf.open() as pdf:
        page = pdf.new_page(width=SCAN[0] * 72 / 150, height=SCAN[1] * 72 / 150)
        image = page.insert_image(page.rect, stream=data)
        if change is not None:
            change(pdf, page, image)
        pdf.save(path, **options)
    return path


def replaced(pdf: pymupdf.Document, image: int, data: bytes) -> None:
    pdf.update_stream(image, data, compress=False)
    pdf.xref_set_key(image, "Filter", "/DCTDecode")


def drawn(path: Path, **options: Any) -> Raster:
    with mmap.mmap(-1, MAX_PIXELS * 3) as memory:
        document = PdfDocument(path.read_bytes())
        try:
            return draw_pdf_page(document, 0, Render(long_side=LONG_SIDE, **options), memory)
        finally:
            document.close()


def as_mupdf_draws_it(path: Path, page: PageImage) -> NDArray[np.uint8]:
    with pymupdf.open(path) as pdf:
        if pdf.needs_pass:
            pdf.authenticate("sesame")
        matrix = pymupdf.Matrix(page.width / page.width_pt, page.height / page.height_pt)
        pixmap = pdf[0].get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB)
        return np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("mode", "options", "change"),
    [
        ("L", {}, None),
        ("RGB", {}, None),
        ("RGB", {"icc_profile": profile()}, None),
        ("RGB", {"subsampling": 0}, None),
        ("L", {"progressive": True}, None),
        ("RGB", {"restart_marker_rows": 1}, None),
        ("L", {}, lambda pdf, _page, image: pdf.xref_set_key(image, "ColorSpace", "/DeviceGray")),
        ("RGB", {}, lambda pdf, _page, image: pdf.xref_set_key(image, "ColorSpace", "/DeviceRGB")),
        # Ignore the orientation tag of the camera: the PDF defines the orientation of its image.
        ("L", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"}, None),
        ("L", {}, lambda _pdf, page, _image: page.set_cropbox(page.rect)),
    ],
)
def test_a_page_that_is_one_jpeg_is_decoded_directly(
    pool: RenderPool, tmp_path: Path, mode: str, options: Any, change: Any
) -> None:
    path = scanned(tmp_path / "scan.pdf", jpeg(scan(mode), **options), change)
    raster = drawn(path)
    assert (raster.stored_width, raster.stored_height, raster.channels) == (*HALF, len(mode))

    # Then it looks as if MuPDF had drawn it
    page = render(pool, path, Kind.PDF, long_side=LONG_SIDE)
    assert (page.width, page.height) == (raster.width, raster.height)
    assert page.pixels.flags.c_contiguous
    assert page.pixels.flags.owndata
    expected = as_mupdf_draws_it(path, page)
    assert page.pixels.shape == expected.shape
    assert np.abs(page.pixels.astype(int) - expected).mean() < 4
    assert mode == "RGB" or (page.pixels[..., 0] == page.pixels[..., 2]).all()


def test_an_encrypted_scan_is_decoded_as_well(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "locked.pdf"
    scanned(path, jpeg(scan()), encryption=PDF_ENCRYPT_AES_256, user_pw="sesame")
    page = render(pool, path, Kind.PDF, long_side=LONG_SIDE, passwords=["sesame"])
    assert np.abs(page.pixels.astype(int) - as_mupdf_draws_it(path, page)).mean() < 4


def content(pdf: pymupdf.Document, page: pymupdf.Page, change: Callable[[bytes], bytes]) -> None:
    pdf.update_stream(page.get_contents()[0], change(page.read_contents()))


def changed(key: str, value: str) -> Callable[[pymupdf.Document, pymupdf.Page, int], None]:
    return lambda pdf, _page, image: pdf.xref_set_key(image, key, value)


@pytest.mark.parametrize(
    "change",
    {
        "turned": lambda _pdf, page, _image: page.set_rotation(90),
        "cropped": lambda _pdf, page, _image: page.set_cropbox((10, 10, 200, 200)),
        "annotated": lambda _pdf, page, _image: page.add_rect_annot((20, 20, 80, 180)),
        "written over": lambda _pdf, page, _image: page.insert_text((50, 50), "overlay"),
        "drawn twice": lambda pdf, page, _image: content(pdf, page, lambda drawing: drawing * 2),
        "under a clip": lambda pdf, page, _image: content(
            pdf, page, lambda drawing: drawing.replace(b"q\n", b"q 0 0 99 99 re W n ", 1)
        ),
        "skewed": lambda pdf, page, _image: content(pdf, page, lambda drawing: drawing.replace(b" 0 0 ", b" 9 0 ", 1)),
        "smaller": lambda pdf, page, _image: content(pdf, page, lambda drawing: drawing.replace(b"297.6", b"290", 1)),
        "upside down": lambda pdf, page, _image: content(
            pdf, page, lambda _: b"q 297.6 0 0 -420.48 0 420.48 cm /fzImg0 Do Q"
        ),
        "beside the page": lambda pdf, page, _image: content(
            pdf, page, lambda _: b"q 297.6 0 0 420.48 3 0 cm /fzImg0 Do Q"
        ),
        "in a group": lambda pdf, page, _image: pdf.xref_set_key(
            page.xref, "Group", "<</S/Transparency/CS/DeviceCMYK>>"
        ),
        "other colours by default": lambda pdf, page, _image: pdf.xref_set_key(
            int(pdf.xref_get_key(page.xref, "Resources")[1].split()[0]),
            "ColorSpace",
            "<</DefaultGray[/CalGray<</WhitePoint[1 1 1]/Gamma 2>>]>>",
        ),
        "negative": changed("Decode", "[1 0]"),
        "masked": changed("Mask", "[0 9]"),
        "on a layer": changed("OC", "<</Type/OCG/Name(layer)>>"),
        "with parameters": changed("DecodeParms", "<</ColorTransform 0>>"),
        "of another size": changed("Height", "800"),
        "of other colours": changed("ColorSpace", "[/Indexed/DeviceRGB 255 <00>]"),
        "of four colours": lambda pdf, _page, image: replaced(pdf, image, jpeg(scan("CMYK"))),
        "of other channels than it says": lambda pdf, _page, image: replaced(pdf, image, jpeg(scan("RGB"))),
    }.items(),
    ids=lambda change: change[0],
)
def test_a_page_that_is_more_or_other_than_one_jpeg_is_left_to_mupdf(tmp_path: Path, change: Any) -> None:
    raster = drawn(scanned(tmp_path / "scan.pdf", jpeg(scan()), change[1]))
    assert (raster.stored_width, raster.stored_height) == (raster.width, raster.height)
    assert raster.channels == 3


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("long_side", [300, 439, 1000])
def test_a_scan_that_is_much_larger_or_smaller_than_asked_is_left_to_mupdf(
    tmp_path: Path, mode: str, long_side: int
) -> None:
    path = scanned(tmp_path / "scan.pdf", jpeg(scan(mode)))
    with mmap.mmap(-1, MAX_PIXELS * 3) as memory:
        raster = draw_pdf_page(PdfDocument(path.read_bytes()), 0, Render(long_side=long_side), memory)
    assert (raster.stored_height, raster.channels) == (raster.height, 3)
    assert drawn(path, contrast=True).channels == 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("RGB", {}),
        ("L", {"progressive": True}),
        ("RGB", {"progressive": True}),
        ("L", {"restart_marker_rows": 1}),
    ],
)
def test_how_much_is_missing_of_a_torn_scan_is_measured(
    pool: RenderPool, tmp_path: Path, mode: str, options: Any, share: float
) -> None:
    whole = jpeg(scan(mode), **options)
    path = scanned(
        tmp_path / "torn.pdf", whole, lambda pdf, _page, image: replaced(pdf, image, whole[: int(len(whole) * share)])
    )
    page = render(pool, path, Kind.PDF, long_side=LONG_SIDE)
    assert (page.missing > MOST_MISSING) == (share <= (0.1 if options.get("progressive") else 0.9))
    assert WarningCode.DATA_ENDED_EARLY in codes(page)


def test_a_scan_as_a_file_and_as_a_page_of_a_pdf_is_the_same_image(pool: RenderPool, tmp_path: Path) -> None:
    data = jpeg(scan(), dpi=(150, 150))
    file = tmp_path / "scan.jpg"
    file.write_bytes(data)
    as_file = render(pool, file, Kind.JPEG, long_side=LONG_SIDE)
    as_page = render(pool, scanned(tmp_path / "scan.pdf", data), Kind.PDF, long_side=LONG_SIDE)
    assert np.array_equal(as_file.pixels, as_page.pixels)


GREY = {
    "stored_width": 4,
    "stored_height": 3,
    "channels": 1,
    "width": 4,
    "height": 3,
    "width_pt": 4.0,
    "height_pt": 3.0,
    "rotation": 0,
    "warnings": [],
    "missing": 0.0,
}


@pytest.mark.parametrize(
    "lie",
    [
        {"stored_width": 13},
        {"stored_height": -3},
        {"channels": 2},
        {"channels": 3, "stored_height": 4},
        {"width": 0},
        {"width": 1 << 40},
        {"height": None},
        {"width_pt": "4"},
        {"width_pt": math.nan},
        {"height_pt": math.inf},
        {"rotation": 45},
        {"rotation": -90},
        {"rotation": "90"},
        {"rotation": None},
        {"warnings": None},
        {"warnings": [["unheard_of", "detail"]]},
        {"warnings": [["repaired", 7]]},
        {"missing": -0.1},
        {"missing": math.nan},
    ],
)
def test_a_wrong_response_about_pixels_is_a_fault(lie: Any) -> None:
    sandbox: Any = SimpleNamespace(shared=bytearray(range(36)))
    grey = _page_image(GREY, sandbox).pixels
    assert np.array_equal(grey, np.repeat(np.arange(12, dtype=np.uint8), 3).reshape(3, 4, 3))
    with pytest.raises(PageFaultError) as caught:
        _page_image(GREY | lie, sandbox)
    assert caught.value.reason is Reason.RENDER_CRASHED


def test_a_cyclic_page_tree_is_reported_for_the_page(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "cyclic.pdf"
    path.write_bytes(
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[2 0 R]/Count 2>>endobj\ntrailer<</Root 1 0 R>>"
    )
    with pytest.raises(PermanentError) as caught:
        render(pool, path, Kind.PDF)
    assert caught.value.reason in (Reason.UNREADABLE, Reason.NO_PAGES)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG2000", "WEBP"])
def test_an_image_that_needs_too_much_memory_harms_no_other(tmp_path: Path, image_format: str) -> None:
    huge, small = tmp_path / "huge", tmp_path / "small"
    # A JPEG 2000 of one resolution can't be decoded at less than its size.
    options = {"WEBP": {"quality": 1}, "JPEG2000": {"num_resolutions": 1}}.get(image_format, {})
    mode = "L" if image_format == "JPEG2000" else "RGB"
    Image.new(mode, (9_000, 7_000)).save(huge, image_format, **options)
    marked().save(small, "PNG")
    with closing(RenderPool(1, memory=32 << 20, max_pixels=MAX_PIXELS)) as pool:
        with pytest.raises(PageFaultError) as caught:
            render(pool, huge, KINDS[image_format])
        assert (caught.value.reason, caught.value.detail) == (
            Reason.RENDER_MEMORY,
            "decoding needed more than 32 MiB of memory",
        )
        assert corners(render(pool, small, Kind.PNG).pixels) == UPRIGHT


def test_a_cancelled_render_leaves_the_pool_usable(tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "page.pdf", *[marked()] * 4)
    pool = RenderPool(2, memory=256 << 20, max_pixels=MAX_PIXELS)

    async def main() -> None:
        # Given more pages than processes, all of them cancelled at different moments
        for seconds in (0, 0.001, 0.01, 0.05, 0.3):
            tasks = [asyncio.create_task(render_page(pool, path, Kind.PDF, page)) for page in range(4)]
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # Then the next ones are whole
        for image in await asyncio.gather(*(render_page(pool, path, Kind.PDF, page) for page in range(4))):
            assert corners(image.pixels) == UPRIGHT

    with closing(pool):
        asyncio.run(main())


def test_a_document_sticks_to_a_process_but_never_waits_for_it(tmp_path: Path) -> None:
    paths = [pdf_of(tmp_path / f"{number}.pdf", *[marked()] * 4) for number in range(2)]
    pool = RenderPool(2, memory=256 << 20, max_pixels=MAX_PIXELS)

    async def main() -> None:
        # When two documents take turns, each keeps its process
        for page in range(4):
            for path in paths:
                await render_page(pool, path, Kind.PDF, page)
        assert {renderer.document for renderer in pool._all} == {str(path) for path in paths}
        # When four pages of one document come at once, both processes work on it
        await asyncio.gather(*(render_page(pool, paths[0], Kind.PDF, page, long_side=2000) for page in range(4)))
        assert {renderer.document for renderer in pool._all} == {str(paths[0])}

    with closing(pool):
        asyncio.run(main())


def test_closing_ends_pages_in_rendering(tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "page.pdf", *[marked()] * 4)
    pool = RenderPool(1, memory=256 << 20, max_pixels=MAX_PIXELS)

    async def main() -> None:
        tasks = [asyncio.create_task(render_page(pool, path, Kind.PDF, page)) for page in range(4)]
        await asyncio.sleep(0)
        await asyncio.to_thread(pool.close)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, OcrfleetError | asyncio.CancelledError)

    with closing(pool):
        asyncio.run(main())
