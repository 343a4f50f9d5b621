"""Worker pools of the chart: draining, GPUs, models, scaling by the backlog."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import helm_python
import pytest

from tests.support.servers import lacking
from tests.unit.deploy.rendering import NAMES, WHOLE, of_kind, pods, rendered


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
    assert gpu["nodeSelector"]["nvidia.com/gpu.present"] == "true"
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    assert cpu["containers"][0]["args"] == ["worker", "--profile", "rapidocr", "--processes", "2"]
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    # What a pool of one's own does not say, workerDefaults say
    assert found["ocrfleet-worker-dots"]["runtimeClassName"] == "nvidia"
    assert found["ocrfleet-worker-dots"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_pods_are_counted_by_the_seconds_of_work_that_wait(chart: helm_python.Chart) -> None:
    objects = rendered(chart, WHOLE)
    scaled = of_kind(objects, "ScaledObject")
    assert set(scaled) == {"ocrfleet-worker-cpu", "ocrfleet-worker-gpu"}
    for name, one in scaled.items():
        # From and to none
        assert one["spec"]["minReplicaCount"] == 0
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"]
        # An absolute number, which the pods that are ready do not multiply; and no answer is no zero
        (trigger,) = one["spec"]["triggers"]
        assert trigger["metricType"] == "AverageValue"
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        # No pod is removed before its drain can finish
        down = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
        query = trigger["metadata"]["query"]
        assert 'ocrfleet_backlog_seconds{namespace="scans"}' in query


def test_the_wanted_pods_do_not_depend_on_those_that_are_ready(chart: helm_python.Chart, tmp_path: Path) -> None:
    """7,200 pages at 1 page/s, 4 GPUs a pod and 600 s: 3 pods, whether none, one or two of them have loaded their model."""
    promtool = shutil.which("promtool") or lacking("promtool (make system-deps)")
    scaled = of_kind(rendered(chart, WHOLE), "ScaledObject")["ocrfleet-worker-gpu"]
    metadata = scaled["spec"]["triggers"][0]["metadata"]
    expression = f"({metadata['query']}) / {metadata['threshold']}"
    leader = {"job": "serve", "instance": "a", "namespace": "scans"}
    cases = []
    for workers in (0, 1, 4, 8):
        samples = {
            "ocrfleet_leader": (leader, 1),
            "ocrfleet_backlog_seconds": (leader | {"queue": "bulk"}, 7200 / max(workers, 1)),
        }
        if workers:
            samples["ocrfleet_workers"] = (leader | {"profile": "deepseek-ocr-2"}, workers)
        # A candidate's numbers and another fleet's do not count
        series = [(name, labels, value) for name, (labels, value) in samples.items()]
        series += [("ocrfleet_leader", leader | {"instance": "b"}, 0)]
        series += [("ocrfleet_backlog_seconds", leader | {"instance": "b", "queue": "bulk"}, 1e6)]
        series += [("ocrfleet_workers", leader | {"namespace": "other", "profile": "deepseek-ocr-2"}, 99)]
        cases.append(
            {
                "input_series": [
                    {
                        "series": name + json.dumps(labels).replace('": ', "=").replace('{"', "{").replace(', "', ", "),
                        "values": str(value),
                    }
                    for name, labels, value in series
                ],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": 3}]}
                ],
            }
        )
    # No leader: no answer, which is no zero
    cases.append({"promql_expr_test": [{"expr": expression, "eval_time": "0s", "exp_samples": []}]})
    tests = tmp_path / "tests.yml"
    tests.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run([str(promtool), "test", "rules", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_away_takes_no_pods_and_may_ask_for_a_token(chart: helm_python.Chart) -> None:
    scaled = of_kind(rendered(chart, WHOLE), "ScaledObject")
    gpu, cpu = (scaled[f"ocrfleet-worker-{name}"]["spec"] for name in ("gpu", "cpu"))
    assert gpu["fallback"] == {"failureThreshold": 5, "replicas": 1, "behavior": "currentReplicasIfHigher"}
    assert gpu["triggers"][0]["authenticationRef"] == {"name": "thanos", "kind": "ClusterTriggerAuthentication"}
    assert gpu["triggers"][0]["metadata"]["authModes"] == "bearer"
    assert "authenticationRef" not in cpu["triggers"][0]
    assert "authModes" not in cpu["triggers"][0]["metadata"]


@pytest.mark.parametrize(("said", "startup", "given"), [(None, 300, 1800), (7200, 300, 7200), (None, 3000, 3600)])
def test_a_model_that_loads_is_no_failed_upgrade(
    chart: helm_python.Chart, said: int | None, startup: int, given: int
) -> None:
    pool = {"startupSeconds": startup} | ({"progressDeadlineSeconds": said} if said else {})
    made = of_kind(rendered(chart, NAMES | {"workers": {"cpu": pool}}), "Deployment")["ocrfleet-worker-cpu"]
    assert made["spec"]["progressDeadlineSeconds"] == given


@pytest.mark.parametrize("resource", ["amd.com/gpu", "nvidia.com/mig-1g.10gb", "gpu.intel.com/i915"])
def test_a_gpu_is_the_resource_that_the_cluster_calls_it(chart: helm_python.Chart, resource: str) -> None:
    values = NAMES | {"workers": {"gpu": {"enabled": True, "gpuResource": resource}}}
    limits = pods(rendered(chart, values))["ocrfleet-worker-gpu"]["containers"][0]["resources"]["limits"]
    assert limits == {resource: 1, "memory": "64Gi"}


def test_claims_are_made_and_kept(chart: helm_python.Chart) -> None:
    made = of_kind(rendered(chart, WHOLE), "PersistentVolumeClaim")
    assert {name: one["spec"] for name, one in made.items()} == {
        "models": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "nfs",
            "resources": {"requests": {"storage": "20Gi"}},
        },
        "kernels": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    assert all(one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for one in made.values())


def test_compiled_kernels_outlive_their_pod(chart: helm_python.Chart) -> None:
    found = pods(rendered(chart, WHOLE))
    kept, own = found["ocrfleet-worker-gpu"], found["ocrfleet-worker-dots"]
    assert {"name": "engine", "persistentVolumeClaim": {"claimName": "kernels"}} in kept["volumes"]
    # The GPUs of another node may need other kernels
    (container,) = kept["containers"]
    assert {"name": "engine", "mountPath": "/home/ocrfleet", "subPathExpr": "$(NODE_NAME)"} in container["volumeMounts"]
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container["env"]
    assert {"name": "engine", "emptyDir": {"sizeLimit": "20Gi"}} in own["volumes"]
