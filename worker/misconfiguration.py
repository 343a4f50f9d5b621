"""How a child process that answers lines (producer/processes/line_process.py) ends when it is misconfigured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError
from ocrfleet.settings import describe


@contextmanager
def exits_when_misconfigured() -> Iterator[None]:
    """Exit with 78 if the block raises ConfigurationError, or reads settings that are not allowed.

    The error is written to stdout as one line without its end, so that it is no answer.
    """
    try:
        yield
    except ConfigurationError as error:
        _exit(str(error))
    except ValidationError as error:
        _exit(describe(error))


def _exit(error: str) -> None:
    sys.stdout.write(" ".join(error.split()))
    sys.stdout.flush()
    sys.exit(EXIT_CONFIGURATION)
