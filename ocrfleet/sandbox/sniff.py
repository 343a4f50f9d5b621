"""Recognises the format of a file by its first bytes, never by its name."""

from __future__ import annotations

import re

from ocrfleet.records.documents import Kind

#: Bytes for `sniff`: readers accept a PDF whose header is anywhere in the first 1,024 (PDF 1.7, appendix H), and the bytes after
#: it distinguish a PDF from a text that mentions one.
SNIFF_BYTES = 2048
_HEADER_WITHIN = 1024

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
#: Many texts begin with "BM": the size of the header after it identifies a bitmap.
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
#: Byte order marks, spaces and line ends may precede a header; old programs write PostScript's before the PDF's.
_PDF_HEADER = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\x00\s]*%(?:!PS-Adobe-\d(?:\.\d+)? )?PDF-")
_PDF_INSIDE = re.compile(rb"^[ \t]*%(?:!PS-Adobe-\d(?:\.\d+)? )?PDF-\d", re.MULTILINE)
#: What follows a PDF's header: its first object, or four bytes that no text has.
_PDF_BODY = re.compile(rb"\d+\s+\d+\s+obj\b|%[ \t]*[\x80-\xff]{2}")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def sniff(head: bytes) -> Kind | None:
    """Return the kind of a file by its first SNIFF_BYTES bytes; None for unsupported formats."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return Kind.BMP
    return Kind.PDF if _is_pdf(head) else None


def _is_pdf(head: bytes) -> bool:
    """Distinguish a PDF, with anything before its header, from a text (a mail, a manual) that mentions the header."""
    if _PDF_HEADER.match(head, 0, _HEADER_WITHIN):
        return True
    at = head.find(b"%PDF-", 0, _HEADER_WITHIN)
    if at < 0:
        return False
    if _CONTROL.search(head, 0, at):
        return True
    header = _PDF_INSIDE.search(head, 0, _HEADER_WITHIN + 8)
    return header is not None and _PDF_BODY.search(head, header.end()) is not None
