"""A PDF of page images: each image unchanged on a page of its size, with the text of the page."""

from __future__ import annotations

import math
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.records.pages import PageStatus
from ocrfleet.sandbox.sandbox import Sandbox
from worker.formats.page_layout import page_layout
from worker.formats.pdf.file import PdfFile
from worker.formats.pdf.pdf_copy import PdfOptions, rewrite
from worker.formats.pdf.text_forms import TextForms

if TYPE_CHECKING:
    from ocrfleet.records.documents import Manifest
    from ocrfleet.records.pages import PageResult
    from ocrfleet.sources.sources import Sources

#: Deadline to extract an image from its file, in seconds.
_DEADLINE = 120.0
#: Points per pixel of a page without a known resolution: 300 dpi.
_POINTS = 72 / 300
#: Maximum side of a page in points, without UserUnit (ISO 32000-1, annex C).
_LONGEST_SIDE = 14400
#: Chunk size of copies in bytes.
_CHUNK = 1 << 20
_FILTERS = frozenset({"DCTDecode", "JPXDecode", "CCITTFaxDecode", "FlateDecode"})
_CHANNELS = {"DeviceGray": 1, "DeviceRGB": 3, "DeviceCMYK": 4, "Indexed": 1}
#: Size of a page without an image, in points.
_A4 = (595.28, 841.89)

#: Matrices that rotate an image upright, by EXIF orientation: factors of width and height (TIFF 6.0, Orientation).
_TURNS = {
    1: (1, 0, 0, 1, 0, 0),
    2: (-1, 0, 0, 1, 1, 0),
    3: (-1, 0, 0, -1, 1, 1),
    4: (1, 0, 0, -1, 0, 1),
    5: (0, -1, -1, 0, 1, 1),
    6: (0, -1, 1, 0, 0, 1),
    7: (0, 1, 1, 0, 0, 0),
    8: (0, 1, -1, 0, 1, 0),
}
_SIDEWAYS = 5


