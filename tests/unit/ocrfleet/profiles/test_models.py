"""Profiles of models with prompts: by name, from options, from files, from model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, Reason
from ocrfleet.profiles.build import profile_of
from ocrfleet.profiles.models import DEEPSEEK_OCR, DEEPSEEK_OCR_2, MODELS
from ocrfleet.profiles.models.model import PROMPT_ROOM, Model, image_tokens
from ocrfleet.profiles.profile import (
    RAPIDOCR,
    Canary,
    Judgement,
    Parser,
    Profile,
    Render,
    RetryStep,
    Route,
    Sampling,
    TextLayer,
    resolve,
)
from ocrfleet.profiles.select import choose, find, named, read_file
from ocrfleet.records.documents import Kind

NAMED = list(named())
ASKED = [profile for profile in NAMED if profile.prompt is not None]


def sampling_of(profile: Profile) -> Sampling:
    assert profile.sampling is not None
    return profile.sampling


def changed(profile: Profile, **changes: Any) -> Profile:
    return Profile.model_validate(profile.model_dump() | changes)


def written(path: Path, facts: object) -> Path:
    path.write_text(json.dumps(facts))
    return path


# ---- the profiles that have names


@pytest.mark.parametrize("profile", NAMED, ids=lambda profile: profile.name)
def test_a_profile_is_found_by_its_name_and_from_its_own_json(profile: Profile) -> None:
    assert find(profile.name) == profile
    # A worker is handed its profile as JSON: no None, nothing lost.
    assert find(profile.model_dump_json(exclude_none=True)) == profile
    assert find(profile.model_dump_json()).digest == profile.digest
    assert keys.queue_pages("bulk", profile.name) == f"pages.bulk.{profile.name}"


def test_no_two_profiles_share_a_name_or_a_digest() -> None:
    assert len({profile.name for profile in NAMED}) == len(NAMED)
    assert len({profile.digest for profile in NAMED}) == len(NAMED)


def test_the_defaults_have_the_names_of_their_models() -> None:
    assert [profile_of(model).name for model in MODELS] == [model.name for model in MODELS]
    assert {"deepseek-ocr-tiny-ocr", "deepseek-ocr-auto", "deepseek-ocr-2-table"} <= {p.name for p in NAMED}
    assert {"dots-ocr-ocr", "glm-ocr-table", "olmocr-2", "paddleocr-vl-chart"} <= {p.name for p in NAMED}


@pytest.mark.parametrize("profile", ASKED, ids=lambda profile: profile.name)
def test_prompt_image_and_answer_fit_the_context_and_the_revision_is_a_commit(profile: Profile) -> None:
    (model,) = [model for model in MODELS if model.model == profile.model]
    assert profile.prompt is not None
    assert profile.prompt.count("<image>") == 1
    # A token is a character at least
    room = max(PROMPT_ROOM, len(profile.prompt) + len(profile.template or ""))
    assert sampling_of(profile).max_tokens + image_tokens(profile) + room <= model.context
    assert len(profile.revision) == 40
    assert set(profile.revision) <= set("0123456789abcdef")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_is_whole(model: Model) -> None:
    assert model.prompt in model.prompts
    assert model.mode in model.modes
    assert model.largest is None or model.largest in model.modes
    assert all(shown.mode.name == name for name, shown in model.modes.items() if shown.mode)
    assert any(prompt.reads for prompt in model.prompts.values())
    assert model.tried
    assert all(prompt.text.count("<image>") == 1 for prompt in model.prompts.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_chat_has_one_place_for_the_words_and_none_of_its_own_for_the_image(model: Model) -> None:
    if model.template is not None:
        assert model.template.count("{prompt}") == 1
        assert "<image>" not in model.template


def test_every_route_leads_to_a_profile_with_the_same_prompt_and_no_further() -> None:
    routed = [profile for profile in NAMED if profile.routes]
    assert [profile.name for profile in routed] == ["deepseek-ocr-auto"]
    for route in routed[0].routes:
        target = find(route.to)
        assert (target.prompt, target.model, target.routes) == (routed[0].prompt, routed[0].model, ())


@pytest.mark.parametrize("profile", NAMED, ids=lambda profile: profile.name)
def test_every_route_leads_to_a_known_profile(profile: Profile) -> None:
    for name in profile.destinations:
        assert find(name).name == name != profile.name
    # A routed page is retried by the profile it is routed to: the sweep must find those queues by the profile of the document
    for route in profile.routes:
        assert set(find(route.to).destinations) <= {*profile.destinations, profile.name}


@pytest.mark.parametrize(
    ("width", "height"), [(1654, 2339), (2339, 2339), (2339, 1000), (1288, 911), (1288, 1288), (1997, 1412)]
)
def test_an_image_takes_no_more_tokens_than_are_kept_for_it(width: int, height: int) -> None:
    # As the processors count: whole patches of 28 pixels, no more than their limit
    for model in MODELS:
        (name, shown), *more = model.modes.items()
        if shown.mode is None and max(width, height) == shown.render.long_side:
            assert (name, more) == ("native", [])
            patches = round(width / 28) * round(height / 28)
            assert min(patches, shown.render.max_pixels // 28**2) <= shown.image_tokens


@pytest.mark.parametrize("name", ["", "deepseek", "DEEPSEEK-OCR", "deepseek-ocr-fields", "../x", "nowhere.json/"])
def test_a_name_that_is_none_is_refused_with_where_to_look(name: str) -> None:
    with pytest.raises(ConfigurationError, match="ocrfleet models"):
        find(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "can't be used"),
        ("{}", "name: Field required"),
        ('{"name": "A B", "engine": "e", "model": "m", "revision": "r", "render": {"long_side": 100}}', "name: "),
        (RAPIDOCR.model_dump_json()[:-1] + ', "colour": 1}', "colour: Extra inputs"),
        ("{" + '"a":{' * 3000, "can't be used"),
    ],
)
def test_json_that_is_no_profile_is_refused_and_not_repeated(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        find(text)
    assert len(str(caught.value)) < 500


# ---- the digest


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "openai"},
        {"model": "another"},
        {"revision": "0" * 40},
        {"prompt": "<image>\nFree OCR."},
        {"prompt": None},
        {"template": "<|user|>{prompt}"},
        {"text_layer": TextLayer.PREFER},
        {"judgement": Judgement(scripts=("LATIN",))},
        {"mode": DEEPSEEK_OCR.modes["base"].mode},
        {"mode": None},
        {"sampling": Sampling(max_tokens=7003)},
        {"sampling": Sampling(max_tokens=7003, temperature=0.1)},
        {"sampling": None},
        {"parser": Parser.TEXT},
        {"ladder": ()},
        {"ladder": (RetryStep(temperature=0.2, prompt="<image>"),)},
        {"routes": (Route(to="deepseek-ocr-base", max_inches=6.5),)},
        {"render": Render(long_side=1000)},
        {"text_version": 99},
    ],
)
def test_the_digest_changes_with_every_field_that_changes_the_text(changes: dict[str, Any]) -> None:
    assert changed(profile_of(DEEPSEEK_OCR), **changes).digest != profile_of(DEEPSEEK_OCR).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"canary": Canary(words=("other",), twice=True)},
        {"page_deadline": 1.0},
        {"pages_per_job": 1},
        {"model_path": Path("/elsewhere")},
        {"typical_seconds": 9.0},
    ],
)
def test_the_digest_does_not_change_with_how_the_work_is_done(changes: dict[str, Any]) -> None:
    assert changed(profile_of(DEEPSEEK_OCR), **changes).digest == profile_of(DEEPSEEK_OCR).digest


def test_a_changed_copy_has_a_digest_of_its_own_also_when_the_first_was_asked_for() -> None:
    profile = profile_of(DEEPSEEK_OCR)
    before = profile.digest
    assert profile.model_copy(update={"prompt": "<image>"}).digest != before
    assert profile.at(RetryStep(temperature=0.9)).digest != before
    assert profile.digest == before


# ---- the ladder, the routes


def test_a_retry_step_changes_only_its_fields() -> None:
    profile = profile_of(DEEPSEEK_OCR)
    limited = profile.at(RetryStep(deadline=9.0, temperature=0.0))
    assert limited == profile.model_copy(update={"page_deadline": 9.0})
    assert limited.digest == profile.digest
    warm = profile.at(RetryStep(temperature=0.7, max_tokens=100))
    assert (sampling_of(warm).temperature, sampling_of(warm).max_tokens) == (0.7, 100)
    assert changed(warm, sampling=profile.sampling) == profile
    asked = profile.at(RetryStep(prompt="<image>\nFree OCR.", parser=Parser.TEXT, long_side=900))
    assert (asked.prompt, asked.parser, asked.render.long_side) == ("<image>\nFree OCR.", Parser.TEXT, 900)
    assert asked.sampling == profile.sampling
    # A limit is never raised
    assert (
        sampling_of(profile.at(RetryStep(temperature=0.7, max_tokens=90_000))).max_tokens
        == sampling_of(profile).max_tokens
    )
    assert RAPIDOCR.at(RetryStep(temperature=1.0)).sampling is None


def ways(profile: Profile) -> list[str]:
    """Return the kind of each retry step of a profile."""
    return [
        rung.profile
        or ("text layer" if rung.text_layer else "")
        or ("free" if rung.prompt is not None else f"{rung.temperature}")
        for rung in profile.ladder
    ]


@pytest.mark.parametrize(
    ("name", "ladder"),
    [
        ("deepseek-ocr", ["0.2", "free", "deepseek-ocr-large", "text layer", "rapidocr"]),
        ("deepseek-ocr-auto", ["0.2", "free", "deepseek-ocr-large", "text layer", "rapidocr"]),
        ("deepseek-ocr-tiny", ["0.2", "free", "deepseek-ocr-large", "text layer", "rapidocr"]),
        # Steps without an effect are omitted, and a text profile stays a text profile
        ("deepseek-ocr-large", ["0.2", "free", "text layer", "rapidocr"]),
        ("deepseek-ocr-ocr", ["0.2", "deepseek-ocr-large-ocr", "text layer", "rapidocr"]),
        ("deepseek-ocr-2", ["0.2", "free", "text layer", "rapidocr"]),
        ("dots-ocr", ["0.3", "free", "text layer", "rapidocr"]),
        ("dots-ocr-ocr", ["0.3", "text layer", "rapidocr"]),
        ("olmocr-2", ["0.2", "0.3", "0.5", "0.8", "0.9", "1.0", "text layer", "rapidocr"]),
        ("glm-ocr", ["0.2", "text layer", "rapidocr"]),
        # No text of the page is an answer to these
        ("deepseek-ocr-figure", ["0.2"]),
        ("deepseek-ocr-table", ["0.2"]),
        ("paddleocr-vl-chart", ["0.2"]),
    ],
)
def test_a_page_that_fell_is_tried_in_these_ways(name: str, ladder: list[str]) -> None:
    assert ways(find(name)) == ladder


@pytest.mark.parametrize("prompt", ["locate:the seal", "fields:name", "<image>\nWho wrote this?"])
def test_a_prompt_for_no_text_is_only_repeated(prompt: str) -> None:
    assert ways(choose(engine="vllm", prompt=prompt)) == ["0.2"]


def test_a_text_that_was_cut_off_is_not_asked_for_in_the_same_way_again() -> None:
    (again, *_) = [rung for rung in find("deepseek-ocr").ladder if Reason.TRUNCATED in rung.after]
    assert (again.prompt, again.parser, again.max_tokens) == ("<image>\nFree OCR.", Parser.TEXT, None)


@pytest.mark.parametrize("profile", ASKED, ids=lambda profile: profile.name)
def test_every_retry_step_has_reasons_and_limits(profile: Profile) -> None:
    for rung in profile.ladder:
        # A renderer that crashed is tried again as it was
        assert rung.after
        assert not {Reason.RENDER_CRASHED, Reason.RENDER_DEADLINE, Reason.RENDER_MEMORY} & set(rung.after)
        assert rung.text_layer or rung.deadline is not None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_models_own_rungs_lead_nowhere_else(model: Model) -> None:
    with pytest.raises(ValueError, match="change how it is asked"):
        Model.model_validate(model.model_dump() | {"ladder": [{"profile": "rapidocr"}]})


@pytest.mark.parametrize(
    ("rules", "fits"),
    [
        ({"min_inches": 8}, False),
        ({"min_inches": 7.5}, True),
        ({"max_inches": 7.5}, True),
        ({"max_inches": 7}, False),
        ({"min_ink": 0.1}, True),
        ({"min_ink": 0.2}, False),
        ({"max_ink": 0.1}, True),
        ({"max_ink": 0.05}, False),
        ({"kinds": ("tiff", "png")}, True),
        ({"kinds": ("pdf",)}, False),
        ({"kinds": ()}, False),
        ({"kinds": ("tiff",), "max_ink": 0.01}, False),
        ({"kinds": ("tiff",), "max_ink": 0.5, "min_inches": 1}, True),
    ],
)
def test_a_route_fits_where_all_of_its_rules_do(rules: dict[str, Any], fits: bool) -> None:  # noqa: FBT001
    route = Route.model_validate({"to": "x", **rules})
    assert route.fits(inches=7.5, ink=0.1, kind=Kind.TIFF) is fits


def test_a_route_without_a_rule_is_none() -> None:
    with pytest.raises(ValueError, match="needs a rule"):
        Route(to="x")


# ---- what a person chooses


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "rapidocr"),
        ({"engine": "tesseract"}, "tesseract"),
        ({"engine": "tesseract", "language": "deu"}, "tesseract-deu"),
        ({"engine": "pack.age:Class"}, "pack-age-class"),
        ({"engine": "vllm"}, "deepseek-ocr"),
        ({"model": "deepseek-ocr"}, "deepseek-ocr"),
        ({"model": "deepseek-ai/deepseek-ocr-2"}, "deepseek-ocr-2"),
        ({"engine": "vllm", "mode": "gundam", "prompt": "markdown"}, "deepseek-ocr"),
        ({"engine": "vllm", "mode": "tiny"}, "deepseek-ocr-tiny"),
        ({"engine": "vllm", "mode": "tiny", "prompt": "ocr"}, "deepseek-ocr-tiny-ocr"),
        ({"engine": "vllm", "mode": "auto"}, "deepseek-ocr-auto"),
        ({"engine": "vllm", "mode": "auto", "prompt": "markdown"}, "deepseek-ocr-auto"),
        ({"engine": "openai"}, "openai-deepseek-ocr"),
        ({"engine": "openai", "model": "deepseek-ocr-2", "prompt": "table"}, "openai-deepseek-ocr-2-table"),
        ({"profile": "deepseek-ocr-large-ocr"}, "deepseek-ocr-large-ocr"),
        ({"model": "rednote-hilab/dots.ocr"}, "dots-ocr"),
        ({"model": "dots-ocr", "mode": "native", "prompt": "ocr"}, "dots-ocr-ocr"),
        ({"engine": "openai", "model": "olmocr-2"}, "openai-olmocr-2"),
    ],
)
def test_options_name_a_profile(options: dict[str, str], name: str) -> None:
    assert choose(**options).name == name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "magic"}, "there is no engine 'magic'.*rapidocr, tesseract, vllm, openai"),
        ({"profile": "rapidocr", "engine": "rapidocr"}, "leave out --engine"),
        ({"profile": "rapidocr", "language": "deu"}, "leave out"),
        ({"profile": "nowhere"}, "ocrfleet models"),
        ({"model": "nowhere"}, "neither a folder.*deepseek-ai/DeepSeek-OCR, deepseek-ai/DeepSeek-OCR-2"),
        ({"engine": "vllm", "language": "deu"}, "needs no --language"),
        ({"engine": "openai", "language": "deu"}, "needs no --language"),
        ({"engine": "rapidocr", "model": "deepseek-ocr"}, "are for --engine vllm and openai"),
        ({"mode": "tiny"}, "are for --engine vllm and openai"),
        ({"prompt": "ocr"}, "are for --engine vllm and openai"),
        ({"engine": "vllm", "mode": "huge"}, "tiny, small, base, large, gundam, auto"),
        ({"model": "deepseek-ocr-2", "mode": "auto"}, "there are: dynamic$"),
        ({"model": "glm-ocr", "mode": "tiny"}, "there are: native$"),
        ({"model": "glm-ocr", "prompt": "figure"}, "there are: ocr, table, formula, or your own"),
        ({"engine": "vllm", "mode": "auto", "prompt": "ocr"}, "default prompt only"),
        ({"engine": "vllm", "prompt": "poem"}, "there are: ocr, markdown, figure"),
        ({"engine": "vllm", "prompt": ""}, "there are: ocr"),
        ({"engine": "openai", "model": "gpt", "mode": "tiny"}, "models that are known"),
        ({"engine": "openai", "model": "gpt", "prompt": "poem"}, "one of ocr, markdown"),
        ({"engine": "vllm", "prompt": "\udcff<image>"}, "no text"),
        ({"engine": "openai", "model": "\udcff"}, "no text"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        choose(**options)


def test_the_openai_profile_of_a_known_model_has_the_same_prompt_and_sampling() -> None:
    here, there = choose(engine="vllm"), choose(engine="openai")
    assert changed(there, name=here.name, engine="vllm") == here


def test_an_unknown_model_gets_a_plain_prompt_without_assumptions() -> None:
    profile = choose(engine="openai", model="Qwen/Qwen3-VL 8B")
    assert profile.name.startswith("openai-qwen-qwen3-vl-8b-")
    assert (profile.model, profile.mode, profile.parser) == ("Qwen/Qwen3-VL 8B", None, Parser.TEXT)
    assert profile.prompt == "<image>\nFree OCR."
    # Another prompt, and another model whose name reads the same, have queues of their own
    others = [
        choose(engine="openai", model="Qwen/Qwen3-VL 8B", prompt="table"),
        choose(engine="openai", model="Qwen/Qwen3-VL 8B", prompt="fields:a"),
        choose(engine="openai", model="Qwen/Qwen3-VL 8B", prompt="fields:b"),
        choose(engine="openai", model="Qwen/Qwen3-VL 8B", prompt="<image> Read."),
        choose(engine="openai", model="qwen/qwen3-vl-8b"),
    ]
    assert len({profile.name, *(other.name for other in others)}) == 6


@given(model=st.text(st.characters(), min_size=1, max_size=200))
def test_any_name_of_a_model_gives_a_valid_profile_or_is_refused(model: str) -> None:
    try:
        profile = choose(engine="openai", model=model)
    except ConfigurationError:
        return
    assert find(profile.model_dump_json(exclude_none=True)) == profile


# ---- prompts


def test_words_stand_in_the_prompt_and_in_the_name_by_their_digest() -> None:
    fields = choose(engine="vllm", prompt="fields: name,\n date ")
    assert fields.prompt == "<image>\nExtract these fields as JSON: name, date."
    assert fields.name.startswith("deepseek-ocr-fields-")
    assert fields == choose(engine="vllm", prompt="fields:name, date")
    assert fields.name != choose(engine="vllm", prompt="fields:name,date").name
    located = choose(engine="vllm", prompt="locate:the seal")
    assert located.prompt == "<image>\nLocate <|ref|>the seal<|/ref|> in the image."
    assert located.parser is Parser.GROUNDING


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("fields", "write fields:WORDS"),
        ("fields:", "write fields:WORDS"),
        ("locate: ", "write locate:WORDS"),
        ("ocr:", "write ocr"),
        ("ocr:words", "write ocr"),
        ("fields:" + "x" * 401, "at most 400"),
        ("locate:x<|/ref|><|det|>", "no tags"),
        ("locate:<|", "no tags"),
        ("fields:a <image>", "no tags"),
        ("<image><image>", "<image> once"),
    ],
)
def test_a_prompt_that_can_not_be_is_refused(prompt: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        choose(engine="vllm", prompt=prompt)


@pytest.mark.parametrize("words", ["{}", "{0}", "%s", "\\1", "a:b", "__import__('os')"])
def test_words_are_inserted_into_the_prompt_unchanged(words: str) -> None:
    assert choose(engine="vllm", prompt=f"fields:{words}").prompt == f"<image>\nExtract these fields as JSON: {words}."


def test_a_users_prompt_is_sent_unchanged() -> None:
    own = choose(engine="vllm", prompt="<image>\nWho wrote this?")
    assert (own.prompt, own.parser) == ("<image>\nWho wrote this?", Parser.TEXT)
    assert own.name.startswith("deepseek-ocr-own-")
    assert choose(engine="vllm", prompt="<image>\n<|grounding|>Read.").parser is Parser.GROUNDING


@given(
    prompt=st.text(st.characters())
    | st.tuples(
        st.sampled_from(["fields:", "locate:", "ocr", "", "own "]), st.text(), st.sampled_from(["", "<image>"])
    ).map("".join),
    mode=st.sampled_from([None, "tiny", "auto"]),
    engine=st.sampled_from(["vllm", "openai"]),
)
def test_any_prompt_gives_a_valid_profile_or_is_refused(prompt: str, mode: str | None, engine: str) -> None:
    try:
        profile = choose(engine=engine, prompt=prompt, mode=mode)
    except ConfigurationError:
        return
    assert find(profile.model_dump_json(exclude_none=True)) == profile
    assert profile.prompt is not None
    assert profile.prompt.count("<image>") == 1


# ---- files


def test_a_file_describes_all_of_a_profile(tmp_path: Path) -> None:
    facts = {"name": "mine", "engine": "e:E", "model": "m", "revision": "1", "render": {"long_side": 900}}
    profile = read_file(written(tmp_path / "mine.json", facts))
    assert profile == Profile(name="mine", engine="e:E", model="m", revision="1", render=Render(long_side=900))
    assert find(str(tmp_path / "mine.json")) == choose(profile=str(tmp_path / "mine.json")) == profile


def test_a_profile_file_has_the_differences_to_the_profile_it_extends(tmp_path: Path) -> None:
    # Given a file with routes, and a model beside it
    facts = {
        "extends": "deepseek-ocr",
        "name": "mine",
        "model_path": "weights/ocr",
        "routes": [{"to": "rapidocr", "kinds": ["tiff"]}],
    }
    profile = read_file(written(tmp_path / "mine.json", facts))
    # Then these differ, and nothing else does
    assert profile.model_path == tmp_path / "weights" / "ocr"
    assert profile.routes == (Route(to="rapidocr", kinds=(Kind.TIFF,)),)
    same = {"name": "deepseek-ocr", "model_path": None, "routes": ()}
    assert changed(profile, **same) == find("deepseek-ocr")
    # And a worker finds the model wherever it is started
    assert find(profile.model_dump_json(exclude_none=True)).model_path == tmp_path / "weights" / "ocr"


def test_a_model_path_that_is_absolute_stays(tmp_path: Path) -> None:
    facts = {"extends": "deepseek-ocr", "model_path": "/weights"}
    assert read_file(written(tmp_path / "a.json", facts)).model_path == Path("/weights")


def test_a_file_that_reads_in_the_same_way_may_keep_the_name(tmp_path: Path) -> None:
    profile = read_file(written(tmp_path / "a.json", {"extends": "deepseek-ocr", "page_deadline": 900}))
    assert (profile.name, profile.digest) == ("deepseek-ocr", find("deepseek-ocr").digest)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"extends": "deepseek-ocr", "name": "x", "colour": "red"}, "colour: Extra inputs"),
        ({"extends": "deepseek-ocr", "name": "x", "render": {"long_side": 1}}, "render.long_side"),
        ({"extends": "deepseek-ocr", "name": "x", "mode": "huge"}, "mode: "),
        ({"extends": "deepseek-ocr", "name": "x", "routes": [{"to": "rapidocr"}]}, "needs a rule"),
        ({"extends": "deepseek-ocr", "name": "X"}, "name: "),
        ({"extends": "nowhere", "name": "x"}, "there is no profile 'nowhere'"),
        ({"extends": "", "name": "x"}, "there is no profile ''"),
        ({"extends": 7, "name": "x"}, "extends is the name of a profile"),
        ({"extends": "{}", "name": "x"}, "extends is the name of a profile"),
        ({"extends": "x.json", "name": "x"}, "extends is the name of a profile"),
        # Its queue would be that of workers with another prompt
        ({"extends": "deepseek-ocr", "prompt": "<image>"}, "deepseek-ocr is another profile's name"),
        ({"name": "x", "mode": "gundam"}, "engine: Field required"),
        ({"extends": "rapidocr", "name": "x", "typical_seconds": float("nan")}, "typical_seconds"),
        ({"extends": "rapidocr", "name": "x", "language": "\ud800"}, "can't be used"),
        (["extends", "rapidocr"], "no JSON object"),
        ("rapidocr", "no JSON object"),
        (None, "no JSON object"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_its_name(tmp_path: Path, facts: object, words: str) -> None:
    path = written(tmp_path / "x.json", facts)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_file(path)
    assert "x.json" in str(caught.value) or "ocrfleet models" in str(caught.value)


def test_a_file_that_extends_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(ConfigurationError, match="extends is the name of a profile"):
        read_file(written(path, {"extends": str(path)}))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"__import__('os').system('touch x')", b"{'name': 1}", b"[" * 100_000, b'{"a":' * 50_000],
)
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"x\.json"):
        find(str(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_file(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_file(tmp_path / "folder.json")
    with pytest.raises(ConfigurationError, match="at most 1 MiB"):
        read_file(written(tmp_path / "large.json", {"extends": "rapidocr", "language": "x" * (1 << 20)}))


# ---- folders


def folder_of(place: Path, architecture: object = "DeepseekOCRForCausalLM", *, weights: int = 10) -> Path:
    place.mkdir(parents=True)
    architectures = [architecture] if isinstance(architecture, str) else architecture
    written(place / "config.json", {"architectures": architectures})
    (place / "model-1.safetensors").write_bytes(b"0" * weights)
    return place


def test_a_folder_gives_its_family(tmp_path: Path) -> None:
    one = choose(model=str(folder_of(tmp_path / "one")), mode="tiny", prompt="ocr")
    two = choose(model=str(folder_of(tmp_path / "two", "DeepseekOCR2ForCausalLM")))
    assert one.name.startswith("deepseek-ocr-tiny-ocr-local-")
    assert two.name.startswith("deepseek-ocr-2-local-")
    assert (one.model, two.model) == (DEEPSEEK_OCR.model, DEEPSEEK_OCR_2.model)
    assert one.model_path == tmp_path / "one"
    assert one.engine == "vllm"
    assert find(one.model_dump_json(exclude_none=True)) == one
    for model in MODELS:
        assert choose(model=str(folder_of(tmp_path / model.name, model.architecture))).model == model.model


def test_the_revision_of_a_model_folder_depends_on_content_not_on_path(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    here = choose(model=str(folder_of(tmp_path / "here")))
    there = choose(model=str(folder_of(Path("far/away"))))
    assert (here.revision, here.name, here.digest) == (there.revision, there.name, there.digest)
    assert there.model_path == tmp_path / "far" / "away"
    # When its weights, or its config, are others
    heavier = choose(model=str(folder_of(tmp_path / "heavier", weights=11)))
    config = folder_of(tmp_path / "config") / "config.json"
    config.write_text(config.read_text() + " ")
    other = choose(model=str(tmp_path / "config"))
    # Then it is another model, and not the published one
    revisions = {here.revision, heavier.revision, other.revision, DEEPSEEK_OCR.revision}
    assert len(revisions) == 4
    assert len({here.digest, heavier.digest, other.digest, profile_of(DEEPSEEK_OCR).digest}) == 4


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", [], ["DeepseekOCRForCausalLM", "x"], None, {"a": 1}])
def test_a_folder_with_another_model_is_refused(tmp_path: Path, architecture: object) -> None:
    folder = folder_of(tmp_path / "other", architecture)
    with pytest.raises(ConfigurationError, match="which no profile is for"):
        choose(model=str(folder))


def test_a_folder_with_a_torn_config_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "torn")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json can't be read"):
        choose(model=str(folder))


def test_resolve_refuses_models_with_prompts() -> None:
    with pytest.raises(ConfigurationError, match="vllm, openai"):
        resolve("deepseek-ocr")


def test_output_of_a_prompt_for_no_text_is_not_compared_with_the_ink() -> None:
    assert find("deepseek-ocr").judgement.ignored == ()
    described = find("deepseek-ocr-describe").judgement.ignored
    assert {Reason.EMPTY, Reason.INVENTED} <= set(described)
    assert Reason.REPETITION not in described
