"""The font of invisible text: one empty glyph of half an em, and the mapping of its codes to characters.

The glyph is a line of zero width from corner to corner of its box: PDFium omits rotated text with glyphs that have no box.
Codes are assigned to characters at first use, so any Unicode character can have one. ToUnicode maps codes to characters.
"""

from __future__ import annotations

import struct

from worker.formats.pdf.file import PdfFile

#: Advance of each glyph, ascent and descent, in thousandths of the font size. Ascent plus descent is 1,000, so that the selection
#: box of a text in viewers is as high as the font size.
ADVANCE, ASCENT, DESCENT = 500, 800, -200
_EM = 1000
_NAME = b"OcrfleetGlyphless"
#: Maximum number of codes of a font, and of entries in a block of a CMap (Adobe Technical Note 5411).
_MOST_CODES, _BLOCK = 0xFFFF, 100

_CMAP_HEAD = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
"""
_CMAP_TAIL = b"endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"


class GlyphlessFont:
    """Assigns codes to characters; written to the file after all text is known."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encoded(self, text: str) -> bytes:
        """Return the codes of a text as a hexadecimal PDF string. Characters beyond the maximum number of codes become spaces."""
        codes = self._codes
        for character in text:
            if character not in codes and len(codes) < _MOST_CODES:
                codes[character] = len(codes) + 1
        space = codes.get(" ", 1)
        return b"<%b>" % "".join(f"{codes.get(character, space):04X}" for character in text).encode("ascii")

    def write(self, file: PdfFile, number: int) -> None:
        """Write the font as the object `number`, with its dependent objects."""
        program = font_program()
        embedded = file.compressed(b"/Length1 %d" % len(program), program)
        descriptor = file.add(
            b"<</Type/FontDescriptor/FontName/%b/Flags 4/FontBBox[0 %d %d %d]/ItalicAngle 0/Ascent %d/Descent %d"
            b"/CapHeight %d/StemV 80/FontFile2 %d 0 R>>"
            % (_NAME, DESCENT, ADVANCE, ASCENT, ASCENT, DESCENT, ASCENT, embedded)
        )
        # Every code maps to the second glyph: the first one is .notdef, which PDF/A forbids in text.
        glyphs = file.compressed(b"", struct.pack(">H", 1) * (len(self._codes) + 1))
        descendant = file.add(
            b"<</Type/Font/Subtype/CIDFontType2/BaseFont/%b/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)"
            b"/Supplement 0>>/FontDescriptor %d 0 R/DW %d/CIDToGIDMap %d 0 R>>" % (_NAME, descriptor, ADVANCE, glyphs)
        )
        meaning = file.compressed(b"", self._cmap())
        file.add(
            b"<</Type/Font/Subtype/Type0/BaseFont/%b/Encoding/Identity-H/DescendantFonts[%d 0 R]/ToUnicode %d 0 R>>"
            % (_NAME, descendant, meaning),
            number,
        )

    def _cmap(self) -> bytes:
        entries = [
            b"<%04X> <%b>\n" % (code, character.encode("utf-16-be").hex().upper().encode("ascii"))
            for character, code in self._codes.items()
        ]
        blocks = [entries[at : at + _BLOCK] for at in range(0, len(entries), _BLOCK)]
        body = b"".join(b"%d beginbfchar\n%bendbfchar\n" % (len(block), b"".join(block)) for block in blocks)
        return _CMAP_HEAD + body + _CMAP_TAIL


def font_program() -> bytes:
    """Return a TrueType font of an empty glyph and that line, with the tables that ISO 32000-1, 9.9 requires."""
    box = (0, DESCENT, ADVANCE, ASCENT)
    # A contour of two points: its box, the number of its last point, no instructions, two flags, steps in x, steps in y.
    line = struct.pack(">hhhhhHHBBhhhh", 1, *box, 1, 0, 1, 1, 0, ADVANCE, DESCENT, ASCENT - DESCENT)
    tables = {
        b"glyf": line,
        # Version, revision, checksum (set below), magic number, flags, em, two dates, box, style, smallest size, direction, formats.
        b"head": struct.pack(">IIIIHHqqhhhhHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, _EM, 0, 0, *box, 0, 8, 2, 0, 0),
        b"hhea": struct.pack(
            ">IhhhHhhhhhhhhhhhH", 0x10000, ASCENT, DESCENT, 0, ADVANCE, 0, 0, ADVANCE, 1, 0, 0, 0, 0, 0, 0, 0, 2
        ),
        b"hmtx": struct.pack(">HhHh", ADVANCE, 0, ADVANCE, 0),
        b"loca": struct.pack(">HHH", 0, 0, len(line) // 2),
        b"maxp": struct.pack(">IHHHHHHHHHHHHHH", 0x10000, 2, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    # Search range, entry selector and range shift for this number of tables.
    header = struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, len(tables) * 16 - 64)
    at = len(header) + 16 * len(tables)
    directory, body, head_at = b"", b"", 0
    for tag, data in tables.items():
        if tag == b"head":
            head_at = at
        padded = data + bytes(-len(data) % 4)
        directory += tag + struct.pack(">III", _checksum(padded), at, len(data))
        body += padded
        at += len(padded)
    font = bytearray(header + directory + body)
    struct.pack_into(">I", font, head_at + 8, (0xB1B0AFBA - _checksum(bytes(font))) & 0xFFFFFFFF)
    return bytes(font)


def _checksum(data: bytes) -> int:
    return sum(int(number) for (number,) in struct.iter_unpack(">I", data)) & 0xFFFFFFFF
