"""PDF/A-2b (ISO 19005-2): make a PDF conform by additions alone, or refuse it. Runs in a sandbox.

Added are an output intent of sRGB, XMP metadata from the document information, the resources that pages inherit, the map of glyphs
that a font has by default, and the flag that links are printed; the wish that viewers smooth an image is removed. What a conforming
file may not hold, and what only re-encoding could change, is a reason to refuse.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pikepdf
from pikepdf import Array, Dictionary, Name, Stream
from PIL import ImageCms

from ocrfleet.errors import PermanentError, Reason

if TYPE_CHECKING:
    from pikepdf import Object, Pdf

#: Actions that may do something else than navigate (6.5.1).
_ACTIONS = frozenset(
    {"/JavaScript", "/Launch", "/Sound", "/Movie", "/ResetForm", "/ImportData", "/Hide", "/SetOCGState", "/Rendition"}
    | {"/Trans", "/GoTo3DView"}
)
#: Annotations of 6.3.1 that are not allowed, and their flags: hidden, invisible, not viewed, toggled; and printed, which is required.
_ANNOTATIONS = frozenset({"/3D", "/Sound", "/Screen", "/Movie"})
_HIDDEN, _PRINT = 0x1 | 0x2 | 0x20 | 0x100, 0x4
#: Annotations that need no appearance.
_BARE = frozenset({"/Popup", "/Link"})
_SIMPLE_FONTS = frozenset({"/Type1", "/MMType1", "/TrueType"})
_FILTERS = {"/LZWDecode": "LZW", "/Crypt": "encryption"}
_BLENDS = frozenset(
    f"/{name}"
    for name in (
        *("Normal", "Compatible", "Multiply", "Screen", "Overlay", "Darken", "Lighten", "ColorDodge", "ColorBurn"),
        *("HardLight", "SoftLight", "Difference", "Exclusion", "Hue", "Saturation", "Color", "Luminosity"),
    )
)
#: Operators that set a colour in CMYK.
_SETS_CMYK = re.compile(rb"(?:^|[\s\]>)])[kK](?=$|[\s\[</(])")
#: The date in the profile: that of its making would differ from run to run.
_DATE = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
#: Reasons in one message.
_MOST_REASONS = 3


def conform(pdf: Pdf) -> None:
    """Make a PDF conform to PDF/A-2b. Raises PermanentError with the first reasons why that is impossible."""
    reasons = list(dict.fromkeys(_reasons(pdf)))
    if reasons:
        more = f" and {len(reasons) - _MOST_REASONS} other reasons" if len(reasons) > _MOST_REASONS else ""
        raise PermanentError(
            Reason.UNSUPPORTED,
            f"the PDF can't be made PDF/A-2b as it is: {'; '.join(reasons[:_MOST_REASONS])}{more}; ask for the format pdf",
        )
    for page in pdf.pages:
        if "/Resources" not in page.obj:
            page.obj.Resources = page.resources
    for entry in pdf.objects:
        for found in _parts(entry):
            _complete(found)
    if _intent(pdf) is None:
        pdf.Root.OutputIntents = Array([*pdf.Root.get("/OutputIntents", []), _srgb(pdf)])
    if "/Metadata" in pdf.Root:
        del pdf.Root.Metadata  # its properties may need descriptions of their schemas
    with pdf.open_metadata(set_pikepdf_as_editor=False, update_docinfo=False) as metadata:
        metadata.load_from_docinfo(pdf.docinfo, delete_missing=True)
        metadata["pdfaid:part"] = "2"
        metadata["pdfaid:conformance"] = "B"


def _complete(entry: Any) -> None:
    """Say what is the default without being said, and leave out a wish."""
    subtype = entry.get("/Subtype")
    if subtype == Name.CIDFontType2 and "/CIDToGIDMap" not in entry:
        entry.CIDToGIDMap = Name.Identity
    elif subtype == Name.Link and "/Rect" in entry:
        entry.F = int(entry.get("/F", 0)) | _PRINT
    elif subtype == Name.Image and "/Interpolate" in entry:
        del entry["/Interpolate"]


def _reasons(pdf: Pdf) -> Iterator[str]:
    names = pdf.Root.get("/Names", Dictionary())
    if "/EmbeddedFiles" in names or "/AF" in pdf.Root:
        yield "it has attachments"
    if "/AA" in pdf.Root or "/JavaScript" in names:
        yield "it runs scripts"
    form = pdf.Root.get("/AcroForm", Dictionary())
    if "/XFA" in form or form.get("/NeedAppearances", False):
        yield "its form is drawn by the viewer"
    if "/Requirements" in pdf.Root or "/AlternatePresentations" in names:
        yield "it needs functions of a viewer"
    cmyk = False
    for entry in pdf.objects:
        for found in _parts(entry):
            yield from _of_dictionary(found)
            cmyk = cmyk or _is_cmyk(found)
    for number, page in enumerate(pdf.pages, 1):
        yield from _of_page(page, number)
        cmyk = cmyk or _SETS_CMYK.search(_content(page.obj)) is not None
    if cmyk and _intent(pdf) != 4:  # noqa: PLR2004 - CMYK
        yield "it has colours in CMYK of an unnamed printer"


def _parts(entry: Object, depth: int = 8) -> Iterator[Object]:
    """Yield the dictionaries and streams of an object that are not objects of their own."""
    if isinstance(entry, Dictionary | Stream):
        yield entry
        children = [entry[key] for key in entry.keys()]  # noqa: SIM118 - a stream is no mapping
    elif isinstance(entry, Array):
        children = list(entry)
    else:
        return
    for child in children:
        if isinstance(child, Dictionary | Array) and not child.is_indirect and depth:
            yield from _parts(child, depth - 1)


def _of_dictionary(entry: Any) -> Iterator[str]:
    if isinstance(entry, Stream):
        yield from _of_stream(entry)
    if "/JS" in entry or (str(entry.get("/S", "")) in _ACTIONS and "/Nums" not in entry):
        yield "it has actions of scripts or programs"
    if "/BaseFont" in entry or "/DescendantFonts" in entry:
        yield from _of_font(entry)
    if entry.get("/Type") == Name.ExtGState or "/BM" in entry or "/TR2" in entry:
        blend = entry.get("/BM", Name.Normal)
        if {str(name) for name in (blend if isinstance(blend, Array) else [blend])} - _BLENDS:
            yield "it blends colours in a way of its own"
        if "/TR" in entry or entry.get("/TR2", Name.Default) != Name.Default or "/HTP" in entry:
            yield "it changes colours for a printer"


def _of_stream(entry: Stream) -> Iterator[str]:
    if "/F" in entry or "/FFilter" in entry:
        yield "it has data in another file"
    filters: Any = entry.get("/Filter", [])
    for name in map(str, filters if isinstance(filters, Array) else [filters]):
        if name in _FILTERS:
            yield f"it has data compressed by {_FILTERS[name]}"
    if entry.get("/Subtype") == Name.PS or "/PS" in entry or "/Ref" in entry or "/OPI" in entry:
        yield "it has PostScript or pages of other files"
    if entry.get("/Subtype") == Name.Image and "/Alternates" in entry:
        yield "it has an image that the viewer replaces"


def _of_font(font: Any) -> Iterator[str]:
    kind = str(font.get("/Subtype", ""))
    descendants = font.get("/DescendantFonts")
    if isinstance(descendants, Array):
        own = descendants[0]
    elif kind in _SIMPLE_FONTS:
        own = font
    else:
        return  # of a Type 3 font, the glyphs are in the file; a descendant is looked at with its parent
    descriptor = own.get("/FontDescriptor", Dictionary())
    if not {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor.keys()):
        yield f"its font {str(font.get('/BaseFont', ''))[1:] or 'without a name'} is not embedded"


def _of_page(page: pikepdf.Page, number: int) -> Iterator[str]:
    if "/AA" in page.obj or "/PresSteps" in page.obj:
        yield f"page {number} has actions"
    annotations: Any = page.obj.get("/Annots", [])
    for annotation in annotations if isinstance(annotations, Array) else []:
        if not isinstance(annotation, Dictionary):
            continue
        kind, flags = str(annotation.get("/Subtype", "")), int(annotation.get("/F", 0))
        if kind in _ANNOTATIONS or "/AA" in annotation:
            yield f"page {number} has an annotation with sound, film or actions"
        elif kind != "/Popup" and (flags & _HIDDEN or not (flags & _PRINT or kind == "/Link")):
            yield f"page {number} has an annotation that is hidden, or not printed"
        elif kind not in _BARE and "/AP" not in annotation:
            yield f"page {number} has an annotation that is drawn by the viewer"


def _is_cmyk(entry: Any) -> bool:
    """Return whether colours in CMYK are in an image, a group, a shading, or the spaces or the content of a form."""
    spaces = [entry.get("/ColorSpace"), entry.get("/CS")]
    if isinstance(spaces[0], Dictionary):
        spaces = [spaces[0][key] for key in spaces[0].keys()]  # noqa: SIM118 - as above
    if any(_names_cmyk(space) for space in spaces):
        return True
    form = isinstance(entry, Stream) and entry.get("/Subtype") == Name.Form
    return form and _SETS_CMYK.search(entry.read_bytes()) is not None


def _names_cmyk(space: Any, depth: int = 4) -> bool:
    if isinstance(space, Array) and depth:
        return any(_names_cmyk(part, depth - 1) for part in space)
    return space == Name.DeviceCMYK if isinstance(space, Name) else False


def _content(page: Any) -> bytes:
    contents = page.get("/Contents")
    parts = contents if isinstance(contents, Array) else [contents]
    return b"\n".join(part.read_bytes() for part in parts if isinstance(part, Stream))


def _intent(pdf: Pdf) -> int | None:
    """Return the number of channels of the output intent for PDF/A; None if there is none."""
    intents: Any = pdf.Root.get("/OutputIntents", [])
    for intent in intents if isinstance(intents, Array) else []:
        if intent.get("/S") == Name.GTS_PDFA1 and "/DestOutputProfile" in intent:
            return int(intent.DestOutputProfile.get("/N", 0))
    return None


def _srgb(pdf: Pdf) -> Dictionary:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + _DATE + profile[36:]
    return Dictionary(
        Type=Name.OutputIntent,
        S=Name.GTS_PDFA1,
        OutputConditionIdentifier="sRGB",
        Info="sRGB IEC61966-2.1",
        DestOutputProfile=pdf.make_stream(profile, N=3),
    )
