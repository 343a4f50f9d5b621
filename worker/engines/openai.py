"""OpenAI's protocol: any server of chat completions that takes images, `vllm serve` and hosted services alike.

Only what all of them take is sent, and to vLLM what it takes beside: its guard against loops, and that special tokens
(the tags around blocks) stay in the text. What a server turns out not to take is left out from then on.

Repeating is the SDK's business: after 408, 409, 429, 5xx and broken connections, with growing pauses, or with the pause
that Retry-After asks for up to two minutes. It gives up at once when a longer one is asked for; then no page is sent
before that time, by this worker. A page that is not under way by most of its deadline is given back, so that a busy
server is not held against it. A request that is never answered is not repeated: it may have been charged.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from PIL import Image

from ocrfleet.errors import (
    ConfigurationError,
    FatalError,
    OcrfleetError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
)
from worker.engines.base import Recognition
from worker.engines.openai_answer import Answer, message_of, parsed, retry_after, status_of, whole
from worker.engines.openai_server import Server, connect

if TYPE_CHECKING:
    import numpy as np
    import openai
    from numpy.typing import NDArray

    from ocrfleet.profiles import Profile, Sampling
    from ocrfleet.settings import Settings
    from worker.engines.base import PageImage

#: Hosted services refuse to write more than this.
_MOST_TOKENS = 8192
#: Tokens of the context that are left for a prompt's words (as in ocrfleet/models.py).
_PROMPT_ROOM = 256
#: Models of a server's list that are passed on.
_MOST_MODELS = 20
#: Share of a page's deadline until which its answer must have begun.
_PATIENCE = 0.8
#: Seconds that a server asks to be left alone at most; that its version is waited for.
_LONGEST_REST, _VERSION_TIMEOUT = 3600.0, 5.0

#: What reading an answer raises that isn't made as the protocol says.
_NOT_AS_SAID = (AttributeError, TypeError, ValueError)

_BAD_REQUEST, _PAYMENT_REQUIRED, _NOT_FOUND, _UNPROCESSABLE, _SERVER_ERROR = 400, 402, 404, 422, 500
_REFUSED = frozenset({401, _PAYMENT_REQUIRED, 403})
#: A server without a list of models: some hosted services.
_NO_SUCH_ROUTE = frozenset({_NOT_FOUND, 405, 501})
#: Timeout, conflict, too early, too many requests: of the moment, not of the page.
_OF_THE_MOMENT = frozenset({408, 409, 425, 429})

_TOO_LONG = re.compile(r"max_(completion_|output_)?tokens|max_model_len|context (length|window)", re.IGNORECASE)
_CONTEXT = re.compile(r"(?:context (?:length|window)(?: of| is)?(?: only)?|max_model_len ?=?) ?(\d+)", re.IGNORECASE)
_READ = re.compile(r"(\d+) (?:input tokens|prompt tokens|(?:tokens )?(?:from|in) the (?:input|messages|prompt))")
_NO_STREAM = re.compile(
    r"stream\w*\W+.*(not|un)\W?(support|allow|availab|implement|permit)|not support\w* stream", re.IGNORECASE
)


class OpenAiEngine:
    """A connection to a server, and what this worker has asked of it so far."""

    ahead = 0
    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self.version = "openai"
        self.concurrency = settings.openai.concurrency
        self._profile = profile
        self._settings = settings.openai
        self._patience = _PATIENCE * (settings.page_deadline or profile.page_deadline)
        self._slots = asyncio.Semaphore(self.concurrency)
        # Encoding lets go of the interpreter, so that two threads fill two cores.
        self._encoders = ThreadPoolExecutor(2, thread_name_prefix="openai-encode")
        self._client: Any = None
        #: known once it has started
        self._server: Server
        #: errors of the SDK and of its HTTP client, and of an answer that isn't made as it should be
        self._foreign: tuple[type[Exception], ...] = _NOT_AS_SAID
        self._model = profile.model
        self._is_vllm = False
        #: what the server was found not to take
        self._most_tokens = _MOST_TOKENS
        self._streams = self._tells_usage = True
        #: asked for and spent, over the worker's life
        self._pages = self._tokens = 0
        #: whether it ever answered: until then it's our configuration that is wrong, not the server
        self._proven = False
        #: when the server may be asked again, on the event loop's clock
        self._rests_until = -math.inf

    async def start(self) -> None:
        """Ask the server which models it has. Raises ConfigurationError, or FatalError when it can't be reached now."""
        _asked(self._profile)
        self._server = connect(self._settings)
        self._client = self._server.client
        self._foreign += self._server.foreign
        served = await self._served()
        self._model = self._spelling(list(served))
        self._is_vllm = "vllm" in served.values()
        release = await self._release()
        self.version = " ".join(
            ["openai", "vllm" if self._is_vllm and release else self._server.host, *filter(None, [release])]
        )

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page: see Engine.

        Raises PermanentError when the server refuses the page, and ConfigurationError when a limit of spending is
        reached. The pages that are being read then may exceed the limit of tokens, but never that of pages.
        """
        async with self._slots:
            url = await asyncio.get_running_loop().run_in_executor(self._encoders, _data_url, image.pixels)
            answer = Answer()
            try:
                await self._answered(url, profile, answer)
            except self._foreign as error:
                # Not `from error`: what the SDK says of a refused key, or of its headers, may have the key in it.
                raise self._fault(error, begun=answer.begun) from None
            finally:
                self._tokens += answer.spent
        self._proven = True
        if answer.spent_as_told is None and self._settings.max_tokens is not None:
            raise ConfigurationError(
                f"{self._server.host} doesn't tell how many tokens it takes, so that the limit OCRFLEET_OPENAI_MAX_TOKENS can't "
                "be kept; unset it and set OCRFLEET_OPENAI_MAX_PAGES"
            )
        return Recognition(text=answer.text, finish_reason=answer.finish_reason, tokens=answer.tokens)

    async def stop(self) -> None:
        self._encoders.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.close()

    async def _served(self) -> dict[str, str]:
        """Return the server's models, each with who owns it; nothing when it has no list of them."""
        import openai  # noqa: PLC0415 - see openai_server.py

        try:
            models = (await self._client.models.list()).data
            return {str(model.id): str(getattr(model, "owned_by", "")) for model in models}
        except openai.APIStatusError as error:
            if error.status_code in _NO_SUCH_ROUTE:
                return {}
            fault = self._fault(error, begun=False)
        except openai.APIError as error:
            fault = self._fault(error, begun=False)
        except _NOT_AS_SAID:
            fault = ConfigurationError(
                f"what {self._server.host} answers is no list of models; does --base-url end as it should, mostly in /v1?"
            )
        raise fault if isinstance(fault, FatalError) else FatalError(f"the server isn't ready: {fault}")

    def _spelling(self, served: list[str]) -> str:
        """Return what the server calls the profile's model."""
        wanted = self._profile.model.lower()
        for name in (wanted, wanted.rpartition("/")[2]):
            for model in served:
                if model.lower() == name:
                    return model
        if not served:
            return self._profile.model
        there_are = self._server.shown(", ".join(served[:_MOST_MODELS])) + (", …" if len(served) > _MOST_MODELS else "")
        raise ConfigurationError(
            f"{self._server.host} doesn't serve {self._profile.model}; it serves: {there_are}. Name one of these with --model, "
            "or start the server with the model that you want"
        )

    async def _release(self) -> str | None:
        """Return the version that the server tells, as vLLM does."""
        import openai  # noqa: PLC0415 - see openai_server.py

        asking = self._client.with_options(max_retries=0, timeout=_VERSION_TIMEOUT)
        try:
            told = await asking.get(f"{self._server.root}/version", cast_to=object)
        except (openai.OpenAIError, ValueError):
            return None
        version = told.get("version") if isinstance(told, dict) else None
        return version if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,64}", version) else None

    async def _answered(self, url: str, profile: Profile, answer: Answer) -> None:
        """Ask for a page and put what comes into `answer`."""
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.sleep(max(self._rests_until - asyncio.get_running_loop().time(), 0))
                self._count_page()
                opened = await self._opened(url, profile)
        except TimeoutError:
            raise TransientError(
                f"{self._server.host} was not ready for a page within {self._patience:g} seconds"
            ) from None
        async with opened as stream:
            if "json" in stream.response.headers.get("content-type", ""):
                # It was not asked to stream, or it can't and doesn't say so either.
                answer.take(parsed(await whole(stream.response)), "message")
            else:
                async for chunk in stream:
                    answer.take(chunk, "delta")
                if answer.begun and answer.finish_reason is None:
                    raise TransientError(f"the answer of {self._server.host} ends in the middle")
        if not answer.begun:
            raise PageFaultError(
                Reason.ENGINE_FAILED, f"{self._server.host} answered without an answer in it: no choices"
            )

    def _count_page(self) -> None:
        """Count a page that is about to be asked for; a repetition of a request that was refused is the same page."""
        for done, most, what, variable in (
            (self._pages, self._settings.max_pages, "asked for {} pages", "OCRFLEET_OPENAI_MAX_PAGES"),
            (self._tokens, self._settings.max_tokens, "spent {} tokens", "OCRFLEET_OPENAI_MAX_TOKENS"),
        ):
            if most is not None and done >= most:
                raise ConfigurationError(
                    f"this worker has {what.format(done)}, and {variable} allows {most}; to go on, set a higher one, or "
                    "none, and start the worker again"
                )
        self._pages += 1

    async def _opened(self, url: str, profile: Profile) -> Any:
        """Send a page until the server takes the request; what it doesn't take is left out, now and later."""
        import openai  # noqa: PLC0415 - see openai_server.py

        shorter: int | None = None
        while True:
            request = self._request(url, profile)
            sent = request["max_tokens"] = min(request["max_tokens"], shorter or _MOST_TOKENS)
            try:
                return await self._client.chat.completions.create(**request)
            except openai.APIStatusError as error:
                if error.status_code not in {_BAD_REQUEST, _UNPROCESSABLE}:
                    raise
                complaint = str(error.body)  # all of it: strict servers tell the field's name apart from the message
                if shorter is None and _TOO_LONG.search(complaint):
                    shorter = self._fitting(message_of(error), sent)
                    if shorter is None:
                        raise
                elif "stream_options" in complaint and self._streams and self._tells_usage:
                    self._tells_usage = False
                    # In one piece, an answer always tells its tokens.
                    self._streams = self._settings.max_tokens is None
                elif self._streams and _NO_STREAM.search(complaint):
                    self._streams = False
                else:
                    raise

    def _request(self, url: str, profile: Profile) -> dict[str, Any]:
        prompt, sampling = _asked(profile)
        # Chat templates put the image's place into the prompt themselves: there must not be two.
        words = prompt.replace("<image>\n", "").replace("<image>", "")
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        *([{"type": "text", "text": words}] if words else []),
                    ],
                }
            ],
            "max_tokens": min(sampling.max_tokens, self._most_tokens),
            "temperature": sampling.temperature,
            "stream": True,
        }
        # What the SDK doesn't know goes into the same object.
        beside: dict[str, Any] = {}
        if not self._streams:
            # Told to the server alone: the SDK then hands over an answer in one piece as it hands over a stream.
            beside["stream"] = False
        elif self._tells_usage:
            beside["stream_options"] = {"include_usage": True}
        if self._is_vllm:
            beside["skip_special_tokens"] = False
            if sampling.ngram_size is not None:
                # The names and types of NGramPerReqLogitsProcessor (vllm/model_executor/models/deepseek_ocr.py).
                beside["vllm_xargs"] = {
                    "ngram_size": sampling.ngram_size,
                    "window_size": sampling.ngram_window,
                    "whitelist_token_ids": list(sampling.ngram_whitelist),
                }
        request["extra_body"] = beside
        return request

    def _fitting(self, complaint: str, sent: int) -> int | None:
        """Return the tokens that a page may take by what the server says, and remember it; None when nothing helps."""
        if self._most_tokens < sent:
            return self._most_tokens  # another page met it first
        mode = self._profile.mode
        context, read = _CONTEXT.search(complaint), _READ.search(complaint)
        if context:
            # Room for the largest image, so that the next page needs no lowering.
            largest = _PROMPT_ROOM + mode.image_tokens if mode else 0
            fits = int(context[1]) - max(int(read[1]) if read else _PROMPT_ROOM, largest)
        else:
            # Such as: it must be at most 4096; the valid range is [1, 4096].
            limits = [int(number) for number in re.findall(r"\d{2,9}", complaint) if int(number) < sent]
            fits = max(limits, default=sent // 2)
        if not 0 < fits < sent:
            return None
        # One page with a huge image must not cut the text of all others short.
        self._most_tokens = max(fits, int(context[1]) // 2) if context else fits
        return fits

    def _fault(self, error: Exception, *, begun: bool) -> OcrfleetError:
        """Return what an error of the SDK, or one in reading what came, means for the page and for the worker."""
        import httpx2  # noqa: PLC0415 - see openai_server.py
        import openai  # noqa: PLC0415

        if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
            return TransientError(f"{self._server.host} sent nothing for {self._settings.timeout:g} seconds")
        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            what = "broke off in the middle of an answer" if begun else "can't be reached"
            return TransientError(f"{self._server.host} {what}: {self._server.told(error)}")
        if isinstance(error, openai.APIError):
            return self._refusal(error)
        what = f"{self._server.host} answered what is no answer of OpenAI's protocol: {self._server.told(error)}"
        return PageFaultError(Reason.ENGINE_FAILED, what)

    def _refusal(self, error: openai.APIError) -> OcrfleetError:
        """Return what it means that the server answers with an error."""
        broken = FatalError if self._proven else ConfigurationError
        status = status_of(error)
        said = f"{self._server.host} answered {status or 'with an error'}: {self._server.told(error)}"
        if status in _REFUSED:
            remedy = "the account needs credit" if status == _PAYMENT_REQUIRED else "set OCRFLEET_OPENAI_API_KEY"
            return broken(f"{said}; {remedy}")
        if status == _NOT_FOUND:
            # There is no page that a server could fail to find: it's the model, or the route.
            return broken(f"{said}; does it serve {self._model}, and does --base-url end as it should, mostly in /v1?")
        if status is None or status >= _SERVER_ERROR or status in _OF_THE_MOMENT:
            pause = min(retry_after(error), _LONGEST_REST)
            self._rests_until = max(self._rests_until, asyncio.get_running_loop().time() + pause)
            return TransientError(said)
        return PermanentError(Reason.ENGINE_FAILED, said)


def _asked(profile: Profile) -> tuple[str, Sampling]:
    if profile.prompt is None or profile.sampling is None:
        raise ConfigurationError(
            f"--engine openai needs a profile with a prompt and sampling; {profile.name!r} has none"
        )
    return profile.prompt, profile.sampling


def _data_url(pixels: NDArray[np.uint8]) -> str:
    """Return a page image as a JPEG in a data: URL, the only form that all servers take.

    Measured on a page of 1191x1684 pixels, one core: PNG (compress_level=1) takes 34 ms when the paper is flat and 200 ms
    for 4.3 MiB when it has grain, which at 2.3 pages/s is half a core; JPEG takes 9 to 17 ms for 0.8 to 2.5 MiB. It
    differs by 1 to 3 of 255 on average. Without subsampling, as coloured print would lose its edges by it.
    """
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getbuffer()).decode()}"
