"""A text layer is trusted only if it is the text of its page."""

from __future__ import annotations

import asyncio
import io
import random
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pymupdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from tests.support.growth import assert_grows_linearly
from tests.support.waiting import scaled
from worker.imaging.page_image import PageImage
from worker.rendering.pool import RenderPool
from worker.text_layer.trust import distrust, reading
from worker.text_layer.words import LayerWord, TextLayerWords, layer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A4 = pymupdf.Rect(0, 0, 595, 842)
ENGLISH = (
    (
        "The archive was moved to the new house in the spring, and with it went the letters that nobody had read since they "
        "were written. Some of them had been opened by people who were looking for money; others were still closed. When the "
        "work began, it was not known how many there would be, or whether they should be kept at all. After three years the "
        "last box had been emptied, and every letter was in its own folder, with the name of whoever had sent it."
    ),
    (
        "It is often said that such work has no end. That may be so, but it does have a beginning, and this one was made on "
        "a cold morning before the others had come in, with nothing more than a pencil and a list of what was on the shelf."
    ),
)
OTHER = (
    (
        "A second report deals with what became of the garden behind the mill. There was a wall around it, which has been "
        "taken down because the river came too close, and only two of the old trees are left. They were planted by the same "
        "family that had built the bridge, and each year their fruit is given to those who keep the road open in winter. "
        "Nothing about them can be found in books; all that we know was told by those who saw it themselves."
    ),
    (
        "Whether more should be done is for others to say. We have written down what there is, where it stands and how it "
        "looks, so that nobody can say later that it was never there, and we leave it at that for now."
    ),
)


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(1, memory=512 << 20, max_pixels=8_000_000)
    yield pool
    pool.close()


@pytest.fixture
def look(pool: RenderPool, tmp_path: Path) -> Callable[..., tuple[TextLayerWords, PageImage]]:
    def look(pdf: Any, *, deadline: float = 30) -> tuple[TextLayerWords, PageImage]:
        path = tmp_path / f"{random.random()}.pdf"  # noqa: S311 - a name
        pdf.save(path)
        pdf.close()

        async def both() -> tuple[TextLayerWords, PageImage]:
            with path.open("rb") as file:
                page = path.name, file.fileno(), Kind.PDF, 0
                render = Render(long_side=2000, max_pixels=8_000_000)
                return (
                    await pool.layer(*page, deadline=deadline),
                    await pool.render(*page, render, deadline=deadline),
                )

        return asyncio.run(both())

    return look


Look = Any


def write(
    page: Any, paragraphs: tuple[str, ...] = ENGLISH, *, down: float = 0, size: float = 11, **options: Any
) -> None:
    """Put paragraphs on a page, the first one `down` points below the top margin."""
    for number, text in enumerate(paragraphs):
        top = 72 + down + 130 * number
        assert page.insert_textbox((72, top, 523, top + 125), text, fontsize=size, **options) >= 0


def printed(paragraphs: tuple[str, ...] = ENGLISH, **options: Any) -> Any:
    pdf = pymupdf.open()
    write(pdf.new_page(width=A4.width, height=A4.height), paragraphs, **options)
    return pdf


def scanned(paragraphs: tuple[str, ...] = ENGLISH, **options: Any) -> Any:
    """Return a page that is a picture of these paragraphs, with no text in it."""
    with printed(paragraphs, **options) as pdf:
        picture = pdf[0].get_pixmap(dpi=200).tobytes("png")
    scan = pymupdf.open()
    scan.new_page(width=A4.width, height=A4.height).insert_image(A4, stream=picture)
    return scan


def with_layer(scan: Any, paragraphs: tuple[str, ...], **options: Any) -> Any:
    write(scan[0], paragraphs, render_mode=3, **options)
    return scan


def shifted(text: str, places: int) -> str:
    letters = string.ascii_lowercase
    upper = letters.upper()
    moved = letters[places:] + letters[:places]
    return text.translate(str.maketrans(letters + upper, moved + moved.upper()))


def mapped(pdf: Any, character: Callable[[int], str]) -> Any:
    """Set the ToUnicode mapping of the page's font, independent of its glyphs."""
    font = pdf[0].get_fonts()[0][0]
    rows = [f"<{code:02x}> <{character(code).encode('utf-16-be').hex()}>" for code in range(33, 127)]
    cmap = f"""/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def
1 begincodespacerange <00> <ff> endcodespacerange
{len(rows)} beginbfchar {chr(10).join(rows)} endbfchar endcmap CMapName currentdict /CMap defineresource pop end end"""
    stream = pdf.get_new_xref()
    pdf.update_object(stream, "<<>>")
    pdf.update_stream(stream, cmap.encode())
    pdf.xref_set_key(font, "ToUnicode", f"{stream} 0 R")
    return pdf


