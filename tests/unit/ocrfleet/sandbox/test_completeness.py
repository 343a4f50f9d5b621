"""The missing share of a truncated image is measured, for each compression."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from ocrfleet.sandbox.completeness import (
    ended_jpeg2000,
    missing_of_bmp,
    missing_of_jpeg,
    missing_of_jpeg2000,
    missing_of_png,
    went_through_text_transfer,
)


def encoded(image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((640, 800), 60)
    noise.convert(options.pop("mode", "L")).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize(
    "options", [{}, {"mode": "RGB"}, {"restart_marker_rows": 1}, {"mode": "RGB", "subsampling": 2}]
)
def test_the_missing_share_of_a_jpeg_is_the_part_cut_off(options: Any, share: float) -> None:
    data = encoded("JPEG", **options)
    assert missing_of_jpeg(data[: int(len(data) * share)]) == pytest.approx(1 - share, abs=0.05)


@pytest.mark.parametrize("options", [{}, {"mode": "RGB"}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_marker_is_complete(options: Any) -> None:
    data = encoded("JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    assert missing_of_jpeg(data) == missing_of_jpeg(data[:-2]) == missing_of_jpeg(data + b"behind it") == 0


def test_a_progressive_jpeg_is_incomplete_only_without_the_details_of_letters() -> None:
    data = encoded("JPEG", progressive=True, mode="RGB")
    assert missing_of_jpeg(data[: len(data) // 10]) > 0.9
    assert missing_of_jpeg(data[: len(data) * 95 // 100]) == 0


@pytest.mark.parametrize(
    ("image_format", "missing"), [("PNG", missing_of_png), ("BMP", missing_of_bmp), ("JPEG2000", missing_of_jpeg2000)]
)
def test_the_missing_share_of_other_formats(image_format: str, missing: Any) -> None:
    data = encoded(image_format)
    assert missing(data) == 0
    for share in (0.2, 0.7, 0.95):
        assert missing(data[: int(len(data) * share)]) == pytest.approx(1 - share, abs=0.02)
    assert missing(data[:20]) == 1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.9999])
def test_a_torn_jpeg2000_is_decoded_once_it_has_an_end(share: float) -> None:
    data = encoded("JPEG2000", quality_mode="rates", quality_layers=[8])
    ended = ended_jpeg2000(data[: int(len(data) * share)])
    assert ended is not None
    image = Image.open(io.BytesIO(ended))
    image.load()
    assert image.size == (640, 800)


@pytest.mark.parametrize("quality", [20, 80])
@pytest.mark.parametrize("ends", [(b"\n", b"\r\n"), (b"\r", b"\n"), (b"\n", b"\r"), (b"\r", b"")])
def test_a_text_transfer_is_noticed(quality: int, ends: tuple[bytes, bytes]) -> None:
    data = encoded("JPEG", quality=quality)
    assert not went_through_text_transfer(data)
    assert went_through_text_transfer(data.replace(*ends))


@pytest.mark.parametrize("grey", range(0, 256, 51))
def test_an_empty_page_did_not_go_through_a_text_transfer(grey: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 4000), (grey, grey // 2, 77)).save(buffer, "JPEG")
    assert not went_through_text_transfer(buffer.getvalue())
