"""Verdicts on correct and on wrong texts, over the pages of the corpus at the long sides of the profiles.

    python -m bench.verdicts --corpus ../shared/corpus [--without-engine]

Correct texts: each page with its known text (ground truths; trusted text layers; some correct text layers that a worker does not
trust); a dozen scans with the text of RapidOCR; the hard texts of tests/support/repetitions.py on a full page, or
on a ruled page if they consist mostly of rules; no text on pages without text: a picture of the corpus, and drawn pages (gradient,
noise, grain, stain, shadow, hatching, halftone, curves, dotted and ruled lines), pictures only for models that may classify a page
as a picture. A rejection of these is a false alarm.

Wrong texts: the text of another page on nearly blank pages (a page number, a stamp, a stain, …); no text, or a page number, on
full pages; truncated texts, loops, another script, mixed alphabets, garbage, damaged texts. A missing or different verdict is a
miss.

Then the extreme values that are compared with thresholds (`Judgement`), and the cost. Exits with 1 on a false alarm or a miss that
is not listed in `STATED`, and on a listed one that does not occur.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from bench.corpus_pages import SIDES, known_texts, pages, read_texts
from bench.drawn_pages import NEARLY_BLANK, NOTHING_TO_READ, drawn
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement
from ocrfleet.records.pages import Block, Role
from tests.support.repetitions import LOOPS, PAGES
from tests.support.servers import ROOT
from worker.engines.base import Recognition
from worker.engines.stream import LOOP, Transcript
from worker.imaging import ink
from worker.imaging.page_image import PageImage
from worker.imaging.print_detection import enlargement, printed
from worker.parsers import Parsed
from worker.pipeline import verdict as judge

WITHOUT_TEXT = "jpx.pdf"
#: A page whose text is used on other pages, and texts with few words.
LONG_TEXT, NOT_OF_WORDS = "gt-fraktur-1879.tif:1", ("born-117p-maths", "table")
#: Minimum number of letters and digits of a page for which an empty text is wrong.
FULL = 300
#: A document with three words per page.
THREE_WORDS = "rotations-arabic.pdf"
#: Known wrong verdicts, with their long sides. Causes: joined handwriting has few rows of letters; a table of figures rendered at a
#: height of 4 pixels has few rows; a short page of formulas has slightly too few, as have pages with three words. A stain has as
#: much ink as a paragraph, and so does a stamp at a coarse grid. Fine dots that merge become dashes of any length, so a dotted form
#: is classified as print.
STATED = {
    ("empty", "handwriting.pdf:1"): (1024, 1280, 1684, 2500),
    ("empty", "born-117p-maths.pdf:46"): (1024, 1684),
    ("empty", "table-rotated.pdf:1"): (512, 640),
    ("empty, three words", "handwriting.pdf:1"): (640, 1024, 1280, 1684, 2500),
    ("empty, three words", "born-117p-maths.pdf:46"): (640, 1024, 1280, 1684, 2500),
    ("empty, three words", "table-rotated.pdf:1"): (512, 640),
    ("empty, three words", "arabic.pdf:1"): (1024,),
    ("empty, three words", "typewriter.png:1"): (1024,),
    ("invented, a paragraph", "a stain"): SIDES,
    ("invented, a paragraph", "a stamp"): (512,),
    ("nothing to read", "fine dotted lines"): SIDES[1:],
}

STOPPED = Recognition(text="", finish_reason="stop", tokens=1)


@dataclass(frozen=True, slots=True)
class Case:
    kind: str
    name: str
    image: PageImage
    parsed: Parsed
    recognition: Recognition = STOPPED
    judgement: Judgement = field(default_factory=Judgement)

    def verdict(self) -> judge.Rejection | None:
        return judge.judge(self.parsed, self.recognition, self.image, self.judgement)


def letters(text: str) -> int:
    return sum(map(str.isalnum, re.sub(r"<[^<>]*>", "", text)))


def said(text: str) -> Parsed:
    return Parsed(text=text)


# --- the cases ---


def figures_only(image: PageImage) -> Parsed:
    whole = ((0.0, 0.0, float(image.width), float(image.height)),)
    return Parsed(text="", blocks=(Block(label="image", role=Role.FIGURE, boxes=whole),))


def honest(found: dict[str, dict[int, PageImage]], known: dict[str, str], read: dict[str, str]) -> Iterator[Case]:
    for kind, texts in (("known texts", known), ("texts read by RapidOCR", read)):
        for name, text in texts.items():
            scripts = ("ARABIC", "LATIN") if "arabic" in name else ("LATIN", "CJK", "HIRAGANA", "KATAKANA")
            for side, image in found[name].items():
                yield Case(kind, f"{name} at {side}", image, said(text), judgement=Judgement(scripts=scripts))
    full, ruled = found["form-aes-owner.pdf:4"][1280], drawn(NOTHING_TO_READ["a ledger without entries"], 1280)
    for name, text in PAGES.items():
        image = full if letters(text) > Judgement().always_allowed else ruled
        yield Case("hard texts", name, image, said(text), judgement=Judgement(scripts=("LATIN",)))
    for side in SIDES:
        picture = found[f"{WITHOUT_TEXT}:1"][side]
        yield Case("nothing to read", f"{WITHOUT_TEXT} at {side}", picture, said(""))
        for name, draw in NOTHING_TO_READ.items():
            yield Case("nothing to read", f"{name} at {side}", drawn(draw, side), said(""))
            yield Case(
                "nothing to read", f"{name} at {side}, a picture", drawn(draw, side), figures_only(drawn(draw, side))
            )
        for name in (f"{WITHOUT_TEXT}:1", "png-map.png:1"):
            image = found[name][side]
            yield Case("pictures only", f"{name} at {side}", image, figures_only(image))


GARBAGE = {
    "replacement characters": "the \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}arbour " * 40,
    "private use": "".join(chr(0xE000 + n % 90) for n in range(600)),
    "control characters": "a\x00\x02b\x07 " * 90,
    "signs": "".join("%!?;@%~!`;"[n * n % 10] for n in range(500)),
}


def spoilt(
    found: dict[str, dict[int, PageImage]], known: dict[str, str], read: dict[str, str]
) -> Iterator[tuple[Reason, Case]]:
    yield from ((Reason.EMPTY, case) for case in silent(found, known | read))
    yield from ((Reason.INVENTED, case) for case in invented(found, known))
    yield from ((Reason.WRONG_SCRIPT, case) for case in in_another_script(found, known))
    cut = Recognition(text="", finish_reason="length", tokens=700)
    for name, text in known.items():
        half = said(text[: len(text) // 2])
        yield Reason.TRUNCATED, Case("truncated", name, found[name][1280], half, recognition=cut)
    full = found[LONG_TEXT][1280]
    for looping in LOOPS:
        transcript = Transcript()
        for begin in range(0, len(looping.text), 4):  # about four characters per token
            transcript.add(looping.text[begin : begin + 4])
            if transcript.loop is not None:
                break
        ended = Recognition(text="", finish_reason=LOOP, tokens=len(transcript), loop=transcript.loop)
        yield Reason.REPETITION, Case("repetition", looping.name, full, said(transcript.text), recognition=ended)
    for name, text in GARBAGE.items():
        yield Reason.UNPARSABLE, Case("unparsable", name, full, said(text))
    chance = random.Random(2)  # noqa: S311 - reproducible damage
    for name, text in known.items():
        mixed_in = "".join("\N{REPLACEMENT CHARACTER}" if chance.random() < 0.1 else sign for sign in text)
        yield Reason.UNPARSABLE, Case("unparsable", name, found[name][1280], said(mixed_in))
    damaged = Parsed(text=known[LONG_TEXT], damage="the list of cells breaks off")
    yield Reason.UNPARSABLE, Case("unparsable", "damaged", full, damaged)


def silent(found: dict[str, dict[int, PageImage]], known: dict[str, str]) -> Iterator[Case]:
    for name in (name for name, text in known.items() if letters(text) >= FULL):
        for side, image in found[name].items():
            yield Case("empty", f"{name} at {side}, nothing", image, said(""))
            yield Case("empty, three words", f"{name} at {side}", image, said("Page 212 of"))


def invented(found: dict[str, dict[int, PageImage]], known: dict[str, str]) -> Iterator[Case]:
    long = known[LONG_TEXT]
    images = {name: {side: drawn(draw, side) for side in SIDES} for name, draw in NEARLY_BLANK.items()}
    images |= {name: at for name, at in found.items() if name.startswith(THREE_WORDS)}
    for name, at in images.items():
        for side, image in at.items():
            yield Case("invented, a page", f"{name} at {side}", image, said(long))
            yield Case("invented, a paragraph", f"{name} at {side}", image, said(long[:700]))


def in_another_script(found: dict[str, dict[int, PageImage]], known: dict[str, str]) -> Iterator[Case]:
    alike = str.maketrans("aeopcxy", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443")
    for name in (name for name, text in known.items() if letters(text) >= FULL):
        image, is_arabic = found[name][1280], name.startswith("arabic")
        asked = Judgement(scripts=("LATIN",) if is_arabic else ("ARABIC",))
        yield Case("wrong script", name, image, said(known[name]), judgement=asked)
        if not is_arabic and not name.startswith(NOT_OF_WORDS):
            yield Case("mixed alphabets", name, image, said(known[name].translate(alike)))


# --- the results ---


def stated_as(case: Case) -> tuple[str, str, int] | None:
    """Return the entry of `STATED` that applies to the case, or None."""
    name, _, side = re.sub(r",.*", "", case.name).partition(" at ")
    known = side.isdecimal() and int(side) in STATED.get((case.kind, name), ())
    return (case.kind, name, int(side)) if known else None


@dataclass
class Count:
    number: int = 0
    wrong: int = 0
    #: wrong verdicts that `STATED` lists
    stated: int = 0
    false_alarms: int = 0
    stated_alarms: int = 0


def table(cases: list[tuple[Reason | None, Case]]) -> bool:
    """Print false alarms and misses by kind and by verdict; return whether they are those in `STATED`."""
    kinds: defaultdict[str, Count] = defaultdict(Count)
    verdicts: defaultdict[Reason | None, Count] = defaultdict(Count)
    wrong, seen = [], set()
    for expected, case in cases:
        doubt = case.verdict()
        found = doubt.reason if doubt else None
        stated = stated_as(case)
        for count in kinds[case.kind if expected else f"honest: {case.kind}"], verdicts[expected]:
            count.number += 1
            count.wrong += found != expected and stated is None
            count.stated += found != expected and stated is not None
        if found != expected and expected is None:
            verdicts[found].false_alarms += stated is None
            verdicts[found].stated_alarms += stated is not None
        if found != expected and stated is not None:
            seen.add(stated)
        elif found != expected:
            wrong.append(f"{expected or 'none'} expected, {case.kind}, {case.name}: {doubt}")
    print(f"{'texts':34} {'number':>7} {'wrong verdict':>15} {'as stated':>10}")
    for name, count in kinds.items():
        print(f"{name:34} {count.number:7,} {count.wrong:15} {count.stated or '':>10}")
    honest_texts = verdicts.pop(None).number
    print(f"\n{'verdict':14} {'wrong texts':>13} {'misses':>7} {'as stated':>10}", end=" ")
    print(f"{f'false alarms in {honest_texts} correct texts':>37} {'as stated':>10}")
    for reason, count in verdicts.items():
        print(f"{reason:14} {count.number:13} {count.wrong:7} {count.stated or '':>10}", end=" ")
        print(f"{count.false_alarms:37} {count.stated_alarms or '':>10}")
    every = {(kind, name, side) for (kind, name), sides in STATED.items() for side in sides}
    for line in wrong:
        print("wrong:", line)
    for line in sorted(every - seen):  # type: ignore[assignment]
        print("in STATED, but judged correctly:", *line)
    return not wrong and seen == every


def in_rows(image: PageImage) -> tuple[int, float]:
    """Return the number of marks in rows, and their share of all marks of the size of letters."""
    seen = printed(image.pixels)
    marks = sum(row.marks for row in seen.rows) - seen.across
    return marks, marks / max(seen.letters, 1)


def extremes(found: dict[str, dict[int, PageImage]], known: dict[str, str], read: dict[str, str]) -> None:
    allowed = Judgement().always_allowed
    print(f"\nletters and digits of known texts that have more than {allowed}, by long side: most and fewest")
    print(f"{'':8} {'for a square':>34} {'for a letter':>34} {'for a mark in a row, fewest':>36}")
    for side in SIDES:
        ratios = []
        for name, text in known.items():
            image, count = found[name][side], letters(text)
            squares = ink.squares(image) * enlargement(image.height, image.width) ** 2
            if count > allowed:
                most = max(printed(image.pixels).letters, 1)
                ratios.append((count / squares, count / most, count / max(in_rows(image)[0], 1), name))
        columns = [max((r[column], r[3]) for r in ratios) for column in (0, 1)]
        columns.append(min((r[2], r[3]) for r in ratios))
        print(f"{side:8} " + " ".join(f"{ratio:8.2f} {name:>25}" for ratio, name in columns))
    print(
        f"\nmarks in rows, and their share of what letters there can be, by long side; {FULL} letters and more are print"
    )
    print(
        f"{'':8} {'print, fewest':>33} {'print, least share':>34} {'no print, most':>29} {'no print, largest share':>27}"
    )
    floor = Judgement().fewest_letters
    for side in SIDES:
        full = {name: in_rows(found[name][side]) for name, text in (known | read).items() if letters(text) >= FULL}
        none = {name: in_rows(drawn(draw, side)) for name, draw in NOTHING_TO_READ.items() if "dotted" not in name}
        none[WITHOUT_TEXT] = in_rows(found[f"{WITHOUT_TEXT}:1"][side])
        fewest = min((marks, name) for name, (marks, _) in full.items())
        least = min((share, name) for name, (marks, share) in full.items() if marks >= floor)
        most = max((marks, name) for name, (marks, _) in none.items())  # type: ignore[assignment]
        largest = max(((share, name) for name, (marks, share) in none.items() if marks >= 10), default=(0.0, ""))
        print(f"{side:8} {fewest[0]:7} {fewest[1]:>25} {least[0]:8.3f} {least[1]:>25}", end=" ")
        print(f"{most[0]:8} {most[1]:>20} {largest[0]:8.3f} {largest[1]:>18}")  # type: ignore[index]
    print("\ncorrect texts: share of")
    texts = known | read | PAGES
    for told, measure in SHARES.items():
        share, name = max((measure(text), name) for name, text in texts.items())
        print(f"  {told}: {share:.3f} at most ({name})")


def _unreadable(text: str) -> float:
    signs = [sign for sign in text if not sign.isspace()]
    return sum(map(judge._is_unreadable, signs)) / max(len(signs), 1)  # noqa: SLF001 - the function of the verdict


def _noise(text: str) -> float:
    plain = judge._MARKUP.sub(" ", text)  # noqa: SLF001
    other = sum(map(judge._is_symbol, plain))  # noqa: SLF001
    return other / (letters(plain) + other) if other >= judge._MIN_SYMBOLS else 0.0  # noqa: SLF001


def _mixed(text: str) -> float:
    words = [word for word in judge._WORD.findall(text) if len(word) > 1]  # noqa: SLF001
    mixed = [word for word in words if len(judge._EXCLUSIVE_SCRIPTS & set(map(judge._script, word))) > 1]  # noqa: SLF001
    return len(mixed) / max(len(words), 1)


SHARES = {
    "signs that can't be read": _unreadable,
    f"punctuation and symbols, where they are {judge._MIN_SYMBOLS} or more": _noise,  # noqa: SLF001
    "words that mix alphabets": _mixed,
}


def cost(found: dict[str, dict[int, PageImage]], known: dict[str, str]) -> None:
    cv2.setNumThreads(1)
    print(f"\n{'milliseconds, median':24} {'is_blank':>9} {'judge, text':>12} {'judge, no text':>15}")
    for side in (1024, 1684, 2500):
        columns = []
        for measured in (
            lambda image, _: ink.is_blank(image),
            lambda image, text: Case("", "", image, said(text)).verdict(),
            lambda image, _: Case("", "", image, said("")).verdict(),
        ):
            taken = []
            for name, text in known.items():
                begun = time.perf_counter()
                measured(found[name][side], text)
                taken.append(1000 * (time.perf_counter() - begun))
            columns.append(statistics.median(taken))
        print(f"{side:24} {columns[0]:9.1f} {columns[1]:12.1f} {columns[2]:15.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(os.environ.get("OCRFLEET_CORPUS", ROOT.parent / "shared" / "corpus"))
    parser.add_argument("--corpus", type=Path, default=beside)
    parser.add_argument("--without-engine", action="store_true", help="leave out what RapidOCR reads")
    options = parser.parse_args()
    found, layers = pages(options.corpus)
    known = known_texts(options.corpus, found, layers)
    read = {} if options.without_engine else read_texts(found)
    print(f"{len(found)} pages at {len(SIDES)} long sides; {len(known)} texts known, {len(read)} read by RapidOCR\n")
    cases: list[tuple[Reason | None, Case]] = [(None, case) for case in honest(found, known, read)]
    cases += spoilt(found, known, read)
    right = table(cases)
    extremes(found, known, read)
    cost(found, known)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
