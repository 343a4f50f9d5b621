"""What stands around the code: the lock file of development, templates, hooks."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import yaml
from packaging.requirements import Requirement

from tests.support.servers import ROOT


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
