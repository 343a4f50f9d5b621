"""The JSON Schema of `<path>.json`, and the page on it, from the records that it is written from."""

from __future__ import annotations

from typing import Any

from docs.generator.markdown import NOTE, cell, comments, table, type_of
from ocrfleet.formats import FORMATS
from ocrfleet.records.documents import DocumentStatus, Kind, Problem
from ocrfleet.records.pages import Block, Line, PageResult


def output_schema() -> dict[str, Any]:
    """Return the JSON Schema of `<path>.json`, from the records that it is written from."""
    schema = PageResult.model_json_schema(mode="serialization")
    defined = {name: part for name, part in schema.pop("$defs").items() if name not in {"Word", "Placed"}}
    for model in (PageResult, Block, Line):
        described = comments(model)
        part = schema if model is PageResult else defined[model.__name__]
        for name, field in part["properties"].items():
            if name in described:
                field["description"] = described[name]
    boxes = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}}
    page = {name: value for name, value in schema.items() if name != "description"}
    left_out = {"schema_version", "words"}
    page["properties"] = {name: value for name, value in page["properties"].items() if name not in left_out}
    page["required"] = list(page["properties"])
    block = defined["Block"]
    block["properties"] |= {
        "text": {"type": "string", "description": "The block's plain text."},
        "points": {
            "anyOf": [boxes, {"type": "null"}],
            "description": "The boxes in points of the page before rotation, from the top left of its crop box, y down.",
        },
    }
    block["properties"]["figure"]["description"] = "Path of the picture that was cut out, relative to the outputs."
    block["required"] = list(block["properties"])
    for part in (page, *(one for one in defined.values() if "properties" in one)):
        part["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An ocrfleet document",
        "type": "object",
        "properties": {
            "schema_version": {"const": 1},
            "document": {"type": "string", "description": "The document's id: 32 hexadecimal digits."},
            "status": {"enum": [str(one) for one in DocumentStatus]},
            "problem": {
                "anyOf": [{"$ref": "#/$defs/Problem"}, {"type": "null"}],
                "description": "Why the document could not be taken in; null when it could.",
            },
            "profile": {"type": "string"},
            "profile_digest": {"type": "string", "description": "SHA-256 of what in the profile changes the text."},
            "sources": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "sha256": {"type": "string"},
                        "kind": {"enum": [str(one) for one in Kind]},
                        "pages": {"type": "integer", "minimum": 1},
                    },
                    "required": ["sha256", "kind", "pages"],
                    "additionalProperties": False,
                },
            },
            "coordinates": {"type": "string", "description": "The meaning of boxes and points, in words."},
            "pages": {"type": "array", "items": {"$ref": "#/$defs/Page"}},
        },
        "required": [
            *("schema_version", "document", "status", "problem", "profile", "profile_digest", "sources", "coordinates"),
            "pages",
        ],
        "additionalProperties": False,
        "$defs": {"Page": page, **defined, "Problem": Problem.model_json_schema()},
    }


def output() -> str:
    """Return the page on the JSON that is written for a document."""
    schema = output_schema()
    defined = schema["$defs"]
    lines = [NOTE + "# Output\n"]
    lines.append(
        "For each document there are `<path>.md` and `<path>.json`, or the formats that `--formats` names, and with delivery to S3 "
        "`<path>.status.json`, written last, with the hashes of the others. The same stored pages give the same bytes.\n"
    )
    lines.append("## Formats\n")
    lines.append(
        "`--formats` takes their names ([how to choose](../howto/formats.md)). Each is in `<path>.<extension>`. `.zip` files have a "
        "file for each page, table or figure, named by its page.\n"
    )
    rows = [(f"`{name}`", f"`{known.extension}`", known.media_type, known.summary) for name, known in FORMATS.items()]
    lines.extend(table(("format", "extension", "media type", "content"), rows))
    lines.append("## Markdown\n")
    lines.append(
        "Each page begins with `<!-- page N -->`. A page that failed has a visible placeholder with its reason, followed by its best "
        "text if there is any. Tables are HTML, or Markdown tables with `--tables markdown`. Plain text is escaped, and a model's "
        "Markdown has only tags that can do no harm. Running heads, feet and page numbers are left out, as they would interrupt "
        "the text; they are in the JSON, and a page that has nothing else shows them.\n"
    )
    lines.append("## JSON\n")
    lines.append(
        "[output.schema.json](output.schema.json) is the JSON Schema. Boxes are `[x0, y0, x1, y1]` in pixels of the page image as "
        "displayed, origin top left. Times `width_pt / width_px` they are points of that page.\n"
    )
    for title, part in (
        ("Document", schema),
        *((name, defined[name]) for name in ("Page", "Line", "Block", "Problem")),
    ):
        lines.append(f"### {title}\n")
        rows = [
            (f"`{name}`", type_of(kind, defined), cell(kind.get("description", "")))
            for name, kind in part["properties"].items()
        ]
        lines += table(("field", "type", "meaning"), rows)
    return "\n".join(lines) + "\n"
