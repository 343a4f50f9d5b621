"""Script and language of a text, for statistics: an estimate, not a reason to reject a page.

The script is that of most letters, by their Unicode names. The language is the one with the most stop words in the text, by the
lists of the stopwordsiso library.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter, defaultdict

import stopwordsiso

#: Number of characters at the start of a text that are used.
_LOOKED_AT = 4000
#: Minimum number of different stop words of a language, and their minimum share of the different words of the text.
_FEWEST, _LEAST = 5, 0.1
#: Breton: its list has words of other languages (worker/text_layer/vocabulary.py).
_LEFT_OUT = frozenset({"br"})
_WORD = re.compile(r"[^\W\d_]{2,}")
_TAG = re.compile(r"<[^<>]*>")
#: A text with kana and ideographs is Japanese; with ideographs alone it is Chinese.
_KANA = frozenset({"hiragana", "katakana"})
_OF_SCRIPT = {"hangul": "ko", "thai": "th", "georgian": "ka", "armenian": "hy", "hebrew": "he", "greek": "el"}


@functools.lru_cache(maxsize=1 << 16)
def _script_of(letter: str) -> str:
    """Return the script of a letter, the first word of its Unicode name; "" for other characters."""
    if not letter.isalpha():
        return ""
    return unicodedata.name(letter, "").partition(" ")[0].lower()


@functools.cache
def _languages() -> dict[str, tuple[str, ...]]:
    """Return the languages of each stop word."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for language in sorted(stopwordsiso.langs() - _LEFT_OUT):
        for word in {word.casefold() for word in stopwordsiso.stopwords(language)}:
            found[word].append(language)
    return {word: tuple(languages) for word, languages in found.items()}


def script_and_language(text: str) -> tuple[str, str]:
    """Return script and language (ISO 639-1) of a text; "" if unknown, as with few words."""
    text = _TAG.sub(" ", text[:_LOOKED_AT])
    letters: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        letters[_script_of(letter)] += count
    del letters[""]
    if not letters:
        return "", ""
    script = letters.most_common(1)[0][0]
    if not letters.keys().isdisjoint(_KANA) and script in _KANA | {"cjk"}:
        return "japanese", "ja"
    if script == "cjk":
        return "chinese", "zh"
    return script, _OF_SCRIPT.get(script) or _language_of(text)


def _language_of(text: str) -> str:
    words = {word.casefold() for word in _WORD.findall(text)}
    known = _languages()
    votes: defaultdict[str, float] = defaultdict(float)
    for word in words:
        languages = known.get(word, ())
        for language in languages:
            # A word of few languages has more weight.
            votes[language] += 1 + 1 / len(languages)
    if not votes:
        return ""
    language, _ = max(sorted(votes.items()), key=lambda item: item[1])
    hits = sum(1 for word in words if language in known.get(word, ()))
    return language if hits >= max(_FEWEST, _LEAST * len(words)) else ""
