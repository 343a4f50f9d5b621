"""The request for a page, in the form that one server accepts.

It has only fields that all servers accept, and asks for the log-probabilities of the tokens. vLLM also gets its n-gram guard, and the option that keeps special tokens (the
layout tags) in the text. A field that a server refuses is left out of all later requests.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.models.model import PROMPT_ROOM
from worker.engines.openai.response import message_of
from worker.engines.picture import words

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile, Sampling

#: Hosted services refuse a larger max_tokens.
_MOST_TOKENS = 8192

_BAD_REQUEST, _UNPROCESSABLE = 400, 422
#: Statuses by which servers refuse log-probabilities: some models may not tell them.
_NOT_ALLOWED = frozenset({_BAD_REQUEST, 403, _UNPROCESSABLE})
_TOO_LONG = re.compile(r"max_(completion_|output_)?tokens|max_model_len|context (length|window)", re.IGNORECASE)
_CONTEXT = re.compile(r"(?:context (?:length|window)(?: of| is)?(?: only)?|max_model_len ?=?) ?(\d+)", re.IGNORECASE)
_READ = re.compile(r"(\d+) (?:input tokens|prompt tokens|(?:tokens )?(?:from|in) the (?:input|messages|prompt))")
_NO_STREAM = re.compile(
    r"stream\w*\W+.*(not|un)\W?(support|allow|availab|implement|permit)|not support\w* stream", re.IGNORECASE
)


class Negotiation:
    """The fields that one server accepts, learnt from its refusals.

    `client` is the SDK's client, `model` the server's name of the model, `image_tokens` the most input tokens of a page image
    (0 if unknown). `counted` says that an answer without token counts is useless, because a limit depends on them.
    """

    def __init__(self, client: Any, *, model: str, vllm: bool, image_tokens: int, counted: bool) -> None:
        self._client = client
        self._model = model
        self._vllm = vllm
        self._image_tokens = image_tokens
        self._counted = counted
        self._most_tokens = _MOST_TOKENS
        self._streams = self._tells_usage = self._tells_probabilities = True

    async def opened(self, url: str, profile: Profile) -> Any:
        """Send a page, as a data: URL, until the server accepts the request. Return the SDK's stream of the answer.

        Raises the SDK's errors.
        """
        import openai  # noqa: PLC0415 - see server.py

        shorter: int | None = None
        while True:
            request = self._request(url, profile)
            sent = request["max_tokens"] = min(request["max_tokens"], shorter or _MOST_TOKENS)
            try:
                return await self._client.chat.completions.create(**request)
            except openai.APIStatusError as error:
                complaint = str(error.body)  # the whole body: strict servers name the field outside of the message
                if "logprobs" in complaint and self._tells_probabilities and error.status_code in _NOT_ALLOWED:
                    self._tells_probabilities = False
                elif error.status_code not in {_BAD_REQUEST, _UNPROCESSABLE}:
                    raise
                elif shorter is None and _TOO_LONG.search(complaint):
                    shorter = self._fitting(message_of(error), sent)
                    if shorter is None:
                        raise
                elif "stream_options" in complaint and self._streams and self._tells_usage:
                    self._tells_usage = False
                    # An answer that is not streamed always has token counts.
                    self._streams = not self._counted
                elif self._streams and _NO_STREAM.search(complaint):
                    self._streams = False
                else:
                    raise

    def _request(self, url: str, profile: Profile) -> dict[str, Any]:
        prompt, sampling = prompt_and_sampling(profile)
        text = words(prompt)
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        *([{"type": "text", "text": text}] if text else []),
                    ],
                }
            ],
            "max_tokens": min(sampling.max_tokens, self._most_tokens),
            "temperature": sampling.temperature,
            "stream": True,
        }
        if self._tells_probabilities:
            request["logprobs"] = True
        # Fields that the SDK doesn't know; it merges them into the request.
        extra: dict[str, Any] = {}
        if not self._streams:
            # Set here only, so that the SDK still returns the response as a stream object.
            extra["stream"] = False
        elif self._tells_usage:
            extra["stream_options"] = {"include_usage": True}
        if self._vllm:
            extra["skip_special_tokens"] = False
            if sampling.ngram_size is not None:
                # The names and types of NGramPerReqLogitsProcessor (vllm/model_executor/models/deepseek_ocr.py).
                extra["vllm_xargs"] = {
                    "ngram_size": sampling.ngram_size,
                    "window_size": sampling.ngram_window,
                    "whitelist_token_ids": list(sampling.ngram_whitelist),
                }
        request["extra_body"] = extra
        return request

    def _fitting(self, complaint: str, sent: int) -> int | None:
        """Return a max_tokens that fits the server's complaint, and remember it; None if no value does."""
        if self._most_tokens < sent:
            return self._most_tokens  # learnt from another page meanwhile
        context, read = _CONTEXT.search(complaint), _READ.search(complaint)
        if context:
            # Leave room for the largest image, so that the next page is accepted at once.
            largest = PROMPT_ROOM + self._image_tokens if self._image_tokens else 0
            fits = int(context[1]) - max(int(read[1]) if read else PROMPT_ROOM, largest)
        else:
            # For example: "must be at most 4096", "the valid range is [1, 4096]".
            limits = [int(number) for number in re.findall(r"\d{2,9}", complaint) if int(number) < sent]
            fits = max(limits, default=sent // 2)
        if not 0 < fits < sent:
            return None
        # One page with a huge image must not shorten the text of all others.
        self._most_tokens = max(fits, int(context[1]) // 2) if context else fits
        return fits


def prompt_and_sampling(profile: Profile) -> tuple[str, Sampling]:
    """Return a profile's prompt and sampling. Raises ConfigurationError if one of them is missing."""
    if profile.prompt is None or profile.sampling is None:
        raise ConfigurationError(
            f"--engine openai needs a profile with a prompt and sampling; {profile.name!r} has none"
        )
    return profile.prompt, profile.sampling
