"""Checks whether words belong to a language, which is not known in advance, by the language's common short words.

A layer with wrongly mapped characters (each letter is another one) has as many words as a right one, but none of these; a layer
of bad OCR has many words that differ from them by a letter. The lists are those of the stopwordsiso library, for 57 languages.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import stopwordsiso

#: Shorter words are not counted: most pairs of letters are a word of some language.
_SHORTEST = 3
#: Longer words are not common ones, and the search with wrong letters takes time with the square of the length.
_LONGEST = 24
#: Breton: its list has 1,198 words, "ich" and "die" of other languages among them, and shifted German scored with it.
_LEFT_OUT = frozenset({"br"})
_WORD = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")
#: Thai, Lao, Tibetan, Burmese, Khmer; kana, bopomofo and ideographs (Unicode 16, blocks).
_UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
)


def words_in(texts: Iterable[str]) -> list[str]:
    """Return the words of at least three letters, in lower case and in order. All other characters separate words."""
    found = (word.casefold() for text in texts for word in _WORD.findall(text))
    return [word for word in found if len(word) >= _SHORTEST]


def known(words: Sequence[str]) -> int:
    """Return how many different ones of these words are among the common ones of their language."""
    return len(_common()[_language(words)].intersection(words))


def common_words(words: Sequence[str]) -> int:
    """Return how many of these words, repeated ones too, are common ones of their language."""
    common = _common()[_language(words)]
    return sum(word in common for word in words)


def longest_unknown(words: Sequence[str]) -> int:
    """Return how many words follow each other, at most, with no common one of their language among them."""
    common = _common()[_language(words)]
    return max((len(list(run)) for knows, run in groupby(words, key=common.__contains__) if not knows), default=0)


def misspelt(words: Sequence[str]) -> float:
    """Return how many of the common words of their language have one letter wrong, 0..1: words that only look like one."""
    language = _language(words)
    common, alike = _common()[language], _with_a_letter_missing(language)
    right = wrong = 0
    for word, count in Counter(words).items():
        if word in common:
            right += count
        elif not alike.isdisjoint(_letter_missing(word)):
            wrong += count
    return wrong / max(right + wrong, 1)


def unspaced(text: str) -> float:
    """Return the share of a text's letters that are in scripts that put no spaces between words, 0..1."""
    return len(_UNSPACED.findall(text)) / max(len(_LETTER.findall(text)), 1)


def _language(words: Sequence[str]) -> int:
    """Return the index in `_common` of the language with the most of these words; the first of several."""
    distinct = set(words)
    hits = [len(distinct & common) for common in _common()]
    return hits.index(max(hits))


@functools.cache
def _common() -> tuple[frozenset[str], ...]:
    """Return the common words of each language, in lower case."""
    languages = sorted(stopwordsiso.langs() - _LEFT_OUT)
    lists = (stopwordsiso.stopwords(language) for language in languages)
    return tuple(frozenset(word.casefold() for word in words if len(word) >= _SHORTEST) for words in lists)


@functools.cache
def _with_a_letter_missing(language: int) -> frozenset[str]:
    return frozenset(gap for word in _common()[language] for gap in _letter_missing(word))


def _letter_missing(word: str) -> Iterator[str]:
    """Yield the word with each of its letters replaced by a wildcard in turn; nothing for a long word."""
    if len(word) <= _LONGEST:
        for place in range(len(word)):
            yield f"{word[:place]}?{word[place + 1 :]}"
