"""The sample documents: what `make demo` reads, and what tests check against the truth.

A first run should need no download and no scanner, and a test of recognition must know what stands on the page. So
everything is drawn here, from texts of our own and a fixed seed: the same versions of PyMuPDF, Pillow and numpy give
the same bytes each time. No font is shipped; PyMuPDF brings the fourteen that every PDF reader knows.

    letter.pdf              2 pages   born digital: it has a text layer
    scan.pdf                2 pages   images only: paper tone, noise, 0.6 degrees askew, JPEG
    two-columns.pdf         1 page    a heading across, two columns, a footnote across: reading order matters
    ledger.tif              2 pages   bilevel, Group 4, a ruled table
    notice.jpg              1 page    a photograph: stored on its side, as its EXIF orientation says
    book/page-{1,2,10}.png  3 pages   one document of three files, whose alphabetical order is wrong
"""

# mypy: allow-untyped-calls
# (PyMuPDF calls itself typed, but annotates neither Document nor what it saves.)
from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pymupdf
from PIL import Image, ImageDraw, ImageFilter

from producer.samples.texts import BOOK, LEDGER, LETTER, NOTICE, SAMPLES, SCAN, TWO_COLUMNS, Ledger, Sheet, paragraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SEED = 1874
SCAN_DPI = 200
INK_BELOW = 140  # of 255: what a bilevel scanner calls black
PAPER_RGB = (246, 239, 222)

_EXIF_ORIENTATION = 0x0112
_TURN_CLOCKWISE_TO_SHOW = 6


@dataclass(frozen=True)
class Look:
    """The measures of a page, in points (1/72 inch). The defaults are A5, upright."""

    width_pt: float = 420
    height_pt: float = 595
    margin_pt: float = 44
    gutter_pt: float = 24
    heading_pt: float = 21
    body_pt: float = 14
    foot_pt: float = 10


def write_samples(folder: Path) -> list[Path]:
    """Write every sample below `folder`, which is made if need be, and return their paths in the order of SAMPLES."""
    (folder / "book").mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in SAMPLES]
    letter, scan, two_columns, ledger, notice, *book = paths
    _save_pdf(_typeset(LETTER, Look()), letter)
    _save_pdf(_scanned(SCAN), scan)
    _save_pdf(_typeset(TWO_COLUMNS, Look(body_pt=12.5)), two_columns)
    _write_ledger(ledger)
    _write_notice(notice)
    for path, sheet in zip(book, BOOK.values(), strict=True):
        _write_book_page(sheet, path)
    return paths


def _typeset(pages: Iterable[Sheet | Ledger], look: Look) -> pymupdf.Document:
    document = pymupdf.open()
    for page in pages:
        sheet = document.new_page(width=look.width_pt, height=look.height_pt)
        if isinstance(page, Ledger):
            _draw_ledger(sheet, page, look)
        else:
            _draw_sheet(sheet, page, look)
    return document


def _draw_sheet(page: pymupdf.Page, sheet: Sheet, look: Look) -> None:
    inner = look.width_pt - 2 * look.margin_pt
    left, bottom = look.margin_pt, look.height_pt - look.margin_pt
    top = _write(page, sheet.heading, left, look.margin_pt, inner, size_pt=look.heading_pt, font="tibo")
    top += look.heading_pt * 0.6
    width = (inner - look.gutter_pt * (len(sheet.columns) - 1)) / len(sheet.columns)
    for index, column in enumerate(sheet.columns):
        x, y = left + index * (width + look.gutter_pt), top
        for paragraph in paragraphs(column):
            y = _write(page, paragraph, x, y, width, size_pt=look.body_pt, font="tiro") + look.body_pt * 0.7
    if sheet.foot:
        page.draw_line((left, bottom - 2 * look.foot_pt), (left + inner, bottom - 2 * look.foot_pt), width=0.6)
        _write(page, sheet.foot, left, bottom - 1.4 * look.foot_pt, inner, size_pt=look.foot_pt, font="tiit")


