"""The API's OpenAPI document, and the page on it."""

from __future__ import annotations

import inspect
import tempfile
import threading
from pathlib import Path
from typing import Any

from docs.generator.markdown import NOTE, cell, escaped, table, type_of
from ocrfleet.broker.ledger import Ledger
from ocrfleet.profiles import profile as profiles
from ocrfleet.settings import Settings
from ocrfleet.storage.store import FolderStore
from producer.api.app import create_app
from producer.documents.service import DocumentService
from producer.intake.batches import IntakeBatches


def openapi() -> dict[str, Any]:
    """Return the API's OpenAPI document, as `GET /openapi.json` answers it."""
    with tempfile.TemporaryDirectory() as folder:
        known = Settings(store=folder, redis_url="redis://127.0.0.1:1/0")
        store = FolderStore(Path(folder))
        served = create_app(
            known,
            store,
            ledger := Ledger(known.redis_url.get_secret_value()),
            DocumentService(store, ledger, known),
            IntakeBatches(store),
            profile=profiles.RAPIDOCR,
            stopping=threading.Event(),
        )
        return dict(served.openapi())


def http_api(schema: dict[str, Any]) -> str:
    """Return the page on the HTTP API, from its OpenAPI document."""
    lines = [NOTE + "# HTTP API\n"]
    lines.append(
        "`ocrfleet serve` answers it, and describes it at `/docs`. [openapi.json](openapi.json) is the same as an OpenAPI document. "
        "Requests to `/v1` carry `Authorization: Bearer TOKEN`, one of `OCRFLEET_API_TOKENS`. An error is a problem document "
        "(RFC 9457, `application/problem+json`) whose `detail` says what to do.\n"
    )
    defined = schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            lines.append(f"## {method.upper()} {path.replace('{', '').replace('}', '')}\n")
            lines.append(f"    {method.upper()} {path}\n")
            lines.append(f"{escaped(inspect.cleandoc(operation.get('description') or operation.get('summary', '')))}\n")
            rows = [
                (f"`{one['name']}`", one["in"], type_of(one["schema"], defined), cell(one.get("description", "")))
                for one in operation.get("parameters", ())
            ]
            if rows:
                lines += table(("parameter", "in", "value", "meaning"), rows)
            content = operation.get("requestBody", {}).get("content", {})
            if content:
                lines.append("Body: " + ", ".join(f"`{media}`" for media in content) + "\n")
            answers = operation["responses"].items()
            lines += table(("status", "meaning"), [(status, cell(one["description"])) for status, one in answers])
    lines.append("## Records\n")
    for name, part in defined.items():
        if "properties" not in part:
            continue
        lines.append(f"### {name}\n")
        if part.get("description"):
            lines.append(f"{escaped(inspect.cleandoc(part['description']))}\n")
        fields = [
            (f"`{field}`", type_of(kind, defined), cell(kind.get("description", "")))
            for field, kind in part["properties"].items()
        ]
        lines += table(("field", "value", "meaning"), fields)
    return "\n".join(lines) + "\n"