def words_of(text: str) -> list[str]:
    return text.split()


# --- what is trusted


def test_a_born_digital_page_is_trusted(look: Look) -> None:
    layer, image = look(printed())
    assert distrust(layer, image) is None
    text, lines = reading(layer, image)
    # Then paragraphs are parted by empty lines, and nothing is lost
    assert [words_of(paragraph) for paragraph in text.split("\n\n")] == [words_of(part) for part in ENGLISH]
    # And lines lie where their ink is
    for line in lines:
        x0, y0, x1, y1 = (round(edge) for edge in line.box)
        assert image.pixels[y0:y1, x0:x1].min() < 128
    outside = image.pixels.copy()
    for line in lines:
        x0, y0, x1, y1 = (round(edge) for edge in line.box)
        outside[y0 : y1 + 1, x0 - 1 : x1 + 2] = 255
    assert outside.min() > 200


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_boxes_are_those_of_the_page_as_displayed(look: Look, rotation: int) -> None:
    # Given a page with text that is upright after rotation, as written by scanner software
    pdf = pymupdf.open()
    sideways = rotation != 180
    page = pdf.new_page(width=A4.height if sideways else A4.width, height=A4.width if sideways else A4.height)
    page.set_rotation(rotation)
    for number, text in enumerate(ENGLISH):
        top = 72 + 130 * number
        rect = pymupdf.Rect(72, top, 523, top + 125) * page.derotation_matrix
        assert page.insert_textbox(rect, text, fontsize=11, rotate=rotation) >= 0
    layer, image = look(pdf)
    assert image.rotation == rotation
    assert (layer.width_pt, layer.height_pt) == (image.width_pt, image.height_pt) == (595, 842)
    assert distrust(layer, image) is None
    assert words_of(reading(layer, image)[0]) == words_of(" ".join(ENGLISH))


def test_a_page_displayed_sideways_is_trusted(look: Look) -> None:
    pdf = printed()
    pdf[0].set_rotation(90)
    layer, image = look(pdf)
    assert layer.width_pt == 842
    assert distrust(layer, image) is None
    assert words_of(reading(layer, image)[0]) == words_of(" ".join(ENGLISH))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_cropped_words_are_not_in_the_layer(look: Look, rotation: int) -> None:
    pdf = printed()
    pdf[0].insert_text((72, 800), "This was cut off")
    pdf[0].set_cropbox((50, 50, 560, 500))
    pdf[0].set_rotation(rotation)
    layer, image = look(pdf)
    assert distrust(layer, image) is None
    text, _ = reading(layer, image)
    assert "cut" not in text
    assert words_of(text) == words_of(" ".join(ENGLISH))


def test_a_right_layer_over_a_scan_is_trusted(look: Look) -> None:
    layer, image = look(with_layer(scanned(), ENGLISH))
    assert layer.pictures == (pytest.approx((0, 0, 595, 842), abs=0.1),)
    assert distrust(layer, image) is None


def test_a_photograph_on_a_written_page_does_not_make_it_untrusted(look: Look) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((900, 600)).save(buffer, "JPEG")
    pdf = printed()
    pdf[0].insert_image((72, 350, 523, 650), stream=buffer.getvalue())
    layer, image = look(pdf)
    assert distrust(layer, image) is None


@pytest.mark.parametrize("colour", [(0, 0, 0), (0.4, 0.4, 0.4), (0.8, 0.1, 0.1)])
def test_a_layer_with_words_under_a_box_is_not_trusted(look: Look, colour: tuple[float, float, float]) -> None:
    pdf = printed()
    (word,) = pdf[0].search_for("archive")[:1]
    pdf[0].draw_rect(pymupdf.Rect(word.x0 - 1, word.y0 - 1, word.x1 + 1, word.y1 + 1), fill=colour, color=None)
    layer, image = look(pdf)
    assert "archive" in {word.text for word in layer.words}
    assert "covered" in (distrust(layer, image) or "")


