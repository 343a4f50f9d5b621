"""The engine for servers with OpenAI's chat completions that accept images: `vllm serve` and hosted services.

The SDK retries requests after 408, 409, 429, 5xx and broken connections, with growing pauses or the pause of Retry-After
up to two minutes. If a server asks for a longer pause, this worker sends no page before that time. A page whose answer has
not begun by most of its deadline goes back to the queue, so that a busy server costs it no attempt. A request that times
out is not retried, as it may have been charged. `blame.py` limits how often a page that fails is sent.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import (
    ConfigurationError,
    FatalError,
    OcrfleetError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
    UnavailableError,
)
from ocrfleet.profiles.models.model import image_tokens
from ocrfleet.profiles.select import SERVED
from worker.engines.base import Recognition
from worker.engines.openai.blame import DoubtError, Suspects
from worker.engines.openai.negotiation import Negotiation, prompt_and_sampling
from worker.engines.openai.response import ChatAnswer, parsed, retry_after, status_of
from worker.engines.openai.server import Server, connect
from worker.engines.picture import picture

if TYPE_CHECKING:
    import openai

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.imaging.page_image import PageImage

#: Models of a server's list that an error message shows.
_MOST_MODELS = 20
#: Share of a page's deadline within which its answer must begin.
_BEGIN_SHARE = 0.8
#: Seconds: the longest pause that a server may ask for; the timeout for its version.
_LONGEST_REST, _VERSION_TIMEOUT = 3600.0, 5.0

#: Errors that reading a malformed answer raises.
_MALFORMED = (AttributeError, TypeError, ValueError)

_PAYMENT_REQUIRED, _NOT_FOUND, _SERVER_ERROR = 402, 404, 500
_REFUSED = frozenset({401, _PAYMENT_REQUIRED, 403})
#: Statuses of servers that have no list of models, as some hosted services.
_NO_SUCH_ROUTE = frozenset({_NOT_FOUND, 405, 501})
#: Timeout, conflict, too early, too many requests, overloaded: temporary, and not caused by the page.
_TEMPORARY = frozenset({408, 409, 425, 429, 503})


class OpenAiEngine:
    """A connection to a server, with the pages and tokens that this worker has spent."""

    ahead = 0
    broken = None
    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self.version = "openai"
        self.concurrency = settings.openai.concurrency
        self._profile = profile
        self._settings = settings.openai
        self._page_deadline = settings.page_deadline or math.inf
        self._slots = asyncio.Semaphore(self.concurrency)
        # JPEG encoding releases the GIL, so two threads fill two cores.
        self._encoders = ThreadPoolExecutor(2, thread_name_prefix="openai-encode")
        self._client: Any = None
        #: set by `start`
        self._server: Server
        self._negotiation: Negotiation
        #: errors of the SDK, of its HTTP client, and of malformed answers
        self._foreign: tuple[type[Exception], ...] = _MALFORMED
        self._model = profile.model
        self._suspects = Suspects()
        #: pages sent and tokens spent since the worker started
        self._pages = self._tokens = 0
        #: whether the server ever answered: before that, refusals are taken for a wrong configuration
        self._proven = False
        #: time on the event loop's clock before which no page is sent
        self._rests_until = -math.inf

    async def start(self) -> None:
        """Look up the server's models. Raises ConfigurationError, or FatalError if the server can't be reached now."""
        prompt_and_sampling(self._profile)
        self._server = connect(self._settings)
        self._client = self._server.client
        self._foreign += self._server.foreign
        served = await self._served()
        self._model = self._spelling(list(served))
        vllm = "vllm" in served.values()
        self._negotiation = Negotiation(
            self._client,
            model=self._model,
            vllm=vllm,
            # Unknown for a model that only the server knows.
            image_tokens=0 if self._profile.revision == SERVED else image_tokens(self._profile),
            counted=self._settings.max_tokens is not None,
        )
        release = await self._release()
        self.version = " ".join(["openai", "vllm" if vllm and release else self._server.host, *filter(None, [release])])

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page: see Engine.

        Raises PermanentError if the server refuses the page, UnavailableError if it no longer accepts our key, and
        ConfigurationError at a spending limit. Pages in flight may exceed the limit of tokens, but never that of pages.
        """
        async with self._slots:
            url = await asyncio.get_running_loop().run_in_executor(self._encoders, _data_url, image, profile)
            answer = ChatAnswer(profile.page_deadline)
            sent = self._suspects.now
            try:
                await self._answered(url, profile, answer)
            except self._foreign as error:
                # Not `from error`: the SDK's message about a refused key, or about its headers, may contain the key.
                raise self._attributed(self._fault(error, begun=answer.begun), url, sent=sent) from None
            except DoubtError as error:
                raise self._attributed(error, url, sent=sent) from None
            finally:
                self._tokens += answer.spent
        self._proven = True
        self._suspects.answered(url)
        if answer.reported_usage is None and answer.stopped is None and self._settings.max_tokens is not None:
            raise ConfigurationError(
                f"{self._server.host} doesn't report how many tokens it takes, so that the limit OCRFLEET_OPENAI_MAX_TOKENS can't "
                "be kept; unset it and set OCRFLEET_OPENAI_MAX_PAGES"
            )
        return Recognition(
            text=answer.text,
            scores=tuple(answer.scores),
            finish_reason=answer.stopped or answer.finish_reason,
            tokens=answer.written,
            tokens_in=answer.read,
            loop=answer.loop,
        )

    async def stop(self) -> None:
        self._encoders.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.close()

    async def _served(self) -> dict[str, str]:
        """Return the server's models with their owners; empty if the server has no list."""
        import openai  # noqa: PLC0415 - see server.py

        try:
            models = (await self._client.models.list()).data
            return {str(model.id): str(getattr(model, "owned_by", "")) for model in models}
        except openai.APIStatusError as error:
            if error.status_code in _NO_SUCH_ROUTE:
                return {}
            fault = self._fault(error, begun=False)
        except openai.APIError as error:
            fault = self._fault(error, begun=False)
        except (openai.OpenAIError, *_MALFORMED) as error:
            fault = ConfigurationError(
                f"what {self._server.host} answers is no list of models ({self._server.message(error)}); does --base-url end as "
                "it should, mostly in /v1?"
            )
        raise fault if isinstance(fault, FatalError) else FatalError(f"the server isn't ready: {fault}")

    def _spelling(self, served: list[str]) -> str:
        """Return the server's name of the profile's model."""
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
        """Return the server's version, if it has vLLM's endpoint for it."""
        import openai  # noqa: PLC0415 - see server.py

        asking = self._client.with_options(max_retries=0, timeout=_VERSION_TIMEOUT)
        try:
            answer = await asking.get(f"{self._server.root}/version", cast_to=object)
        except (openai.OpenAIError, ValueError):
            return None
        version = answer.get("version") if isinstance(answer, dict) else None
        return version if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,64}", version) else None

    async def _answered(self, url: str, profile: Profile, answer: ChatAnswer) -> None:
        """Send a page and read the response into `answer`."""
        try:
            seconds = _BEGIN_SHARE * min(self._page_deadline, profile.page_deadline)
            async with asyncio.timeout(seconds):
                await asyncio.sleep(max(self._rests_until - asyncio.get_running_loop().time(), 0))
                self._count_page()
                opened = await self._negotiation.opened(url, profile)
        except TimeoutError:
            raise TransientError(f"{self._server.host} was not ready for a page within {seconds:g} seconds") from None
        async with opened as stream:
            if "json" in stream.response.headers.get("content-type", ""):
                # Streaming was not requested, or the server ignores the request for it.
                answer.take(parsed(await stream.response.aread()), "message")
            else:
                async for chunk in stream:
                    answer.take(chunk, "delta")
                    if answer.stopped is not None:
                        break  # closing the stream ends the request
                if answer.begun and answer.finish_reason is None and answer.stopped is None:
                    raise DoubtError(Reason.ENGINE_FAILED, f"the answer of {self._server.host} ends in the middle")
        if not answer.begun:
            raise PageFaultError(
                Reason.ENGINE_FAILED, f"{self._server.host} answered without an answer in it: no choices"
            )

    def _count_page(self) -> None:
        """Count a page that is about to be sent. A changed request for the same page is not counted again.

        Raises ConfigurationError at a limit. Limits hold for one worker process: its count begins at zero when it is
        restarted, and its self-test counts as a page.
        """
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

    def _attributed(self, fault: OcrfleetError, url: str, *, sent: int) -> OcrfleetError:
        """Turn a DoubtError into a fault of the page or of the server. Return other errors unchanged."""
        if not isinstance(fault, DoubtError):
            return fault
        if self._suspects.failed(url, sent=sent):
            return PageFaultError(fault.reason, f"{fault}, while it answers other pages")
        return TransientError(str(fault))

    def _fault(self, error: Exception, *, begun: bool) -> OcrfleetError:
        """Return our error for an error of the SDK, of its HTTP client, or of a malformed answer."""
        import httpx2  # noqa: PLC0415 - see server.py
        import openai  # noqa: PLC0415

        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            cause = error.__cause__ if isinstance(error, openai.APIError) else error
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError):
                return TransientError(f"{self._server.host} can't be reached: {self._server.message(error)}")
            if isinstance(cause, httpx2.TimeoutException):
                what = f"{self._server.host} sent nothing for {self._settings.timeout:g} seconds"
                return DoubtError(Reason.ENGINE_DEADLINE, what)
            how = "broke off in the middle of an answer" if begun else "broke off before an answer"
            return DoubtError(Reason.ENGINE_FAILED, f"{self._server.host} {how}: {self._server.message(error)}")
        if isinstance(error, openai.APIError):
            return self._refusal(error)
        what = f"{self._server.host} answered what is no answer of OpenAI's protocol: {self._server.message(error)}"
        return PageFaultError(Reason.ENGINE_FAILED, what)

    def _refusal(self, error: openai.APIError) -> OcrfleetError:
        """Return our error for an error response of the server."""
        broken = UnavailableError if self._proven else ConfigurationError
        status = status_of(error)
        message = f"{self._server.host} answered {status or 'with an error'}: {self._server.message(error)}"
        if status in _REFUSED:
            remedy = "the account needs credit" if status == _PAYMENT_REQUIRED else "set OCRFLEET_OPENAI_API_KEY"
            return broken(f"{message}; {remedy}")
        if status == _NOT_FOUND:
            # Not the page's fault: the server lacks the model or the route.
            return broken(
                f"{message}; does it serve {self._model}, and does --base-url end as it should, mostly in /v1?"
            )
        if status is None or status >= _SERVER_ERROR or status in _TEMPORARY:
            pause = min(retry_after(error), _LONGEST_REST)
            self._rests_until = max(self._rests_until, asyncio.get_running_loop().time() + pause)
            return TransientError(message) if status in _TEMPORARY else DoubtError(Reason.ENGINE_FAILED, message)
        return PermanentError(Reason.ENGINE_FAILED, message)


def _data_url(image: PageImage, profile: Profile) -> str:
    """Return a page as a JPEG in a data: URL, the only form that all servers accept.

    Measured on a page of 1191x1684 pixels, one core: PNG (compress_level=1) takes 34 ms for flat paper and 200 ms (4.3 MiB)
    for paper with grain, which at 2.3 pages/s is half a core. JPEG takes 9 to 17 ms (0.8 to 2.5 MiB), and its pixels differ
    by 1 to 3 of 255 on average. No chroma subsampling: it would blur the edges of coloured print.
    """
    jpeg = io.BytesIO()
    picture(image, profile).save(jpeg, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getbuffer()).decode()}"
