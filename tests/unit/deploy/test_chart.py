"""The Helm chart, rendered by Helm's own engine: valid manifests, draining, scaling by the backlog, no secrets."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import typer
import yaml
from jsonschema import Draft202012Validator

from ocrfleet.profiles.select import find
from ocrfleet.settings import ApiSettings
from producer.cli.main import app
from tests.support.servers import ROOT, lacking

CHART = ROOT / "deploy" / "helm" / "ocrfleet"
#: The oldest and the newest that the chart is for.
KUBERNETES = ["1.27", "1.37"]
NAMES: dict[str, Any] = {
    "redis": {"existingSecret": "redis-secret"},
    "s3": {"existingSecret": "s3-secret"},
    "api": {"existingSecret": "api-secret"},
}
WHOLE: dict[str, Any] = NAMES | {
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/ocrfleet"}},
    "imagePullSecrets": [{"name": "registry"}],
    "pricePerGpuHour": 1.5,
    "documentProfile": "deepseek-ocr-2",
    "webhook": {"existingSecret": "webhook-secret"},
    "workers": {
        "cpu": {"autoscaling": {"enabled": True}},
        "gpu": {"enabled": True, "gpus": 4, "modelClaim": "models", "autoscaling": {"enabled": True}},
        "dots": {
            "profile": "dots-ocr",
            "gpus": 1,
            "runtimeClassName": "nvidia",
            "resources": {"limits": {"memory": "64Gi"}},
        },
    },
    "modelJob": {"enabled": True, "claim": "models", "existingSecret": "hf-secret"},
    "metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}},
    "networkPolicy": {
        "apiFrom": [{"namespaceSelector": {}}],
        "s3From": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "outsideAlways": True,
    },
}
EXTERNAL: dict[str, Any] = NAMES | {
    "redis": {"existingSecret": "redis-secret", "bundled": {"enabled": False}},
    "s3": {"bundled": {"enabled": False}, "region": "eu-west-1"},
    "watch": {"args": ["--sqs", "https://sqs.eu-west-1.amazonaws.com/1/uploads", "--results", "s3://out/"]},
    "networkPolicy": {"enabled": False},
}
VARIANTS = {"names only": NAMES, "whole": WHOLE, "external": EXTERNAL}


def closed(*required: str, **properties: object) -> dict[str, object]:
    """Return the schema of an object that has these properties and no others."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def listed(items: object) -> dict[str, object]:
    return {"type": "array", "items": items, "minItems": 1}


_TEXT, _COUNT, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_METADATA = ("serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues")
#: Definitions that are none of Kubernetes' own, as far as the chart uses them: a name that is mistyped is refused.
CUSTOM = {
    "ScaledObject": closed(
        *("scaleTargetRef", "triggers"),
        scaleTargetRef=closed("name", name=_TEXT),
        pollingInterval=_COUNT,
        cooldownPeriod=_COUNT,
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        advanced=closed(horizontalPodAutoscalerConfig=closed(behavior=_ANY)),
        triggers=listed(
            closed(
                *("type", "metadata"),
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                metadata=closed(*_METADATA[:3], **dict.fromkeys(_METADATA, _TEXT)),
            )
        ),
    ),
    "ServiceMonitor": closed(
        *("selector", "endpoints"),
        selector=closed(matchLabels=_ANY),
        endpoints=listed(closed(port=_TEXT, path=_TEXT, interval=_TEXT)),
    ),
    "PrometheusRule": closed("groups", groups=listed(_ANY)),
}


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as chart:
        yield chart


