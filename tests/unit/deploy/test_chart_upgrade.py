"""`helm upgrade`: what changes between two versions of the chart, and what must not."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

from tests.support.servers import ROOT
from tests.unit.deploy.rendering import CHART, VARIANTS, WHOLE, of_kind, rendered


@pytest.fixture(scope="module")
def next_chart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[helm_python.Chart]:
    """The chart of the next version."""
    folder = tmp_path_factory.mktemp("next") / "ocrfleet"
    shutil.copytree(CHART, folder)
    described = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(described | {"version": "9.8.7", "appVersion": "9.8.7"}))
    with helm_python.Chart.load(folder) as chart:
        yield chart


def bare(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return objects by kind and name, without their own labels, which may change and restart nothing."""
    found = {(one["kind"], one["metadata"]["name"]): copy.deepcopy(one) for one in objects}
    for one in found.values():
        one["metadata"].pop("labels")
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_an_upgrade_changes_only_the_pods_of_the_fleet(
    chart: helm_python.Chart, next_chart: helm_python.Chart, name: str
) -> None:
    now, then = (bare(rendered(one, VARIANTS[name])) for one in (chart, next_chart))
    # A Job can't be changed, so that of another image has another name
    assert {kind for kind, _ in now.keys() ^ then.keys()} <= {"Job"}
    assert not [key for key in now.keys() & then.keys() if key[0] == "Job"]
    changed = {key for key in now.keys() & then.keys() if now[key] != then[key]}
    assert {(kind, place.split("-")[1]) for kind, place in changed} == {
        ("Deployment", part) for part in ("serve", "intake", "watch", "worker")
    }
    for key in changed:
        for one in (now[key], then[key]):
            (container,) = one["spec"]["template"]["spec"]["containers"]
            container.pop("image")
        assert now[key] == then[key]


def test_an_upgrade_with_the_same_images_restarts_nothing(
    chart: helm_python.Chart, next_chart: helm_python.Chart
) -> None:
    values = WHOLE | {part: {"repository": "ocr", "tag": "7"} for part in ("image", "gpuImage")}
    assert bare(rendered(chart, values)) == bare(rendered(next_chart, values))


def test_a_job_that_does_something_else_has_another_name(chart: helm_python.Chart) -> None:
    def jobs(values: dict[str, Any]) -> set[str]:
        return set(of_kind(rendered(chart, values), "Job"))

    before = jobs(WHOLE)
    assert len(before) == 2
    assert len(before - jobs(WHOLE | {"modelJob": WHOLE["modelJob"] | {"revision": "0" * 40}})) == 1
    buckets = {"existingSecret": "s3-secret", "bundled": {"buckets": ["other"]}}
    assert len(before - jobs(WHOLE | {"s3": buckets})) == 1
    assert jobs(WHOLE | {"drainSeconds": 1}) == before


def test_the_recipe_stops_what_it_says(chart: helm_python.Chart) -> None:
    """The commands of docs/howto/upgrade.md select what must stand still, and the autoscaler does not start it again."""
    recipe = (ROOT / "docs" / "howto" / "upgrade.md").read_text()
    objects = rendered(chart, WHOLE)
    scaled = of_kind(objects, "ScaledObject").values()
    pausing = re.findall(r"kubectl annotate scaledobject --selector (\S+) (\S+)", recipe)
    assert [note for _, note in pausing] == [f"autoscaling.keda.sh/paused-replicas{end}" for end in ("=0", "-")]
    for selector, _ in pausing:
        label, value = selector.split("=")
        assert scaled
        assert all(one["metadata"]["labels"][label] == value for one in scaled)
    ((label, stopped),) = re.findall(r"kubectl scale deployment --replicas 0 --selector '.*,(\S+) in \((.*)\)'", recipe)
    roles = {one["metadata"]["labels"][label] for one in of_kind(objects, "Deployment").values()}
    assert set(stopped.split(", ")) == roles
