from __future__ import annotations

from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.profile import PROFILES, RAPIDOCR, TESSERACT, Profile, Render, resolve
from tests.support.servers import ROOT

#: What version a45bcc8 computed of its profile_frozen.json.
EARLIER = "279dc06b258c5d17887930a9558bbe5b7f0169811ad715644339e22f7a7e42ff"


def profile(**changes: Any) -> Profile:
    facts: dict[str, Any] = {
        "name": "tesseract",
        "engine": "tesseract",
        "model": "tessdata",
        "revision": "installed",
        "language": "eng",
        "render": Render(long_side=2500),
    }
    return Profile(**(facts | changes))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_found_by_its_name(name: str) -> None:
    assert resolve(name) is PROFILES[name]
    assert resolve(name).name == name


def test_an_engine_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'abbyy'.*rapidocr, tesseract"):
        resolve("abbyy")


@pytest.mark.parametrize(
    "name", ["", "a b:C", "package.module:", ":Class", "a..b:C", "../engine:Class", "a:B:C", "os.system"]
)
def test_an_invalid_class_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        resolve(name)


def test_a_class_of_your_own_is_a_profile() -> None:
    # When an engine is named by its class
    own = resolve("My_Package.engines:Reader")

    # Then the class is what is loaded, and the profile's name can be a queue's
    assert own.engine == "My_Package.engines:Reader"
    assert own.name == "my-package-engines-reader"
    assert keys.queue_pages("bulk", own.name) == "pages.bulk.my-package-engines-reader"


def test_two_classes_are_two_profiles() -> None:
    assert resolve("one:Reader").digest != resolve("two:Reader").digest


def test_a_class_with_a_long_name_is_a_profile() -> None:
    own = resolve("a" * 40 + "." + "b" * 40 + ":Reader")

    assert len(own.name) <= 60
    assert own.name.endswith("-reader")


def test_a_class_whose_name_gives_no_slug_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        resolve("_:_")


# ---- languages


@pytest.mark.parametrize("language", ["deu", "deu+fra", "script/Fraktur", "chi_sim+eng", "Fraktur"])
def test_a_language_makes_a_profile_with_queues_of_its_own(language: str) -> None:
    # When the language of an engine that requires one is changed
    told = resolve("tesseract", language=language)

    # Then nothing else changes, and workers for English do not get its jobs
    assert told.language == language
    assert told.name != TESSERACT.name
    # … except for the words of the self-test page, which is in English
    told_in_english = {"name": TESSERACT.name, "language": TESSERACT.language, "canary": TESSERACT.canary}
    assert told.model_copy(update=told_in_english) == TESSERACT
    assert Profile.model_validate(told.model_dump()) == told


def test_the_language_that_is_meant_anyway_changes_nothing() -> None:
    assert resolve("tesseract", language="eng") is TESSERACT


def test_an_engine_without_languages_refuses_one() -> None:
    with pytest.raises(ConfigurationError, match="rapidocr needs no --language"):
        resolve("rapidocr", language="deu")


@pytest.mark.parametrize(
    "language", ["", "deu,fra", "deu+", "+deu", "../deu", "deu;rm -rf", "--psm 0", "deu\n", "a/b/c"]
)
def test_an_invalid_list_of_languages_is_refused(language: str) -> None:
    # It becomes an argument of a program and a part of a queue's name.
    with pytest.raises(ConfigurationError, match="no list of languages"):
        resolve("tesseract", language=language)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Latin", "latin"), ("deu/fra", "deu+fra"), ("+".join(["aaa"] * 11), "+".join(["aaa"] * 12))],
)
def test_two_languages_never_share_a_queue(one: str, other: str) -> None:
    assert resolve("tesseract", language=one).name != resolve("tesseract", language=other).name


# ---- the digest


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "other"},
        {"model": "tessdata_best"},
        {"revision": "5.5"},
        {"language": "deu"},
        {"language": None},
        {"render": Render(long_side=2000)},
        {"render": Render(long_side=2500, max_pixels=1_000_000)},
        {"render": Render(long_side=2500, min_side=600)},
        {"render": Render(long_side=2500, min_dpi=200)},
        {"render": Render(long_side=2500, short_side=1250)},
        {"render": Render(long_side=2500, contrast=True)},
        {"render": Render(long_side=2500, sharpen=100)},
        {"text_version": 1_000},
    ],
)
def test_the_digest_changes_with_every_field_that_changes_the_text(changes: dict[str, Any]) -> None:
    assert profile(**changes).digest != profile().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "renamed"},
        {"pages_per_job": 99},
        {"page_deadline": 1.0},
        {"review_below": 0.9},
        {"typical_seconds": 9.0},
    ],
)
def test_the_digest_does_not_change_with_how_the_work_is_done(changes: dict[str, Any]) -> None:
    assert profile(**changes).digest == profile().digest


def test_every_field_is_classified_by_its_effect_on_the_text() -> None:
    # A new field must be put into one of the two tests above.
    changes_text = {"engine", "model", "revision", "language", "render", "text_version"}
    # (tests/unit/ocrfleet/profiles/test_models.py has these, and model_path)
    changes_text |= {"prompt", "template", "sampling", "mode", "parser", "ladder", "routes", "text_layer", "judgement"}
    operational = {"name", "model_path", "review_below", "pages_per_job", "page_deadline", "canary"}
    operational |= {"typical_seconds"}
    assert set(Profile.model_fields) == changes_text | operational
    sizes = {"long_side", "max_pixels", "min_side", "min_dpi", "short_side"}
    assert set(Render.model_fields) == sizes | {"contrast", "sharpen"}


def test_a_language_has_a_digest_of_its_own_also_when_the_first_digest_was_asked_for() -> None:
    # Given a process that has used the default profile
    before = TESSERACT.digest

    # When another language is requested
    told = resolve("tesseract", language="deu")

    # Then the two are not the same documents
    assert told.digest != before


def test_the_digests_of_the_profiles_are_apart() -> None:
    assert RAPIDOCR.digest != TESSERACT.digest


def test_a_profile_file_of_an_earlier_version_keeps_its_digest() -> None:
    # Given a file that lacks the fields that were added later
    written = (ROOT / "tests" / "acceptance" / "version_a45bcc8" / "profile_frozen.json").read_bytes()

    # Then its digest, which is part of documents' ids, is the one that the earlier version computed
    assert Profile.model_validate_json(written).digest == EARLIER
