"""Fixtures and options of all tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.servers import ROOT, TOLD, SeaweedFS, Valkey, lacking
from tests.support.waiting import TEST_SECONDS, scaled, set_scale

#: Files that one process runs as a whole: short unit tests, and tests that share slow fixtures.
WHOLE = ("tests/unit/", "tests/acceptance/test_corpus.py", "tests/acceptance/test_shared_cases.py")


def pytest_configure(config: pytest.Config) -> None:
    """Fix the time scale for the whole run."""
    set_scale(os.environ, getattr(config.option, "numprocesses", None) or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the timeout of each test, from its marker or the default, by the time scale of this machine."""
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = TEST_SECONDS if marker is None else marker.args[0]
        item.add_marker(pytest.mark.timeout(scaled(seconds)), append=False)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Send tests to processes in order: most one by one, some files whole."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.startswith(WHOLE) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print counts and measurements of tests, from all processes."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == TOLD and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real documents: OCRFLEET_CORPUS, or beside the repository."""
    folder = Path(os.environ.get("OCRFLEET_CORPUS", ROOT.parent / "shared" / "corpus"))
    if not (folder / "manifest.csv").is_file():
        lacking("the corpus of real documents")
    return folder


@pytest.fixture(scope="session", autouse=True)
def aws_models() -> Iterator[None]:
    """Load each service description of botocore once: loading takes half a second per client."""
    load = functools.cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.close()


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedFS]:
    """An S3 server for all tests, each with its own bucket. A test that kills it must restart it."""
    server = SeaweedFS()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
    server.close()
