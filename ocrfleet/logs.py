"""Structured logs: one JSON object a line on stderr, with document and page bound to every line about them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog


def configure(level: str, file: Path | None = None) -> None:
    """Send structlog's and the standard library's records, from `level` up, to stderr or to a file as JSON lines."""
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
    handler = logging.StreamHandler(sys.stderr) if file is None else logging.FileHandler(file, mode="w")
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
    # Two lines for each message that Celery takes and ends: a log that grows with the pages. And a traceback for each that
    # is given back: worker/consumer/tasks.py says why, in a line.
    for chatty, least in (
        ("celery.worker.strategy", logging.WARNING),
        ("celery.app.trace", logging.ERROR),
        ("botocore", logging.WARNING),  # each client says where its credentials came from
    ):
        logging.getLogger(chatty).setLevel(least)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