@pytest.mark.parametrize("opacity", [0.3, 0.5])
def test_words_that_are_marked_are_seen(look: Look, opacity: float) -> None:
    pdf = printed()
    (word,) = pdf[0].search_for("archive")[:1]
    pdf[0].draw_rect(word, fill=(1, 0.9, 0), color=None, fill_opacity=opacity)
    pdf[0].add_highlight_annot(pdf[0].search_for("letters")[0])
    layer, image = look(pdf)
    assert distrust(layer, image) is None


def test_words_under_white_are_not_written_out(look: Look) -> None:
    pdf = printed()
    (word,) = pdf[0].search_for("archive")[:1]
    pdf[0].draw_rect(word, fill=(1, 1, 1), color=None)
    layer, image = look(pdf)
    text, lines = reading(layer, image)
    assert "archive" in {word.text for word in layer.words}
    assert "archive" not in text
    assert "archive" not in " ".join(line.text for line in lines)


@pytest.mark.parametrize("text", ["RECEIVED 14 JUNE", "PAID 3 MAY 1921", "COPY", "Entered 12 May"])
@pytest.mark.parametrize("width", [120, 180, 300])
def test_a_layer_without_the_words_of_a_picture_is_not_trusted(look: Look, text: str, width: int) -> None:
    stamp = Image.new("L", (500, 90), 255)
    ImageDraw.Draw(stamp).text((20, 15), text, font=ImageFont.load_default(48), fill=40)
    buffer = io.BytesIO()
    stamp.save(buffer, "PNG")
    pdf = printed()
    pdf[0].insert_image((300, 560, 300 + width, 560 + width * 90 / 500), stream=buffer.getvalue())
    layer, image = look(pdf)
    assert "picture" in (distrust(layer, image) or "")


def test_a_photograph_and_a_logo_are_no_stamps(look: Look) -> None:
    gradient = Image.radial_gradient("L").resize((600, 400))
    buffer = io.BytesIO()
    gradient.save(buffer, "PNG")
    pdf = printed()
    pdf[0].insert_image((72, 350, 300, 500), stream=buffer.getvalue())
    layer, image = look(pdf)
    assert distrust(layer, image) is None


def test_text_on_a_dark_ground_is_trusted(look: Look) -> None:
    pdf = pymupdf.open()
    page = pdf.new_page(width=A4.width, height=A4.height)
    page.draw_rect(A4, fill=(0, 0, 0.4), color=None)
    write(page, color=(1, 1, 1))
    layer, image = look(pdf)
    assert distrust(layer, image) is None


def test_other_languages_are_recognised_without_an_option(look: Look) -> None:
    german = (
        (
            "Die Briefe wurden in einem Kasten gefunden, der unter der Treppe stand und den seit dem Tod der alten Frau niemand "
            "mehr geöffnet hatte. Sie waren nach Jahren geordnet, aber es fehlten einige, und von anderen war nur noch der "
            "Umschlag da. Wir haben sie gelesen, soweit das noch möglich war, und aufgeschrieben, was darin stand."
        ),
    )
    assert distrust(*look(printed(german))) is None


def test_cells_of_a_row_come_on_one_line(look: Look) -> None:
    pdf = printed()
    for row, cells in enumerate((("Town", "People"), ("Oldham", "96,555"), ("Bury", "81,101"))):
        for column, cell in enumerate(cells):
            pdf[0].insert_text((72 + 200 * column, 400 + 20 * row), cell)
    text, _ = reading(*look(pdf))
    assert "Oldham 96,555" in text.splitlines()


# --- detected manipulations


@pytest.mark.parametrize("places", [1, 3, 13, 25])
def test_a_shifted_layer_over_the_right_picture_is_seen_through(look: Look, places: int) -> None:
    wrong = tuple(shifted(text, places) for text in ENGLISH)
    why = distrust(*look(with_layer(scanned(), wrong)))
    assert why is not None
    assert "common words of one language" in why


def test_a_font_with_wrongly_mapped_letters_is_not_trusted(look: Look) -> None:
    layer, image = look(mapped(printed(), lambda code: shifted(chr(code), 1)))
    assert words_of(reading(layer, image)[0])[:3] == ["Uif", "bsdijwf", "xbt"]
    assert "common words of one language" in str(distrust(layer, image))


def test_a_page_with_one_wrong_font_of_two_is_not_trusted(look: Look) -> None:
    pdf = mapped(printed(ENGLISH * 2), lambda code: shifted(chr(code), 1))
    write(pdf[0], ENGLISH * 2, down=300, fontname="tiro")
    layer, image = look(pdf)
    assert "The archive was moved" in reading(layer, image)[0]
    assert "follow each other" in str(distrust(layer, image))


