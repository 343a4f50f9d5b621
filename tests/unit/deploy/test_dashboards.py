"""Grafana's dashboards match their generator, and each panel has a description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana import dashboards
from ocrfleet.metrics import definitions as metrics
from tests.support.promql import asked, loaded, rules, selectors
from tests.support.promql import metrics as metrics_in
from tests.support.servers import ROOT

NAMES = ("ocrfleet-cost", "ocrfleet-intake", "ocrfleet-overview", "ocrfleet-worker")


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


@pytest.fixture(params=NAMES)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return loaded()[request.param]


def test_committed_dashboards_match_the_generator() -> None:
    committed = {path: path.read_text() for path in dashboards.FOLDER.glob("*.json")}  # type: ignore[attr-defined]
    assert committed == dashboards.written(), "run: make dashboards"  # type: ignore[attr-defined]
    # Links and bookmarks name them.
    assert sorted(path.stem for path in committed) == list(NAMES)


def test_each_panel_describes_its_values_and_when_to_act(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert re.fullmatch(r"[^\n]+\.\n\n\*\*Worry when\*\* [^\n]+[.?]", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
    titles = [panel["title"] for panel in board["panels"]]
    assert all(titles)
    heading = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert len(set(heading)) == len(heading) >= 2


def test_each_query_uses_the_selected_data_source(board: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(board):
        assert panel["targets"], panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == chosen
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert all(variable["datasource"] == chosen for variable in others)
    assert all(mark["datasource"] == chosen for mark in board["annotations"]["list"])


def test_each_variable_is_used_and_each_that_is_used_is_there(board: dict[str, Any]) -> None:
    known = {variable["name"] for variable in board["templating"]["list"]} - {"datasource"}
    used = {name for query in asked(board) for name in re.findall(r"\$([a-z]+)", query)}
    assert used == known


def test_each_metric_is_asked_of_the_selected_fleet(board: dict[str, Any]) -> None:
    _, first, *_ = board["templating"]["list"]
    assert (first["name"], first.get("multi", False), first.get("includeAll", False)) == ("fleet", False, False)
    for query in (*asked(board), *(mark["expr"] for mark in board["annotations"]["list"])):
        for one in selectors(query):
            if one.startswith(("ocrfleet", "vllm")) and not one.startswith("ocrfleet:deadline_seconds"):
                assert '{fleet="$fleet"' in one, query


def test_panels_have_ids_of_their_own_and_lie_beside_each_other(board: dict[str, Any]) -> None:
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_grafanas_own_types_read_it_back_unchanged(board: dict[str, Any]) -> None:
    register_default_plugins()
    # These types lack some fields of Prometheus annotations.
    for mark in board["annotations"]["list"]:
        for name in ("titleFormat", "textFormat", "step"):
            del mark[name]
    encoder = dashboards.JSONEncoder(sort_keys=True)  # type: ignore[attr-defined]
    assert encoder.encode(Dashboard.from_json(board)) == encoder.encode(board)


def test_each_metric_is_shown_somewhere() -> None:
    expressions = [expression for board in loaded().values() for expression in asked(board)]
    shown = {name for expression in expressions for name in metrics_in(expression)}
    shown |= {name for rule in rules() for name in metrics_in(rule["expr"])}
    declared = {value.name for value in vars(metrics).values() if isinstance(value, metrics.ObservedGauge)}
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            declared.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert len(declared) > 30
    assert {
        name for name in declared if not any(re.fullmatch(f"{name}(_bucket|_sum|_count)?", at) for at in shown)
    } == set()


def test_deployments_and_engine_restarts_are_marked(board: dict[str, Any]) -> None:
    assert [mark["name"] for mark in board["annotations"]["list"]] == ["Deployment", "Engine restarted"]


def test_the_overview_leads_to_the_worker_that_a_line_is_of() -> None:
    boards = loaded()
    linked = {
        panel["title"]: [link["url"] for link in panel["fieldConfig"]["defaults"].get("links") or ()]
        for panel in panels(boards["ocrfleet-overview"])
    }
    leading = {title: urls for title, urls in linked.items() if urls}
    assert "Engine restarts" in leading
    for title, urls in leading.items():
        assert urls == [
            "/d/ocrfleet-worker?var-instance=${__field.labels.instance}&${fleet:queryparam}&${datasource:queryparam}&${__url_time_range}"
        ], title
    assert "instance" in {variable["name"] for variable in boards["ocrfleet-worker"]["templating"]["list"]}
    for board in boards.values():
        assert [(link["type"], link["tags"], link["keepTime"]) for link in board["links"]] == [
            ("dashboards", ["ocrfleet"], True)
        ]
        assert board["tags"] == ["ocrfleet"]


def test_grafana_is_provisioned_with_prometheus_and_the_dashboards() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "ocrfleet.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    sources = yaml.safe_load((folder / "datasources" / "ocrfleet.yml").read_text())["datasources"]
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert [(source["type"], source["url"]) for source in sources] == [
        ("prometheus", "http://prometheus:9090"),
        ("alertmanager", "http://alertmanager:9093"),
    ]
    assert sources[0]["jsonData"]["timeInterval"] == scraped["scrape_interval"]
