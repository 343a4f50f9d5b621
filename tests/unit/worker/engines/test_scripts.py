"""Which script a page lacks, by the scores of its lines."""

from __future__ import annotations

import numpy as np

from ocrfleet.profiles.scripts import SCRIPTS
from worker.engines.scripts import CLASSES, ScriptClassifier, SeenLine, features, lacking_script


def line(name: str, y: float, *, chance: float = 0.98, width: float = 600, text: str = "text") -> SeenLine:
    other = "Latin" if name != "Latin" else "CJK"
    chances = {name: chance, other: 1 - chance}
    scores = np.log([chances.get(each, 1e-6) for each in CLASSES]).astype(np.float32)
    return SeenLine((100, y, 100 + width, y + 40), text, 0.95, scores)


def lines(name: str, count: int, first: float = 0) -> list[SeenLine]:
    return [line(name, first + 50 * number) for number in range(count)]


def test_a_page_of_latin_lacks_nothing() -> None:
    assert lacking_script(lines("Latin", 30)) is None
    assert lacking_script([]) is None


def test_a_page_in_a_script_lacks_it_as_does_one_with_a_paragraph_of_it() -> None:
    whole = lacking_script(lines("Hebrew", 7))
    assert whole is not None
    assert (whole.script.name, whole.lines, whole.of, whole.kept) == ("Hebrew", 7, 7, ())
    assert whole.detail == (
        "7 of 7 lines are in Hebrew, whose signs the engine lacks: install Tesseract's model "
        "(apt install tesseract-ocr tesseract-ocr-heb), then try again with --retry-failed"
    )
    mixed = lacking_script(lines("Latin", 20) + lines("Hebrew", 5, 2000))
    assert mixed is not None
    assert (mixed.script.name, mixed.lines, len(mixed.kept)) == ("Hebrew", 5, 20)


def test_one_line_alone_is_enough_and_one_among_many_is_not() -> None:
    alone = lacking_script(lines("Thai", 1))
    assert alone is not None
    assert alone.script.name == "Thai"
    assert lacking_script([*lines("Latin", 60), line("Thai", 4000, width=120)]) is None


def test_a_line_of_which_spaces_alone_were_read_is_in_no_script_that_the_recogniser_has() -> None:
    lacking = lacking_script([line("Arabic", 50, chance=0.3, text="    ")])
    assert lacking is not None
    assert lacking.script.name == "Arabic"
    assert lacking_script([line("texture", 50, text="    ")]) is None
    assert lacking_script([line("Arabic", 50, chance=0.3, text="")]) is None
    # A row of dots, or a rule
    assert lacking_script([line("Thai", 50, chance=0.02, text="    ")]) is None


def test_doubtful_lines_are_no_evidence() -> None:
    assert lacking_script([line("Georgian", 50 * number, chance=0.5) for number in range(10)]) is None


def test_vietnamese_is_most_of_a_page_or_a_mistake() -> None:
    marked = [line("Vietnamese", 50 * number, text="Tt c mi ngưi") for number in range(5)]
    assert lacking_script(lines("Latin", 9, 2000) + marked[:3]) is None
    lacking = lacking_script(lines("Latin", 5, 2000) + marked)
    assert lacking is not None
    assert (lacking.script.name, lacking.kept) == ("Vietnamese", ())
    other = lacking_script(lines("Vietnamese", 9))
    assert other is not None
    assert other.script.name == "Latin with further marks"


def test_a_script_that_nobody_reads_has_no_package() -> None:
    lacking = lacking_script(lines("another script", 5))
    assert lacking is not None
    assert lacking.detail.endswith("no engine here reads it")


def test_the_classifier_has_a_weight_for_each_class_and_its_scores_are_chances() -> None:
    chances = np.random.default_rng(0).dirichlet(np.ones(18_709), 12).astype(np.float32)
    scores = ScriptClassifier().scores(features(chances))
    assert scores.shape == (len(CLASSES),)
    assert abs(float(np.exp(scores).sum()) - 1) < 1e-3


def test_each_script_has_a_package() -> None:
    assert all(script.package and script.package.startswith("tesseract-ocr-") for script in SCRIPTS.values())
