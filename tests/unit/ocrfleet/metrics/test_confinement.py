"""Processes that open documents say what the kernel lacks to confine decoders, or refuse to start."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics import confinement, definitions
from ocrfleet.metrics.confinement import check_confinement
from ocrfleet.sandbox.confinement import Support
from ocrfleet.settings import Settings


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(confinement, "_reported", set())
    return monkeypatch


def missing(part: str) -> float:
    return float(definitions.SANDBOX_MISSING.labels(part)._value.get())


def test_a_kernel_without_landlock_is_one_line_and_a_metric(kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(confinement, "support", lambda: Support(landlock=0, seccomp=True))
    with capture_logs() as logs:
        check_confinement(Settings())
        check_confinement(Settings())
    assert [(entry["event"], entry["missing"]) for entry in logs] == [("sandbox.part_missing", ("Landlock",))]
    assert (missing("Landlock"), missing("seccomp")) == (1, 0)


def test_a_whole_sandbox_says_nothing(kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(confinement, "support", lambda: Support(landlock=7, seccomp=True))
    with capture_logs() as logs:
        check_confinement(Settings(sandbox="require"))
    assert logs == []
    assert (missing("Landlock"), missing("seccomp")) == (0, 0)


def test_require_refuses_to_start(kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(confinement, "support", lambda: Support(landlock=0, seccomp=False))
    with pytest.raises(ConfigurationError, match="lacks Landlock and seccomp, and OCRFLEET_SANDBOX=require"):
        check_confinement(Settings(sandbox="require"))
