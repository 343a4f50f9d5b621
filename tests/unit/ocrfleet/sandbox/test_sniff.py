"""A PDF is distinguished from a text that mentions one, with anything before its header."""

from __future__ import annotations

import pytest

from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff

BODY = b"\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"


@pytest.mark.parametrize(
    "head",
    [
        b"%PDF-1.7" + BODY,
        b"%PDF-",
        b"\xef\xbb\xbf%PDF-1.4" + BODY,
        b"\r\n  %PDF-1.4" + BODY,
        b"%!PS-Adobe-3.0 PDF-1.7" + BODY,
        b"%!PS-Adobe-2.0 PDF-1.4\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n%PDF-1.5" + BODY,
        b"\x1b%-12345X@PJL ENTER LANGUAGE=PDF\n" + b"@PJL\n" * 20 + b"%PDF-1.3\n1 0 obj\n",
        b"junk\x00" * 100 + b"%PDF-1.4",
    ],
)
def test_a_pdf_is_recognised_with_anything_before_its_header(head: bytes) -> None:
    assert sniff(head[:SNIFF_BYTES]) is Kind.PDF


@pytest.mark.parametrize(
    "head",
    [
        b"From: A <a@example.org>\nSubject: broken file\n\nThe file begins with %PDF-1.4, but Acrobat says it is damaged.\n",
        b"# README\n\nEvery PDF begins with\n\n    %PDF-1.7\n\nand ends with %%EOF.\n",
        b"grep -a '%PDF-' *.bin\n",
        b"%!PS-Adobe-3.0\n%%Title: a letter\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_a_text_that_mentions_a_pdf_is_none(head: bytes) -> None:
    assert sniff(head[:SNIFF_BYTES]) is None
