"""Fuzz the parsers with a million outputs: no exceptions, no remaining markup, at most linear time.

    python -m bench.fuzz_parsers [--outputs 1000000] [--seed 1]

Outputs come from each format's grammar, from published samples, or from the tokens of all formats. Most are then damaged:
flipped bytes, cuts, splices, repeated or missing parts, repeated and nested tags, huge numbers, unusual characters. Each output
is parsed by its own parser, every eighth by another one; one text in eight is cleaned as for Markdown output. A page must
consist of its blocks, without tags, with boxes on the image.

Then families of outputs with a risk of superlinear time are parsed at 25,000 characters and at eight times as many: the ratio
of the medians must be below 16. Prints the output and exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from ocrfleet.profiles.profile import Parser
from tests.support import published_outputs as published
from worker.formats.markdown import clean
from worker.parsers import dots, grounding, otsl, parse

WIDTH, HEIGHT = 1190, 1684
SHORT, LONG, MOST_GROWTH = 25_000, 200_000, 16
#: shorter times in seconds are dominated by the clock and caches
SHORTEST = 2e-4
#: maximum length of a damaged output in characters
LONGEST = 1_500

PUBLISHED = {
    Parser.GROUNDING: (published.DEEPSEEK_MARKDOWN, published.DEEPSEEK_TEXT),
    Parser.DOTS: (published.DOTS_PAGE, published.DOTS_LOOPING, published.DOTS_VERTICAL),
    Parser.OLMOCR: (published.OLMOCR_PAGE, published.OLMOCR_TABLE, published.OLMOCR_EMPTY),
    Parser.PADDLEOCR: (published.PADDLEOCR_TABLE, published.PADDLEOCR_FORMULA, published.PADDLEOCR_CHART),
}
WORDS = (
    "The moon", "pulls twice a day,", "4 m", "déjà vu", "月亮", "قمر", "# On tides", "## Springs", "- new", "1. full", "$x_1$",
    r"\(\frac{a}{b}\)", "$$", r"\[x\]", "<table><tr><td>", "</td></tr></table>", "| a | b |", "|---|", "```", "~~~", "\n", "\n\n",
    "![moon](page_1_2_3_4.png)", "[^1]: note", "<center>", "a < b & c", '"', "'", "\\", "{", "}", "[", "]", "<", ">", "---",
)  # fmt: skip
ODD = tuple("\x00\x0b\r\x1b\x85\ud800\udfff\ufeff\u0301\u200b\u2028\u202e\u0663\U0001d7db🌙")
TOKENS = (
    "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", "[[1, 2, 30, 40]]", "text[[1, 2, 30, 40]]\n", *otsl.TAGS,
    '{"bbox": [1, 2, 30, 40], ', '"category": "Text", ', '"text": "', '"}', "}, {", "\\u", "\\ud83d", '\\"', "---\n",
    "primary_language: en\n", "is_rotation_valid: False\n", "rotation_correction: 90\n", "is_table: True\n", "is_diagram: True\n",
)  # fmt: skip

Maker = Callable[[random.Random], str]


def words(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(0, 6)))


def number(chance: random.Random) -> str:
    return chance.choice(("-1", "0", "9" * chance.randint(1, 400), "1e9", "NaN", "0.5")) if chance.random() < 0.1 else str(chance.randint(0, 1100))  # fmt: skip


def box(chance: random.Random) -> str:
    return f"[{', '.join(number(chance) for _ in range(chance.choice((4, 4, 4, 4, 4, 3, 5))))}]"


def grounded(chance: random.Random) -> str:
    labels = [*grounding.ROLES, "", "marginalia", words(chance)]
    stripped = chance.random() < 0.2
    parts = []
    for _ in range(chance.randint(0, 5)):
        label, boxes = chance.choice(labels), ", ".join(box(chance) for _ in range(chance.choice((1, 1, 1, 0, 3))))
        tags = f"{label}[{boxes}]" if stripped else f"<|ref|>{label}<|/ref|><|det|>[{boxes}]<|/det|>"
        parts.append(f"{tags}\n{words(chance)}")
    return "\n\n".join(parts)


def celled(chance: random.Random) -> str:
    cells = []
    for _ in range(chance.randint(0, 5)):
        text = json.dumps(words(chance), ensure_ascii=chance.random() < 0.5)
        fields = [f'"bbox": {box(chance)}', f'"category": "{chance.choice([*dots.ROLES, "Note"])}"', f'"text": {text}']
        if chance.random() < 0.1:
            chance.shuffle(fields)
        cells.append("{" + ", ".join(fields[: chance.choice((3, 3, 3, 2, 1))]) + "}")
    return f"[{', '.join(cells)}]"


def fronted(chance: random.Random) -> str:
    fields = [
        f"primary_language: {chance.choice(('en', 'null', words(chance)))}",
        f"is_rotation_valid: {chance.choice(('True', 'True', 'false', 'no'))}",
        f"rotation_correction: {chance.choice(('0', '90', number(chance)))}",
        f"is_table: {chance.choice(('True', 'False'))}",
        f"is_diagram: {chance.choice(('True', 'False'))}",
    ]
    if chance.random() < 0.1:
        chance.shuffle(fields)
    return "\n".join(("---", *fields, "---", *(words(chance) for _ in range(chance.randint(0, 4)))))


def gridded(chance: random.Random) -> str:
    rows = [
        "".join(
            chance.choice(otsl.TAGS) + words(chance)[: chance.choice((0, 5, 30))] for _ in range(chance.randint(0, 5))
        )
        for _ in range(chance.randint(0, 5))
    ]
    return words(chance) + "".join(f"{row}<nl>" for row in rows) + words(chance)


def jumbled(chance: random.Random) -> str:
    return "".join(chance.choice(chance.choice((TOKENS, TOKENS, WORDS, ODD))) for _ in range(chance.randint(1, 40)))


MAKERS: dict[Parser, Maker] = {
    Parser.GROUNDING: grounded,
    Parser.DOTS: celled,
    Parser.OLMOCR: fronted,
    Parser.PADDLEOCR: gridded,
}


def cut(text: str, _other: str, chance: random.Random) -> str:
    return text[: chance.randint(0, len(text))]


def flipped(text: str, _other: str, chance: random.Random) -> str:
    data = bytearray(text.encode(errors="replace"))
    for _ in range(chance.randint(1, 4)):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data.decode(errors="replace")


def spliced(text: str, other: str, chance: random.Random) -> str:
    return text[: chance.randint(0, len(text))] + other[chance.randint(0, len(other)) :]


def repeated(text: str, _other: str, chance: random.Random) -> str:
    begin, end = sorted(chance.randint(0, len(text)) for _ in range(2))
    return text[:end] + text[begin : min(end, begin + 60)] * chance.randint(1, 12) + text[end:]


def lost(text: str, _other: str, chance: random.Random) -> str:
    begin = chance.randint(0, len(text))
    return text[:begin] + text[begin + chance.randint(1, 12) :]


def tagged(text: str, _other: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + chance.choice((*TOKENS, *WORDS)) * chance.choice((1, 1, 2, 9)) + text[at:]


def nested(text: str, _other: str, chance: random.Random) -> str:
    at, depth = chance.randint(0, len(text)), chance.randint(2, 40)
    opening, closing = chance.choice(
        (("[", "]"), ("{", "}"), ("<|ref|>", "<|/ref|>"), ("<table>", "</table>"), ('{"text": "', '"}'))
    )
    return text[:at] + opening * depth + closing * depth + text[at:]


def odd(text: str, _other: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + "".join(chance.choices(ODD, k=chance.randint(1, 3))) + text[at:]


def huge(text: str, _other: str, chance: random.Random) -> str:
    digits = [at for at, letter in enumerate(text) if letter.isdigit()]
    if not digits:
        return text
    at = chance.choice(digits)
    return text[:at] + str(chance.randint(0, 9)) * chance.choice((3, 20, 400)) + text[at:]


DAMAGES = (cut, cut, flipped, flipped, spliced, repeated, lost, tagged, tagged, nested, odd, huge)


def output(parser: Parser, pool: list[str], chance: random.Random) -> str:
    source = chance.random()
    if source < 0.6:
        text = MAKERS[parser](chance)
    elif source < 0.8:
        text = chance.choice(PUBLISHED[parser])
    else:
        text = jumbled(chance)
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 5))):
        text = chance.choice(DAMAGES)(text, chance.choice(pool), chance)[:LONGEST]
    pool[chance.randrange(len(pool))] = text
    return text


def check(parser: Parser, text: str) -> tuple[str, bool]:
    """Parse an output; return the text of the page, and whether the parser reported damage. Raises AssertionError."""
    page = parse(parser, text, width_px=WIDTH, height_px=HEIGHT)
    assert page.text == "\n\n".join(block.markdown for block in page.blocks if block.markdown), (
        "the blocks are not the text"
    )
    tags = {Parser.GROUNDING: published.DEEPSEEK_TAGS, Parser.PADDLEOCR: otsl.TAGS}.get(parser, ())
    assert not any(tag in page.text for tag in tags), "a tag is left"
    for block in page.blocks:
        assert all(0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT for x0, y0, x1, y1 in block.boxes), (
            "a box is nowhere"
        )
    page.text.encode()
    return page.text, page.damage is not None


def fuzz(outputs: int, seed: int) -> bool:
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    parsers = list(MAKERS)
    pool = [text for parser in parsers for text in PUBLISHED[parser]] * 20
    counts: Counter[tuple[str, str]] = Counter()
    failed = 0
    begun = time.perf_counter()
    for at in range(outputs):
        parser = parsers[at % len(parsers)]
        text = output(parser, pool, chance)
        reader = chance.choice(parsers) if chance.random() < 1 / 8 else parser
        name = str(reader)
        try:
            page, damaged = check(reader, text)
            counts[name, "outputs"] += 1
            counts[name, "characters"] += len(text)
            counts[name, "damaged"] += damaged
            counts[name, "empty"] += not page
            if chance.random() < 1 / 8:
                name = "Markdown"
                cleaned = clean(page)
                cleaned.encode()
                counts[name, "outputs"] += 1
                counts[name, "characters"] += len(page)
                counts[name, "empty"] += not cleaned
        except Exception:  # noqa: BLE001 - any exception is a failure
            counts[name, "failed"] += 1
            failed += 1
            if failed <= 5:
                print(f"{name}: {text!r}\n{traceback.format_exc(limit=-3)}", file=sys.stderr)
    seconds = time.perf_counter() - begun
    print(f"{'parser':12} {'outputs':>10} {'characters':>13} {'reported':>12} {'no text':>8} {'failed':>7}")
    for name in (*map(str, parsers), "Markdown"):
        row = [counts[name, what] for what in ("outputs", "characters", "damaged", "empty", "failed")]
        told = f"{row[2] / max(row[0], 1):12.1%}" if name != "Markdown" else " " * 12
        print(f"{name:12} {row[0]:10,} {row[1]:13,} {told} {row[3] / max(row[0], 1):8.1%} {row[4]:7,}")
    print(
        f"{outputs:,} outputs in {seconds:,.0f} s: {outputs / seconds:,.0f} per second, including generation and damage; seed {seed}\n"
    )
    return not failed


_CELL = '[{"bbox": [1, 2, 30, 40], "category": "Text", "text": "'
#: name, beginning, repeated part, and end, by parser; "": all parsers and the cleaning of Markdown
FAMILIES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "grounding": (
        ("", "<|ref|>", ""), ("", "<|ref|>a<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>b\n", ""), ("<|det|>", "[[1, 2, ", ""),
        ("<|ref|>a<|/ref|><|det|>[", "[1, 2, 3, 4], ", "x"), ("<|det|>[", "] ,", ""), ("", "text[[1, 2, 3, 4]]\n", ""),
        ("", "<|re", "<|ref|>"), ("text[[", "1", ""), ("", "<|ground<|grounding|>", ""), ("", "text[[1,\n", ""),
    ),
    "dots": (
        ("", f'{_CELL[1:]}x"}}, ', ""), (_CELL, "\\", ""), (_CELL, "\\\\", '"'), (_CELL, '"', ""), (_CELL, '" ', ""),
        (_CELL, '"  }', "x"), (_CELL, "\\u12", ""), (_CELL, "\\ud83d", ""), ('{"bbox": ', "[", ""), ('{"bbox": ', "1, ", ""),
        ("", '"text":', ""), ("", '"bbox" ', ""), (_CELL, " ", "x"), ("[", "{", ""), (_CELL, "}, {", ""), ("", "```json", ""),
    ),
    "olmocr": (
        ("", "---\n", ""), ("---\n", "is_table: True\n", ""), ("---\nis_table:", " ", ""), ("", "![", ""), ("", "![a](page_1", ""),
        ("", "![](page_1_2_3_4.png)\n\n", ""), ("```\n", "---", ""),
    ),
    "paddleocr": (
        ("", "<fcel>", ""), ("", "<fcel>a<nl>", ""), ("<fcel>a", "<lcel>", ""), ("<fcel>a<nl>", "<ucel><nl>", ""), ("", "<nl>", ""),
        ("<fcel>a" + "<lcel>" * 500 + "<nl>", "<ucel>" + "<xcel>" * 500 + "<nl>", ""), ("", "<fcel>a<lcel><nl><ucel>", "<nl>"),
        ("", "<lcel><ucel><xcel><nl>", ""), ("<fcel>", " \n", "x"), ("<fcel>", "a\n", ""), ("", "a<nl>", ""), ("", "<fc", ""),
        ("<fcel>" * 2000 + "<nl>", "<fcel><nl>", ""), ("<fcel><lcel><nl><ucel><ucel><nl>", "<fcel><ucel><nl>", ""),
    ),
    "": (
        ("", "a", ""), ("", "a b\n\n", ""), ("", "\n", ""), ("", " ", "x"), ("", "# a\n", ""), ("", "<table>\n", ""),
        ("", "<table><tr><td>", ""), ("", "```\n", ""), ("", "`", ""), ("", "``` `\n", ""), ("", "|", ""), ("", "| a |\n", ""),
        ("", "$$", ""), ("", "$", ""), ("", "\\[", ""), ("", "- ", ""), ("", "[", ""), ("", "](", ""), ("", "<", ""), ("", "&", ""),
        ("", "*", ""), ("", "é🌙\u2028", ""),
    ),
}  # fmt: skip


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the median of several runs; short runs are repeated more often."""
    runs: list[float] = []
    while len(runs) < 3 or (sum(runs) < 0.05 and len(runs) < 25):
        begun = time.thread_time()
        read(text)
        runs.append(time.thread_time() - begun)
    return statistics.median(runs)


