"""The catalogue of output formats: their names, extensions and media types. The writers are in worker/formats/."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FormatName(StrEnum):
    """Name of an output format, as people choose it. Part of stored records: never rename one."""

    MARKDOWN = "md"
    JSON = "json"
    TEXT = "txt"
    JSONL = "jsonl"
    HTML = "html"
    DOCX = "docx"
    IIIF = "iiif"
    FIGURES = "figures"
    TABLES = "tables"
    PDF = "pdf"
    PDF_KEEP = "pdf-keep"
    PDF_WEB = "pdf-web"
    PDF_DECRYPTED = "pdf-decrypted"
    PDF_A = "pdf-a"
    ALTO = "alto"
    HOCR = "hocr"
    PAGE_XML = "page"
    METS = "mets"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """An output format, as its files are named and served."""

    #: what follows a document's name and a dot in the name of the output; no two formats share one
    extension: str
    media_type: str
    #: what the output holds, for the documentation
    summary: str


FORMATS: dict[FormatName, OutputFormat] = {
    FormatName.MARKDOWN: OutputFormat(
        "md", "text/markdown; charset=utf-8", "The text to read, with a marker for each page, HTML tables and figures."
    ),
    FormatName.JSON: OutputFormat(
        "json", "application/json", "Everything that is known of each page: text, lines and blocks with boxes, engine."
    ),
    FormatName.TEXT: OutputFormat(
        "txt", "text/plain; charset=utf-8", "Plain text without markup; a form feed between pages."
    ),
    FormatName.JSONL: OutputFormat(
        "jsonl", "application/jsonl", "One line in the shape of Dolma's documents: text, page spans, attributes."
    ),
    FormatName.HTML: OutputFormat(
        "html", "text/html; charset=utf-8", "One self-contained page with headings, tables, figures and page anchors."
    ),
    FormatName.DOCX: OutputFormat(
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "A Word document with headings, paragraphs, lists, tables and figures.",
    ),
    FormatName.IIIF: OutputFormat(
        "iiif.json",
        "application/ld+json",
        "A IIIF Presentation 3 manifest: a canvas for each page, an annotation for each line.",
    ),
    FormatName.FIGURES: OutputFormat("figures.zip", "application/zip", "The figures as PNG files, and a list of them."),
    FormatName.TABLES: OutputFormat("tables.zip", "application/zip", "Each table as a CSV file, and a list of them."),
    FormatName.PDF: OutputFormat(
        "pdf",
        "application/pdf",
        "Searchable PDF: the original's pages as they are, with the text invisible over them; an old OCR text is replaced.",
    ),
    FormatName.PDF_KEEP: OutputFormat(
        "keep.pdf", "application/pdf", "The same; pages that have invisible text of an earlier OCR keep that."
    ),
    FormatName.PDF_WEB: OutputFormat(
        "web.pdf", "application/pdf", "The same, linearised: viewers show the first page before the rest is loaded."
    ),
    FormatName.PDF_DECRYPTED: OutputFormat(
        "decrypted.pdf",
        "application/pdf",
        "The same; of an encrypted PDF, which the other formats refuse, a copy without protection.",
    ),
    FormatName.PDF_A: OutputFormat(
        "pdfa.pdf",
        "application/pdf",
        "The same as PDF/A-2b; refused where that would need other fonts, colours or compression than the original's.",
    ),
    FormatName.ALTO: OutputFormat(
        "alto.zip", "application/zip", "ALTO 4.4, a file a page: blocks, lines, words with places and confidences."
    ),
    FormatName.HOCR: OutputFormat(
        "hocr", "application/xhtml+xml", "hOCR 1.2: pages, areas, paragraphs, lines, words with places and confidences."
    ),
    FormatName.PAGE_XML: OutputFormat(
        "page.zip", "application/zip", "PAGE-XML 2019-07-15, a file a page: regions, reading order, lines, words."
    ),
    FormatName.METS: OutputFormat(
        "mets.zip", "application/zip", "METS 1.12 with an ALTO file a page: originals, pages in order, checksums."
    ),
}

#: Formats of each document, whatever is asked for: the others can be made of the stored pages later.
DEFAULT_FORMATS = (FormatName.MARKDOWN, FormatName.JSON)


def extension(name: str) -> str:
    """Return the extension of a format; of one that this version does not know, its name."""
    return FORMATS[FormatName(name)].extension if name in FORMATS else name


def parse_formats(text: str) -> tuple[FormatName, ...]:
    """Return the formats in a list such as `md,json`, without repetitions. Raises ValueError, which lists the formats."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = f"there is no format {', '.join(map(repr, unknown))}" if unknown else "no format is given"
        raise ValueError(f"{what}: the formats are {', '.join(FORMATS)}")
    return tuple(FormatName(name) for name in dict.fromkeys(names))


def stored_formats(chosen: Iterable[str]) -> tuple[str, ...]:
    """Return formats as a submission stores them: nothing for the default ones, so that records stay as they were."""
    formats = tuple(name for name in FORMATS if name in set(chosen))
    return () if formats == DEFAULT_FORMATS else formats


def chosen_formats(formats: Iterable[str]) -> tuple[FormatName, ...]:
    """Return the formats of a submission in the catalogue's order, where none stands for the default ones."""
    chosen = set(formats) or set(DEFAULT_FORMATS)
    return tuple(name for name in FORMATS if name in chosen)
