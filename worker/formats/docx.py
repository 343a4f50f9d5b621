"""DOCX: headings, paragraphs, lists, tables and figures in Word's own styles; a new page for each page of the document.

python-docx makes the elements and the parts around them. It keeps a whole document in memory, so each page's elements are
written away when they are made, and the package is put together at the end: its parts are those of an empty document, but
for the text, its pictures, and the list of those.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

import PIL.Image
from docx import Document
from docx.opc.oxml import serialize_part_xml
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import nsdecls, qn
from docx.oxml.shape import CT_Inline
from docx.shared import Emu, Pt

from ocrfleet import keys
from ocrfleet.errors import NotFoundError
from worker.formats.archive import Archive
from worker.formats.content import Figure, content, notice, problem_notice, visible
from worker.formats.elements import Code, Formula, Heading, Item, Paragraph, Quote, Rule, Table
from worker.formats.inline import plain
from worker.formats.table_grid import Slot, grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docx.text.paragraph import Paragraph as DocxParagraph

    from ocrfleet.records.documents import DocumentStatus, Manifest
    from ocrfleet.records.pages import PageResult
    from worker.formats.elements import Element
    from worker.formats.materials import Materials

_BODY, _RELATIONS, _TYPES = "word/document.xml", "word/_rels/document.xml.rels", "[Content_Types].xml"
_IMAGE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"
#: Length units (EMU) of an inch, and of the text's width and height on the template's page, less a caption's height.
_INCH = 914400
#: Length units of a twentieth of a point, in which tables are measured.
_TWENTIETH = 635
_WIDTH, _HEIGHT = 6 * _INCH, 8 * _INCH
#: Pixels of a figure that make an inch: of a page at the usual 200 dots an inch, its size on paper.
_DOTS = 200
#: Word allows 63 columns in a table.
_MOST_COLUMNS = 63
_DEEPEST_LIST = 3


class DocxWriter:
    """Writes one document to a stream: its pictures as they come, the text at the end."""

    def __init__(self, out: BinaryIO, materials: Materials) -> None:
        self._archive = Archive(out)
        self._store = materials.store
        self._document = ""
        self._page = Document()
        self._page.styles["Normal"].font.size = Pt(11)
        self._end_of_body = self._page.element.body.sectPr
        self._text = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end
        self._relations = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end
        self._pictures = 0
        self._first = True

    def begin(self, manifest: Manifest, _status: DocumentStatus) -> None:
        self._document = manifest.document
        properties = self._page.core_properties
        properties.title = f"Document {manifest.document}"
        properties.author = properties.last_modified_by = "ocrfleet"
        properties.comments = ""
        if manifest.problem is not None:
            self._add(problem_notice(manifest.problem), "IntenseQuote")
            self._write_away()

    def page(self, result: PageResult) -> None:
        marker = self._page.add_paragraph()
        marker.paragraph_format.page_break_before = not self._first
        marker.paragraph_format.space_after = Pt(0)
        self._first = False
        _bookmark(marker, result.page)
        if words := notice(result):
            self._add(words, "IntenseQuote")
        for part in content(result):
            if isinstance(part, Figure):
                self._figure(part)
            else:
                self._element(part)
        self._write_away()

    def end(self) -> None:
        empty = io.BytesIO()
        self._page.save(empty)
        with zipfile.ZipFile(empty) as package:
            for name in package.namelist():
                data = package.read(name)
                match name:
                    case _ if name == _BODY:
                        self._write_body(data)
                    case _ if name == _RELATIONS:
                        self._write_relations(data)
                    case _ if name == _TYPES:
                        default = b'<Default Extension="jpg" ContentType="image/jpeg"/>'
                        self._archive.write(name, data.replace(b"<Default ", default + b"<Default ", 1))
                    case _:
                        self._archive.write(name, data)
        self._archive.close()
        self._text.close()
        self._relations.close()

    def _element(self, element: Element) -> None:
        match element:
            case Heading(level, text):
                self._add(_clean(text), f"Heading{level}")
            case Paragraph(lines):
                self._add(_joined(lines))
            case Quote(lines):
                self._add(_joined(lines), "Quote")
            case Item(indent, marker, lines):
                # Numbers are written as they were read: Word would count by itself, through the whole document.
                sign = marker if marker[0].isdigit() else "•"
                depth = min(indent // 2 + 1, _DEEPEST_LIST)
                self._add(f"{sign}\t{_joined(lines)}", f"List{depth}" if depth > 1 else "List")
            case Code(_, lines):
                self._add(visible("\n".join(lines)), "MacroText")
            case Formula(tex):
                self._add(visible(tex), "MacroText")
            case Rule():
                self._add("⁂")
            case Table():
                self._table(element)

    def _add(self, text: str, style: str | None = None) -> DocxParagraph:
        """Add a paragraph in a style, by its id: python-docx would search for its name each time."""
        paragraph = self._page.add_paragraph(text)
        if style is not None:
            paragraph._p.style = style  # noqa: SLF001 - the name in its place takes 4 ms
        return paragraph

    def _table(self, table: Table) -> None:
        if table.caption:
            self._add(_clean(table.caption), "Caption")
        rows = grid(table)
        if not rows or sum(slot.columns for slot in rows[0]) > _MOST_COLUMNS:
            self._add(visible(table.plain()), "MacroText")
            return
        self._end_of_body.addprevious(parse_xml("".join(_table_xml(rows))))
        self._add("")  # two tables without anything between them would be one

    def _figure(self, figure: Figure) -> None:
        try:
            data = self._store.get(keys.figure(self._document, figure.name))
        except NotFoundError:  # removed by hand
            self._add("A figure is missing.", "IntenseQuote")
            return
        with PIL.Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            width, height = picture.size
        self._pictures += 1
        name = f"picture{self._pictures:06d}.jpg"
        relation = f"rIdPicture{self._pictures}"
        self._archive.write(f"word/media/{name}", data, compress=False)
        self._relations.write(f'<Relationship Id="{relation}" Type="{_IMAGE}" Target="media/{name}"/>'.encode())
        scale = min(_INCH / _DOTS, _WIDTH / width, _HEIGHT / height)
        size = Emu(round(width * scale)), Emu(round(height * scale))
        inline = CT_Inline.new_pic_inline(self._pictures, relation, name, *size)
        inline.docPr.set("descr", visible(figure.caption) or "Figure")
        self._page.add_paragraph().add_run()._r.add_drawing(inline)  # noqa: SLF001 - add_picture would keep the picture

    def _write_away(self) -> None:
        """Write the page's elements to the text, and remove them."""
        body = self._page.element.body
        # As a part of the body: alone, each element would repeat all of its namespaces.
        data = serialize_part_xml(body)
        begin = data.index(b">", data.index(b"<w:body")) + 1
        self._text.write(data[begin : data.rindex(b"<w:sectPr")])
        for child in list(body):
            if child is not self._end_of_body:
                body.remove(child)

    def _write_body(self, empty: bytes) -> None:
        head, end_of_body, tail = empty.partition(b"<w:sectPr")
        self._text.seek(0)
        with self._archive.opened(_BODY) as out:
            out.write(head)
            shutil.copyfileobj(self._text, out, 1 << 20)
            out.write(end_of_body + tail)

    def _write_relations(self, empty: bytes) -> None:
        head, end, tail = empty.rpartition(b"</Relationships>")
        self._relations.seek(0)
        with self._archive.opened(_RELATIONS) as out:
            out.write(head)
            shutil.copyfileobj(self._relations, out, 1 << 20)
            out.write(end + tail)


