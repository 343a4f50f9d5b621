"""The Helm chart, rendered by Helm's own engine: valid manifests, what serves whom, no secrets."""

from __future__ import annotations

import copy
import json
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
from tests.support.servers import ROOT
from tests.unit.deploy.rendering import CHART, EXTERNAL, NAMES, VARIANTS, WHOLE, of_kind, pods, rendered

#: The oldest and the newest that the chart is for.
KUBERNETES = ["1.27", "1.37"]


def closed(*required: str, **properties: object) -> dict[str, object]:
    """Return the schema of an object that has these properties and no others."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def listed(items: object) -> dict[str, object]:
    return {"type": "array", "items": items, "minItems": 1}


_TEXT, _COUNT, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_METADATA = ("serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues", "authModes")
#: Definitions that are none of Kubernetes' own, as far as the chart uses them: a name that is mistyped is refused.
CUSTOM = {
    "ScaledObject": closed(
        *("scaleTargetRef", "triggers"),
        scaleTargetRef=closed("name", name=_TEXT),
        pollingInterval=_COUNT,
        cooldownPeriod=_COUNT,
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        fallback=closed(
            *("failureThreshold", "replicas", "behavior"),
            failureThreshold=_COUNT,
            replicas=_COUNT,
            behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
        ),
        advanced=closed(horizontalPodAutoscalerConfig=closed(behavior=_ANY)),
        triggers=listed(
            closed(
                *("type", "metadata"),
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                authenticationRef=closed("name", name=_TEXT, kind=_TEXT),
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


def test_runbooks_have_the_url_that_is_set(chart: helm_python.Chart) -> None:
    url = "https://wiki.example/ocrfleet/"
    (one,) = of_kind(
        rendered(chart, NAMES | {"metrics": {"rules": {"enabled": True, "runbooks": url}}}), "PrometheusRule"
    ).values()
    alerts = [rule for group in one["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"{url}docs/howto/alerts.md#{rule['alert'].lower()}"


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
        # A rule without `to` would let it reach any host on these ports
        assert all(rule["to"] for rule in policy["egress"])
        assert policy["egress"][0]["to"] == [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ]
    node_local = [{"ipBlock": {"cidr": "169.254.20.10/32"}}]
    changed = of_kind(rendered(chart, NAMES | {"networkPolicy": {"dns": node_local}}), "NetworkPolicy")
    assert changed["ocrfleet-worker"]["spec"]["egress"][0]["to"] == node_local


def test_documents_are_opened_apart_from_the_api(chart: helm_python.Chart) -> None:
    found = pods(rendered(chart, NAMES))
    (serve,), (intake,) = found["ocrfleet-serve"]["containers"], found["ocrfleet-intake"]["containers"]
    assert serve["args"][serve["args"].index("--intake-consumers") + 1] == "0"
    for name in ("intakeConsumers", "clerks"):  # the second is its earlier name
        (changed,) = pods(rendered(chart, NAMES | {"api": NAMES.get("api", {}) | {name: 2}}))["ocrfleet-serve"][
            "containers"
        ]
        assert changed["args"][changed["args"].index("--intake-consumers") + 1] == "2"
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
        (("claims", "models"), {"size": "20Gi"}),
        (("claims", "models"), {"accessMode": "ReadWriteMany", "size": "20Gi", "klass": "nfs"}),
        (("workers", "gpu", "gpuResource"), "gpu"),
        (("workers", "gpu", "autoscaling", "authentication", "kind"), "Secret"),
        (("workers", "gpu", "autoscaling", "fallbackReplicas"), -1),
        (("workers", "gpu", "progressDeadlineSeconds"), 0),
        (("api", "ingress", "hosts"), ["ocr.example.org"]),
        (("api", "topologySpreadConstraints"), [{"topologyKey": "zone"}]),
        (("intake", "priorityClassName"), "Not A Name"),
        (("ipFamily",), "both"),
        (("caBundle", "secret"), "authorities"),
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
