"""Files that one decoder can't render are rendered by another, with a warning; blank pages are verified."""

from __future__ import annotations

import asyncio
import io
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import WarningCode
from ocrfleet.sandbox.pdf import PdfDocument
from tests.support.waiting import scaled
from worker.imaging.page_image import PageImage
from worker.rendering import pdf_pages
from worker.rendering.pool import RenderPool

WIDTH, HEIGHT = 600, 400
RENDER = Render(long_side=WIDTH, max_pixels=1_000_000)


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(1, memory=512 << 20, max_pixels=RENDER.max_pixels)
    yield pool
    pool.close()


def letter() -> Image.Image:
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    text = "The harbour master wrote\nthat seven barges left\nbefore dawn, carrying\ntimber and apples."
    ImageDraw.Draw(image).multiline_text((30, 30), text, font=ImageFont.load_default(40), fill=0, spacing=30)
    return image


LETTER = letter()
GREY = np.asarray(LETTER)
INK = Image.fromarray(255 - GREY)
WHITE, BLACK = Image.new("L", LETTER.size, 255), Image.new("L", LETTER.size, 0)


def draw(pool: RenderPool, path: Path, kind: Kind) -> PageImage:
    with path.open("rb") as file:
        return asyncio.run(pool.render(str(path), file.fileno(), kind, 0, RENDER, deadline=scaled(30)))


def likeness(page: PageImage) -> float:
    """Correlation with the letter, on white: 1 where it is the same."""
    seen = Image.fromarray(page.pixels).convert("L").resize(LETTER.size)
    return float(np.corrcoef(np.asarray(seen).ravel(), GREY.ravel())[0, 1])


def codes(page: PageImage) -> set[WarningCode]:
    return {warning.code for warning in page.warnings}


def coloured(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    return Image.merge("RGBA", (colours, colours, colours, alpha))


# ---- transparency


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("colours", "alpha", "warned"),
    [
        (LETTER, BLACK, True),  # letters in the colours, and the alpha is 0 everywhere
        (WHITE, INK, True),  # white letters on nothing
        (BLACK, INK, False),  # black letters on nothing
        (LETTER, WHITE, False),
    ],
)
def test_letters_of_a_transparent_image_are_seen(
    pool: RenderPool, tmp_path: Path, image_format: str, colours: Image.Image, alpha: Image.Image, *, warned: bool
) -> None:
    path = tmp_path / "image"
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    coloured(colours, alpha).save(path, image_format, **options)
    page = draw(pool, path, Kind(image_format.lower()))
    assert likeness(page) > 0.95
    assert codes(page) == ({WarningCode.TRANSPARENCY} if warned else set())


@pytest.mark.parametrize("palette", [[255] * 6, [0] * 6])
def test_opaque_letters_beside_the_same_transparent_colour_are_visible(
    pool: RenderPool, tmp_path: Path, palette: list[int]
) -> None:
    image = Image.fromarray((GREY < 128).astype(np.uint8)).convert("P")
    image.putpalette(palette)
    image.save(tmp_path / "image.png", transparency=0)
    assert likeness(draw(pool, tmp_path / "image.png", Kind.PNG)) > 0.8


def test_a_colour_that_is_transparent_may_be_that_of_the_letters(pool: RenderPool, tmp_path: Path) -> None:
    LETTER.convert("RGB").save(tmp_path / "image.png", transparency=(0, 0, 0))
    assert likeness(draw(pool, tmp_path / "image.png", Kind.PNG)) > 0.95


