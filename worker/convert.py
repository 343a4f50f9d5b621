"""Writes documents that have ended in further formats, for the process that started this one: python -m worker.convert.

Each line on stdin is a ConversionRequest, each line on stdout the ConversionAnswer to it. Exit code 78: misconfigured.
"""

from __future__ import annotations

import sys

import structlog

from ocrfleet import logs
from ocrfleet.errors import ConfigurationError, NotFoundError, OcrfleetError
from ocrfleet.records.conversions import ConversionAnswer, ConversionRequest
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources
from ocrfleet.storage.open import open_store
from worker.assemble import convert
from worker.formats.materials import Materials
from worker.misconfiguration import exits_when_misconfigured

log = structlog.get_logger(__name__)


def main() -> None:
    """Answer requests until stdin ends."""
    with exits_when_misconfigured():
        _answer(Settings())


def _answer(settings: Settings) -> None:
    logs.configure(settings.log_level)
    materials: Materials | None = None
    for line in sys.stdin.buffer:
        request = ConversionRequest.from_bytes(line)
        try:
            if materials is None:
                store = open_store(settings)
                materials = Materials.of(settings, store, Sources(settings, store))
            outputs = convert(materials, request.document, request.generation, request.formats)
            answer = ConversionAnswer(made=outputs.made, refused=outputs.refused)
        except ConfigurationError:
            raise
        except NotFoundError as error:
            answer = ConversionAnswer(gone=str(error))
        except OcrfleetError as error:
            answer = ConversionAnswer(error=str(error))
        except Exception as error:
            log.exception("converter.raised", document=request.document)
            answer = ConversionAnswer(error=f"{type(error).__name__}: {error}")
        sys.stdout.buffer.write(answer.to_bytes() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
