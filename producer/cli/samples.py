"""`ocrfleet samples`: documents to try the program on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from producer.cli import terminal
from producer.samples.files import write_samples


def samples(folder: Annotated[Path, typer.Argument(help="Folder for the documents; made if it isn't there.")]) -> None:
    """Write sample documents: born-digital, scanned, two columns, a TIFF, a photo, a book of page images."""
    for path in write_samples(folder):
        terminal.echo(path)
