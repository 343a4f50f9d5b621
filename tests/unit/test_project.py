"""Rules of the project: the lock file of development, templates, hooks, names of log events, waits and ends of tests."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.servers import ROOT
from tests.support.waiting import scaled

#: Functions that wait for so many seconds. With asyncio.timeout tests cancel a call before it ends: it must not be longer.
_WAITING = {"communicate", "join", "settimeout", "sleep", "wait", "wait_for"}
#: Parameters that are such seconds; the functions of tests/support scale what is called `seconds`.
_LIMITS = {"connect_timeout", "lease_seconds", "read_timeout", "timeout"}
#: Functions that wait for 5 seconds unless they are given others.
_HTTPX = {
    f"httpx.{name}" for name in ("AsyncClient", "Client", "delete", "get", "head", "post", "put", "request", "stream")
}


def test_the_lock_file_has_a_version_that_each_direct_dependency_allows() -> None:
    text = (ROOT / "requirements-dev.lock").read_text()
    locked: dict[str, set[str]] = {}
    for name, found in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(re.sub(r"[-_.]+", "-", name), set()).add(found)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["openai"], *extras["dev"]]:
        wanted = Requirement(line)
        name = re.sub(r"[-_.]+", "-", wanted.name.lower())
        if name != project["name"]:
            assert any(wanted.specifier.contains(one) for one in locked.get(name, ())), f"{line}: make lock"
    assert "://" not in text


def test_templates_and_hooks_are_valid_yaml_and_name_tools_of_the_environment() -> None:
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        assert yaml.safe_load(path.read_text()), path
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert version({"lint-imports": "import-linter"}.get(tool, tool))


def test_log_events_are_named_component_dot_event_and_each_has_one_place() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, node in _nodes("ocrfleet", "producer", "worker"):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log"), attr="debug" | "info" | "warning" | "error" | "exception" | "critical"
                ),
                args=[ast.Constant(value=str(event)), *_],
            ):
                places[event].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 50
    assert [event for event in places if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", event)] == []
    assert {event: found for event, found in places.items() if len(found) > 1} == {}


def test_no_statement_follows_the_first_one_within_pytest_raises() -> None:
    """A statement after the one that raises is never run."""
    never_run = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in _nodes("tests")
        if isinstance(node, ast.With | ast.AsyncWith)
        and any("pytest.raises" in ast.unparse(item.context_expr) for item in node.items)
        and len(node.body) > 1
    ]
    assert never_run == []


def test_every_wait_of_a_test_is_scaled() -> None:
    literal = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path, node in _nodes("tests")
        if isinstance(node, ast.Call) and _waits_unscaled(node)
    ]
    assert literal == []


@pytest.mark.timeout(200)
def test_the_time_limit_that_a_test_names_is_scaled(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker.args == (scaled(200),)


def _waits_unscaled(call: ast.Call) -> bool:
    function = ast.unparse(call.func)
    if function == "pytest.mark.timeout":  # tests/conftest.py scales it
        return False
    limits = [named.value for named in call.keywords if named.arg in _LIMITS]
    if function in _HTTPX and not limits:
        return True
    if function.rpartition(".")[2] in _WAITING:
        limits += call.args
    return any(
        isinstance(limit, ast.Constant) and isinstance(limit.value, float | int) and limit.value for limit in limits
    )


def _nodes(*folders: str) -> Iterator[tuple[Path, ast.AST]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield path, node
