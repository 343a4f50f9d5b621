"""The examples, as their README runs them; and the outputs that README and reference describe."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from contextlib import suppress

import httpx
import jsonschema
import pytest
from pydantic import SecretStr

from ocrfleet.profiles.select import read_file
from producer.delivery.webhook import DeliveryResult, WebhookClient
from tests.support.desk import Desk
from tests.support.servers import ROOT
from tests.support.waiting import scaled, until

EXAMPLES = ROOT / "examples"


def test_the_engine_reads_with_the_program_that_it_is_given(desk: Desk) -> None:
    # Given a program that reads a PNG, and prints text
    program = desk.folder / "program.py"
    program.write_text("import sys; assert sys.stdin.buffer.read(4) == b'\\x89PNG'; print('Harbour Ferry')")
    assert desk.run("samples", "demo").returncode == 0
    # When a page is read with the example engine
    result = desk.run(
        *("run", "demo/notice.jpg", "-o", "out", "--engine", "command_engine:CommandEngine"),
        environment={"PYTHONPATH": str(EXAMPLES), "OCR_COMMAND": f"{sys.executable} {program}"},
    )
    # Then the text is the output of the program, accepted or not
    document = json.loads((desk.out / "notice.jpg.json").read_text())
    assert document["pages"][0]["text"] == "Harbour Ferry", result.stderr
    assert document["pages"][0]["engine_version"] == "command 1"


def test_the_example_engine_reports_a_missing_program(desk: Desk) -> None:
    assert desk.run("samples", "demo").returncode == 0
    result = desk.run(
        *("run", "demo/notice.jpg", "-o", "out", "--engine", "command_engine:CommandEngine"),
        environment={"PYTHONPATH": str(EXAMPLES), "OCR_COMMAND": ""},
    )
    assert result.returncode == 3
    assert "set OCR_COMMAND" in result.stdout + result.stderr


def test_the_profile_can_be_used() -> None:
    profile = read_file(EXAMPLES / "large_print.json")
    assert (profile.name, profile.engine, profile.render.long_side) == ("large-print", "rapidocr", 1600)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs" / "howto").glob("*.md")))
def test_profiles_in_the_guides_can_be_used(page: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    for number, text in enumerate(
        re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "howto" / page).read_text(), re.DOTALL)
    ):
        path = tmp_path_factory.mktemp("profile") / f"{number}.json"
        path.write_text(text)
        assert read_file(path).name == json.loads(text)["name"]


def unsigned(url: str) -> int | None:
    """Send a delivery without a signature; return the status, or None while nobody listens."""
    with suppress(httpx.TransportError):
        return httpx.post(url, content=b"{}", trust_env=False, timeout=scaled(30)).status_code
    return None


def test_the_example_receiver_accepts_only_our_signatures() -> None:
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver = subprocess.Popen(
        [sys.executable, EXAMPLES / "webhook_receiver.py", str(port)],
        env={**os.environ, "WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        assert until(lambda: unsigned(url)) == 401
        # Given two deliveries, one of them repeated
        body = json.dumps({"type": "document.ended"}).encode()
        sender = WebhookClient(SecretStr(secret), private=True)
        for delivery in ("a" * 32, "a" * 32, "b" * 32):
            assert sender.send(url, delivery, body) == (DeliveryResult.DELIVERED, "")
        # And one with another signature
        assert (
            WebhookClient(SecretStr("another secret of theirs"), private=True).send(url, "c" * 32, body)[0]
            is DeliveryResult.FAILED
        )
    finally:
        receiver.terminate()
        printed, _ = receiver.communicate()
    # Then each was handled once
    assert [json.loads(line) for line in printed.splitlines()] == [json.loads(body)] * 2


def test_the_readme_shows_what_the_demo_writes_and_the_schema_describes_it(desk: Desk) -> None:
    # Given the demo's ledger
    assert desk.run("samples", "demo").returncode == 0
    assert desk.run("run", "demo/ledger.tif", "-o", "out").returncode == 0
    text = (desk.out / "ledger.tif.md").read_text()
    document = json.loads((desk.out / "ledger.tif.json").read_text())
    # Then the README's excerpts are in its outputs
    readme = (ROOT / "README.md").read_text()
    (markdown,) = re.findall(r"```markdown\n(.*?)```", readme, re.DOTALL)
    (line,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    assert text.startswith(markdown)
    assert json.loads(line) in document["pages"][0]["lines"]
    # And the JSON Schema of the reference allows the JSON
    schema = json.loads((ROOT / "docs" / "reference" / "output.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
