"""Pods of the chart: disks with limits, places, volumes and authorities of the cluster's own, addresses, the way in."""

from __future__ import annotations

import ipaddress
from typing import Any

import helm_python
import pytest

from tests.unit.deploy.rendering import EXTERNAL, NAMES, PLACED, VARIANTS, WHOLE, of_kind, pods, rendered


@pytest.mark.parametrize("name", VARIANTS)
def test_no_pod_fills_the_disk_of_its_node(chart: helm_python.Chart, name: str) -> None:
    for owner, pod in pods(rendered(chart, VARIANTS[name])).items():
        disks = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
        assert disks, owner
        assert all("sizeLimit" in disk for disk in disks.values()), owner
        env = {one["name"]: one.get("value") for one in pod["containers"][0].get("env", ())}
        if "OCRFLEET_CACHE_MB" in env:
            # The cache evicts its files before the node evicts the pod
            assert int(disks["cache"]["sizeLimit"].removesuffix("Mi")) >= 2 * int(env["OCRFLEET_CACHE_MB"]), owner


def test_each_role_goes_where_the_cluster_wants_it(chart: helm_python.Chart) -> None:
    made = of_kind(rendered(chart, WHOLE), "Deployment")
    roles = {name.split("-")[1] for name in made}
    assert roles == {"serve", "intake", "watch", "worker"}
    for name, one in made.items():
        template = one["spec"]["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        assert template["metadata"]["annotations"] == PLACED["podAnnotations"], name
        assert pod["priorityClassName"] == PLACED["priorityClassName"], name
        assert pod["nodeSelector"].items() >= PLACED["nodeSelector"].items(), name
        assert pod["volumes"][-1] == PLACED["extraVolumes"][0], name
        assert pod["containers"][0]["volumeMounts"][-1] == PLACED["extraVolumeMounts"][0], name
        # Pods of one role, and of one pool, are spread, and nothing else is counted
        (spread,) = pod["topologySpreadConstraints"]
        assert spread == PLACED["topologySpreadConstraints"][0] | {"labelSelector": {"matchLabels": labels}}, name


def test_priority_of_the_bundled_servers(chart: helm_python.Chart) -> None:
    first = {"existingSecret": "secret", "bundled": {"priorityClassName": "first"}}
    found = pods(rendered(chart, NAMES | {"redis": first, "s3": first}))
    assert {found[name]["priorityClassName"] for name in ("ocrfleet-redis", "ocrfleet-s3")} == {"first"}


def test_authorities_of_the_cluster_are_trusted_by_all_that_connects(chart: helm_python.Chart) -> None:
    for owner, pod in pods(rendered(chart, WHOLE)).items():
        (container,) = pod["containers"]
        if not container["image"].startswith("ocrfleet"):
            continue
        (volume,) = [one for one in pod["volumes"] if one["name"] == "ca"]
        assert volume["configMap"] == {"name": "authorities", "items": [{"key": "ca.crt", "path": "ca.crt"}]}, owner
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "ca"]
        env = {one["name"]: one.get("value") for one in container["env"]}
        for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            assert env[name] == mount["mountPath"] + "/ca.crt", owner


def test_the_api_has_a_name_outside_and_its_metrics_have_none(chart: helm_python.Chart) -> None:
    objects = rendered(chart, WHOLE)
    (ingress,) = of_kind(objects, "Ingress").values()
    spec = ingress["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"hosts": ["ocr.example.org"], "secretName": "ocr-tls"}]
    ((path,),) = [rule["http"]["paths"] for rule in spec["rules"] if rule["host"] == "ocr.example.org"]
    service = of_kind(objects, "Service")[path["backend"]["service"]["name"]]
    assert path["backend"]["service"]["port"]["name"] == "http"
    assert "http" in {port["name"] for port in service["spec"]["ports"]}
    assert service["metadata"]["annotations"] == {"example.org/balancer": "internal"}
    assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert of_kind(rendered(chart, NAMES), "Ingress") == {}
    with pytest.raises(helm_python.HelmRenderError, match=r"api\.ingress\.host: the name"):
        rendered(chart, NAMES | {"api": {"existingSecret": "api-secret", "ingress": {"enabled": True}}})


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_servers_listen_on_addresses_that_pods_have(chart: helm_python.Chart, family: str) -> None:
    wildcard = {"IPv4": "0.0.0.0", "IPv6": "::"}[family]  # noqa: S104 - what the chart says
    found = pods(rendered(chart, NAMES | {"ipFamily": family}))
    serve = found["ocrfleet-serve"]["containers"][0]["args"]
    assert serve[serve.index("--host") + 1] == wildcard
    assert f"-s3.ip.bind={wildcard}" in found["ocrfleet-s3"]["containers"][0]["args"]
    for role in ("serve", "intake", "watch", "worker-cpu"):
        env = {one["name"]: one.get("value") for one in found[f"ocrfleet-{role}"]["containers"][0]["env"]}
        assert env["OCRFLEET_METRICS_HOST"] == wildcard, role


#: Where clouds give credentials to whoever asks: AWS, GCP, Azure; the agents of EKS.
METADATA = ["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "169.254.170.23", "fe80::a9fe:a9fe"]


@pytest.mark.parametrize("values", [WHOLE, EXTERNAL | {"networkPolicy": {"enabled": True}}], ids=["whole", "external"])
def test_no_pod_reaches_the_metadata_service(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    objects = rendered(chart, values)
    policies = of_kind(objects, "NetworkPolicy").values()
    for name, one in of_kind(objects, "Deployment", "StatefulSet", "Job").items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        held = [p["spec"] for p in policies if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
        assert held, name
        for peer in (peer for policy in held for rule in policy.get("egress", ()) for peer in rule.get("to", ())):
            block = peer.get("ipBlock", {"cidr": "192.0.2.0/32", "except": []})
            for address in METADATA:
                open_to = within(address, block["cidr"]) and not any(within(address, cidr) for cidr in block["except"])
                assert not open_to, (name, address)


def within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)
