"""ALTO 4.4, one file a page: blocks, lines and words with their places and confidences (https://www.loc.gov/standards/alto/)."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ocrfleet.records.documents import Manifest
from ocrfleet.records.pages import PageResult, PageStatus, Placed, Role, Word
from worker.formats.hyphens import divided
from worker.formats.page_files import PageFilesWriter
from worker.formats.page_layout import Box, TextBlock, TextLine, around, page_layout
from worker.formats.source_names import page_source, source_name
from worker.formats.xml_text import attributes, xml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
_SCHEMA = "http://www.loc.gov/standards/alto/v4/alto-4-4.xsd"
#: Blocks that hold others: a table's rows are lines of a text block in it.
_COMPOSED = frozenset({Role.TABLE, Role.FIGURE, Role.FORMULA})
#: How a word got its place, where it was not seen there: the tag of the word.
_PLACED = {
    Placed.INTERPOLATED: "Its place is computed from its neighbours, or from its line.",
    Placed.BLOCK: "It stands somewhere in its block.",
}
#: A word that was seen in its place, with a confidence.
_STRING = '<String CONTENT="%s" HPOS="%g" VPOS="%g" WIDTH="%.5g" HEIGHT="%.5g" WC="%.4g"/>'


class AltoWriter(PageFilesWriter):
    """Writes one document to a zip file with an ALTO file for each page."""

    def file(self, result: PageResult, manifest: Manifest) -> bytes:
        return alto(result, manifest)


def alto(result: PageResult, manifest: Manifest) -> bytes:
    """Return the ALTO file of a page. A page that failed has what text there is, and says that it failed."""
    return "".join(_Page(result, manifest).file()).encode()


class _Page:
    def __init__(self, result: PageResult, manifest: Manifest) -> None:
        self._result = result
        self._manifest = manifest
        self._blocks = page_layout(result)
        words = [word for block in self._blocks for line in block.lines for word in line.words]
        #: how words got their places that were not seen there
        self._placed = {word.placed for word in words if word.placed is not Placed.DETECTED}
        self._confidences = [word.confidence for word in words if word.confidence is not None]
        self._points = (result.height_pt or 0.0) / (result.height_px or 1)
        self._sizes = [self._size(block) for block in self._blocks]

    def file(self) -> Iterator[str]:
        yield f'<?xml version="1.0" encoding="UTF-8"?>\n<alto xmlns="{NAMESPACE}"'
        yield ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        yield f' xsi:schemaLocation="{NAMESPACE} {_SCHEMA}" SCHEMAVERSION="4.4">\n'
        yield from self._description()
        yield from self._styles()
        yield from self._tags()
        yield from self._layout()
        yield "</alto>\n"

    def _description(self) -> Iterator[str]:
        result = self._result
        source, number = page_source(self._manifest, result.page)
        name = source_name(source)
        yield "<Description>\n<MeasurementUnit>pixel</MeasurementUnit>\n<sourceImageInformation>"
        yield f"<fileName>{xml(name)}</fileName><fileIdentifier>sha256:{source.sha256}</fileIdentifier>"
        if source.pages > 1:
            yield f"<fileIdentifier>page {number} of {source.pages}</fileIdentifier>"
        yield f"<documentIdentifier>{self._manifest.document}</documentIdentifier></sourceImageInformation>\n"
        what = "the text layer of the PDF" if result.text_layer else "text recognition"
        settings = f"model {result.model}; revision {result.revision}; profile {result.profile}"
        yield '<Processing ID="OCR"><processingCategory>contentGeneration</processingCategory>'
        yield f"<processingStepDescription>{what}</processingStepDescription>"
        if not result.text_layer:
            yield f"<processingStepSettings>{xml(settings)}</processingStepSettings>"
            yield f"<processingSoftware><softwareName>{xml(result.engine)}</softwareName>"
            version = result.engine_version
            yield f"<softwareVersion>{xml(version)}</softwareVersion>" if version else ""
            yield "</processingSoftware>"
        yield "</Processing>\n</Description>\n"

    def _styles(self) -> Iterator[str]:
        known = sorted({size for size in self._sizes if size is not None})
        if known:
            styles = (f'<TextStyle ID="TS{size}" FONTSIZE="{size}"/>' for size in known)
            yield f"<Styles>{''.join(styles)}</Styles>\n"

    def _tags(self) -> Iterator[str]:
        roles = sorted({block.role.value for block in self._blocks})
        tags = [f'<StructureTag ID="ROLE_{role}" LABEL="{role}"/>' for role in roles]
        tags += [
            f'<OtherTag ID="PLACED_{kind}" TYPE="placed" LABEL="{kind}" DESCRIPTION="{text}"/>'
            for kind, text in _PLACED.items()
            if kind in self._placed
        ]
        if tags:
            yield f"<Tags>{''.join(tags)}</Tags>\n"

    def _layout(self) -> Iterator[str]:
        result = self._result
        sure = self._confidences
        yield f'<Layout><Page ID="P{result.page}" PHYSICAL_IMG_NR="{result.page}" PROCESSINGREFS="OCR"'
        yield attributes(
            WIDTH=result.width_px,
            HEIGHT=result.height_px,
            QUALITY_DETAIL=_detail(result),
            PC=sum(sure) / len(sure) if sure else None,
        )
        yield ">\n<PrintSpace"
        boxes = [block.box for block in self._blocks]
        yield _box(around(boxes)) if boxes else ""
        yield ">\n"
        for number, (block, size) in enumerate(zip(self._blocks, self._sizes, strict=True), 1):
            yield from _block(block, number, "" if size is None else f' STYLEREFS="TS{size}"')
        yield "</PrintSpace>\n</Page></Layout>\n"

    def _size(self, block: TextBlock) -> int | None:
        """Return the median height of a block's lines, in points: what is known of its font's size."""
        seen = Placed.BLOCK not in self._placed
        heights = [line.box[3] - line.box[1] for line in block.lines if seen or _is_placed(line)]
        return max(round(median(heights) * self._points), 1) if heights and self._points else None


def _is_placed(line: TextLine) -> bool:
    return all(word.placed is not Placed.BLOCK for word in line.words)


def _detail(result: PageResult) -> str | None:
    if result.status is PageStatus.FAILED:
        return f"failed: {result.reason}: {' '.join((result.detail or '').split())}"
    return "blank" if result.blank else None


def _block(block: TextBlock, number: int, style: str) -> Iterator[str]:
    tag = f' TAGREFS="ROLE_{block.role.value}"'
    place = _box(block.box)
    if block.role in _COMPOSED and block.lines:
        yield f'<ComposedBlock ID="C{number}"{tag}{place} TYPE="{block.role.value}">\n'
        if block.role is Role.FIGURE:
            yield f'<Illustration ID="I{number}"{place}/>\n'
        yield from _text_block(block.lines, number, f"{style}{_box(around(line.box for line in block.lines))}")
        yield "</ComposedBlock>\n"
    elif block.lines:
        yield from _text_block(block.lines, number, f"{style}{tag}{place}")
    elif block.role is Role.FIGURE:
        yield f'<Illustration ID="I{number}"{tag}{place}/>\n'
    else:
        yield f'<GraphicalElement ID="G{number}"{tag}{place}/>\n'


def _text_block(lines: Sequence[TextLine], number: int, facts: str) -> Iterator[str]:
    hyphens = divided(lines)
    yield f'<TextBlock ID="B{number}"{facts}>\n'
    for index, line in enumerate(lines):
        strings = _strings(line.words)
        ends, begun = hyphens.get(index), hyphens.get(index - 1)
        if ends is not None:
            strings[-1] = f'{_part(line.words[-1], 1, ends.first, ends.whole)}<HYP CONTENT="{xml(ends.sign)}"/>'
        if begun is not None and (ends is None or len(strings) > 1):
            strings[0] = _part(line.words[0], 2, line.words[0].text, begun.whole)
        yield f'<TextLine ID="L{number}_{index + 1}"{_box(line.box)}>{"<SP/>".join(strings)}</TextLine>\n'
    yield "</TextBlock>\n"


def _part(word: Word, part: int, text: str, whole: str) -> str:
    """Return one part of a word that is divided at the end of a line."""
    return _string(word._replace(text=text), f' SUBS_TYPE="HypPart{part}" SUBS_CONTENT="{xml(whole)}"')


def _strings(words: Sequence[Word]) -> list[str]:
    """Return the words of a line. The usual word takes one template and no call, as a page has hundreds."""
    return [
        _STRING % (xml(text), x0, y0, x1 - x0, y1 - y0, confidence)
        if placed is Placed.DETECTED and confidence is not None and 0 <= confidence <= 1 and x0 <= x1 and y0 <= y1
        else _string(Word(text, (x0, y0, x1, y1), confidence, placed=placed))
        for text, (x0, y0, x1, y1), confidence, _, _, placed in words
    ]


def _string(word: Word, more: str = "") -> str:
    if word.placed is not Placed.DETECTED:
        more = f'{more} TAGREFS="PLACED_{word.placed}"'
    if word.confidence is not None:
        more = f' WC="{min(max(word.confidence, 0.0), 1.0):.4g}"{more}'
    return f'<String CONTENT="{xml(word.text)}"{_box(word.box)}{more}/>'


def _box(box: Box) -> str:
    x0, y0, x1, y1 = box
    return ' HPOS="%g" VPOS="%g" WIDTH="%.5g" HEIGHT="%.5g"' % (x0, y0, max(x1 - x0, 0), max(y1 - y0, 0))  # noqa: UP031 - half the time