def _draw_ledger(page: pymupdf.Page, ledger: Ledger, look: Look) -> None:
    inner, row_pt = look.width_pt - 2 * look.margin_pt, look.body_pt * 2.5
    left, right = look.margin_pt, look.width_pt - look.margin_pt
    top = _write(page, ledger.heading, left, look.margin_pt, inner, size_pt=look.heading_pt, font="tibo")
    top += look.heading_pt * 0.6
    edges = [left + inner * share for share in (0, 0.18, 0.52, 0.84, 1)]
    for index, row in enumerate(ledger.rows):
        y = top + index * row_pt
        page.draw_line((left, y), (right, y), width=1.2 if index in (0, 1, len(ledger.rows) - 1) else 0.5)
        font = "tibo" if index in (0, len(ledger.rows) - 1) else "tiro"
        for cell, start, end in zip(row, edges, edges[1:], strict=False):
            _write(page, cell, start + 5, y + look.body_pt * 0.5, end - start - 5, size_pt=look.body_pt, font=font)
    bottom = top + len(ledger.rows) * row_pt
    page.draw_line((left, bottom), (right, bottom), width=1.2)
    for x in edges:
        page.draw_line((x, top), (x, bottom), width=0.5)


def _write(page: pymupdf.Page, text: str, x: float, y: float, width: float, *, size_pt: float, font: str) -> float:
    """Set `text` into a column and return the y at which it ends. Everything in points; y grows downwards."""
    room = page.rect.height - y
    box = (x, y, x + width, y + room)
    left_over = page.insert_textbox(box, text, fontsize=size_pt, fontname=font, lineheight=1.3)
    if left_over < 0:
        raise ValueError(f"The sample text {text[:30]!r} does not fit on its page: shorten it or set it smaller.")
    return float(y + room - left_over)


def _picture(page: pymupdf.Page, dpi: int) -> Image.Image:
    pixmap = page.get_pixmap(dpi=dpi, colorspace=pymupdf.csGRAY)
    return Image.frombytes("L", (pixmap.width, pixmap.height), pixmap.samples)


def _save_pdf(document: pymupdf.Document, path: Path) -> None:
    """Save without a random id, and with a date that is the same today and tomorrow."""
    document.set_metadata({"producer": "ocrfleet samples", "creationDate": "D:20260101000000Z"})
    document.save(path, garbage=3, deflate=True, no_new_id=True)
    document.close()


def _scanned(sheets: Iterable[Sheet]) -> pymupdf.Document:
    """Print the sheets, lay each a little askew on a scanner, and bind the pictures into a PDF without text."""
    dice = np.random.default_rng(SEED)
    bound = pymupdf.open()
    with _typeset(sheets, Look()) as printed:
        for number, page in enumerate(printed):
            askew = 0.6 if number % 2 == 0 else -0.6
            upright = _picture(page, SCAN_DPI)
            grey = upright.rotate(askew, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(0.7))
            ink = 1 - np.asarray(grey, dtype=np.float64)[:, :, None] / 255
            paper = np.array(PAPER_RGB, dtype=np.float64) * _gutter_shadow(grey.width)[None, :, None]
            picture = _with_noise(paper * (1 - ink) + 45 * ink, 2.5, dice)
            jpeg = _jpeg(picture, quality=60)
            bound.new_page(width=page.rect.width, height=page.rect.height).insert_image(page.rect, stream=jpeg)
    return bound


def _gutter_shadow(width_px: int) -> NDArray[np.float64]:
    """Return the brightness of each column of a scan: the binding at the left keeps the sheet off the glass."""
    return 1 - 0.22 * np.exp(-np.arange(width_px) / (width_px * 0.03))


def _with_noise(picture: NDArray[np.float64], sigma: float, dice: np.random.Generator) -> Image.Image:
    """Add grey noise to an RGB picture of shape (height, width, 3), 0 to 255; `sigma` is in the same steps."""
    grain = dice.normal(0, sigma, picture.shape[:2])[:, :, None]
    return Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality, dpi=(SCAN_DPI, SCAN_DPI))
    return buffer.getvalue()


def _write_ledger(path: Path) -> None:
    with _typeset(LEDGER, Look(margin_pt=36, body_pt=13)) as document:
        first, *rest = [_picture(page, SCAN_DPI).point(lambda grey: 255 * (grey > INK_BELOW), "1") for page in document]
    first.save(path, save_all=True, append_images=rest, compression="group4", dpi=(SCAN_DPI, SCAN_DPI))


def _write_book_page(sheet: Sheet, path: Path) -> None:
    look = Look(width_pt=298, height_pt=420, margin_pt=34, heading_pt=18, body_pt=14.5, foot_pt=11)
    with _typeset([sheet], look) as document:
        sixteen_greys = _picture(document[0], SCAN_DPI).quantize(16)
    sixteen_greys.save(path, optimize=True, dpi=(SCAN_DPI, SCAN_DPI))


