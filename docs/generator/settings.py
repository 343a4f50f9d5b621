"""The page on settings, from their classes."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr, create_model
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from docs.generator.markdown import NOTE, cell, table
from ocrfleet.settings import ApiSettings, OpenAiSettings, S3Settings, Settings, VllmSettings


def settings() -> str:
    """Return the page on settings, from their classes."""
    lines = [NOTE + "# Settings\n"]
    lines.append(
        "Every process reads its settings from environment variables when it starts. Options of a command win over them. "
        "A value that is not allowed ends the command with exit code 2 and the variable's name.\n"
    )
    for kind in (Settings, VllmSettings, OpenAiSettings, S3Settings, ApiSettings):
        prefix = kind.model_config["env_prefix"]
        title, _, about = inspect.cleandoc(kind.__doc__ or "").partition(":")
        lines.append(f"## {title}\n")
        lines.append(f"{about.strip()[:1].upper()}{about.strip()[1:]}\n")
        rows = []
        for name, field in kind.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
                continue
            if not field.description:
                raise LookupError(f"{prefix}{name.upper()} has no description in ocrfleet/settings.py")
            rows.append((f"`{prefix}{name.upper()}`", _value(field.default), _limits(field), cell(field.description)))
        lines += table(("variable", "default", "allowed", "effect"), rows)
    return "\n".join(lines) + "\n"


def _value(default: Any) -> str:
    if default is None or default is PydanticUndefined or default == "":
        return "unset"
    if isinstance(default, SecretStr):
        return f"`{default.get_secret_value()}`"
    if isinstance(default, Path):
        return f"`{default.as_posix().replace(tempfile.gettempdir(), '$TMPDIR')}`"
    if isinstance(default, bool):
        return "`1`" if default else "`0`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _limits(field: Any) -> str:
    schema = _schema(field)
    options = schema.get("anyOf", [schema])
    said = []
    for one in options:
        if "enum" in one:
            said.append(", ".join(f"`{value}`" for value in one["enum"]))
        if "pattern" in one:
            said.append("a name")
        words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        said += [f"{sign} {one[name]:g}" for name, sign in words.items() if name in one]
        if one.get("type") == "boolean":
            said.append("`0`, `1`")
    return ", ".join(said)


def _schema(field: Any) -> dict[str, Any]:
    """Return the JSON Schema of one field, with definitions in the place of what refers to them."""
    model: Any = create_model("One", value=(field.annotation, field))
    schema = model.model_json_schema()

    def resolved(part: dict[str, Any]) -> Any:
        return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part

    value: dict[str, Any] = resolved(schema["properties"]["value"])
    return value | {"anyOf": [resolved(one) for one in value["anyOf"]]} if "anyOf" in value else value
