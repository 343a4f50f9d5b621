"""Reports at the start of a process that opens documents what this machine's kernel lacks to confine decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics import definitions
from ocrfleet.sandbox.confinement import PARTS, support

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

_reported: set[tuple[str, ...]] = set()


def check_confinement(settings: Settings) -> None:
    """Log and count what is missing, once. Raises ConfigurationError with OCRFLEET_SANDBOX=require."""
    missing = support().missing
    if missing and settings.sandbox == "require":
        raise ConfigurationError(
            f"this kernel lacks {' and '.join(missing)}, and OCRFLEET_SANDBOX=require: enable it (docs/security.md), or unset "
            "OCRFLEET_SANDBOX to open documents with fewer protections"
        )
    if missing in _reported:
        return
    _reported.add(missing)
    for part in PARTS:
        definitions.SANDBOX_MISSING.labels(part).set(part in missing)
    if missing:
        log.warning("sandbox.part_missing", missing=missing, see="docs/security.md")