@pytest.mark.parametrize("character", ["\ufffd", "\ue000"])
def test_a_font_without_a_unicode_mapping_is_not_trusted(look: Look, character: str) -> None:
    layer, image = look(mapped(printed(), lambda code: character if chr(code) in "aeiou" else chr(code)))
    assert "no Unicode mapping" in str(distrust(layer, image))


def test_a_font_with_unknown_glyph_names_is_not_trusted(look: Look) -> None:
    pdf = printed()
    font = pdf[0].get_fonts()[0][0]
    names = " ".join(f"/g{code}" for code in range(256))
    pdf.xref_set_key(font, "Encoding", f"<</Type/Encoding/Differences[0 {names}]>>")
    assert "no Unicode mapping" in str(distrust(*look(pdf)))


def test_the_layer_of_another_page_is_seen_through(look: Look) -> None:
    why = distrust(*look(with_layer(scanned(), OTHER)))
    assert why is not None


def test_a_layer_with_other_words_on_the_same_lines_is_seen_through(look: Look) -> None:
    # Given text that fills the very lines that the ink is on, as on two pages of one book
    why = distrust(*look(with_layer(scanned(ENGLISH * 2), OTHER * 2)))
    assert why is not None


@pytest.mark.parametrize("down", [15, 40, 250])
def test_text_moved_away_from_its_ink_is_seen_through(look: Look, down: float) -> None:
    assert distrust(*look(with_layer(scanned(), ENGLISH, down=down))) is not None


@pytest.mark.parametrize("visible", [True, False])
def test_a_stamp_over_a_scan_is_seen_through(look: Look, *, visible: bool) -> None:
    pdf = scanned()
    stamp = "Downloaded from the library of the town; this copy may only be read by those who have been told about it."
    pdf[0].insert_textbox((72, 790, 523, 820), stamp, fontsize=8, render_mode=0 if visible else 3)
    assert distrust(*look(pdf)) is not None


