"""OpenAI's protocol: any server of chat completions that takes images, `vllm serve` and hosted services alike.

Repeating is the SDK's business: after 408, 409, 429, 5xx and broken connections, with growing pauses, or with the pause
that Retry-After asks for up to two minutes. It gives up at once when a longer one is asked for; then no page is sent
before that time, by this worker. A page that is not under way by most of its deadline is given back, so that a busy
server is not held against it. A request that is never answered is not repeated: it may have been charged. And a page
that a server fails on is not asked for again for ever: see openai_suspects.py.
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
from ocrfleet.profiles.models import SERVED, image_tokens
from worker.engines.base import Recognition
from worker.engines.openai.blame import DoubtError, Suspects
from worker.engines.openai.negotiation import Negotiation, asked
from worker.engines.openai.response import Answer, parsed, retry_after, status_of
from worker.engines.openai.server import Server, connect
from worker.engines.picture import picture

if TYPE_CHECKING:
    import openai

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.imaging.page_image import PageImage

#: Models of a server's list that are passed on.
_MOST_MODELS = 20
#: Share of a page's deadline until which its answer must have begun.
_PATIENCE = 0.8
#: Seconds that a server asks to be left alone at most; that its version is waited for.
_LONGEST_REST, _VERSION_TIMEOUT = 3600.0, 5.0

#: What reading an answer raises that isn't made as the protocol says.
_NOT_AS_SAID = (AttributeError, TypeError, ValueError)

_PAYMENT_REQUIRED, _NOT_FOUND, _SERVER_ERROR = 402, 404, 500
_REFUSED = frozenset({401, _PAYMENT_REQUIRED, 403})
#: A server without a list of models: some hosted services.
_NO_SUCH_ROUTE = frozenset({_NOT_FOUND, 405, 501})
#: Timeout, conflict, too early, too many requests, overloaded: of the moment, not of the page.
_OF_THE_MOMENT = frozenset({408, 409, 425, 429, 503})


class OpenAiEngine:
    """A connection to a server, and what this worker has asked of it so far."""

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
        # Encoding lets go of the interpreter, so that two threads fill two cores.
        self._encoders = ThreadPoolExecutor(2, thread_name_prefix="openai-encode")
        self._client: Any = None
        #: known once it has started
        self._server: Server
        self._negotiation: Negotiation
        #: errors of the SDK and of its HTTP client, and of an answer that isn't made as it should be
        self._foreign: tuple[type[Exception], ...] = _NOT_AS_SAID
        self._model = profile.model
        self._suspects = Suspects()
        #: asked for and spent, over the worker's life
        self._pages = self._tokens = 0
        #: whether it ever answered: until then it's our configuration that is wrong, not the server
        self._proven = False
        #: when the server may be asked again, on the event loop's clock
        self._rests_until = -math.inf

    async def start(self) -> None:
        """Ask the server which models it has. Raises ConfigurationError, or FatalError when it can't be reached now."""
        asked(self._profile)
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
            # Of a model that only the server knows, nothing is known.
            image_tokens=0 if self._profile.revision == SERVED else image_tokens(self._profile),
            counted=self._settings.max_tokens is not None,
        )
        release = await self._release()
        self.version = " ".join(["openai", "vllm" if vllm and release else self._server.host, *filter(None, [release])])

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Read one page: see Engine.

        Raises PermanentError when the server refuses the page, UnavailableError when it no longer lets anybody in, and
        ConfigurationError when a limit of spending is reached. The pages that are being read then may exceed the limit
        of tokens, but never that of pages.
        """
        async with self._slots:
            url = await asyncio.get_running_loop().run_in_executor(self._encoders, _data_url, image, profile)
            answer = Answer(profile.page_deadline)
            sent = self._suspects.now
            try:
                await self._answered(url, profile, answer)
            except self._foreign as error:
                # Not `from error`: what the SDK says of a refused key, or of its headers, may have the key in it.
                raise self._judged(self._fault(error, begun=answer.begun), url, sent=sent) from None
            except DoubtError as error:
                raise self._judged(error, url, sent=sent) from None
            finally:
                self._tokens += answer.spent
        self._proven = True
        self._suspects.answered(url)
        if answer.spent_as_told is None and answer.stopped is None and self._settings.max_tokens is not None:
            raise ConfigurationError(
                f"{self._server.host} doesn't tell how many tokens it takes, so that the limit OCRFLEET_OPENAI_MAX_TOKENS can't "
                "be kept; unset it and set OCRFLEET_OPENAI_MAX_PAGES"
            )
        return Recognition(
            text=answer.text,
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
        except (openai.OpenAIError, *_NOT_AS_SAID) as error:
            fault = ConfigurationError(
                f"what {self._server.host} answers is no list of models ({self._server.told(error)}); does --base-url end as "
                "it should, mostly in /v1?"
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
            patience = _PATIENCE * min(self._page_deadline, profile.page_deadline)
            async with asyncio.timeout(patience):
                await asyncio.sleep(max(self._rests_until - asyncio.get_running_loop().time(), 0))
                self._count_page()
                opened = await self._negotiation.opened(url, profile)
        except TimeoutError:
            raise TransientError(f"{self._server.host} was not ready for a page within {patience:g} seconds") from None
        async with opened as stream:
            if "json" in stream.response.headers.get("content-type", ""):
                # It was not asked to stream, or it can't and doesn't say so either.
                answer.take(parsed(await stream.response.aread()), "message")
            else:
                async for chunk in stream:
                    answer.take(chunk, "delta")
                    if answer.stopped is not None:
                        break  # to hang up ends the request
                if answer.begun and answer.finish_reason is None and answer.stopped is None:
                    raise DoubtError(Reason.ENGINE_FAILED, f"the answer of {self._server.host} ends in the middle")
        if not answer.begun:
            raise PageFaultError(
                Reason.ENGINE_FAILED, f"{self._server.host} answered without an answer in it: no choices"
            )

    def _count_page(self) -> None:
        """Count a page that is about to be asked for; a repetition of a request that was refused is the same page.

        Raises ConfigurationError at a limit. The limits are those of one worker process: each counts for itself, from
        nothing when it is started again, and its canary is a page as well.
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

    def _judged(self, fault: OcrfleetError, url: str, *, sent: int) -> OcrfleetError:
        """Return a fault that may be the server's or the page's as the one or the other; any other as it is."""
        if not isinstance(fault, DoubtError):
            return fault
        if self._suspects.failed(url, sent=sent):
            return PageFaultError(fault.reason, f"{fault}, while it answers other pages")
        return TransientError(str(fault))

    def _fault(self, error: Exception, *, begun: bool) -> OcrfleetError:
        """Return what an error of the SDK, or one in reading what came, means for the page and for the worker."""
        import httpx2  # noqa: PLC0415 - see openai_server.py
        import openai  # noqa: PLC0415

        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            cause = error.__cause__ if isinstance(error, openai.APIError) else error
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError):
                return TransientError(f"{self._server.host} can't be reached: {self._server.told(error)}")
            if isinstance(cause, httpx2.TimeoutException):
                what = f"{self._server.host} sent nothing for {self._settings.timeout:g} seconds"
                return DoubtError(Reason.ENGINE_DEADLINE, what)
            how = "broke off in the middle of an answer" if begun else "broke off before an answer"
            return DoubtError(Reason.ENGINE_FAILED, f"{self._server.host} {how}: {self._server.told(error)}")
        if isinstance(error, openai.APIError):
            return self._refusal(error)
        what = f"{self._server.host} answered what is no answer of OpenAI's protocol: {self._server.told(error)}"
        return PageFaultError(Reason.ENGINE_FAILED, what)

    def _refusal(self, error: openai.APIError) -> OcrfleetError:
        """Return what it means that the server answers with an error."""
        broken = UnavailableError if self._proven else ConfigurationError
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
            return TransientError(said) if status in _OF_THE_MOMENT else DoubtError(Reason.ENGINE_FAILED, said)
        return PermanentError(Reason.ENGINE_FAILED, said)


def _data_url(image: PageImage, profile: Profile) -> str:
    """Return a page as a JPEG in a data: URL, the only form that all servers take.

    Measured on a page of 1191x1684 pixels, one core: PNG (compress_level=1) takes 34 ms when the paper is flat and 200 ms
    for 4.3 MiB when it has grain, which at 2.3 pages/s is half a core; JPEG takes 9 to 17 ms for 0.8 to 2.5 MiB. It
    differs by 1 to 3 of 255 on average. Without subsampling, as coloured print would lose its edges by it.
    """
    jpeg = io.BytesIO()
    picture(image, profile).save(jpeg, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getbuffer()).decode()}"