def _bookmark(paragraph: DocxParagraph, page: int) -> None:
    """Mark the beginning of a page, so that links can lead there."""
    start, end = OxmlElement("w:bookmarkStart"), OxmlElement("w:bookmarkEnd")
    for mark in (start, end):
        mark.set(qn("w:id"), str(page))
    start.set(qn("w:name"), f"page_{page}")
    paragraph._p.extend((start, end))  # noqa: SLF001 - python-docx has no bookmarks


def _table_xml(rows: list[list[Slot]]) -> Iterator[str]:
    """Yield a table with lines around its cells."""
    columns = sum(slot.columns for slot in rows[0])
    width = _WIDTH // _TWENTIETH // columns
    yield f'<w:tbl {nsdecls("w")}><w:tblPr><w:tblStyle w:val="TableGrid"/><w:tblW w:w="0" w:type="auto"/></w:tblPr>'
    yield f'<w:tblGrid>{f"""<w:gridCol w:w="{width}"/>""" * columns}</w:tblGrid>'
    for row in rows:
        yield "<w:tr>"
        for slot in row:
            yield f'<w:tc><w:tcPr><w:tcW w:w="{width * slot.columns}" w:type="dxa"/>'
            if slot.columns > 1:
                yield f'<w:gridSpan w:val="{slot.columns}"/>'
            if slot.cell is None:
                yield "<w:vMerge/>"
            elif slot.cell.rows > 1:
                yield '<w:vMerge w:val="restart"/>'
            yield "</w:tcPr>"
            yield from _cell_xml(slot)
            yield "</w:tc>"
        yield "</w:tr>"
    yield "</w:tbl>"


def _cell_xml(slot: Slot) -> Iterator[str]:
    if slot.cell is None or not slot.cell.text:
        yield "<w:p/>"
        return
    bold = "<w:rPr><w:b/></w:rPr>" if slot.cell.heading else ""
    for line in slot.cell.text.split("\n"):
        yield f'<w:p><w:r>{bold}<w:t xml:space="preserve">{escape(visible(line))}</w:t></w:r></w:p>'


def _clean(text: str) -> str:
    return visible(plain(text))


def _joined(lines: tuple[str, ...]) -> str:
    """Return a paragraph's lines; a line feed becomes a line break."""
    return _clean("\n".join(lines))
