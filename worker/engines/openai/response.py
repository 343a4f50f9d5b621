"""Responses of OpenAI's protocol: an answer, streamed or whole, or an error."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PageFaultError, Reason
from worker.engines.base import Score
from worker.engines.stream import Transcript

if TYPE_CHECKING:
    import openai

    from worker.engines.repetition import Loop

#: Characters of a page's text, at most: ten times 8192 tokens of long words.
_LONGEST_TEXT = 1 << 20


class ChatAnswer:
    """An answer while it arrives, with a deadline in seconds."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._transcript = Transcript(seconds)
        #: whether a choice has arrived
        self.begun = False
        self.finish_reason: str | None = None
        #: of the parts with log-probabilities of their tokens, where the server gives these
        self.scores: list[Score] = []
        #: output tokens, and input tokens, as the server counts them
        self.tokens: int | None = None
        self._read: int | None = None

    @property
    def text(self) -> str:
        return self._transcript.text

    @property
    def loop(self) -> Loop | None:
        """The repetition at the end of the answer, if there is one."""
        return self._transcript.loop

    @property
    def stopped(self) -> str | None:
        """The finish reason if the request should be ended now; None otherwise."""
        return self._transcript.stopped if self.finish_reason is None or self.loop is not None else None

    @property
    def written(self) -> int | None:
        """Output tokens, as the server counts them; a token for each piece if we stopped the answer."""
        return len(self._transcript) if self.tokens is None and self.stopped is not None else self.tokens

    @property
    def read(self) -> int | None:
        """Input tokens, as the server counts them."""
        return self._read

    @property
    def reported_usage(self) -> int | None:
        """Input and output tokens, as the server counts them; None without its count."""
        return None if self.tokens is None else self.tokens + (self._read or 0)

    @property
    def spent(self) -> int:
        """Input and output tokens. Without the server's count, as when the answer broke off, a token for each piece."""
        usage = self.reported_usage
        return len(self._transcript) if usage is None else usage

    def take(self, part: Any, holder: str) -> None:
        """Add a part of an answer. Its text is in the choice's attribute `holder`: "delta" or "message".

        Raises PageFaultError if the answer gets too long, and AttributeError, TypeError or ValueError if the part is
        malformed: the SDK checks nothing.
        """
        usage = getattr(part, "usage", None)
        if usage is not None:
            self.tokens, self._read = int(usage.completion_tokens), int(usage.prompt_tokens or 0)
        for choice in (part.choices or [])[:1]:
            self.begun = True
            if choice.finish_reason is not None:
                self.finish_reason = str(choice.finish_reason)[:64]
            piece = getattr(getattr(choice, holder), "content", None)
            if not piece:
                continue
            if not isinstance(piece, str):
                raise TypeError(f"a text that is a {type(piece).__name__}")
            if self._transcript.length + len(piece) > _LONGEST_TEXT:
                raise PageFaultError(Reason.ENGINE_FAILED, f"the answer is longer than {_LONGEST_TEXT} characters")
            self._transcript.add(piece)
            tokens = getattr(getattr(choice, "logprobs", None), "content", None) or []
            if tokens:
                mean = sum(min(float(token.logprob), 0.0) for token in tokens) / len(tokens)
                self.scores.append(Score(len(tokens), len(piece), math.exp(mean)))


def parsed(body: bytes) -> Any:
    """Parse JSON into objects with attributes, like the SDK's. Raises ValueError, or TypeError for invalid names."""
    return json.loads(body, object_hook=lambda facts: SimpleNamespace(**facts))


def message_of(error: Exception) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    return str(body or error.__cause__ or "") or str(error) or type(error).__name__


def status_of(error: openai.APIError) -> int | None:
    """Return the HTTP status, or the status that an error in the middle of a stream contains; None without one."""
    status = str(getattr(error, "status_code", None) or error.code)
    return int(status) if re.fullmatch(r"[45]\d\d", status) else None


def retry_after(error: openai.APIError) -> float:
    """Return the pause in seconds that Retry-After asks for; 0 without that header."""
    response = getattr(error, "response", None)
    header = response.headers.get("retry-after", "") if response is not None else ""
    with suppress(ValueError):
        seconds = float(header)
        return seconds if seconds > 0 and math.isfinite(seconds) else 0.0
    with suppress(ValueError):
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    return 0.0
