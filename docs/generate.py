"""Write the generated pages of `docs/reference/` from the code: `make docs` runs it, a test compares its output.

python -m docs.generate            writes the files
python -m docs.generate --check    exits with 1 if one of them differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from docs.generator.command_line import command_line
from docs.generator.engine import engine
from docs.generator.http_api import http_api, openapi
from docs.generator.metrics import metrics
from docs.generator.output import output, output_schema
from docs.generator.profile import profile
from docs.generator.settings import settings

DOCS = Path(__file__).resolve().parent
REFERENCE = DOCS / "reference"


def pages() -> dict[Path, str]:
    """Return every generated file with its content."""
    schema = openapi()
    return {
        REFERENCE / "cli.md": command_line(),
        REFERENCE / "settings.md": settings(),
        REFERENCE / "metrics.md": metrics(),
        REFERENCE / "engine.md": engine(),
        REFERENCE / "profile.md": profile(),
        REFERENCE / "output.md": output(),
        REFERENCE / "output.schema.json": _json(output_schema()),
        REFERENCE / "http-api.md": http_api(schema),
        REFERENCE / "openapi.json": _json(schema),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def main() -> int:
    made = pages()
    if "--check" in sys.argv[1:]:
        stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
        for path in stale:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} differs from the code: make docs\n")
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