def rendered(chart: helm_python.Chart, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a release, in the namespace scans. Raises HelmValuesError for values that the schema refuses."""
    chart.validate_schema(values)
    files = chart.render(values, name="ocrfleet", namespace="scans")
    return [one for name, text in files.items() if not name.endswith(".txt") for one in yaml.safe_load_all(text) if one]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = of_kind(objects, "Deployment", "StatefulSet", "Job")
    return {name: one["spec"]["template"]["spec"] for name, one in found.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_helm_lint_passes(name: str) -> None:
    said = helm_python.lint(CHART, VARIANTS[name], strict=True, namespace="scans")
    assert [message for message in said["messages"] if message["severity"] > 1] == []
    assert said["errors"] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VARIANTS)
def test_rendered_manifests_are_strictly_valid(chart: helm_python.Chart, name: str, version: str) -> None:
    objects = rendered(chart, VARIANTS[name])
    assert objects
    for one in objects:
        if one["kind"] in CUSTOM:
            Draft202012Validator(CUSTOM[one["kind"]]).validate(one["spec"])
        else:
            kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))


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


@pytest.mark.parametrize("name", VARIANTS)
def test_selectors_select_what_the_chart_makes(chart: helm_python.Chart, name: str) -> None:
    objects = rendered(chart, VARIANTS[name])
    made = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in of_kind(objects, *("Deployment", "StatefulSet")).values()
    ]
    services = [one["metadata"]["labels"] for one in of_kind(objects, "Service").values()]
    for one in objects:
        selector = one["spec"].get("selector", {}) if one["kind"] != "ServiceMonitor" and "spec" in one else {}
        wanted = selector.get("matchLabels", selector)
        assert not wanted or any(wanted.items() <= labels.items() for labels in made), one["metadata"]["name"]
    for one in of_kind(objects, "ServiceMonitor").values():
        wanted = one["spec"]["selector"]["matchLabels"]
        (service,) = [labels for labels in services if wanted.items() <= labels.items()]
        assert service["app.kubernetes.io/component"] == wanted["app.kubernetes.io/component"]


@pytest.mark.parametrize("name", VARIANTS)
def test_no_container_may_do_more_than_it_needs(chart: helm_python.Chart, name: str) -> None:
    for owner, pod in pods(rendered(chart, VARIANTS[name])).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert pod["automountServiceAccountToken"] is False, owner
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, owner
            assert "memory" in container["resources"]["limits"], owner
            assert not container["image"].endswith(":latest"), owner


def test_secrets_are_referred_to_and_never_made(chart: helm_python.Chart) -> None:
    objects = rendered(chart, WHOLE)
    assert of_kind(objects, "Secret") == {}
    env = {
        variable["name"]: variable
        for pod in pods(objects).values()
        for container in pod["containers"]
        for variable in container.get("env", ())
    }
    secret = {"REDIS_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OCRFLEET_API_TOKENS"}
    secret |= {"OCRFLEET_API_EVENT_TOKEN", "OCRFLEET_WEBHOOK_SECRET", "HF_TOKEN"}
    assert {name for name, variable in env.items() if "secretKeyRef" in variable.get("valueFrom", {})} == secret
    assert env["OCRFLEET_REDIS_URL"]["value"] == "redis://:$(REDIS_PASSWORD)@ocrfleet-redis:6379/0"
    # And Kubernetes fills in what was defined before
    serve = pods(objects)["ocrfleet-serve"]["containers"][0]["env"]
    names = [variable["name"] for variable in serve]
    assert names.index("REDIS_PASSWORD") < names.index("OCRFLEET_REDIS_URL")
    assert {"name": "OCRFLEET_PAGES_PER_SECOND", "value": "0.4"} in serve


def test_workers_get_the_time_that_their_drain_takes(chart: helm_python.Chart) -> None:
    for drain in (0, 60, 600):
        for name, pod in pods(rendered(chart, WHOLE | {"drainSeconds": drain})).items():
            if "-worker-" in name:
                env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
                assert env["OCRFLEET_DRAIN_SECONDS"] == str(drain)
                assert pod["terminationGracePeriodSeconds"] > drain + 30, name


def test_gpu_workers_go_where_gpus_are_and_read_their_model_from_a_volume(chart: helm_python.Chart) -> None:
    found = pods(rendered(chart, WHOLE))
    gpu, cpu = found["ocrfleet-worker-gpu"], found["ocrfleet-worker-cpu"]
    (container,) = gpu["containers"]
    assert container["image"] == "ocrfleet-gpu:0.1.0"
    assert container["args"] == ["worker", "--profile", "deepseek-ocr-2", "--gpus", "all"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    assert cpu["containers"][0]["args"] == ["worker", "--profile", "rapidocr", "--processes", "2"]
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    # What a pool of one's own does not say, workerDefaults say
    assert found["ocrfleet-worker-dots"]["runtimeClassName"] == "nvidia"
    assert found["ocrfleet-worker-dots"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_pods_are_counted_by_the_seconds_of_work_that_wait(chart: helm_python.Chart, tmp_path: Path) -> None:
    objects = rendered(chart, WHOLE)
    scaled = of_kind(objects, "ScaledObject")
    assert set(scaled) == {"ocrfleet-worker-cpu", "ocrfleet-worker-gpu"}
    for name, one in scaled.items():
        # From and to none
        assert one["spec"]["minReplicaCount"] == 0
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"]
        # A ratio of what there is to what there should be, and no answer is no zero
        (trigger,) = one["spec"]["triggers"]
        assert trigger["metricType"] == "Value"
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        # No pod is removed before its drain can finish
        down = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
        query = trigger["metadata"]["query"]
        assert 'ocrfleet_backlog_seconds{namespace="scans"}' in query
        check_query(query, tmp_path)


def check_query(query: str, folder: Path) -> None:
    """Have Prometheus' own tool read a query."""
    promtool = shutil.which("promtool") or lacking("promtool (make system-deps)")
    rules = folder / "rule.yml"
    rules.write_text(json.dumps({"groups": [{"name": "query", "rules": [{"record": "query", "expr": query}]}]}))
    done = subprocess.run([str(promtool), "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rules_and_dashboards_are_those_of_the_repository(chart: helm_python.Chart) -> None:
    objects = rendered(chart, WHOLE)
    rules = of_kind(objects, "PrometheusRule")
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert [one["spec"] for one in rules.values()] == [yaml.safe_load(path.read_text()) for path in files]
    assert files
    boards = {
        name: json.loads(text)
        for one in of_kind(objects, "ConfigMap").values()
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in one["data"].items()
    }
    paths = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    assert boards == {path.name: json.loads(path.read_text()) for path in paths}
    assert paths


def test_only_the_fleet_reaches_redis(chart: helm_python.Chart) -> None:
    policy = of_kind(rendered(chart, NAMES), "NetworkPolicy")["ocrfleet-redis"]["spec"]
    ((source,),) = [rule["from"] for rule in policy["ingress"]]
    assert source["podSelector"]["matchExpressions"][0]["values"] == ["serve", "intake", "watch", "worker"]
    assert "namespaceSelector" not in source
    assert "egress" not in policy
    # And what opens documents goes nowhere but to Redis, S3 and the name server, where those are the chart's own
    for name in ("ocrfleet-worker", "ocrfleet-intake"):
        policy = of_kind(rendered(chart, NAMES), "NetworkPolicy")[name]["spec"]
        assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [6379], [8333]]


@pytest.mark.parametrize("name", ["names only", "whole"])
def test_nobody_reaches_the_metadata_service_of_a_cloud(chart: helm_python.Chart, name: str) -> None:
    for policy in of_kind(rendered(chart, VARIANTS[name]), "NetworkPolicy").values():
        for rule in policy["spec"].get("egress", ()):
            for peer in rule.get("to", ()):
                assert "ipBlock" not in peer or peer["ipBlock"]["except"] == ["169.254.0.0/16"]


def test_documents_are_opened_apart_from_the_api(chart: helm_python.Chart) -> None:
    found = pods(rendered(chart, NAMES))
    (serve,), (intake,) = found["ocrfleet-serve"]["containers"], found["ocrfleet-intake"]["containers"]
    assert serve["args"][serve["args"].index("--intake-consumers") + 1] == "0"
    assert intake["args"] == ["intake", "--processes", "1"]


def test_external_servers_take_the_place_of_the_bundled_ones(chart: helm_python.Chart) -> None:
    objects = rendered(chart, EXTERNAL)
    assert set(of_kind(objects, "StatefulSet", "Job", "NetworkPolicy")) == set()
    env = {one["name"]: one for one in pods(objects)["ocrfleet-serve"]["containers"][0]["env"]}
    assert env["OCRFLEET_REDIS_URL"]["valueFrom"] == {"secretKeyRef": {"name": "redis-secret", "key": "url"}}
    # boto3 finds the role of the service account without settings
    assert not {"AWS_ACCESS_KEY_ID", "OCRFLEET_S3_ENDPOINT_URL"} & env.keys()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("workers", "cpu", "gpu"), 1),
        (("workers", "cpu", "processes"), 0),
        (("workers", "with_underscore"), {}),
        (("drainSeconds",), "60s"),
        (("redis", "password"), "in plain sight"),
        (("image", "tag"), "latest"),
        (("store",), "/var/lib/store"),
    ],
)
def test_values_that_make_no_sense_are_refused(chart: helm_python.Chart, path: tuple[str, ...], value: object) -> None:
    values = copy.deepcopy(NAMES)
    *way, last = path
    place = values
    for key in way:
        place = place.setdefault(key, {})
    place[last] = value
    with pytest.raises(helm_python.HelmValuesError):
        chart.validate_schema(values)


