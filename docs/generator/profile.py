"""The page on the fields of a profile, from its JSON Schema."""

from __future__ import annotations

import json
from typing import Any

from docs.generator.markdown import NOTE, cell, comments, escaped, table, type_of
from ocrfleet.profiles import profile as profiles


def profile() -> str:
    """Return the page on the fields of a profile, from its JSON Schema."""
    schema = profiles.Profile.model_json_schema()
    lines = [NOTE + "# Profile\n"]
    lines.append(
        "A profile is data: an engine, a model at a revision, a prompt, sampling, rendering, the checks of the text and the steps of "
        "its retry policy. `--profile` takes a name of `ocrfleet models` or a JSON file. A file has `extends` (the profile that it "
        "changes), `name`, and the fields that differ. [Change a profile](../howto/profile.md) has examples.\n"
    )
    named = {"Profile": schema, **schema["$defs"]}
    for name, part in named.items():
        if "properties" not in part:
            continue
        lines.append(f"## {name}\n")
        about = part.get("description", "").partition("\n")[0]
        if name != "Profile" and about:
            lines.append(f"{escaped(about)}\n")
        needed, described = part.get("required", ()), comments(getattr(profiles, name))
        rows = [
            (
                f"`{field}`",
                type_of(kind, named),
                "required" if field in needed else _json_value(kind.get("default")),
                cell(described.get(field, "")),
            )
            for field, kind in part["properties"].items()
        ]
        lines += table(("field", "value", "default", "meaning"), rows)
    return "\n".join(lines) + "\n"


def _json_value(value: Any) -> str:
    text = json.dumps(value)
    return "" if isinstance(value, dict | list) and value else f"`{text}`"