def test_light_and_dark_letters_on_transparency_are_both_visible(pool: RenderPool, tmp_path: Path) -> None:
    pixels = np.asarray(coloured(WHITE, INK)).copy()
    pixels[HEIGHT // 2 :, :, :3] = 0
    Image.fromarray(pixels).save(tmp_path / "image.png")
    page = draw(pool, tmp_path / "image.png", Kind.PNG)
    assert page.pixels[: HEIGHT // 2].std() > 10
    assert page.pixels[HEIGHT // 2 :].std() > 10


# ---- deep grey, and tags


def deep(lowest: int, span: int) -> NDArray[np.uint16]:
    return (lowest + GREY.astype(float) / 255 * span).astype(np.uint16)


def tiff(path: Path, tags: dict[int, tuple[int, int]], data: bytes, order: str = "<") -> Path:
    """Write a TIFF of one strip by hand: tag, type (3 or 4) and value; 273 and 279 are added."""
    entries = {256: (3, WIDTH), 257: (3, HEIGHT), 278: (3, HEIGHT)} | tags | {273: (4, 8), 279: (4, len(data))}
    body = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + (struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0))
        for tag, (kind, value) in sorted(entries.items())
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", 8 + len(data) + len(data) % 2)
    path.write_bytes(
        head + data + b"\0" * (len(data) % 2) + struct.pack(f"{order}H", len(entries)) + body + b"\0\0\0\0"
    )
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("lowest", "span"), [(0, 65535), (0, 4095), (30000, 500), (1000, 60), (65000, 300)])
def test_deep_grey_is_seen_in_any_order_and_with_any_contrast(
    pool: RenderPool, tmp_path: Path, order: str, lowest: int, span: int
) -> None:
    data = deep(lowest, span).astype(f"{order}u2").tobytes()
    path = tiff(tmp_path / "deep.tif", {258: (3, 16), 259: (3, 1), 262: (3, 1), 277: (3, 1)}, data, order)
    assert likeness(draw(pool, path, Kind.TIFF)) > 0.95


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_grey_whose_zero_is_white(pool: RenderPool, tmp_path: Path, order: str) -> None:
    data = (65535 - deep(0, 65535)).astype(f"{order}u2").tobytes()
    path = tiff(tmp_path / "deep.tif", {258: (3, 16), 259: (3, 1), 262: (3, 0), 277: (3, 1)}, data, order)
    assert likeness(draw(pool, path, Kind.TIFF)) > 0.95


def test_a_deep_png_of_little_contrast(pool: RenderPool, tmp_path: Path) -> None:
    Image.fromarray(deep(30000, 500)).save(tmp_path / "deep.png")
    assert likeness(draw(pool, tmp_path / "deep.png", Kind.PNG)) > 0.95


@pytest.mark.parametrize(
    ("compression", "named"), [(34887, "LERC"), (50002, "JPEG XL"), (50000, "Zstandard"), (12345, "12345")]
)
def test_a_compression_that_nothing_reads_is_named(
    pool: RenderPool, tmp_path: Path, compression: int, named: str
) -> None:
    tags = {258: (3, 8), 259: (3, compression), 262: (3, 1), 277: (3, 1)}
    with pytest.raises(PermanentError, match=named) as caught:
        draw(pool, tiff(tmp_path / "image.tif", tags, b"\1" * 999), Kind.TIFF)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(("compression", "image_format"), [(34712, "JPEG2000"), (33005, "JPEG2000"), (50001, "WEBP")])
def test_a_tiff_of_pictures_of_another_format(
    pool: RenderPool, tmp_path: Path, compression: int, image_format: str
) -> None:
    piece = io.BytesIO()
    LETTER.convert("RGB").save(
        piece, image_format, **({"no_jp2": True} if image_format == "JPEG2000" else {"lossless": True})
    )
    # A tag with three bits per sample would need its own value block: readers use the default of 8.
    tags = {258: (3, 8), 259: (3, compression), 262: (3, 2), 277: (3, 3)}
    assert likeness(draw(pool, tiff(tmp_path / "image.tif", tags, piece.getvalue()), Kind.TIFF)) > 0.95


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_resolution_of_a_turned_fax_is_that_of_the_stored_picture(
    pool: RenderPool, tmp_path: Path, orientation: int
) -> None:
    turns = {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = LETTER.resize((WIDTH, HEIGHT // 2)).transpose(turns[orientation])
    stored.save(tmp_path / "fax.tif", dpi=(100, 200), tiffinfo={274: orientation})
    page = draw(pool, tmp_path / "fax.tif", Kind.TIFF)
    assert (page.width, page.height) == (WIDTH, HEIGHT)
    assert likeness(page) > 0.9
    assert page.width_pt == pytest.approx(WIDTH * 72 / 200)
    assert page.height_pt == pytest.approx(HEIGHT * 72 / 200)


@pytest.mark.parametrize(
    ("dpi", "ratio"), [((300, 72), 1.0), ((72, 300), 1.0), ((204, 98), 204 / 98), ((200, 100), 2.0)]
)
def test_a_nonsense_pair_of_resolutions_does_not_distort(
    pool: RenderPool, tmp_path: Path, dpi: tuple[int, int], ratio: float
) -> None:
    LETTER.save(tmp_path / "image.tif", dpi=dpi)
    page = draw(pool, tmp_path / "image.tif", Kind.TIFF)
    assert page.height / page.width == pytest.approx(HEIGHT / WIDTH * ratio, rel=0.01)


@pytest.mark.parametrize(("tag", "value"), [(255, 2), (254, 1), (254, 4)])
def test_a_thumbnail_of_either_tag_is_no_page(pool: RenderPool, tmp_path: Path, tag: int, value: int) -> None:
    small = LETTER.resize((60, 40))
    small.encoderinfo = {"tiffinfo": {tag: value}}
    LETTER.save(tmp_path / "image.tif", save_all=True, append_images=[small])
    page = draw(pool, tmp_path / "image.tif", Kind.TIFF)
    assert likeness(page) > 0.95
    with (tmp_path / "image.tif").open("rb") as file, pytest.raises(PermanentError) as caught:
        asyncio.run(pool.render("second", file.fileno(), Kind.TIFF, 1, RENDER, deadline=scaled(30)))
    assert caught.value.reason is Reason.NO_SUCH_PAGES


# ---- PNG


def png(*chunks: tuple[bytes, bytes, bool]) -> bytes:
    """Put chunks into a PNG of the letter, behind its header; each of them has its checksum, or a wrong one."""
    buffer = io.BytesIO()
    LETTER.save(buffer, "PNG")
    data = buffer.getvalue()
    added = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ (0 if right else 1))
        for name, body, right in chunks
    )
    return data[:33] + added + data[33:]


LONG = b"Comment\0" + b"abcdefg " * 400_000


@pytest.mark.parametrize(
    ("chunk", "damaged"),
    [
        ((b"tEXt", b"Comment\0hello", False), True),
        ((b"zTXt", b"Comment\0\0" + zlib.compress(b"hello"), False), True),
        ((b"tIME", bytes(7), False), True),
        ((b"iCCP", b"profile\0\0nothing", True), None),
        ((b"tEXt", LONG, True), False),
        ((b"zTXt", b"Comment\0\0" + zlib.compress(LONG), True), False),
        ((b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG), True), False),
        ((b"abCd", b"who knows", True), False),
    ],
    ids=lambda value: value[0].decode() if isinstance(value, tuple) else "",
)
def test_a_picture_is_not_refused_for_a_comment(
    pool: RenderPool, tmp_path: Path, chunk: tuple[bytes, bytes, bool], *, damaged: bool | None
) -> None:
    (tmp_path / "image.png").write_bytes(png(chunk))
    page = draw(pool, tmp_path / "image.png", Kind.PNG)
    assert likeness(page) > 0.95
    assert page.missing == 0
    if damaged is not None:
        assert (WarningCode.DATA_DAMAGED in codes(page)) == damaged


def test_tolerance_of_damage_in_one_file_does_not_affect_the_next(pool: RenderPool, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(png((b"tEXt", b"Comment\0hello", False)))
    draw(pool, tmp_path / "damaged.png", Kind.PNG)
    buffer = io.BytesIO()
    LETTER.save(buffer, "JPEG")
    (tmp_path / "torn.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    assert WarningCode.IMAGE_INCOMPLETE in codes(draw(pool, tmp_path / "torn.jpg", Kind.JPEG))


@pytest.mark.parametrize(("image_format", "kind"), [("WEBP", Kind.WEBP), ("PNG", Kind.PNG), ("MPO", Kind.JPEG)])
def test_unread_pictures_of_a_file_have_a_warning(
    pool: RenderPool, tmp_path: Path, image_format: str, kind: Kind
) -> None:
    path = tmp_path / "image"
    pictures = [LETTER.convert("RGB"), WHITE.convert("RGB")]
    pictures[0].save(path, image_format, save_all=True, append_images=pictures[1:])
    page = draw(pool, path, kind)
    assert likeness(page) > 0.9
    assert codes(page) == {WarningCode.FRAMES_NOT_READ}


# ---- PDFs


JPEG = io.BytesIO()
LETTER.save(JPEG, "JPEG", quality=90)
RAW = zlib.compress(GREY.tobytes())


def pdf(path: Path, stream: bytes, image: str = "/Filter/DCTDecode/ColorSpace/DeviceGray", **parts: str) -> Path:
    """Write a PDF whose only page is one image, with other boxes, an other header or catalog."""
    content = f"q {WIDTH} 0 0 {HEIGHT} 0 0 cm /Im0 Do Q".encode()
    boxes = parts.get("boxes", f"/MediaBox[0 0 {WIDTH} {HEIGHT}]")
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{parts.get('catalog', '')}>>".encode(),
        f"<</Type/Pages/Kids[3 0 R]/Count {parts.get('count', '1')}{parts.get('inherited', '')}>>".encode(),
        f"<</Type/Page/Parent 2 0 R{boxes}/Resources<</XObject<</Im0 4 0 R>>>>/Contents 5 0 R>>".encode(),
        f"<</Type/XObject/Subtype/Image/Width {WIDTH}/Height {HEIGHT}/BitsPerComponent 8{image}/Length {len(stream)}>>".encode()
        + b"stream\n" + stream + b"\nendstream",
        f"<</Length {len(content)}>>".encode() + b"stream\n" + content + b"\nendstream",
        b"<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>stream\n\0\nendstream",
    ]  # fmt: skip
    out = bytearray(parts.get("header", "%PDF-1.7\n").encode())
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    out += f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n".encode()
    path.write_bytes(out)
    return path


@pytest.mark.parametrize(
    "crop", ["[1000 1000 1200 1200]", "[0 0 0 0]", "[-500 -500 -10 -10]", "[0 0 600 0]", "[600 400 0 0]"]
)
@pytest.mark.parametrize("inherited", [False, True])
def test_a_crop_box_that_shows_nothing_does_not_count(
    pool: RenderPool, tmp_path: Path, crop: str, *, inherited: bool
) -> None:
    box = f"/CropBox{crop}"
    media = f"/MediaBox[0 0 {WIDTH} {HEIGHT}]"
    parts = {"inherited": box} if inherited else {"boxes": media + box}
    page = draw(pool, pdf(tmp_path / "page.pdf", JPEG.getvalue(), **parts), Kind.PDF)
    assert likeness(page) > 0.95
    assert (page.width_pt, page.height_pt) == (WIDTH, HEIGHT)


FLATE = "/Filter/FlateDecode/ColorSpace/DeviceGray"
SYNC = zlib.compressobj()
SYNCED = SYNC.compress(GREY.tobytes()) + SYNC.flush(zlib.Z_SYNC_FLUSH)
JPX = io.BytesIO()
LETTER.save(JPX, "JPEG2000")


@pytest.mark.parametrize(
    ("stream", "image", "expected"),
    [
        (JPEG.getvalue()[:-2], "/Filter/DCTDecode/ColorSpace/DeviceGray", None),
        (SYNCED, FLATE, WarningCode.DATA_ENDED_EARLY),
        (RAW[:-4], FLATE, WarningCode.DATA_ENDED_EARLY),
        (RAW[:-4] + b"oops", FLATE, WarningCode.CHECKSUM_WRONG),
        (zlib.compress(GREY[:-6].tobytes()), FLATE, WarningCode.IMAGE_INCOMPLETE),
        (JPX.getvalue()[:-2], "/Filter/JPXDecode", WarningCode.DATA_ENDED_EARLY),
        (JPEG.getvalue(), "/Filter/DCTDecode/ColorSpace[/ICCBased 99 0 R]", WarningCode.COLOUR_SPACE_WRONG),
        (RAW, "/Filter/FlateDecode/ColorSpace/Nonsense", WarningCode.COLOUR_SPACE_WRONG),
    ],
)
def test_what_can_be_drawn_is_not_refused(
    pool: RenderPool, tmp_path: Path, stream: bytes, image: str, expected: WarningCode | None
) -> None:
    page = draw(pool, pdf(tmp_path / "page.pdf", stream, image), Kind.PDF)
    assert likeness(page) > 0.8  # rows that aren't there are black
    assert page.missing == 0
    assert expected is None or expected in codes(page)


def test_a_pdf_whose_pages_mupdf_does_not_find_is_repaired(pool: RenderPool, tmp_path: Path) -> None:
    path = pdf(tmp_path / "page.pdf", JPEG.getvalue(), count="0")
    page = draw(pool, path, Kind.PDF)
    assert likeness(page) > 0.95
    assert codes(page) & {WarningCode.REPAIRED, WarningCode.OTHER_DECODER}


def test_a_page_that_mupdf_can_not_load_is_drawn_by_another(pool: RenderPool, tmp_path: Path) -> None:
    path = pdf(tmp_path / "page.pdf", JPEG.getvalue(), boxes=f"/MediaBox[0 0 {WIDTH} {HEIGHT}]/CropBox[0 0]")
    page = draw(pool, path, Kind.PDF)
    assert likeness(page) > 0.95


def test_a_scan_whose_mask_hides_all_of_it_is_no_empty_page(pool: RenderPool, tmp_path: Path) -> None:
    image = "/Filter/DCTDecode/ColorSpace/DeviceGray/SMask 6 0 R"
    page = draw(pool, pdf(tmp_path / "page.pdf", JPEG.getvalue(), image), Kind.PDF)
    assert likeness(page) > 0.95
    assert WarningCode.HIDDEN_IMAGE in codes(page)


def test_a_page_with_only_white_content_is_empty(pool: RenderPool, tmp_path: Path) -> None:
    path = pdf(tmp_path / "page.pdf", zlib.compress(b"\xff" * WIDTH * HEIGHT), FLATE)
    page = draw(pool, path, Kind.PDF)
    assert (page.pixels == 255).all()
    assert not page.warnings


def test_a_page_that_mupdf_draws_empty_without_a_word_is_drawn_by_pdfium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a MuPDF that draws nothing, as it does of some JBIG2 images
    drawn = pdf_pages._pixmap

    def nothing(page: Any, matrix: Any) -> Any:
        pixmap, messages = drawn(page, matrix)
        pixmap.clear_with(255)
        return pixmap, messages

    monkeypatch.setattr(pdf_pages, "_pixmap", nothing)
    document = PdfDocument(pdf(tmp_path / "page.pdf", RAW, FLATE).read_bytes())
    with mmap.mmap(-1, RENDER.max_pixels * 3) as memory:
        raster = pdf_pages.draw_pdf_page(document, 0, RENDER, memory)
        pixels = np.frombuffer(memory[: raster.size], np.uint8).reshape(raster.stored_height, raster.stored_width, 3)
    document.close()
    # Then the page is what PDFium draws
    assert [warning.code for warning in raster.warnings] == [WarningCode.OTHER_DECODER]
    assert likeness(PageImage(pixels=pixels, width_pt=WIDTH, height_pt=HEIGHT)) > 0.95


@pytest.mark.parametrize("ends", [(b"\n", b"\r\n"), (b"\r", b"\n")])
@pytest.mark.parametrize("kind", [Kind.PDF, Kind.JPEG])
def test_a_scan_that_went_through_a_text_transfer_is_refused(
    pool: RenderPool, tmp_path: Path, ends: tuple[bytes, bytes], kind: Kind
) -> None:
    noisy = io.BytesIO()
    Image.blend(LETTER, Image.effect_noise(LETTER.size, 90), 0.4).save(noisy, "JPEG", quality=90)
    path = tmp_path / "scan"
    if kind is Kind.PDF:
        pdf(path, noisy.getvalue())
    else:
        path.write_bytes(noisy.getvalue())
    path.write_bytes(path.read_bytes().replace(*ends))
    with pytest.raises(PermanentError, match="binary") as caught:
        draw(pool, path, kind)
    assert caught.value.reason is Reason.UNREADABLE


# ---- PDFs with content outside of their pages


def form(path: Path, *, fields: int = 0, rendered: bool = True, content: bytes = b"") -> Path:
    with pikepdf.new() as document:
        document.add_blank_page(page_size=(WIDTH, HEIGHT))
        page = document.pages[0]
        page.Contents = document.make_stream(content)
        font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
        page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F=font))
        made = [
            document.make_indirect(pikepdf.Dictionary(T=str(number), FT=pikepdf.Name.Tx)) for number in range(fields)
        ]
        xfa = document.make_stream(b"<xdp:xdp/>")
        document.Root.AcroForm = pikepdf.Dictionary(Fields=pikepdf.Array(made), XFA=xfa)
        if not rendered:
            document.Root.NeedsRendering = True
        document.save(path)
    return path


