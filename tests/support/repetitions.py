"""Texts with a repetition, as users have posted them, and pages that only resemble one, built to be hard.

The loops are each in a minimal form of our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pymupdf

from worker.engines.repetition import Loop, LoopWatch

#: Characters that 7,000 tokens are, about.
LIMIT = 24_000
OWN = "-"
BEFORE = (
    "# The harbour in winter\n\nOf the ships that lay here in 1871 four were lost before the spring. Their crews had gone "
    "ashore on the eve of the storm, and so nobody was hurt, but the cargo of one of them, tea and indigo, was found on "
    "the beach as far as eight miles to the north.\n\n"
)


@dataclass(frozen=True)
class Looping:
    name: str
    #: where users met it; OWN: of a kind that they name without showing it, or that the watch is to see besides
    source: str
    #: the n-th copy
    unit: Callable[[int], str]
    #: characters after which it must be seen, from its beginning
    bound: int

    @property
    def text(self) -> str:
        text, number = BEFORE, 0
        while len(text) < LIMIT:
            text += self.unit(number)
            number += 1
        return text


def always(unit: str) -> Callable[[int], str]:
    return lambda _: unit


def _either(number: int) -> str:
    return f"World Expo {random.Random(number).choice(['Bureau', 'Town'])}\n"  # noqa: S311 - a test's


def _box(number: int) -> str:
    top = (37 * number + number**2 % 11) % 900
    return f"<|ref|>text<|/ref|><|det|>[[63, {top}, 480, {top + 19}]]<|/det|>\nMinutes of the council\n\n"


def _day(number: int) -> str:
    return f"{date(1900, 1, 1) + timedelta(days=number):%d.%m.%Y} no entry was made\n"


HEADER = (
    "CONSOLIDATED INSURANCE COMPANY OF THE NORTH, registered office 12 Harbour Street, third floor, by the old customs house; "
    "all letters are to be addressed to the secretary, who will answer them in the order in which they come in.\n"
)

LOOPS = [
    Looping("one character", "deepseek-ai/DeepSeek-OCR#160", always("{"), 600),
    Looping("one word", "kotlef/deepseekocrGradio#5", always("OCR"), 600),
    Looping("dot leaders, spaced", "deepseek-ai/DeepSeek-OCR#250", always(" ."), 600),
    Looping("dot leaders", OWN, always("."), 600),
    Looping("underscores", OWN, always("_"), 600),
    Looping("underscores and a word", "Blaizzy/mlx-vlm#549", always(" _____ of"), 600),
    Looping("a number and a dash", "Blaizzy/mlx-vlm#549", always("3-"), 600),
    Looping("numbering without end", OWN, always("1."), 600),
    Looping("spaces as entities", OWN, always("&nbsp;"), 600),
    Looping("line breaks", "Blaizzy/mlx-vlm#553", always("</br>\n"), 600),
    Looping("a short line", "vllm-project/vllm-ascend#4989", always("上海世博局\n"), 600),
    Looping("one of two lines, irregular", "vllm-project/vllm-ascend#4989", _either, 5200),
    Looping("a line", "ollama/ollama#16892", always("Many happy returns to you!\n"), 1700),
    Looping("a fence", "ollama/ollama#16892", always("```markdown\n```\n"), 600),
    Looping("the page again", "zai-org/GLM-OCR#220", always("HE WHO CAME SO FAR\nDID NOT COME FOR\nTHE SEA\n"), 1000),
    Looping(
        "items of a list in turn",
        "vllm-project/vllm#42016",
        always("1 teaspoon garlic\n1 teaspoon onion\n1 teaspoon salt\n1 teaspoon pepper\n"),
        1300,
    ),
    Looping("a sentence", "deepseek-ai/DeepSeek-OCR#257", always("He was buried in the north of the town. "), 700),
    Looping(
        "a paragraph",
        "opendatalab/MinerU#3312",
        always(
            "Against this background the writers of the province show us, in ever new forms, what has become of it. "
            * 4
        ),
        2200,
    ),
    Looping("a header", "deepseek-ai/DeepSeek-OCR-2#28", always(HEADER), 2300),
    Looping("a header between rows", OWN, always(HEADER * 2 + "| a | b |\n" * 30), 3300),
    Looping("a block in other boxes", "deepseek-ai/DeepSeek-OCR#151", _box, 2700),
    Looping("empty cells", OWN, always("<td></td>"), 800),
    Looping("empty rows", "studio-dots-ai/dots.ocr#245", always("<tr><td></td><td></td><td></td><td></td></tr>"), 3000),
    Looping("empty cells in Markdown", "ollama/ollama#13345", always("    |"), 600),
    Looping("cells with a dash", "ollama/ollama#13345", always(" - |"), 600),
    Looping(
        "a row of figures",
        "ollama/ollama#13345",
        always("| Power | 385.3 | 375.8 | 345.2 | 405.7 | 453.0 | - | - | - |\n"),
        3900,
    ),
    Looping("counted up", "deepseek-ai/DeepSeek-OCR#160", lambda number: f"{number + 1}. ", 1700),
    Looping("counted up, in lines", "deepseek-ai/DeepSeek-OCR#257", lambda number: f"{number + 1}. SMALL\n", 3300),
    Looping("counted up, in rows", OWN, lambda n: f"<tr><td>{n}</td><td>0.5</td></tr>", 5700),
    Looping("dates counted up", OWN, _day, 6000),
]


def _figures(seed: int) -> Iterator[int]:
    chance = random.Random(seed)  # noqa: S311 - a test's
    while True:
        yield chance.randrange(10_000)


def _html(rows: list[list[str]]) -> str:
    return "<table>" + "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows) + "</table>"


def _markdown(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _plain(rows: list[list[str]]) -> str:
    return "".join(f"{' '.join(row)}\n" for row in rows)


SHEETS = {
    "zeros": [["0"] * 24] * 30,
    "zeros with labels": [[f"County of {name}", *["0"] * 22] for name in (chr(65 + n) * 3 for n in range(26))] * 2,
    "zeros and figures": [
        ["0" if f % 3 else str(f) for f, _ in zip(_figures(n), range(20), strict=False)] for n in range(60)
    ],
    "figures of equal length": [[f"{f:04}" for f, _ in zip(_figures(n), range(11), strict=False)] for n in range(60)],
    "a ledger without entries": [["", "", "", ""]] * 50,
    "a numbered ledger without entries": [[str(n + 1), *[""] * 9] for n in range(60)],
    "ditto": [["ditto", "do.", "ditto", '"']] * 40,
    "ditto, numbered": [[str(n + 1), "ditto", "do.", "1"] for n in range(80)],
    "a register": [
        [f"{n + 1}", f"Widow {chr(65 + n % 26)}.", "ditto", f"{f % 31 + 1}/-"]
        for n, f in zip(range(60), _figures(3), strict=False)
    ],
    "a year in weeks": [[str(week + 1) for week in range(53)], *[[""] * 53] * 12],
    "multiplied": [[str(a * b) for b in range(1, 21)] for a in range(1, 21)],
    "a timetable": [[f"{h:02}:{m:02}" for m in (5, 20, 35, 50)] for h in range(5, 24)] * 4,
    "not applicable": [["Not applicable"] * 6] * 25,
    "every month": [[month, "", "", "0.00"] for month in ("Jan", "Feb", "Mar", "Apr", "May", "Jun")] * 8,
}

PAGES = {
    **{
        f"{name}, {form.__name__[1:]}": form(rows)
        for name, rows in SHEETS.items()
        for form in (_html, _markdown, _plain)
    },
    "a table of contents": "".join(
        f"Chapter {n}: {'of ships and of men ' * (n % 3 + 1)}{'.' * (90 - 20 * (n % 3))} {11 * n}\n"
        for n in range(1, 45)
    ),
    "contents with spaced leaders": "".join(f"{chr(64 + n)}. Tides{' .' * 60} {n * 9}\n" for n in range(1, 27)),
    "contents of like lines": "".join(f"Plate{' .' * 30} {f}\n" for f, _ in zip(_figures(8), range(55), strict=False)),
    "an index": "".join(f"harbour, {n * 7 % 300}, {n * 13 % 300}, {n * 29 % 300}\n" for n in range(120)),
    "an index by pages": ", ".join(str(page) for page in range(1, 180)),
    "a refrain": "".join(
        f"The {n}th ship went down to the sea,\nTo the sea, to the sea, to the sea,\nAnd none came home to sing with me,\n"
        + "Blow, winds, and carry us over!\n" * 3
        for n in range(4, 14)
    ),
    "a litany": "".join(f"Saint {chr(65 + n % 26)}{chr(97 + n % 7)}na, pray for us.\n" for n in range(60)),
    "a line six times": "Row, brothers, row, the stream runs fast and the daylight is past.\n" * 6,
    "a form": "".join(f"{field}: {'_' * 60}\n" for field in ("Name", "Given name", "Born on", "At", "Trade")) * 8,
    "a sheet to sign": "Name ______________________ Date __________ Signature ______________________\n" * 30,
    "ruled lines": f"{'_' * 80}\n" * 40,
    "dotted lines": f"{'.' * 90}\n" * 30,
    "a form in triplicate": f"{HEADER * 2}Received with thanks {'.' * 40}\n\n" * 3,
    "an answer sheet": "".join(f"{n}. (A) (B) (C) (D)\n" for n in range(1, 201)),
    "labels": "To the Keeper of the Archive\nHarbour Street 12\n\n" * 24,
    "like paragraphs": "".join(
        f"Article {n}. The member pays {f} marks.\n\n" for n, f in zip(range(1, 90), _figures(4), strict=False)
    ),
    "columns of one digit": ("0\n" * 60 + "1\n" * 60) * 2,
    "a dictionary": "".join(f"**{a}{b}{c}**, *n.* a kind of ship.\n" for a in "bdf" for b in "aeiou" for c in "lmnrst"),
    "boxes": "".join(
        f"<|ref|>text<|/ref|><|det|>[[63, {9 * n}, 480, {9 * n + 8}]]<|/det|>\n{f}\n\n"
        for n, f in zip(range(100), _figures(5), strict=False)
    ),
    "a long rule": "-" * 200 + "\n" + "=" * 300,
    "the separator of a wide table": "|" + "---|" * 53 + "\n",
    "an array": "\\begin{array}{cccc}\n" + "0 & 0 & 0 & 0 \\\\\n" * 40 + "\\end{array}",
}


def watch(text: str, *, size: int = 64) -> tuple[Loop | None, int]:
    """Return the loop, and the number of characters fed until its detection."""
    watched = LoopWatch()
    for begin in range(0, len(text), size):
        loop = watched.feed(text[begin : begin + size])
        if loop is not None:
            return loop, begin + size
    return None, len(text)


def text_layers(corpus: Path) -> Iterator[tuple[str, str]]:
    """Yield each page's own text, of all PDFs that open."""
    for path in sorted((corpus / "files").glob("*.pdf")):
        try:
            with pymupdf.open(path) as document:
                for page in document if not document.needs_pass else ():
                    if text := page.get_text():
                        yield f"{path.name}:{page.number + 1}", text
        except pymupdf.FileDataError:
            continue
