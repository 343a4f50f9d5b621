"""Structured logs: one JSON object a line, with the document and page bound to each event about them.

Events are named `component.event`; what varies is in their fields.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog


class _LogFile(logging.FileHandler):
    """A log file that drops lines while the disk is full, which other messages report."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing where a line can't be written; logging would print a traceback for each."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def configure(level: str, file: Path | None = None) -> None:
    """Write the events of structlog and of the standard library, from `level` up, as JSON lines to stderr or to a file."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr) if file is None else _LogFile(file, mode="w")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.captureWarnings(capture=True)
    # Celery logs two lines for each message, and a traceback for each that is given back; worker/consumer/tasks.py logs one
    # line for those. boto3 logs the origin of the credentials of each client.
    for logger, lowest in (
        ("celery.worker.strategy", logging.WARNING),
        ("celery.app.trace", logging.ERROR),
        ("botocore", logging.WARNING),
    ):
        logging.getLogger(logger).setLevel(lowest)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
