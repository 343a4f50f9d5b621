"""METS 1.12, one a document: its originals, an ALTO file for each page, the order of the pages, checksums, and who made it.

A zip file with `mets.xml` and `alto/000001.xml`, … The originals are not in it: METS names them, with their checksums.
"""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import quote

from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.alto import alto
from worker.formats.archive import Archive
from worker.formats.page_files import page_file_name
from worker.formats.source_names import MEDIA_TYPES, source_name
from worker.formats.xml_text import xml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.formats.materials import Materials

_NAMESPACES = (
    'xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.loc.gov/METS/ http://www.loc.gov/standards/mets/version1121/mets.xsd"'
)
#: Bytes of the list of pages that stay in memory: those of a thousand pages.
_IN_MEMORY = 1 << 17


class _Alto(NamedTuple):
    page: int
    sha256: str
    size: int
    status: str


class MetsWriter:
    """Writes one document to a zip file. What METS says of each page waits in a temporary file."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._archive = Archive(out)
        self._pages = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by `end`
        self._manifest: Manifest | None = None
        self._status = ""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        self._manifest, self._status = manifest, status.value

    def page(self, result: PageResult) -> None:
        assert self._manifest is not None  # noqa: S101 - `begin` comes first
        data = alto(result, self._manifest)
        self._archive.write(f"alto/{page_file_name(result.page)}", data)
        status = f"{result.status}: {result.reason}" if result.reason else result.status.value
        self._pages.write(f"{result.page}\t{hashlib.sha256(data).hexdigest()}\t{len(data)}\t{status}\n".encode())

    def end(self) -> None:
        assert self._manifest is not None  # noqa: S101 - `begin` comes first
        with self._archive.opened("mets.xml") as out:
            for part in self._mets(self._manifest):
                out.write(part.encode())
        self._pages.close()
        self._archive.close()

    def _mets(self, manifest: Manifest) -> Iterator[str]:
        made = f"{manifest.created[:4]}-{manifest.created[4:6]}-{manifest.created[6:11]}"
        made += f":{manifest.created[11:13]}:{manifest.created[13:15]}Z"
        yield f'<?xml version="1.0" encoding="UTF-8"?>\n<mets {_NAMESPACES} OBJID="{manifest.document}" TYPE="text">\n'
        yield f'<metsHdr CREATEDATE="{made}" RECORDSTATUS="{self._status}">'
        yield '<agent ROLE="CREATOR" TYPE="OTHER" OTHERTYPE="software"><name>ocrfleet</name>'
        yield f"<note>profile {xml(manifest.profile)}, digest {manifest.profile_digest}</note></agent></metsHdr>\n"
        if manifest.sources:
            yield from self._files(manifest)
        yield '<structMap TYPE="PHYSICAL">\n<div ID="DOCUMENT" TYPE="document">\n'
        for order, page in enumerate(_listed(self._pages), 1):
            original, _ = manifest.locate(page.page)
            yield f'<div ID="PAGE_{page.page}" TYPE="page" ORDER="{order}" ORDERLABEL="{page.page}"'
            yield f' LABEL="{xml(page.status)}">'
            yield f'<fptr FILEID="ORIGINAL_{original + 1}"/><fptr FILEID="ALTO_{page.page}"/></div>\n'
        yield "</div>\n</structMap>\n</mets>\n"

    def _files(self, manifest: Manifest) -> Iterator[str]:
        yield "<fileSec>\n"
        yield '<fileGrp ID="ORIGINALS" USE="originals">\n'
        for number, source in enumerate(manifest.sources, 1):
            yield f'<file ID="ORIGINAL_{number}" MIMETYPE="{MEDIA_TYPES[source.kind]}" SIZE="{source.size}"'
            yield f' CHECKSUMTYPE="SHA-256" CHECKSUM="{source.sha256}"><FLocat LOCTYPE="URL" xlink:type="simple"'
            yield f' xlink:href="{quote(source_name(source), errors="replace")}"/></file>\n'
        yield "</fileGrp>\n"
        yield '<fileGrp ID="ALTO" USE="fulltext">\n'
        for page in _listed(self._pages):
            yield f'<file ID="ALTO_{page.page}" MIMETYPE="application/xml" SIZE="{page.size}" GROUPID="PAGE_{page.page}"'
            yield f' CHECKSUMTYPE="SHA-256" CHECKSUM="{page.sha256}"><FLocat LOCTYPE="URL" xlink:type="simple"'
            yield f' xlink:href="alto/{page_file_name(page.page)}"/></file>\n'
        yield "</fileGrp>\n"
        yield "</fileSec>\n"


def _listed(file: IO[bytes]) -> Iterator[_Alto]:
    file.seek(0)
    for line in file:
        page, digest, size, status = line.decode().rstrip("\n").split("\t")
        yield _Alto(int(page), digest, int(size), status)
