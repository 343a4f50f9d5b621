"""The engine for OpenAI's protocol, with a real server on a socket that misbehaves on request."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import io
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

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
from ocrfleet.profiles import models
from ocrfleet.profiles.build import profile_of
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import OpenAiSettings, Settings
from tests.support.fakes.chat_server import (
    DEEPSEEK,
    Behaviour,
    ChatServer,
    breaks_off,
    chunk,
    events,
    floods,
    fussy,
    hangs,
    later,
    limits_tokens,
    model,
    refuses,
    replies,
    says,
    usage_chunk,
    whole,
)
from tests.support.waiting import FOREVER, scaled
from worker import engines
from worker.engines.base import Engine, Recognition
from worker.engines.openai import engine as module
from worker.engines.openai.blame import MOST_SUSPECTS, Suspects
from worker.imaging.page_image import PageImage

T = TypeVar("T")

PROFILE = profile_of(models.DEEPSEEK_OCR, engine="openai")
assert PROFILE.sampling is not None
assert PROFILE.mode is not None
MAX_TOKENS, IMAGE_TOKENS = PROFILE.sampling.max_tokens, PROFILE.mode.image_tokens
#: a mode that pads
BASE = profile_of(models.DEEPSEEK_OCR, engine="openai", mode="base")
KEY = "sk-very-secret-0123456789"
#: a timeout for a server that becomes silent, and how its end is described
HASTE = scaled(0.3)
SILENT = f"sent nothing for {HASTE:g} seconds"

#: Errors of servers for a max_tokens that is too large: vLLM 0.32, older vLLM, OpenAI.
VLLM = "max_tokens={sent} cannot be greater than max_model_len=4096. Please request fewer output tokens."
VLLM_BEFORE = (
    "'max_tokens' or 'max_completion_tokens' is too large: {sent}. This model's maximum context length is 4096 tokens and "
    "your request has 1300 input tokens ({sent} > 4096 - 1300)."
)
OPENAI = (
    "This model's maximum context length is 4096 tokens. However, you requested 8000 tokens (1300 in the messages, {sent} "
    "in the completion)."
)


#: 100,000 characters that repeat nothing
NOISE = base64.b64encode(np.random.default_rng(1).bytes(75_000)).decode()


def page(*, paper: int = 255) -> PageImage:
    pixels = np.full((120, 200, 3), paper, dtype=np.uint8)
    pixels[40:60, 20:180] = (200, 30, 30)
    return PageImage(pixels=pixels, width_pt=144.0, height_pt=86.4)


def with_engine(
    server: ChatServer, use: Callable[[Engine], Awaitable[T]], *, profile: Profile = PROFILE, **settings: Any
) -> T:
    page_deadline = settings.pop("page_deadline", None)
    told: dict[str, Any] = {"base_url": server.url, "retries": 0, "timeout": scaled(5)} | settings

    async def main() -> T:
        engine = engines.create(profile, Settings(page_deadline=page_deadline, openai=OpenAiSettings(**told)))
        try:
            await engine.start()
            return await use(engine)
        finally:
            await engine.stop()
            await engine.stop()  # may be called twice

    return asyncio.run(main())


async def read(engine: Engine) -> Recognition:
    return await engine.recognise(page(), PROFILE)


async def read_other(engine: Engine) -> Recognition:
    return await engine.recognise(page(paper=0), PROFILE)


async def read_twice(engine: Engine) -> tuple[Recognition, Recognition]:
    return await read(engine), await read(engine)


async def version(engine: Engine) -> str:
    return engine.version


def failure(server: ChatServer, kind: type[OcrfleetError], **settings: Any) -> OcrfleetError:
    """Read one page and return the error of exactly this kind."""
    with pytest.raises(kind) as caught:
        with_engine(server, read, **settings)
    assert caught.type is kind
    return caught.value


@pytest.fixture(autouse=True)
def _no_key_of_the_person_at_the_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OCRFLEET_OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def hosted() -> Iterator[ChatServer]:
    """A service that isn't vLLM."""
    with ChatServer(models=[model("deepseek-ocr", owner="somebody")], version=None) as running:
        yield running


def with_probabilities(text: str, *logarithms: float) -> dict[str, Any]:
    """Return a piece of a stream with the log-probability of each of its tokens."""
    piece = chunk(text)
    piece["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": logarithm} for logarithm in logarithms]}
    return piece