TEXT = b"BT /F 30 Tf 30 300 Td (Application for a fishing licence) Tj ET"
WAIT = b"BT /F 30 Tf 30 300 Td (Please wait... or upgrade Adobe Reader) Tj ET"


@pytest.mark.parametrize("options", [{"rendered": False}, {"rendered": False, "content": TEXT}, {"content": WAIT}, {}])
def test_a_dynamic_xfa_form_is_refused_with_a_remedy(pool: RenderPool, tmp_path: Path, options: Any) -> None:
    with pytest.raises(PermanentError, match="print it to PDF in Acrobat") as caught:
        draw(pool, form(tmp_path / "form.pdf", **options), Kind.PDF)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("options", [{"fields": 2, "content": TEXT}, {"content": TEXT}])
def test_a_form_that_has_pages_of_its_own_is_read(pool: RenderPool, tmp_path: Path, options: Any) -> None:
    assert draw(pool, form(tmp_path / "form.pdf", **options), Kind.PDF).pixels.std() > 5


@pytest.mark.parametrize(
    ("portfolio", "names", "warned"), [(True, ["a.txt"], True), (False, ["b.PDF"], True), (False, ["c.xml"], False)]
)
def test_attached_documents_have_a_warning(
    pool: RenderPool, tmp_path: Path, names: list[str], *, portfolio: bool, warned: bool
) -> None:
    path = pdf(tmp_path / "plain.pdf", JPEG.getvalue())
    with pikepdf.open(path) as document:
        for name in names:
            document.attachments[name] = b"what it holds"
        if portfolio:
            document.Root.Collection = pikepdf.Dictionary(Type=pikepdf.Name.Collection)
        document.save(tmp_path / "attached.pdf")
    page = draw(pool, tmp_path / "attached.pdf", Kind.PDF)
    assert likeness(page) > 0.95
    assert codes(page) == ({WarningCode.ATTACHMENTS_NOT_READ} if warned else set())
