"""Alert rules, checked by promtool: each fires when it should and not otherwise, and has a section in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from ocrfleet.metrics import definitions as metrics
from ocrfleet.settings import ApiSettings, S3Settings, Settings, VllmSettings
from producer.cli.main import app
from tests.support.promql import rules
from tests.support.servers import ROOT, TOLD, lacking
from tests.support.waiting import scaled

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "ocrfleet.yml"
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
RUNBOOK = ROOT / "docs" / "howto" / "alerts.md"


def run(program: str, *arguments: object) -> None:
    """Run a tool of Debian's `prometheus` or `prometheus-alertmanager`; fail with its output."""
    if shutil.which(program) is None:
        lacking(f"{program} (make system-deps)")
    ended = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def sections() -> dict[str, str]:
    """Return the runbook's sections on alerts, by their titles."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_rules_and_configurations_are_valid() -> None:
    run("promtool", "check", "rules", "--lint-fatal", RULES)
    run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_as_their_tests_say(path: Path) -> None:
    run("promtool", "test", "rules", path)


def test_each_alert_is_tested_firing_and_not_firing(record_property: Callable[[str, object], None]) -> None:
    asked: dict[bool, set[str]] = {True: set(), False: set()}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                asked[bool(case["exp_alerts"])].add(case["alertname"])
    known = set(alerts())
    assert asked == {True: known, False: known}
    record_property(TOLD, f"{len(asked[True] & known)} of {len(known)} alerts are tested, firing and not firing")


def test_no_rule_mixes_two_fleets() -> None:
    # An aggregation without the label adds up two fleets, or a healthy one hides the other.
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        without = re.findall(r"\b(?:sum|max|min|count|avg)\b(?! by \((?:[a-z_, ]*\bfleet\b|namespace, ))", rule["expr"])
        assert not without, rule
        assert "on ()" not in rule["expr"], rule


def test_a_gauge_is_not_taken_for_a_counter() -> None:
    counted = {one.name for one in vars(metrics).values() if isinstance(one, metrics.ObservedGauge)}
    for rule in rules():
        of = set(re.findall(r"\b(?:increase|rate|irate)\((\w+)", rule["expr"]))
        assert not of & counted, rule


def test_each_alert_has_a_severity_and_a_remedy() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}, name
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"]), name
        url = f"{{{{ $externalLabels.ocrfleet_runbooks }}}}docs/howto/alerts.md#{name.lower()}"
        assert rule["annotations"]["runbook_url"] == url


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    assert list(sections()) == list(alerts())
    for name, text in sections().items():
        for question in ("What it means.", "First checks.", "What to do.", "When to escalate."):
            assert f"**{question}**" in text, name


def test_the_runbook_names_commands_and_settings_that_there_are() -> None:
    text = RUNBOOK.read_text()
    named = set(re.findall(r"(?:`|^ +)ocrfleet ([a-z]+)", text, re.MULTILINE))
    assert named == named & get_command(app).commands.keys()  # type: ignore[attr-defined]
    assert {"quarantine", "retry", "status", "sweep"} <= named
    parts = {"": Settings, "API_": ApiSettings, "S3_": S3Settings, "VLLM_": VllmSettings}
    known = {f"OCRFLEET_{part}{name.upper()}" for part, settings in parts.items() for name in settings.model_fields}  # type: ignore[attr-defined]
    assert set(re.findall(r"OCRFLEET_[A-Z0-9_]+[A-Z]", text)) <= known


def test_links_in_the_runbook_lead_somewhere() -> None:
    anchors = {title.lower() for title in sections()}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text())) <= anchors