class ImagePages:
    """Writes pages one by one; keeps only object numbers in memory."""

    def __init__(self, out: BinaryIO, sources: Sources, manifest: Manifest, memory: int, options: PdfOptions) -> None:
        self._out = out
        self._sources = sources
        self._manifest = manifest
        self._memory = memory
        self._sandbox = Sandbox("worker.formats.pdf.image_file", memory=memory, shared=memory)
        self._options = options
        #: the pages in their order of arrival, if the output needs more than these
        changed = options.linear or options.archival
        self._draft = cast("BinaryIO", TemporaryFile()) if changed else None  # noqa: SIM115 - closed by `close`
        self._file = PdfFile(self._draft or out)
        self._texts = TextForms(self._file)
        self._tree = self._file.reserve()
        self._pages: list[int] = []
        self._font: int | None = None

    def add(self, result: PageResult) -> None:
        """Write a page. Raises PermanentError if its image, which was read before, can't be extracted."""
        number, index = self._manifest.locate(result.page)
        source = self._manifest.sources[number]
        request = {"kind": source.kind, "page": index}
        try:
            with self._sources.opened(source) as fd:
                answer = self._sandbox.call(request, fd=fd, deadline=_DEADLINE, document=source.sha256)
            image, size, orientation = self._image(answer)
        except (PermanentError, PageFaultError) as error:
            if result.status is PageStatus.DONE:
                raise PermanentError(error.reason, f"page {result.page}: {error.detail}") from error
            self._placeholder(result, error.detail)
            return
        width, height = size if orientation < _SIDEWAYS else size[::-1]
        if result.width_pt and result.height_pt:
            width_pt, height_pt = result.width_pt, result.height_pt
        else:
            width_pt, height_pt = width * _POINTS, height * _POINTS
        form = None
        if result.status is PageStatus.DONE and result.width_px and result.height_px:
            form = self._texts.add(page_layout(result), width=float(result.width_px), height=float(result.height_px))
        unit = math.ceil(max(width_pt, height_pt) / _LONGEST_SIDE)
        sides = width_pt / unit, height_pt / unit
        a, b, c, d, e, f = _TURNS[orientation]
        turned = a * sides[0], b * sides[1], c * sides[0], d * sides[1], e * sides[0], f * sides[1]
        content = b"q %b cm /I Do Q\n" % _numbers(turned)
        objects = b"/I %d 0 R" % image
        if form is not None:
            scale = sides[0] / float(result.width_px or 1), sides[1] / float(result.height_px or 1)
            content += b"q %b cm /T Do Q\n" % _numbers((scale[0], 0, 0, scale[1], 0, 0))
            objects += b"/T %d 0 R" % form
        self._page(sides, content, b"/XObject<<%b>>" % objects, unit=unit)

    def end(self, identifier: str) -> None:
        self._texts.end()
        kids = b" ".join(b"%d 0 R" % page for page in self._pages)
        self._file.add(b"<</Type/Pages/Count %d/Kids[%b]>>" % (len(self._pages), kids), self._tree)
        root = self._file.add(b"<</Type/Catalog/Pages %d 0 R>>" % self._tree)
        self._file.end(root=root, info=self._file.add(b"<</Producer(ocrfleet)>>"), identifier=identifier)
        if self._draft is not None:
            self._draft.flush()
            rewrite(self._out, self._draft.fileno(), self._options, memory=self._memory)

    def close(self) -> None:
        self._sandbox.close()
        if self._draft is not None:
            self._draft.close()

    def _page(self, sides: tuple[float, float], content: bytes, resources: bytes, *, unit: int = 1) -> None:
        stream = self._file.stream(b"", (content,), len(content))
        larger = b"/UserUnit %d" % unit if unit > 1 else b""
        self._pages.append(
            self._file.add(
                b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 %b]%b/Contents %d 0 R/Resources<<%b>>>>"
                % (self._tree, _numbers(sides), larger, stream, resources)
            )
        )

    def _placeholder(self, result: PageResult, why: str) -> None:
        """Write a placeholder for a missing page, so that page numbers stay the same."""
        self._font = self._font or self._file.add(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
        text = f"Page {result.page} is missing: {why}".encode("ascii", "replace").translate(None, b"()\\")
        content = b"BT /H 9 Tf 36 %b Td (%b) Tj ET\n" % (_numbers((_A4[1] - 48,)), text)
        self._page(_A4, content, b"/Font<</H %d 0 R>>" % self._font)

    def _image(self, answer: dict[str, Any]) -> tuple[int, tuple[int, int], int]:
        """Validate the answer of the sandbox and write its image; return object number, size and orientation."""
        shared = self._sandbox.shared
        match answer:
            case {
                "width": int(width),
                "height": int(height),
                "filter": str(name),
                "space": (str() | None) as space,
                "bits": (1 | 2 | 4 | 8 | 16) as bits,
                "inverted": bool(inverted),
                "predicted": bool(predicted),
                "palette": str(palette),
                "orientation": int(orientation),
                "sizes": [int(size), int(mask), int(profile)],
            } if (
                shared is not None
                and name in _FILTERS
                and (space is None or space in _CHANNELS)
                and min(width, height) > 0
                and orientation in _TURNS
                and min(size, mask, profile) >= 0
                and size + mask + profile <= len(shared)
                and set(palette) <= set("0123456789abcdef")
            ):
                pass
            case _:
                raise PageFaultError(
                    Reason.RENDER_CRASHED, "the decoder answered nonsense: the file is probably damaged"
                )
        entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/Filter/%b" % (width, height, name.encode())
        sides = b"/Colors %d/BitsPerComponent %d/Columns %d" % (_CHANNELS.get(space or "", 1), bits, width)
        if name == "CCITTFaxDecode":
            black = b"/BlackIs1 true" if inverted else b""
            entries += b"/DecodeParms<</K -1/Columns %d/Rows %d%b>>" % (width, height, black)
        elif predicted:
            entries += b"/DecodeParms<</Predictor 15%b>>" % sides
        if name != "JPXDecode":
            entries += b"/BitsPerComponent %d" % bits
        if space is not None:
            entries += b"/ColorSpace%b" % self._space(space, palette, shared, size + mask, profile)
        if inverted and name == "DCTDecode":
            entries += b"/Decode[1 0 1 0 1 0 1 0]"
        if mask:
            # A mask has PNG rows in grey, and the same size.
            parameters = b"/DecodeParms<</Predictor 15/Colors 1/BitsPerComponent 8/Columns %d>>" % width
            soft = self._file.stream(
                b"/Type/XObject/Subtype/Image/Width %d/Height %d/Filter/FlateDecode%b/BitsPerComponent 8"
                b"/ColorSpace/DeviceGray" % (width, height, parameters),
                _parts(shared, size, mask),
                mask,
            )
            entries += b"/SMask %d 0 R" % soft
        return self._file.stream(entries, _parts(shared, 0, size), size), (width, height), orientation

    def _space(self, space: str, palette: str, shared: Any, at: int, profile: int) -> bytes:
        name = b"/" + space.encode()
        base = b"/DeviceRGB" if space == "Indexed" else name
        if profile:
            channels = 3 if space == "Indexed" else _CHANNELS[space]
            base = b"[/ICCBased %d 0 R]" % self._file.compressed(b"/N %d" % channels, bytes(shared[at : at + profile]))
        if space == "Indexed":
            return b"[/Indexed %b %d<%b>]" % (base, max(len(palette) // 6 - 1, 0), palette.encode())
        return base


def _parts(shared: Any, at: int, size: int) -> Any:
    return (shared[begin : min(begin + _CHUNK, at + size)] for begin in range(at, at + size, _CHUNK))


def _numbers(values: Any) -> bytes:
    return " ".join(f"{value:.4f}".rstrip("0").rstrip(".") for value in values).encode("ascii")
