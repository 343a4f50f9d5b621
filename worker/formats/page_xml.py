"""PAGE-XML 2019-07-15, one file a page, for OCR-D, Transkribus and eScriptorium (https://github.com/PRImA-Research-Lab/PAGE-XML)."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ocrfleet.records.documents import Manifest
from ocrfleet.records.pages import PageResult, PageStatus, Placed, Role, Word
from worker.formats.page_files import PageFilesWriter
from worker.formats.page_layout import Box, TextBlock, TextLine, page_layout
from worker.formats.source_names import page_source, source_name
from worker.formats.xml_text import attributes, xml

if TYPE_CHECKING:
    from collections.abc import Iterator


NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
#: The type of a text region, by the role of its block.
_TYPES = {
    Role.TITLE: "heading",
    Role.HEADING: "heading",
    Role.TEXT: "paragraph",
    Role.LIST: "paragraph",
    Role.CAPTION: "caption",
    Role.FOOTNOTE: "footnote",
    Role.HEADER: "header",
    Role.FOOTER: "footer",
    Role.PAGE_NUMBER: "page-number",
}
#: Regions that are no text, and may hold a text region.
_REGIONS = {Role.TABLE: "TableRegion", Role.FIGURE: "ImageRegion", Role.FORMULA: "MathsRegion"}
#: Letters that reach below the base line.
_DESCENDING = frozenset("gjpqy\u017f,;()[]{}/|\u00e7\u00a7\u201e$&@")


class PageXmlWriter(PageFilesWriter):
    """Writes one document to a zip file with a PAGE file for each page."""

    def file(self, result: PageResult, manifest: Manifest) -> bytes:
        return "".join(_file(result, manifest)).encode()


def _file(result: PageResult, manifest: Manifest) -> Iterator[str]:
    source, number = page_source(manifest, result.page)
    made = _time(manifest.created)
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<PcGts xmlns="{NAMESPACE}"'
    yield ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    yield f' xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/pagecontent.xsd"'
    yield f' pcGtsId="d{manifest.document}_{result.page}">\n<Metadata>'
    yield f"<Creator>ocrfleet</Creator><Created>{made}</Created><LastChange>{made}</LastChange>"
    if result.status is PageStatus.FAILED:
        reason = f"failed: {result.reason}: {result.detail or ''}"
        yield f"<Comments>{xml(reason)}</Comments>"
    yield '<MetadataItem type="processingStep"'
    yield f"{attributes(name='recognition', value=result.engine)}>"
    yield f"<Labels>{_label('model', result.model)}{_label('revision', result.revision)}"
    yield f"{_label('profile', result.profile)}{_label('version', result.engine_version or '')}"
    yield f"{_label('image', f'sha256:{source.sha256}')}{_label('page', str(number))}</Labels></MetadataItem>"
    yield "</Metadata>\n<Page"
    yield attributes(imageFilename=source_name(source))
    yield f' imageWidth="{result.width_px or 0}" imageHeight="{result.height_px or 0}">\n'
    blocks = page_layout(result)
    if blocks:
        references = (f'<RegionRefIndexed index="{index}" regionRef="r{index + 1}"/>' for index in range(len(blocks)))
        yield f'<ReadingOrder><OrderedGroup id="order">{"".join(references)}</OrderedGroup></ReadingOrder>\n'
    for index, block in enumerate(blocks, 1):
        yield from _region(block, f"r{index}")
    yield "</Page>\n</PcGts>\n"


def _time(moment: str) -> str:
    """Return a stored time (20261122T051000.123456Z) as XML has it."""
    return f"{moment[:4]}-{moment[4:6]}-{moment[6:11]}:{moment[11:13]}:{moment[13:15]}Z"


def _label(kind: str, value: str) -> str:
    return f"<Label{attributes(type=kind, value=value)}/>" if value else ""


def _region(block: TextBlock, identifier: str) -> Iterator[str]:
    kind = _REGIONS.get(block.role)
    if kind is None:
        yield from _text_region(block, identifier)
        return
    yield f'<{kind} id="{identifier}">{_coordinates(block.box)}'
    if block.lines:
        yield from _text_region(block, f"{identifier}_text")
    yield f"</{kind}>\n"


def _text_region(block: TextBlock, identifier: str) -> Iterator[str]:
    yield f'<TextRegion id="{identifier}" type="{_TYPES.get(block.role, "other")}">{_coordinates(block.box)}\n'
    for index, line in enumerate(block.lines, 1):
        yield from _line(line, f"{identifier}_l{index}")
    if block.lines:
        yield _text("\n".join(line.text for line in block.lines), None)
    yield "</TextRegion>\n"


def _line(line: TextLine, identifier: str) -> Iterator[str]:
    yield f'<TextLine id="{identifier}">{_coordinates(line.box)}'
    base = _baseline(line)
    if base:
        yield f'<Baseline points="{base}"/>'
    for index, word in enumerate(line.words, 1):
        placed = "" if word.placed is Placed.DETECTED else f' custom="placed {{type:{word.placed};}}"'
        yield f'<Word id="{identifier}_w{index}"{placed}>{_coordinates(word.box)}{_text(word.text, word.confidence)}</Word>'
    yield f"{_text(line.text, line.confidence)}</TextLine>\n"


def _baseline(line: TextLine) -> str:
    """Return the line that the letters stand on, from the feet of the words that have no letter below it.

    No engine here tells it. A line that runs down the page, and one whose words were not seen, have none.
    """
    x0, y0, x1, y1 = line.box
    words = sorted(line.words, key=lambda word: word.box[0])
    if any(word.placed is Placed.BLOCK for word in words) or (y1 - y0 > x1 - x0 and len(line.text) > 1):
        return ""
    standing = [word for word in words if not _DESCENDING & set(word.text)] or words
    first, last = _foot(standing[: len(standing) // 2 + 1]), _foot(standing[len(standing) // 2 :])
    return f"{_whole(x0)},{_whole(first)} {_whole(x1)},{_whole(last)}"


def _foot(words: list[Word]) -> float:
    return median(word.box[3] for word in words)


def _coordinates(box: Box) -> str:
    x0, y0, x1, y1 = map(_whole, box)
    return f'<Coords points="{x0},{y0} {x1},{y0} {x1},{y1} {x0},{y1}"/>'


def _whole(value: float) -> int:
    return max(round(value), 0)


def _text(text: str, confidence: float | None) -> str:
    sure = "" if confidence is None else f' conf="{min(max(confidence, 0.0), 1.0):.4g}"'
    return f"<TextEquiv{sure}><Unicode>{xml(text)}</Unicode></TextEquiv>"
