"""The processes that find the words on page images."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from ocrfleet.errors import PageFaultError, TransientError
from tests.support.engine_contract import PARAGRAPHS, printed
from tests.support.waiting import scaled
from worker.words.finder import WordFinder
from worker.words.model_words import placed_words


def test_words_of_a_models_text_stand_where_they_are_printed() -> None:
    image = printed()
    with closing(WordFinder(1, max_pixels=image.width * image.height, deadline=scaled(300))) as finder:
        seen = asyncio.run(finder.find(image))
    text = "\n\n".join(" ".join(lines) for lines in PARAGRAPHS)
    found = placed_words(text, (), seen, width=image.width, height=image.height)
    assert [word.text for word in found] == text.split()
    assert {word.placed.value for word in found} == {"detected"}
    tops = [word.box[3] for word in found]
    assert max(tops) - min(tops) > 40


def test_a_page_that_is_too_large_is_refused_and_a_closed_finder_says_so() -> None:
    finder = WordFinder(1, max_pixels=100, deadline=scaled(300))
    with pytest.raises(PageFaultError, match="too large"):
        asyncio.run(finder.find(printed()))
    finder.close()
    finder.close()
    with pytest.raises((TransientError, RuntimeError)):
        asyncio.run(finder.find(printed()))