class TestAnswers:
    def test_a_stream_is_put_together(self, server: ChatServer) -> None:
        server.script = [says("<|ref|>title<|/ref|>", "\n# Hello, ", "world \n")]

        recognition = with_engine(server, read)

        assert recognition == Recognition(
            text="<|ref|>title<|/ref|>\n# Hello, world \n", finish_reason="stop", tokens=7, tokens_in=900
        )

    def test_the_probabilities_of_the_tokens_are_kept(self, server: ChatServer) -> None:
        server.script = [
            events(with_probabilities("Hello ", -0.1, -0.3), with_probabilities("world", -2.0), chunk(None, "stop"))
        ]

        scores = with_engine(server, read).scores

        assert [(score.tokens, score.characters) for score in scores] == [(2, 6), (1, 5)]
        assert [score.probability for score in scores] == pytest.approx([math.exp(-0.2), math.exp(-2.0)])

    def test_an_answer_in_one_piece_has_them_too(self, server: ChatServer) -> None:
        answer = whole("Hello world")
        answer["choices"][0]["logprobs"] = {"content": [{"token": "Hello world", "logprob": -0.5}]}
        server.script = [replies(answer)]

        (score,) = with_engine(server, read).scores

        assert (score.tokens, score.characters) == (1, 11)
        assert score.probability == pytest.approx(math.exp(-0.5))

    @pytest.mark.parametrize("status", [400, 403, 422])
    def test_a_server_that_refuses_them_is_not_asked_for_them_again(self, hosted: ChatServer, status: int) -> None:
        hosted.script = [fussy("logprobs", says("hello"), status=status)]

        first, second = with_engine(hosted, read_twice)

        assert (first.text, first.scores) == (second.text, second.scores) == ("hello", ())
        assert ["logprobs" in asked.body for asked in hosted.asked] == [True, False, False]

    def test_a_truncated_response_has_that_finish_reason(self, server: ChatServer) -> None:
        server.script = [says("and so on", finish="length")]

        assert with_engine(server, read).finish_reason == "length"

    def test_an_empty_text_is_accepted(self, server: ChatServer) -> None:
        server.script = [says()]

        assert with_engine(server, read).text == ""

    def test_a_server_that_does_not_stream_is_supported(self, server: ChatServer) -> None:
        server.script = [replies(whole("all at once"))]

        assert with_engine(server, read) == Recognition(
            text="all at once", finish_reason="stop", tokens=7, tokens_in=900
        )

    def test_a_server_that_refuses_to_stream_is_not_asked_to_again(self, hosted: ChatServer) -> None:
        hosted.script = [fussy("stream", says("all ", "at once"))]

        first, second = with_engine(hosted, read_twice)

        assert first == second == Recognition(text="all at once", finish_reason="stop", tokens=7, tokens_in=900)
        assert [asked.body["stream"] for asked in hosted.asked] == [True, False, False]

    @pytest.mark.parametrize("status", [400, 422])
    def test_a_server_that_refuses_stream_options_is_not_sent_them_again(self, hosted: ChatServer, status: int) -> None:
        hosted.script = [fussy("stream_options", says("hello"), status=status)]

        first, second = with_engine(hosted, read_twice)

        assert first == second == Recognition(text="hello", finish_reason="stop", tokens=None)
        assert ["stream_options" in asked.body for asked in hosted.asked] == [True, False, False]

    def test_a_slow_response_is_read_while_data_arrives(self, server: ChatServer) -> None:
        server.script = [says(*"slowly", pause=0.2)]

        assert with_engine(server, read, timeout=scaled(0.6)).text == "slowly"

    @pytest.mark.parametrize(
        "script",
        [
            events(chunk(None) | {"choices": []}, "[DONE]"),
            events("[DONE]"),
            events(usage_chunk(), "[DONE]"),
            events("{not json", "[DONE]"),
            events("[]", "[DONE]"),
            events({"choices": 5}, "[DONE]"),
            events({"choices": [{"index": 0, "delta": {"content": {"a": 1}}, "finish_reason": "stop"}]}, "[DONE]"),
            replies({"choices": []}),
            replies({"hello": "world"}),
            replies([1, 2]),
            replies("<html>log in first</html>"),
        ],
    )
    def test_a_malformed_response_is_a_fault_of_the_page(self, server: ChatServer, script: Any) -> None:
        server.script = [script]

        error = failure(server, PageFaultError)

        assert isinstance(error, PageFaultError)
        assert error.reason is Reason.ENGINE_FAILED

    @pytest.mark.parametrize("script", [says(*[NOISE] * 11), replies(whole(NOISE * 12)), replies(whole(NOISE * 90))])
    def test_an_endless_answer_is_cut_off(self, server: ChatServer, script: Any) -> None:
        server.script = [script]

        assert "longer than" in str(failure(server, PageFaultError))

    @pytest.mark.parametrize("script", [floods(40), replies({"x": "y" * 40_000_000})])
    def test_an_endless_line_is_not_kept(self, server: ChatServer, script: Any) -> None:
        server.script = [script]

        assert "longer than 16777216 bytes" in str(failure(server, PageFaultError, retries=3))
        assert len(server.asked) == 1