@pytest.mark.parametrize("part", sorted(NAMES))
def test_a_secret_that_is_not_named_is_asked_for(chart: helm_python.Chart, part: str) -> None:
    values = {name: value for name, value in NAMES.items() if name != part}
    with pytest.raises(helm_python.HelmRenderError, match=f"{part}.existingSecret: the name of a Secret"):
        chart.render(values, name="ocrfleet", namespace="scans")


@pytest.mark.parametrize("name", VARIANTS)
def test_commands_are_given_options_that_they_have(chart: helm_python.Chart, name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = {
        pod["containers"][0]["args"][0]: pod["containers"][0]["args"]
        for pod in pods(rendered(chart, VARIANTS[name])).values()
        if pod["containers"][0]["image"].startswith("ocrfleet") and "args" in pod["containers"][0]
    }
    assert set(called) == {"serve", "intake", "watch", "worker"}
    for command, words in called.items():
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, command


def test_large_numbers_are_written_out(chart: helm_python.Chart) -> None:
    values = NAMES | {"workers": {"cpu": {"cacheMb": 2_000_000}}, "drainSeconds": 3_000_000}
    worker = pods(rendered(chart, values))["ocrfleet-worker-cpu"]
    env = {one["name"]: one.get("value") for one in worker["containers"][0]["env"]}
    assert (env["OCRFLEET_CACHE_MB"], env["OCRFLEET_DRAIN_SECONDS"]) == ("2000000", "3000000")


def test_uploads_that_arrive_at_the_same_time_fit_the_disk(chart: helm_python.Chart) -> None:
    serve = pods(rendered(chart, NAMES))["ocrfleet-serve"]
    env = {one["name"]: one.get("value") for one in serve["containers"][0]["env"]}
    (disk,) = [one["emptyDir"]["sizeLimit"] for one in serve["volumes"] if one["name"] == "uploads"]
    at_once = ApiSettings.model_fields["uploads_at_once"].default
    assert at_once * int(env["OCRFLEET_API_UPLOAD_BYTES"]) <= int(disk.removesuffix("Gi")) << 30


def test_the_notes_warn_when_no_worker_is_configured(chart: helm_python.Chart) -> None:
    def notes(values: dict[str, Any]) -> str:
        return str(chart.render(values, name="ocrfleet", namespace="scans")["ocrfleet/templates/NOTES.txt"])

    assert "NO WORKER" not in notes(NAMES)
    assert "NO WORKER serves the profile of new documents" in notes(NAMES | {"documentProfile": "deepseek-ocr-2"})


def test_the_model_that_is_fetched_is_the_one_that_the_profile_names(chart: helm_python.Chart) -> None:
    job, profile = chart.values["modelJob"], find("deepseek-ocr-2")
    assert (job["model"], job["revision"]) == (profile.model, profile.revision)
    assert chart.values["workers"]["gpu"]["profile"] == profile.name
