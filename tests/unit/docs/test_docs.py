"""README and docs: every name in them exists, and generated pages match the code."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from ocrfleet.errors import Reason
from ocrfleet.settings import ApiSettings, OpenAiSettings, S3Settings, Settings, VllmSettings
from producer.cli.main import app
from tests.support.servers import ROOT, TOLD

DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
    + [path for path in DOCS.rglob("*.md") if not path.is_symlink()]
)
#: Code of a page: inline, fenced, or indented after an empty line.
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n)\n((?: {4,}.*\n)+)")
_PATH = re.compile(
    r"(?<![\w./~$=-])((?:\.github|bench|deploy|docs|examples|ocrfleet|producer|tests|worker)/[\w./*@-]*|"
    r"(?:Makefile|docker-compose\.yml|\.env\.example|pyproject\.toml|[\w-]+\.lock|mkdocs\.yml)(?![\w/]))"
)
#: What starts like a path of the repository and is another thing.
_ELSEWHERE = re.compile(r"ocrfleet/(ocrfleet\.env|logs|store)|deploy/NAME-serve")
#: A test, a benchmark or a target of make. `test_paths_exist` and `test_targets_of_make_exist` check that they exist.
_CHECKED = re.compile(r"\b(?:tests|bench)/[\w/]+\.py|\bpython -m bench\.\w+|`make [a-z-]+`")
#: Sections of docs/explanation that claim nothing that a test or a command could check.
UNCHECKED: set[str] = set()
_COMMAND = re.compile(r"(?:^|[\s/(])(?<!install )(?<!upgrade )ocrfleet ([a-z]+)((?: [^\n]*)?)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code(path: Path) -> Iterator[str]:
    """Yield the lines of code of a page, continued ones joined, without comments."""
    text = path.read_text()
    blocks = [*_FENCED.findall(text), *_INDENTED.findall(_FENCED.sub("", text))]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"(^|\s)#.*", "", line)
    yield from _INLINE.findall(_FENCED.sub("", text))


@functools.cache
def commands() -> dict[str, set[str]]:
    """Return every command with its options."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("ocrfleet", [], resilient_parsing=True)
    found = {}
    for name in group.list_commands(context):
        parameters = group.get_command(context, name).params
        options = {one for parameter in parameters for one in (*parameter.opts, *parameter.secondary_opts)}
        found[name] = {"--help", *options}
    return found


@functools.cache
def settings() -> set[str]:
    kinds = (Settings, VllmSettings, OpenAiSettings, S3Settings, ApiSettings)
    return {f"{kind.model_config['env_prefix']}{name}".upper() for kind in kinds for name in kind.model_fields}


def test_generated_pages_match_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_lists_begin_after_an_empty_line(path: Path) -> None:
    """Python-Markdown, which makes the site, takes them for a part of the paragraph otherwise."""
    text = _FENCED.sub("", path.read_text())
    for above, line in itertools.pairwise(text.splitlines()):
        if re.match(r"- |\d+\. ", line):
            assert re.match(r"$|- |\d+\. | {2,}", above), f"{ids(path)}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_paths_exist(path: Path) -> None:
    for named in _PATH.findall("\n".join(code(path))):
        wanted = named.rstrip(".")
        if not _ELSEWHERE.match(wanted):
            assert any(ROOT.glob(wanted.rstrip("/"))), f"{ids(path)} names {named}"


def test_each_claim_of_the_explanation_names_what_checks_it() -> None:
    unchecked = set()
    for path in sorted((DOCS / "explanation").glob("*.md")):
        for section in re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, _, text = section.partition("\n")
            if not _CHECKED.search(text):
                unchecked.add(f"{path.name}: {title}")
    assert unchecked == UNCHECKED


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_commands_and_options_exist(path: Path) -> None:
    known = commands()
    for line in code(path):
        for command, rest in _COMMAND.findall(line):
            assert command in known, f"{ids(path)}: {line}"
            told = rest.partition(" | ")[0].partition(" && ")[0].partition(" · ")[0]
            unknown = set(re.findall(r"(?<!\S)(--[a-z-]+)", told)) - known[command]
            assert not unknown, f"{ids(path)}: {line}"
        if re.fullmatch(r"--[a-z-]+(?: \S+)*", line) and not line.startswith("--build-arg"):
            assert any(line.split()[0] in options for options in known.values()), f"{ids(path)}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_settings_exist(path: Path) -> None:
    known = settings()
    for name in re.findall(r"OCRFLEET_[A-Z0-9_]*[A-Z0-9](?!\*|_)", path.read_text()):
        assert name in known or _read_elsewhere(name), f"{ids(path)} names {name}"


def _read_elsewhere(name: str) -> bool:
    """Say whether something else than the settings reads a variable: a plugin of vLLM, a test."""
    return name in _sources()


@functools.cache
def _sources() -> str:
    rooms = [path for room in ("producer", "worker", "tests") for path in (ROOT / room).rglob("*.py")]
    return "\n".join(path.read_text() for path in (ROOT / "Makefile", *rooms))


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_targets_of_make_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code(path):
        assert set(re.findall(r"(?<!\S)make ([a-z-]+)", line)) <= targets, f"{ids(path)}: {line}"


def test_paths_of_the_api_exist() -> None:
    described = set(yaml.safe_load((DOCS / "reference" / "openapi.json").read_text())["paths"])
    for path in PAGES:
        for line in code(path):
            for named in re.findall(r"(?:^|[A-Z] |:8080)(/(?:v1|healthz|readyz|metrics)[\w/{}]*)", line):
                assert named == "/v1" or named.replace("/ID", "/{document}") in described, f"{ids(path)}: {line}"


def test_links_of_the_readme_and_of_contributing_lead_to_files() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{ids(path)}: {target}"


def test_the_readme_fits_on_a_few_screens() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert f"one of {len(Reason)}" in " ".join(text.split())


def test_each_reason_has_a_remedy(record_property: Callable[[str, object], None]) -> None:
    text = (DOCS / "reference" / "reasons.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(Reason)
    record_property(TOLD, f"{len(rows)} reasons have a remedy in the docs")


def test_every_page_is_in_the_navigation() -> None:
    def files(part: Any) -> Iterator[str]:
        for one in part:
            for value in one.values():
                yield from files(value) if isinstance(value, list) else [value]

    nav = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_log_texts_and_panels_that_the_alerts_page_quotes_exist() -> None:
    quoted = set(re.findall(r'"([^"\n]+)"', (DOCS / "howto" / "alerts.md").read_text()))
    sources = [path.read_text() for room in ("ocrfleet", "producer", "worker") for path in (ROOT / room).rglob("*.py")]
    sources += [path.read_text() for path in (ROOT / "deploy" / "grafana").glob("*.py")]
    # What the kernel and CUDA write, and a part of a sentence with a name in it.
    theirs = {"OOMKilled", "out of memory", "No worker serves NAME"}
    assert {text for text in quoted - theirs if not any(text in source for source in sources)} == set()
