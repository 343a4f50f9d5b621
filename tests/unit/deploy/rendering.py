"""The chart rendered by Helm's own engine, with the values that the tests share."""

from __future__ import annotations

from typing import Any

import helm_python
import yaml

from tests.support.servers import ROOT

CHART = ROOT / "deploy" / "helm" / "ocrfleet"
NAMES: dict[str, Any] = {
    "redis": {"existingSecret": "redis-secret"},
    "s3": {"existingSecret": "s3-secret"},
    "api": {"existingSecret": "api-secret"},
}
#: What the pods of each role can be given.
PLACED: dict[str, Any] = {
    "priorityClassName": "documents",
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "documents", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "podAnnotations": {"example.org/team": "archive"},
    "extraVolumes": [{"name": "fonts", "configMap": {"name": "fonts"}}],
    "extraVolumeMounts": [{"name": "fonts", "mountPath": "/usr/share/fonts/own", "readOnly": True}],
}
WHOLE: dict[str, Any] = NAMES | {
    "api": PLACED
    | {
        "existingSecret": "api-secret",
        "service": {"annotations": {"example.org/balancer": "internal"}, "ipFamilyPolicy": "PreferDualStack"},
        "ingress": {"enabled": True, "host": "ocr.example.org", "tlsSecret": "ocr-tls", "className": "nginx"},
    },
    "intake": PLACED,
    "watch": PLACED,
    "workerDefaults": PLACED,
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/ocrfleet"}},
    "imagePullSecrets": [{"name": "registry"}],
    "pricePerGpuHour": 1.5,
    "documentProfile": "deepseek-ocr-2",
    "webhook": {"existingSecret": "webhook-secret"},
    "workers": {
        "cpu": {"autoscaling": {"enabled": True}},
        "gpu": {
            "enabled": True,
            "gpus": 4,
            "modelClaim": "models",
            "compileCacheClaim": "kernels",
            "autoscaling": {
                "enabled": True,
                "authentication": {"name": "thanos", "kind": "ClusterTriggerAuthentication"},
            },
        },
        "dots": {
            "profile": "dots-ocr",
            "gpus": 1,
            "runtimeClassName": "nvidia",
            "resources": {"limits": {"memory": "64Gi"}},
        },
    },
    "claims": {
        "models": {"accessMode": "ReadWriteMany", "size": "20Gi", "storageClass": "nfs"},
        "kernels": {"accessMode": "ReadWriteMany", "size": "5Gi"},
    },
    "caBundle": {"configMap": "authorities"},
    "modelJob": {"enabled": True, "claim": "models", "existingSecret": "hf-secret"},
    "metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}},
    "networkPolicy": {
        "apiFrom": [{"namespaceSelector": {}}],
        "s3From": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "outsideAlways": True,
    },
}
EXTERNAL: dict[str, Any] = NAMES | {
    "ipFamily": "IPv6",
    "redis": {"existingSecret": "redis-secret", "bundled": {"enabled": False}},
    "s3": {"bundled": {"enabled": False}, "region": "eu-west-1"},
    "watch": {"args": ["--sqs", "https://sqs.eu-west-1.amazonaws.com/1/uploads", "--results", "s3://out/"]},
    "networkPolicy": {"enabled": False},
}
VARIANTS = {"names only": NAMES, "whole": WHOLE, "external": EXTERNAL}


def rendered(chart: helm_python.Chart, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a release, in the namespace scans. Raises HelmValuesError for values that the schema refuses."""
    chart.validate_schema(values)
    files = chart.render(values, name="ocrfleet", namespace="scans")
    return [
        one
        for name, text in files.items()
        if not name.endswith(".txt")
        for one in yaml.load_all(text, Loader=yaml.CSafeLoader)
        if one
    ]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = of_kind(objects, "Deployment", "StatefulSet", "Job")
    return {name: one["spec"]["template"]["spec"] for name, one in found.items()}