class TestRequests:
    def test_the_request_to_vllm(self, server: ChatServer) -> None:
        with_engine(server, read)

        body = server.asked[0].body
        image, words = body.pop("messages")[0]["content"]
        assert words == {"type": "text", "text": "<|grounding|>Convert the document to markdown."}
        assert image["type"] == "image_url"
        assert body == {
            "model": DEEPSEEK,
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
            "stream": True,
            "logprobs": True,
            "stream_options": {"include_usage": True},
            "skip_special_tokens": False,
            "vllm_xargs": {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]},
        }

    def test_the_request_to_other_servers_has_no_vllm_fields(self, hosted: ChatServer) -> None:
        hosted.script = [fussy("vllm_xargs", fussy("skip_special_tokens", says("hello")))]

        assert with_engine(hosted, read).text == "hello"
        assert "skip_special_tokens" not in hosted.asked[0].body

    def test_the_page_image_is_sent_unscaled(self, server: ChatServer) -> None:
        with_engine(server, read)

        kind, _, data = server.asked[0].body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
            difference = np.abs(np.asarray(sent).astype(int) - page().pixels)
        assert kind == "data:image/jpeg;base64"
        assert difference.mean() < 1

    def test_a_mode_that_pads_gets_a_square(self, server: ChatServer) -> None:
        with_engine(server, lambda engine: engine.recognise(page(), BASE))

        _, _, data = server.asked[0].body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
            square = np.asarray(sent).astype(int)
        assert square.shape == (200, 200, 3)
        assert np.abs(square[:32] - 127).max() <= 2
        assert np.abs(square[-32:] - 127).max() <= 2
        assert np.abs(square[40:160] - page().pixels).mean() < 1

    def test_a_profile_with_another_prompt_and_temperature(self, server: ChatServer) -> None:
        assert PROFILE.sampling is not None
        warmer = PROFILE.sampling.model_copy(update={"temperature": 0.2, "ngram_size": None, "max_tokens": 20_000})
        other = PROFILE.model_copy(update={"prompt": "<image>Read!", "sampling": warmer})

        with_engine(server, lambda engine: engine.recognise(page(), other))

        body = server.asked[0].body
        assert body["temperature"] == 0.2
        assert body["max_tokens"] == 8192  # the most that hosted services take
        assert "vllm_xargs" not in body
        assert body["messages"][0]["content"][1]["text"] == "Read!"

    def test_the_limit_of_simultaneous_pages_is_kept(self, server: ChatServer) -> None:
        server.script = [says("hello", pause=0.1)]

        async def crowd(engine: Engine) -> int:
            await asyncio.gather(*(read(engine) for _ in range(8)))
            return engine.concurrency

        assert with_engine(server, crowd, concurrency=3) == 3
        assert len(server.asked) == 8
        assert server.most_at_once == 3

    def test_the_event_loop_is_not_blocked_while_a_page_is_encoded(
        self, server: ChatServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an encoding that ends only when something else has run on the event loop
        begun, ran = threading.Event(), threading.Event()
        encode = module._data_url

        def waiting(image: PageImage, profile: Profile) -> str:
            begun.set()
            assert ran.wait(scaled(30)), "nothing else ran on the event loop"
            return encode(image, profile)

        monkeypatch.setattr(module, "_data_url", waiting)

        async def read_beside(engine: Engine) -> Recognition:
            reading = asyncio.create_task(read(engine))
            await asyncio.to_thread(begun.wait, scaled(30))
            ran.set()
            return await reading

        assert with_engine(server, read_beside).text == "hello"

    def test_a_cancelled_page_closes_its_connection(self, server: ChatServer) -> None:
        server.script = [hangs("begun, and "), says("hello")]

        async def cancel_and_read(engine: Engine) -> Recognition:
            assert engine.interruptible
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(scaled(0.3)):
                    await read(engine)
            assert await asyncio.to_thread(server.left.wait, scaled(30))
            return await read(engine)

        assert with_engine(server, cancel_and_read, concurrency=1).text == "hello"


class TestLoops:
    def test_the_stream_of_a_repetitive_page_is_closed(self, server: ChatServer) -> None:
        # Given a model that never stops
        server.script = [hangs(*["and the sea was calm, "] * 200), says("hello")]

        async def both(engine: Engine) -> tuple[Recognition, Recognition]:
            looping = await read(engine)
            # Then the request is cancelled, so that its slot is free for the next page
            assert await asyncio.to_thread(server.left.wait, scaled(30))
            return looping, await read(engine)

        looping, after = with_engine(server, both, concurrency=1)

        assert looping.finish_reason == "loop"
        assert looping.loop is not None
        assert looping.loop.unit.strip() in looping.text
        assert len(looping.text) < 1500
        assert after.text == "hello"

    def test_a_loop_in_an_unstreamed_response_is_detected(self, server: ChatServer) -> None:
        server.script = [replies(whole("and the sea was calm, " * 200))]

        assert with_engine(server, read).finish_reason == "loop"

    def test_a_page_whose_time_is_over_keeps_what_was_written(self, server: ChatServer) -> None:
        server.script = [says(*[f"line {number} of a long page\n" for number in range(600)], pause=0.1)]

        async def read_soon(engine: Engine) -> Recognition:
            return await engine.recognise(page(), PROFILE.limited(deadline=scaled(1)))

        recognition = with_engine(server, read_soon)

        assert recognition.finish_reason == "deadline"
        assert recognition.text.startswith("line 0 of a long page\nline 1 of")
        assert recognition.tokens == recognition.text.count("line")

    def test_tokens_are_counted_without_a_count_of_the_server(self, server: ChatServer) -> None:
        server.script = [hangs(*["and the sea was calm, "] * 200)]

        async def ask(engine: Engine) -> None:
            await read(engine)
            with pytest.raises(ConfigurationError, match="OCRFLEET_OPENAI_MAX_TOKENS"):
                await read(engine)

        with_engine(server, ask, max_tokens=10)


class TestTooManyTokens:
    @pytest.mark.parametrize(
        ("message", "most", "sent"),
        [
            (VLLM, 4096, 4096 - IMAGE_TOKENS - 256),
            (VLLM_BEFORE, 2796, 2796),
            (OPENAI, 2796, 2796),
            ("Invalid max_tokens value, the valid range of max_tokens is [1, 4096]", 4096, 4096),
            ("max_tokens is too large: {sent}. This model supports at most 4096 completion tokens", 4096, 4096),
            ("max_tokens is too large", 4096, MAX_TOKENS // 2),
        ],
    )
    def test_are_lowered_once_and_remembered(self, server: ChatServer, message: str, most: int, sent: int) -> None:
        server.script = [limits_tokens(most, message, says("hello"))]

        with_engine(server, read_twice)

        assert [asked.body["max_tokens"] for asked in server.asked] == [MAX_TOKENS, sent, sent]

    def test_that_no_lowering_helps_fail_the_page(self, server: ChatServer) -> None:
        message = "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens"
        server.script = [refuses(400, message)]

        assert message in str(failure(server, PermanentError))
        assert len(server.asked) == 1

    def test_are_lowered_no_more_than_once_for_a_page(self, server: ChatServer) -> None:
        server.script = [refuses(400, "max_tokens is too large")]

        failure(server, PermanentError)

        assert len(server.asked) == 2


class TestStart:
    def test_asks_for_an_address(self) -> None:
        with ChatServer() as server:
            assert "--base-url" in str(failure(server, ConfigurationError, base_url=None))

    @pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", "http://user:hush@host:port/v1"])
    def test_refuses_what_is_no_address(self, server: ChatServer, address: str) -> None:
        message = str(failure(server, ConfigurationError, base_url=address))

        assert "http://127.0.0.1:8000/v1" in message
        assert "hush" not in message

    def test_tells_what_to_install(self, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openai", None)

        assert "pip install 'ocrfleet[openai]'" in str(failure(server, ConfigurationError))

    def test_refuses_a_profile_without_a_prompt(self, server: ChatServer) -> None:
        bare = PROFILE.model_copy(update={"prompt": None})

        with pytest.raises(ConfigurationError, match="prompt"):
            with_engine(server, read, profile=bare)

    @pytest.mark.parametrize("name", ["DeepSeek-OCR", "deepseek-ocr", "DEEPSEEK-AI/deepseek-ocr"])
    def test_the_servers_name_of_the_model_is_used(self, server: ChatServer, name: str) -> None:
        server.models = [model("other"), model(name)]

        with_engine(server, read)

        assert server.asked[0].body["model"] == name

    def test_a_model_that_is_not_served_is_refused_with_those_that_are(self, server: ChatServer) -> None:
        server.models = [model("qwen"), model("llama")]

        message = str(failure(server, ConfigurationError))

        assert DEEPSEEK in message
        assert "qwen, llama" in message
        assert "--model" in message

    @pytest.mark.parametrize("models_refusal", [(404, {"detail": "Not Found"}), (200, {"object": "list", "data": []})])
    def test_a_server_without_a_list_is_taken_at_its_word(self, hosted: ChatServer, models_refusal: Any) -> None:
        hosted.models_refusal = models_refusal

        assert with_engine(hosted, read).text == "hello"
        assert hosted.asked[0].body["model"] == DEEPSEEK

    @pytest.mark.parametrize("body", ["<html>welcome</html>", {"welcome": True}, [1]])
    def test_a_malformed_list_of_models_is_refused(self, server: ChatServer, body: Any) -> None:
        server.models_refusal = (200, body)

        assert "/v1" in str(failure(server, ConfigurationError))

    def test_an_endless_list_of_models_is_not_kept(self, server: ChatServer) -> None:
        server.models = [model("m" * 1000)] * 20_000

        assert "longer than 16777216 bytes" in str(failure(server, ConfigurationError))

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_is_our_configuration(self, server: ChatServer, status: int) -> None:
        server.models_refusal = (status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

        message = str(failure(server, ConfigurationError, api_key=SecretStr(KEY)))

        assert "OCRFLEET_OPENAI_API_KEY" in message
        assert KEY not in message

    def test_a_server_that_is_not_up_yet_is_no_configuration(self, server: ChatServer) -> None:
        server.models_refusal = (503, {"error": {"message": "loading"}})

        assert "loading" in str(failure(server, FatalError))
        assert "can't be reached" in str(failure(server, FatalError, base_url="http://127.0.0.1:9/v1"))

    def test_its_version_names_the_server(self, server: ChatServer, hosted: ChatServer) -> None:
        assert with_engine(server, version) == "openai vllm 0.32.0"
        assert with_engine(hosted, version) == f"openai {hosted.host}"

    def test_a_server_under_a_path(self) -> None:
        with ChatServer(prefix="/team") as server:
            assert with_engine(server, version) == "openai vllm 0.32.0"


class TestKeys:
    def test_none_is_needed(self, server: ChatServer) -> None:
        with_engine(server, read)

        assert server.asked[0].headers["authorization"] == "Bearer none"

    def test_ours_comes_before_that_of_the_sdk(self, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-elsewhere")

        with_engine(server, read)
        with_engine(server, read, api_key=SecretStr(KEY + "\n"))

        sent = [asked.headers["authorization"] for asked in server.asked]
        assert sent == ["Bearer sk-from-elsewhere", f"Bearer {KEY}"]

    def test_credentials_in_the_address_are_sent_and_never_shown(
        self, server: ChatServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        address = server.url.replace("://", "://reader:hush%21hush@")

        told = with_engine(server, version, base_url=address)
        with_engine(server, read, base_url=address)

        assert server.asked[0].headers["authorization"] == "Basic " + base64.b64encode(b"reader:hush!hush").decode()
        assert told == "openai vllm 0.32.0"
        assert "hush" not in caplog.text

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
    def test_are_in_no_error_and_no_log(
        self, server: ChatServer, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.script = [refuses(status, f"not with {KEY}, Bearer {KEY}! " + "so " * 200)]

        with pytest.raises(OcrfleetError, match=r"not with \*\*\*") as caught:
            with_engine(server, read, api_key=SecretStr(KEY))

        assert KEY not in "".join(traceback.format_exception(caught.value))
        assert len(str(caught.value)) < 500
        assert KEY not in caplog.text
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize("key", ["sk-two\nlines", "sk-ключ"])
    def test_that_can_be_no_key_are_refused_untold(self, server: ChatServer, key: str) -> None:
        error = failure(server, ConfigurationError, api_key=SecretStr(key))

        assert key not in "".join(traceback.format_exception(error))

    def test_is_in_no_representation(self, server: ChatServer) -> None:
        async def represent(engine: Engine) -> str:
            return repr(engine) + str(engine) + engine.version

        assert KEY not in with_engine(server, represent, api_key=SecretStr(KEY))


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_moment_of_weakness_is_overcome(self, server: ChatServer, status: int) -> None:
        server.script = [refuses(status), says("hello")]

        assert with_engine(server, read, retries=1).text == "hello"
        assert len(server.asked) == 2

    def test_retry_after_is_respected(self, server: ChatServer) -> None:
        server.script = [refuses(429, headers={"Retry-After": "1"}), says("hello")]

        with_engine(server, read, retries=1)

        assert server.asked[1].at - server.asked[0].at >= 1.0

    def test_a_broken_connection_is_made_again(self, server: ChatServer) -> None:
        server.script = [breaks_off(), says("hello")]

        assert with_engine(server, read, retries=1).text == "hello"

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
    def test_an_unreachable_server_is_no_fault_of_the_page(self, server: ChatServer, status: int) -> None:
        server.script = [refuses(status, "overloaded")]

        assert f"{server.host} answered {status}: overloaded" in str(failure(server, TransientError))

    @pytest.mark.parametrize("dated", [False, True])
    def test_a_pause_that_is_too_long_for_a_retry_holds_for_all_pages(self, server: ChatServer, dated: bool) -> None:  # noqa: FBT001
        # Given a server with a Retry-After longer than the two minutes that the SDK waits.
        pause = email.utils.formatdate(time.time() + 1000, usegmt=True) if dated else "1000"
        server.script = [refuses(429, headers={"Retry-After": pause}), says("hello")]

        async def ask_thrice(engine: Engine) -> None:
            # When one page met it, then others wait, are given back in time, and the server has its rest.
            with pytest.raises(TransientError, match="429"):
                await read(engine)
            for _ in range(2):
                with pytest.raises(TransientError, match=r"not ready for a page within 0\.4 seconds"):
                    await read(engine)

        with_engine(server, ask_thrice, retries=3, page_deadline=0.5)

        assert len(server.asked) == 1

    def test_a_rest_comes_to_an_end(self, server: ChatServer) -> None:
        server.script = [refuses(503, headers={"Retry-After": "0.5"}), says("hello")]

        async def ask_again(engine: Engine) -> Recognition:
            with pytest.raises(TransientError):
                await read(engine)
            return await read(engine)

        assert with_engine(server, ask_again).text == "hello"
        assert server.asked[1].at - server.asked[0].at >= 0.5

    def test_retries_end_before_the_pages_deadline(self, server: ChatServer) -> None:
        server.script = [refuses(503, headers={"Retry-After": str(FOREVER)})]

        # It does not wait for the Retry-After, which is longer than this test may take
        failure(server, TransientError, retries=6, page_deadline=0.5)

    def test_a_request_without_a_response_is_not_repeated(self, server: ChatServer) -> None:
        server.script = [hangs()]

        assert SILENT in str(failure(server, TransientError, timeout=HASTE, retries=6))
        assert len(server.asked) == 1

    def test_a_server_that_becomes_silent_is_no_fault_of_the_page(self, server: ChatServer) -> None:
        server.script = [hangs("once upon a time")]

        assert SILENT in str(failure(server, TransientError, timeout=HASTE))
        assert server.left.wait(scaled(30))

    def test_an_interrupted_response_is_no_fault_of_the_page(self, server: ChatServer) -> None:
        server.script = [breaks_off("once upon a time")]

        assert "in the middle" in str(failure(server, TransientError, retries=3))

    def test_a_response_without_an_end_is_no_fault_of_the_page(self, server: ChatServer) -> None:
        server.script = [events(chunk("once upon a time"))]

        assert "in the middle" in str(failure(server, TransientError))

    @pytest.mark.parametrize(
        ("error", "kind"),
        [({"message": "engine died", "code": 500}, TransientError), ({"message": "bad", "code": 400}, PermanentError)],
    )
    def test_an_error_in_a_stream_is_handled_like_one_before_it(
        self, server: ChatServer, error: dict[str, Any], kind: type[OcrfleetError]
    ) -> None:
        server.script = [events(chunk("once"), {"error": error}, "[DONE]")]

        assert str(error["message"]) in str(failure(server, kind))

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_a_refused_page_stays_refused(self, server: ChatServer, status: int) -> None:
        server.script = [refuses(status, "the image is odd " + "very " * 100)]

        error = failure(server, PermanentError, retries=3)

        assert isinstance(error, PermanentError)
        assert error.reason is Reason.ENGINE_FAILED
        assert "the image is odd" in error.detail
        assert len(error.detail) < 350
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        ("status", "remedy"), [(401, "OCRFLEET_OPENAI_API_KEY"), (402, "credit"), (403, "KEY"), (404, "--base-url")]
    )
    def test_a_server_that_no_longer_lets_us_in_is_no_pages_doing(
        self, server: ChatServer, status: int, remedy: str
    ) -> None:
        server.script = [says("hello"), refuses(status)]

        with pytest.raises(UnavailableError, match=remedy):
            with_engine(server, read_twice)

    @pytest.mark.parametrize("status", [401, 402, 403, 404])
    def test_a_server_that_never_let_us_in_is_our_configuration(self, server: ChatServer, status: int) -> None:
        server.script = [refuses(status)]

        failure(server, ConfigurationError)


#: Ways of a server to fail, and the reason that a page gets that is to blame.
FAILURES = {
    "500": (refuses(500, "EngineGenerateError"), Reason.ENGINE_FAILED),
    "502": (refuses(502), Reason.ENGINE_FAILED),
    "error in a stream": (events(chunk("once"), {"error": {"message": "died", "code": 500}}), Reason.ENGINE_FAILED),
    "hangs": (hangs(), Reason.ENGINE_DEADLINE),
    "falls silent": (hangs("once"), Reason.ENGINE_DEADLINE),
    "breaks off": (breaks_off("once"), Reason.ENGINE_FAILED),
    "breaks off at once": (breaks_off(), Reason.ENGINE_FAILED),
    "ends without an end": (events(chunk("once")), Reason.ENGINE_FAILED),
}


class TestBlame:
    """A page that a server always fails on must come to an end, and a server that is ill must not cost pages."""

    @pytest.mark.parametrize(("fails", "reason"), FAILURES.values(), ids=FAILURES.keys())
    def test_is_the_pages_when_another_was_answered_since_it_failed(
        self, server: ChatServer, fails: Behaviour, reason: Reason
    ) -> None:
        # Given a server that fails on a page, answers another, and fails on the first again, and again.
        server.script = [fails, says("hello"), fails, fails, says("hello"), fails]

        async def ask(engine: Engine) -> None:
            with pytest.raises(TransientError):
                await read(engine)
            await read_other(engine)
            with pytest.raises(PageFaultError) as caught:
                await read(engine)
            assert caught.value.reason is reason
            assert "answers other pages" in caught.value.detail
            # Then it is blamed once: each blame needs another answer.
            with pytest.raises(TransientError):
                await read(engine)
            await read_other(engine)
            with pytest.raises(PageFaultError):
                await read(engine)

        with_engine(server, ask, timeout=HASTE)

    def test_is_the_pages_when_another_was_answered_since_it_was_sent(self, server: ChatServer) -> None:
        server.script = [later(0.4, refuses(500)), says("hello")]

        async def ask(engine: Engine) -> None:
            asked = asyncio.create_task(read(engine))
            await asyncio.to_thread(server.wait_until_asked, 1)
            await read_other(engine)
            with pytest.raises(PageFaultError):
                await asked

        with_engine(server, ask)

    @pytest.mark.parametrize(("fails", "_"), FAILURES.values(), ids=FAILURES.keys())
    def test_is_no_pages_while_no_other_page_was_answered(
        self, server: ChatServer, fails: Behaviour, _: Reason
    ) -> None:
        server.script = [says("hello"), fails]

        async def ask(engine: Engine) -> None:
            await read(engine)  # answered before, which says nothing of now
            for _ in range(2):
                with pytest.raises(TransientError):
                    await read(engine)
                with pytest.raises(TransientError):
                    await read_other(engine)

        with_engine(server, ask, timeout=HASTE)

    def test_is_no_pages_when_the_server_is_busy_or_unreachable(self) -> None:
        with ExitStack() as stack:
            server = stack.enter_context(ChatServer())
            answers = replies(whole("hello"), {"Connection": "close"})
            server.script = [refuses(500), answers, refuses(503), refuses(429), answers]

            async def ask(engine: Engine) -> None:
                with pytest.raises(TransientError, match="500"):
                    await read(engine)
                await read_other(engine)
                with pytest.raises(TransientError, match="503"):
                    await read(engine)
                with pytest.raises(TransientError, match="429"):
                    await read(engine)
                await read_other(engine)
                await asyncio.to_thread(stack.close)
                with pytest.raises(TransientError, match="can't be reached"):
                    await read(engine)

            with_engine(server, ask)

    def test_of_a_server_that_dies_is_given_to_one_page_at_most(self, server: ChatServer) -> None:
        # Given a server that answers one of six requests, and then dies during the others.
        server.script = [later(0.5, breaks_off("once upon"))] * 5 + [says("hello")]

        async def ask(engine: Engine) -> list[type]:
            asked = [asyncio.create_task(engine.recognise(page(paper=n), PROFILE)) for n in range(5)]
            await asyncio.to_thread(server.wait_until_asked, 5)
            await read(engine)
            return sorted((type(end) for end in await asyncio.gather(*asked, return_exceptions=True)), key=str)

        assert with_engine(server, ask) == [PageFaultError, *[TransientError] * 4]

    def test_a_page_that_was_answered_begins_anew(self, server: ChatServer) -> None:
        server.script = [refuses(500), says("hello"), refuses(500)]

        async def ask(engine: Engine) -> None:
            with pytest.raises(TransientError):
                await read(engine)
            await read(engine)
            with pytest.raises(TransientError):
                await read(engine)

        with_engine(server, ask)

    def test_the_oldest_failed_pages_are_dropped(self) -> None:
        suspects = Suspects()
        for number in range(MOST_SUSPECTS + 1):
            assert not suspects.failed(str(number), sent=suspects.now)
        suspects.answered("another")

        assert suspects.failed("1", sent=suspects.now)
        assert not suspects.failed("0", sent=suspects.now)


class TestLimits:
    def test_no_more_pages_are_asked_for_than_may_be(self, server: ChatServer) -> None:
        async def ask(engine: Engine) -> list[Any]:
            return await asyncio.gather(*(read(engine) for _ in range(6)), return_exceptions=True)

        ends = with_engine(server, ask, max_pages=4)

        assert len(server.asked) == 4
        refused = [end for end in ends if isinstance(end, BaseException)]
        assert len(refused) == 2
        for error in refused:
            assert isinstance(error, ConfigurationError)
            assert "asked for 4 pages" in str(error)
            assert "OCRFLEET_OPENAI_MAX_PAGES" in str(error)

    def test_are_those_of_one_worker(self, server: ChatServer) -> None:
        for _ in range(2):
            with_engine(server, read, max_pages=1)

        assert len(server.asked) == 2

    def test_failed_pages_count(self, server: ChatServer) -> None:
        server.script = [refuses(500)]

        async def ask(engine: Engine) -> None:
            with pytest.raises(TransientError):
                await read(engine)
            with pytest.raises(ConfigurationError):
                await read(engine)

        with_engine(server, ask, max_pages=1)

    def test_no_page_is_asked_for_once_the_tokens_are_spent(self, server: ChatServer) -> None:
        async def ask(engine: Engine) -> None:
            await read_twice(engine)
            with pytest.raises(ConfigurationError, match=r"spent 1814 tokens.*OCRFLEET_OPENAI_MAX_TOKENS allows 1000"):
                await read(engine)

        with_engine(server, ask, max_tokens=1000)

        assert len(server.asked) == 2

    def test_a_server_without_stream_options_is_asked_for_unstreamed_responses(self, hosted: ChatServer) -> None:
        hosted.script = [fussy("stream_options", says("hello"))]

        assert with_engine(hosted, read, max_tokens=1000).tokens == 7

    def test_a_token_limit_needs_token_counts_of_the_server(self, server: ChatServer) -> None:
        server.script = [events(chunk("hello"), chunk(None, "stop"), "[DONE]")]

        assert "OCRFLEET_OPENAI_MAX_PAGES" in str(failure(server, ConfigurationError, max_tokens=1000))