def _write_notice(path: Path) -> None:
    """Photograph the notice on its board: from slightly aside, under a lamp, a little out of focus, camera on its side."""
    look = Look(width_pt=500, height_pt=370, margin_pt=40, heading_pt=27, body_pt=17, foot_pt=14)
    with _typeset(NOTICE, look) as document:
        _draw_paw_prints(document[0], look)
        notice = _picture(document[0], dpi=144)
    dice = np.random.default_rng(SEED)
    board = _pinned(notice, _wood((1280, 960), dice))
    seen = _from_aside(board).filter(ImageFilter.GaussianBlur(0.8))
    lit = np.asarray(seen, dtype=np.float64) * _lamp_light(seen.size)[:, :, None]
    upright = _with_noise(lit, 3, dice)
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _TURN_CLOCKWISE_TO_SHOW
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=75, exif=exif)


def _draw_paw_prints(page: pymupdf.Page, look: Look) -> None:
    """Let the cat sign too: two prints in pale ink at the lower right, where no text is."""
    grey = (0.72, 0.72, 0.72)
    for dx, dy in ((-104, -84), (-62, -104)):
        x, y = look.width_pt + dx, look.height_pt + dy
        page.draw_oval((x - 8, y - 6, x + 8, y + 7), color=None, fill=grey)
        for toe_x, toe_y in ((-11, -8), (-4, -13), (4, -13), (11, -8)):
            toe = (x + toe_x - 3, y + toe_y - 4, x + toe_x + 3, y + toe_y + 4)
            page.draw_oval(toe, color=None, fill=grey)


def _wood(size_px: tuple[int, int], dice: np.random.Generator) -> Image.Image:
    """Return planks that run across: a grain of long streaks, a dark joint every 240 pixels."""
    width, height = size_px
    streaks = np.asarray(
        Image.fromarray(dice.integers(0, 256, (height, width // 40), dtype=np.uint8)).resize(size_px), dtype=np.float64
    )
    tone = 0.82 + 0.18 * streaks / 255
    plank_px, joint_px = 240, 5
    tone[np.arange(height) % plank_px < joint_px] *= 0.45
    return Image.fromarray((tone[:, :, None] * np.array((146, 104, 66))).astype(np.uint8))


def _pinned(notice: Image.Image, board: Image.Image) -> Image.Image:
    """Lay the notice in the middle of the board, with the shadow it throws and a red pin in each upper corner."""
    x, y = (board.width - notice.width) // 2, (board.height - notice.height) // 2
    shade = Image.new("L", board.size, 0)
    shade.paste(150, (x + 10, y + 12, x + notice.width + 10, y + notice.height + 12))
    board.paste((20, 12, 6), mask=shade.filter(ImageFilter.GaussianBlur(9)))
    ink = 1 - np.asarray(notice, dtype=np.float64)[:, :, None] / 255
    paper = np.array(PAPER_RGB) * (1 - ink) + np.array((38, 40, 62)) * ink
    board.paste(Image.fromarray(paper.astype(np.uint8)), (x, y))
    pen = ImageDraw.Draw(board)
    for pin_x in (x + 26, x + notice.width - 26):
        pen.ellipse((pin_x - 8, y + 20, pin_x + 16, y + 44), fill=(150, 140, 120))
        pen.ellipse((pin_x - 12, y + 14, pin_x + 12, y + 38), fill=(190, 38, 32))
        pen.ellipse((pin_x - 6, y + 18, pin_x, y + 24), fill=(250, 190, 180))
    return board


def _from_aside(picture: Image.Image) -> Image.Image:
    """Look at the picture from the left, and hold the camera 1.5 degrees askew."""
    width, height = picture.size
    turned = picture.rotate(1.5, Image.Resampling.BICUBIC)
    # A quadrilateral of the source fills the result: upper left, lower left, lower right, upper right.
    corners = (60, 50, 60, height - 50, width - 50, height - 30, width - 50, 30)
    return turned.transform(picture.size, Image.Transform.PERSPECTIVE, _perspective(corners, picture.size))


def _perspective(corners_px: Sequence[float], size_px: tuple[int, int]) -> list[float]:
    """Return Pillow's eight coefficients (a to h) that map a rectangle of `size_px` onto the four corners."""
    width, height = size_px
    rectangle = ((0, 0), (0, height), (width, height), (width, 0))
    rows: list[tuple[float, ...]] = []
    for (x, y), u, v in zip(rectangle, corners_px[::2], corners_px[1::2], strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(corners_px))]


def _lamp_light(size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return the brightness of each pixel, shape (height, width): a lamp at the upper left, dusk at the lower right."""
    width, height = size_px
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    return 0.5 + 0.52 * np.exp(-((x - 0.25) ** 2 + (y - 0.2) ** 2) / 0.45)
