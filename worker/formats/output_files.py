"""Writes a document's pages to files in several formats at once, and stores the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import FatalError, PermanentError, TransientError
from ocrfleet.formats import DEFAULT_FORMATS, FORMATS, FormatName
from ocrfleet.records.documents import DocumentStatus, Manifest, Output
from ocrfleet.scratch import scratch
from ocrfleet.storage.outputs import Outputs
from worker.formats import writer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocrfleet.records.pages import PageResult
    from worker.formats import Writer
    from worker.formats.materials import Materials

log = structlog.get_logger(__name__)


def written(
    materials: Materials,
    manifest: Manifest,
    generation: int,
    status: DocumentStatus,
    *,
    formats: Iterable[FormatName],
    pages: Iterable[PageResult],
) -> Outputs:
    """Write and store a document in these formats, in one pass over its pages; return what was made, and what was refused.

    An error of a writer refuses its format and leaves the others alone, except for the default formats: an error in those
    is raised. So are TransientError and FatalError.
    """
    outputs = Outputs()
    with scratch("ocrfleet-assembly-") as folder, ExitStack() as stack:
        files = [_File.opened(name, folder / name, stack, materials) for name in formats]
        for file in files:
            file.run(lambda writer: writer.begin(manifest, status))
        for result in pages:
            for file in files:
                file.run(lambda writer: writer.page(result))  # noqa: B023 - called at once
        for file in files:
            file.run(lambda writer: writer.end())
            if file.refused is not None:
                log.warning("assembly.format_refused", document=manifest.document, format=file.name, why=file.refused)
                outputs.refused[file.name] = file.refused
                continue
            outputs.made[file.name] = file.stored(materials, manifest.document, generation)
    return outputs


@dataclass
class _File:
    """A file that is being written, and its writer."""

    name: FormatName
    path: Path
    out: BufferedRandom
    writer: Writer
    #: why it can't be written
    refused: str | None = None

    @classmethod
    def opened(cls, name: FormatName, path: Path, stack: ExitStack, materials: Materials) -> _File:
        out = stack.enter_context(path.open("w+b"))
        return cls(name, path, out, writer_of(name)(out, materials))

    def run(self, step: Callable[[Writer], None]) -> None:
        """Run a step of the writer, unless one before it failed."""
        if self.refused is not None:
            return
        try:
            step(self.writer)
        except PermanentError as error:
            self.refused = error.detail
        except (TransientError, FatalError):
            raise
        except Exception as error:
            if self.name in DEFAULT_FORMATS:
                raise
            log.exception("assembly.writer_raised", format=self.name)
            self.refused = f"an error in ocrfleet ({type(error).__name__}): please report it with the log"

    def stored(self, materials: Materials, document: str, generation: int) -> Output:
        """Store the file under the digest of its content."""
        size = self.out.seek(0, 2)
        self.out.seek(0)  # flushes, too
        digest = hashlib.file_digest(self.out, "sha256").hexdigest()
        key = keys.output(document, generation, digest, FORMATS[self.name].extension)
        materials.store.create_from(key, self.path)
        return Output(key=key, sha256=digest, size=size)
