"""Every PromQL expression that we ship: of panels, annotations and variables, and of rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.servers import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules" / "ocrfleet.yml"
_BOARDS = ROOT / "deploy" / "grafana" / "dashboards"
_LABEL_VALUES = re.compile(r"label_values\((.+), ([a-z]+)\)")
_MATCHERS = r"\{[^}]*\}"
#: Parts with names that are not metrics: labels, ranges, offsets.
_BESIDES = re.compile(
    rf"{_MATCHERS}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\boffset\s+\w+"
)
_SELECTOR = re.compile(rf"(?<![\w:])(?!(?:and|or|unless|bool)\b)([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:{_MATCHERS})?")


def loaded() -> dict[str, dict[str, Any]]:
    """Return the committed dashboards by their uids."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(_BOARDS.glob("*.json"))}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def asked(board: dict[str, Any]) -> Iterator[str]:
    """Yield what the panels of a dashboard ask, with its variables in it."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def besides(board: dict[str, Any]) -> Iterator[str]:
    """Yield what a dashboard asks for its annotations and its variables."""
    yield from (mark["expr"] for mark in board["annotations"]["list"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match is not None, variable
            yield f"count by ({match[2]}) ({match[1]})"


def legends(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the panels of a dashboard ask, with the legend of each."""
    for panel in board["panels"]:
        yield from ((target["expr"], target.get("legendFormat", "")) for target in panel.get("targets", ()))


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in an expression."""
    return {match[1] for match in _SELECTOR.finditer(_BESIDES.sub(" ", expression))}


def selectors(expression: str) -> list[str]:
    """Return the metrics in an expression, each with the matchers that it has there."""
    kept = re.sub(r"\[[^\]]*\]|\b(?:by|without|on)\s*\([^)]*\)|\boffset\s+\w+", " ", expression)
    return [match[0] for match in _SELECTOR.finditer(kept)]
