"""Repetition detection: cost, detected loops and false alarms.

    python -m bench.loops [--corpus ../shared/corpus] [--rounds 5]

Cost: texts are fed in pieces of 64 characters (about 16 tokens) up to 7,000 tokens; the fastest of several rounds, in
characters a second, and as a share of a core at 2,500 tokens a second (10,000 characters). The baseline of the same run only
joins the pieces. Loops are cut into parts too short to be detected.

Table: loops from user reports, and pages that resemble loops (both from
tests/support/repetitions.py), the corpus's texts and text layers. Tokens are estimated without a tokenizer: one
for a tag, one for each four letters of a word, one for any other sign. The saving of a loop is the rest of 7,000 tokens at
its detection. Exits with 1 if a loop is missed, a page causes a false alarm, or the cost exceeds 1 % of a core.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.repetitions import BEFORE, LOOPS, PAGES, text_layers, watch
from tests.support.servers import ROOT
from worker.engines.repetition import LoopWatch

PIECE, LIMIT_TOKENS, LIMIT_CHARACTERS = 64, 7000, 28_000
CHARACTERS_PER_SECOND = 10_000
#: Length of a part of a loop below the bounds of all rules, in characters.
STRETCH = 380
TARGET = 0.01
_TOKEN = re.compile(r"<[^<>]*>|[^\W_]{1,4}|[^\w\s]|_|\n")


def tokens(text: str) -> int:
    return len(_TOKEN.findall(text))


class Joined:
    def __init__(self) -> None:
        self.text: list[str] = []

    def feed(self, piece: str) -> None:
        self.text.append(piece)


def seconds(text: str, watch_of: Callable[[], LoopWatch | Joined], rounds: int) -> float:
    """Return the CPU seconds per character in the fastest round."""
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    taken = []
    for _ in range(rounds):
        watched = watch_of()
        begin = time.process_time()
        for piece in pieces:
            loop = watched.feed(piece)
        taken.append(time.process_time() - begin)
        assert loop is None
    return min(taken) / len(text)


def longest(text: str) -> str:
    """Return a text of 7,000 tokens: the given text repeated, with other words between."""
    long, number = "", 0
    while len(long) < LIMIT_CHARACTERS:
        long += f"{text}\n{word(number)}\n"
        number += 1
    return long[:LIMIT_CHARACTERS]


def word(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number * number + 1000)) + BEFORE[number % 200 :]


def cost(corpus: Path, rounds: int) -> bool:
    prose = " ".join(path.read_text(encoding="utf-8") for path in sorted((corpus / "gt").glob("*.txt")))
    layers = dict(text_layers(corpus))
    texts = {
        "corpus: transcriptions": (prose * 2)[:LIMIT_CHARACTERS],
        "corpus: text layers": "".join(layers.values())[:LIMIT_CHARACTERS],
        "corpus: a table": longest(layers["table-rotated.pdf:1"]),
    }
    for name in (
        "zeros, html",
        "zeros and figures, html",
        "figures of equal length, html",
        "a ledger without entries, html",
    ):
        texts[f"built: {name}"] = longest(PAGES[name])
    texts["built: figures only, Arabic digits"] = longest(PAGES["figures of equal length, plain"].translate(_ARABIC))
    for looping in LOOPS[::4]:
        texts[f"loop, until seen: {looping.name}"] = longest(looping.text[len(BEFORE) :][:STRETCH])
    print(f"{'text':48} {'characters/s':>13} {'of a core':>10} {'joining':>10}")
    worst = 0.0
    for name, text in texts.items():
        taken, bare = seconds(text, LoopWatch, rounds), seconds(text, Joined, rounds)
        share = taken * CHARACTERS_PER_SECOND
        worst = max(worst, share)
        print(f"{name:48} {1 / taken:13,.0f} {share:10.3%} {bare * CHARACTERS_PER_SECOND:10.3%}")
    print(f"worst {worst:.3%}, target {TARGET:.0%}\n")
    return worst <= TARGET


_ARABIC = {48 + digit: 0x660 + digit for digit in range(10)}


def table(corpus: Path) -> bool:
    print(f"{'loop':30} {'source':34} {'characters':>10} {'tokens':>7} {'bound':>7} {'spared':>7}")
    seen = spared = 0
    for looping in LOOPS:
        loop, fed = watch(looping.text)
        if loop is None:
            print(f"{looping.name:30} {looping.source:34} {'missed':>10}")
            continue
        seen += 1
        saved = max(LIMIT_TOKENS - tokens(looping.text[:fed]), 0)
        spared += saved
        written = tokens(looping.text[len(BEFORE) : fed])
        print(
            f"{looping.name:30} {looping.source:34} {fed - len(BEFORE):10,} {written:7,} {looping.bound:7,} {saved:7,}",
        )
    texts = [path.read_text(encoding="utf-8") for path in sorted((corpus / "gt").iterdir())]
    layers = list(dict(text_layers(corpus)).values())
    groups = {
        "corpus, ground truth": texts,
        "corpus, ground truth twice": [text * 2 for text in texts],
        "corpus, text layers": layers,
        "corpus, text layers as one": ["".join(layers)],
        "built pages": list(PAGES.values()),
    }
    print(f"\n{'texts':30} {'number':>7} {'characters':>11} {'alarms':>7}")
    print(f"{'loops from user reports':30} {len(LOOPS):7} {'':11} {seen:7}")
    false = 0
    for name, group in groups.items():
        alarms = sum(watch(text)[0] is not None for text in group)
        false += alarms
        print(f"{name:30} {len(group):7} {sum(map(len, group)):11,} {alarms:7}")
    share = spared / len(LOOPS) / LIMIT_TOKENS
    print(f"\ntrue alarms {seen} of {len(LOOPS)}, false alarms {false} of {sum(map(len, groups.values()))}; ", end="")
    print(f"tokens spared: {spared:,} of {LIMIT_TOKENS * len(LOOPS):,} ({share:.0%})")
    return seen == len(LOOPS) and not false


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "corpus")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cheap = cost(options.corpus, options.rounds)
    right = table(options.corpus)
    return 0 if cheap and right else 1


if __name__ == "__main__":
    sys.exit(main())