def test_a_stamp_over_a_photograph_of_a_page_is_seen_through(look: Look) -> None:
    # Given a picture without paper, in which letters are no pieces of ink of their own
    noise = np.random.default_rng(1).integers(0, 255, (842, 595, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    pdf = pymupdf.open()
    page = pdf.new_page(width=A4.width, height=A4.height)
    page.insert_image((0, 0, 595, 750), stream=buffer.getvalue())
    write(page, (ENGLISH[1],), down=690)
    assert "print" in str(distrust(*look(pdf)))


def test_garbage_of_a_poor_engine_is_seen_through(look: Look) -> None:
    rng = random.Random(1)  # noqa: S311 - the same garbage each time
    # Given letters that are all as wide as each other: words end where they should
    wrong = tuple(
        "".join(rng.choice(string.ascii_lowercase) if c.isalpha() and rng.random() < 0.2 else c for c in text)
        for text in ENGLISH
    )
    scan = scanned(ENGLISH, fontname="cour", size=9)
    assert "a letter wrong" in str(distrust(*look(with_layer(scan, wrong, fontname="cour", size=9))))


def test_text_that_is_there_twice_is_seen_through(look: Look) -> None:
    # Given a page with text that was also read by an OCR engine
    pdf = printed()
    write(pdf[0], render_mode=3)
    assert "twice" in str(distrust(*look(pdf)))


def test_a_pile_of_words_is_judged_in_linear_time() -> None:
    common = "the and that this with from have were been which".split()  # noqa: SIM905 - words
    whole = (0.0, 0.0, 595.0, 842.0)
    image = PageImage(pixels=np.zeros((3000, 2000, 3), dtype=np.uint8), width_pt=595, height_pt=842)

    def judge(size: int, words: Callable[[int], LayerWord]) -> None:
        layer = TextLayerWords(
            width_pt=595, height_pt=842, words=tuple(map(words, range(size))), pictures=(whole,) * size
        )
        assert "overlap each other" in str(distrust(layer, image))

    assert_grows_linearly(lambda size: judge(size, lambda n: LayerWord(common[n % 10], whole, n, 0)), 20_000)
    # And when the lines are what is large
    corners = (0.0, 0.0, 1.0, 1.0), (594.0, 841.0, 595.0, 842.0)
    assert_grows_linearly(
        lambda size: judge(size, lambda n: LayerWord(common[n % 10], corners[n % 2], n // 2, 0)), 20_000
    )


def test_white_text_on_white_is_seen_through(look: Look) -> None:
    pdf = pymupdf.open()
    page = pdf.new_page(width=A4.width, height=A4.height)
    write(page, color=(1, 1, 1))
    page.draw_rect((100, 600, 200, 700), fill=(0, 0, 0))
    assert "no ink" in str(distrust(*look(pdf)))


def test_text_drawn_as_curves_beside_real_text_is_missed(look: Look) -> None:
    # Given a page half of which is a picture of text
    with printed(OTHER) as pdf:
        picture = pdf[0].get_pixmap(dpi=200, clip=(60, 60, 535, 330)).tobytes("png")
    pdf = printed()
    pdf[0].insert_image((60, 400, 535, 670), stream=picture)
    assert "print" in str(distrust(*look(pdf)))


def test_a_scan_without_text_and_a_page_with_a_few_words_are_not_trusted(look: Look) -> None:
    assert distrust(*look(scanned())) == "the page has no text layer"
    few = pymupdf.open()
    few.new_page().insert_text((72, 72), "Plate XII")
    assert distrust(*look(few)) is not None


def test_scripts_without_spaces_are_left_to_the_engine(look: Look) -> None:
    pdf = pymupdf.open()
    page = pdf.new_page()
    page.insert_textbox((72, 72, 523, 500), "吾輩は猫である。名前はまだ無い。" * 20, fontname="japan", fontsize=11)
    assert "without spaces" in str(distrust(*look(pdf)))


def test_an_image_file_has_no_layer(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.new("RGB", (100, 100), "white").save(path)
    with path.open("rb") as file:
        layer = asyncio.run(pool.layer("scan", file.fileno(), Kind.PNG, 0, deadline=scaled(30)))
    assert layer.words == ()


# --- hostile and damaged files


def drawn(content: bytes) -> Any:
    """Return a written page with `content` drawn after its text."""
    pdf = printed()
    stream = pdf.get_new_xref()
    pdf.update_object(stream, "<<>>")
    pdf.update_stream(stream, content)
    before = " ".join(f"{xref} 0 R" for xref in pdf[0].get_contents())
    pdf.xref_set_key(pdf[0].xref, "Contents", f"[{before} {stream} 0 R]")
    return pdf


def test_a_layer_larger_than_a_response_is_not_trusted(look: Look) -> None:
    layer, image = look(drawn(b"BT /helv 11 Tf 72 700 Td " + b"(more words ) Tj 0 0 Td " * 40_000 + b"ET"))
    assert not layer.whole
    assert "far too large" in str(distrust(layer, image))


@pytest.mark.parametrize(
    "matrix",
    [
        b"1 0 0 1 1e38 1e38",
        b"1e38 0 0 1e38 72 72",
        b"1e30 1e30 -1e30 1e30 0 0",
        b"0 0 0 0 72 72",
        b"nan 0 0 inf 72 72",
        b"1 0 0 1 -99999999999999999999999999999999999999999999 72",
    ],
)
def test_impossible_places_are_no_places(look: Look, matrix: bytes) -> None:
    layer, image = look(drawn(b"BT /helv 11 Tf " + matrix + b" Tm (huge) Tj ET"))
    for word in layer.words:
        x0, y0, x1, y1 = word.box
        assert 0 <= x0 <= x1 <= 595
        assert 0 <= y0 <= y1 <= 842
    distrust(layer, image)
    reading(layer, image)


def test_a_layer_has_the_errors_of_rendering(pool: RenderPool, tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    with printed() as pdf:
        pdf.save(path, encryption=5, user_pw="secret")  # AES-256
    with path.open("rb") as file:
        page = "locked", file.fileno(), Kind.PDF
        with pytest.raises(PermanentError) as caught:
            asyncio.run(pool.layer(*page, 0, deadline=scaled(30)))
        assert caught.value.reason is Reason.NEEDS_PASSWORD
        with pytest.raises(PermanentError) as caught:
            asyncio.run(pool.layer(*page, 7, passwords=["secret"], deadline=scaled(30)))
        assert caught.value.reason is Reason.NO_SUCH_PAGES
        assert asyncio.run(pool.layer(*page, 0, passwords=["secret"], deadline=scaled(30))).words


# --- answers of the sandbox are not trusted

ANSWER = {
    "width_pt": 100.0,
    "height_pt": 200.0,
    "words": [["word", [1.0, 2.0, 30.0, 12.0], 0, 0, 10.0, True]],
    "pictures": [[0.0, 0.0, 100.0, 200.0]],
    "whole": True,
}


def test_a_valid_response_becomes_a_layer() -> None:
    assert layer_of(ANSWER) == TextLayerWords(
        width_pt=100,
        height_pt=200,
        words=(LayerWord("word", (1, 2, 30, 12), 0, 0, 10.0, bold=True),),
        pictures=((0, 0, 100, 200),),
        whole=True,
    )


@pytest.mark.parametrize(
    "lie",
    [
        {"width_pt": float("nan")},
        {"height_pt": float("inf")},
        {"width_pt": 0.0},
        {"words": None},
        {"words": [["word", [float("nan"), 2.0, 30.0, 12.0], 0, 0]]},
        {"words": [["word", [1.0, 2.0, 1e300, 12.0], 0, 0]]},
        {"words": [["word", [-1.0, 2.0, 3.0, 12.0], 0, 0]]},
        {"words": [["word", [30.0, 2.0, 1.0, 12.0], 0, 0]]},
        {"words": [["word", [1.0, 2.0, 30.0], 0, 0]]},
        {"words": [["", [1.0, 2.0, 30.0, 12.0], 0, 0]]},
        {"words": [[7, [1.0, 2.0, 30.0, 12.0], 0, 0]]},
        {"words": [["word", [1.0, 2.0, 30.0, 12.0], 0.5, 0]]},
        {"words": ["word"]},
        {"pictures": [[0.0, 0.0, 100.0, 1e9]]},
        {"whole": 1},
    ],
)
def test_a_wrong_response_about_text_is_a_fault(lie: dict[str, Any]) -> None:
    with pytest.raises(PageFaultError) as caught:
        layer_of(ANSWER | lie)
    assert caught.value.reason is Reason.RENDER_CRASHED


numbers = st.floats() | st.integers() | st.booleans() | st.none()
anything = st.recursive(
    numbers | st.text(max_size=5), lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner)
)
coordinates = st.floats(-1, 201) | numbers
boxes = st.lists(coordinates, min_size=4, max_size=4) | anything
words = st.tuples(st.text(max_size=5), boxes, st.integers(), st.integers()).map(list) | anything


@given(
    st.fixed_dictionaries(
        {
            "width_pt": st.just(100.0) | anything,
            "height_pt": st.just(200.0) | anything,
            "words": st.lists(words, max_size=3) | anything,
            "pictures": st.lists(boxes, max_size=3) | anything,
            "whole": st.booleans() | anything,
        }
    )
)
def test_any_response_is_a_layer_on_its_page_or_a_fault(answer: dict[str, Any]) -> None:
    try:
        layer = layer_of(answer)
    except PageFaultError:
        return
    for x0, y0, x1, y1 in [*(word.box for word in layer.words), *layer.pictures]:
        assert 0 <= x0 <= x1 <= layer.width_pt + 0.01
        assert 0 <= y0 <= y1 <= layer.height_pt + 0.01
    for word in layer.words:
        word.text.encode()


places = st.tuples(st.floats(0, 100), st.floats(0, 200), st.floats(0, 100), st.floats(0, 200)).map(
    lambda box: (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
)
spelt = st.sampled_from(["the", "and", "this", "that", "with", "from", "x", "\x00", "猫", "\ufffd"]) | st.text(
    min_size=1
)


@given(
    layer=st.builds(
        TextLayerWords,
        width_pt=st.just(100.0),
        height_pt=st.just(200.0),
        words=st.lists(st.builds(LayerWord, spelt, places, st.integers(0, 2), st.integers(0, 2)), max_size=8).map(
            tuple
        ),
        pictures=st.lists(places, max_size=2).map(tuple),
        whole=st.booleans(),
    ),
    shape=st.sampled_from([(1, 1), (3, 7), (4, 4), (20, 10), (200, 100)]),
    grey=st.sampled_from([0, 255, None]),
)
@settings(deadline=None)
def test_any_layer_is_judged_and_read(layer: TextLayerWords, shape: tuple[int, int], grey: int | None) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    pixels = noise if grey is None else np.full_like(noise, grey)
    image = PageImage(pixels=pixels, width_pt=100, height_pt=200)
    why = distrust(layer, image)
    assert why is None or (why and "\n" not in why)
    text, lines = reading(layer, image)
    assert "\n\n\n" not in text
    for line in lines:
        assert 0 <= line.box[0] <= line.box[2] <= shape[1] + 1
