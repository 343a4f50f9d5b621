"""The engine for OpenAI's protocol keeps the engine contract, with a server whose text follows from the image."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from ocrfleet.profiles import models
from ocrfleet.profiles.build import profile_of
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import OpenAiSettings, Settings
from tests.support.engine_contract import EngineContract, Use
from tests.support.fakes.chat_server import ChatServer, Handler, chunk, usage_chunk
from worker import engines


def reads(handler: Handler, body: dict[str, Any]) -> None:
    """Answer with words that the page image decides."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    handler.begin_stream()
    for piece in (hashlib.sha256(url.encode()).hexdigest()[:12], " and so on"):
        handler.send_event(chunk(piece))
    handler.send_event(chunk("", "stop"))
    handler.send_event(usage_chunk())
    handler.send_event("[DONE]")
    handler.end_stream()


class TestOpenAi(EngineContract):
    @pytest.fixture
    def profile(self) -> Profile:
        return profile_of(models.DEEPSEEK_OCR, engine="openai")

    @pytest.fixture
    def server(self) -> Iterator[ChatServer]:
        with ChatServer() as running:
            running.script = [reads]
            yield running

    @pytest.fixture
    def use(self, profile: Profile, server: ChatServer) -> Use:
        async def main(function: Any) -> Any:
            engine = engines.create(profile, Settings(openai=OpenAiSettings(base_url=server.url)))
            await engine.start()
            try:
                return await function(engine)
            finally:
                await engine.stop()

        return lambda function: asyncio.run(main(function))
