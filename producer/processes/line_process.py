"""A child process that answers each line on its standard input with a line on its standard output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError
from ocrfleet.sandbox.die_with_parent import dying_with_us

#: Seconds that a process which closed its output gets to exit; then it is killed.
_EXIT_SECONDS = 5.0


class LineProcess:
    """`python -m MODULE`, started at the first request, and again after it died. Not thread-safe.

    The end of the thread that started the process kills it. Logs are appended to `log_file`, or written to stderr.
    """

    def __init__(self, module: str, environment: Mapping[str, str], *, log_file: Path | None = None) -> None:
        # -P: do not import a file worker.py in the current folder.
        self._command = (sys.executable, "-P", "-m", module)
        # These processes do not need the API key of an engine.
        self._environment = {name: value for name, value in environment.items() if not name.endswith("_API_KEY")}
        self._log_file = log_file
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, line: bytes) -> bytes | None:
        """Send a line and return the answer, both without line ends; None if the process died.

        Raises ConfigurationError if it exited with 78; the message is the unfinished line that it wrote.
        """
        child = self._running()
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):  # it died already; its error may be in the pipe
            child.stdin.write(line + b"\n")
            child.stdin.flush()
        answer = child.stdout.readline()
        if answer.endswith(b"\n"):
            return answer[:-1]
        with suppress(subprocess.TimeoutExpired):
            child.wait(_EXIT_SECONDS)
        child.kill()
        if child.wait() == EXIT_CONFIGURATION:
            raise ConfigurationError(
                f"{self._command[-1]} can't work as it is configured: {answer.decode(errors='replace')}"
            )
        return None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process; None while it runs."""
        return self._child.poll() if self._child is not None else None

    def close(self) -> None:
        """End the process."""
        if self._child is None:
            return
        self._child.kill()
        self._child.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            with ExitStack() as stack:
                log = stack.enter_context(self._log_file.open("ab")) if self._log_file is not None else None
                self._child = subprocess.Popen(
                    dying_with_us(*self._command),
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    # Ctrl-C in the terminal reaches only the parent process.
                    start_new_session=True,
                )
        return self._child
