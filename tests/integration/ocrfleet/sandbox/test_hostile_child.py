"""A decoder that an attacker owns reaches nothing: neither its parent, nor files, nor networks, nor other documents.

`pytest -s` shows the table of what it tries.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.waiting import scaled

NOBODY = 65534
#: Attempts that fail without a sandbox as well: as an ordinary user, or where the kernel has the call switched off.
PRIVILEGED = {"other user", "bpf", "io_uring", "user namespace", "keys of the kernel"}
#: Attempts on the document, which is open for reading only.
ON_THE_DOCUMENT = {"write to the document", "truncate the document", "map the document writable"}


def interpreter(user: int) -> tuple[str, str]:
    """Return a Python that a user may execute, and its import path; the tests' own may lie in root's home."""
    packages = os.pathsep.join((str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        tried = [program, "-c", "import pydantic"]
        try:
            subprocess.run(tried, user=user, env={"PYTHONPATH": packages}, check=True, timeout=scaled(60))
        except (OSError, subprocess.CalledProcessError):
            continue
        return program, packages
    if os.environ.get("CI"):
        pytest.fail("no Python is installed that an ordinary user may execute")
    pytest.skip("no Python is installed that an ordinary user may execute")


@pytest.mark.parametrize("namespaces", [True, False], ids=["with namespaces", "without namespaces"])
@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "nobody"])
def test_a_decoder_of_an_attacker_reaches_nothing(user: int, *, namespaces: bool) -> None:
    if os.getuid() != 0:
        if user == 0:
            pytest.skip("this is the test of root")
        user = os.getuid()
    # Given a process with secrets, as root or as an ordinary user
    program, packages = interpreter(user)
    folder = Path(f"/tmp/ocrfleet-hostile-{os.getpid()}-{user}-{namespaces}")  # noqa: S108 - tmp_path is root's only
    folder.mkdir(mode=0o700)
    os.chown(folder, user, -1)
    try:
        # When a decoder of an attacker opens documents for it
        done = subprocess.run(
            [
                program,
                "-m",
                "tests.support.hostile_child",
                str(folder),
                *([] if namespaces else ["--without-namespaces"]),
            ],
            user=user,
            cwd=ROOT,
            env={"PYTHONPATH": packages, "AWS_SECRET_ACCESS_KEY": "hunter2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=scaled(120),
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(folder)
    result = json.loads(done.stdout)
    rows = [("attempt", "without a sandbox", "in a sandbox")]
    for name, refused in result["confined"].items():
        rows.append((name, result["free"].get(name, "-") or "reached", refused or "REACHED"))
    sys.stdout.write("\n" + "".join(f"{name:40}{free:>26}{confined:>26}\n" for name, free, confined in rows))
    if result["missing"]:
        pytest.skip(f"this kernel has no {' and no '.join(result['missing'])}")
    # Then each attempt is refused
    assert [name for name, refused in result["confined"].items() if refused is None] == []
    # And almost all of them succeed in a child that is not confined
    failed = {name for name, refused in result["free"].items() if refused is not None}
    assert failed <= PRIVILEGED | ON_THE_DOCUMENT, {name: result["free"][name] for name in failed}