def reader(name: str) -> Callable[[str], object]:
    if name == "Markdown":
        return clean
    return lambda text: parse(Parser(name), text, width_px=WIDTH, height_px=HEIGHT)


def grow() -> bool:
    print(f"{'parser':12} {'families':>8} {'worst':>7} {'seconds':>9}  at {LONG:,} characters, of")
    straight = True
    for name in (*map(str, MAKERS), "Markdown"):
        read = reader(name)
        measured = []
        for before, unit, after in (*FAMILIES.get(name, ()), *FAMILIES[""]):
            short, long = (before + unit * ((size - len(before)) // len(unit)) + after for size in (SHORT, LONG))
            taken = seconds(read, long)
            ratio = taken / max(seconds(read, short), SHORTEST)
            if ratio >= MOST_GROWTH:  # measure again: other load on the machine has the same effect
                taken = seconds(read, long)
                ratio = min(ratio, taken / max(seconds(read, short), SHORTEST))
            measured.append((ratio, taken, f"{before[:30]!r} {unit[:30]!r} {after!r}"))
        worst = max(measured)
        print(f"{name:12} {len(measured):8} {worst[0]:7.1f} {worst[1]:9.4f}  {worst[2]}")
        slowest = max(measured, key=lambda one: one[1])
        print(f"{'':12} {'':8} {slowest[0]:7.1f} {slowest[1]:9.4f}  {slowest[2]}, the slowest")
        for ratio, taken, family in measured:
            if ratio >= MOST_GROWTH:
                straight = False
                print(f"{'':12} {'above':>8} {ratio:7.1f} {taken:9.4f}  {family}")
    print(f"eight times the characters may take at most {MOST_GROWTH} times the time")
    return straight


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    unharmed = fuzz(options.outputs, options.seed)
    straight = grow()
    return 0 if unharmed and straight else 1


if __name__ == "__main__":
    sys.exit(main())
