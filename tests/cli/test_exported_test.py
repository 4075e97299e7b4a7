"""`rapids dlq export-test`: the written test runs the handler on the stored event, and fails as it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rapids.events
from rapids.audit import AuditLog
from tests.cli.helpers import Command
from tests.dead_letters.helpers import write_through_script
from tests.worker.helpers import DLQ, GROUP, STREAM

SECRET = "hunter2-hunter2"
CARD = "4111-1111-1111-1111"

SERVICE = f"""
import os
from typing import Annotated
from pydantic import Field
from rapids import BaseEvent, EventRouter

class ExportedPayment(BaseEvent):
    order_id: str
    cents: int
    password: str
    card_number: Annotated[str, Field(pattern="^[0-9]{{4}}(-[0-9]{{4}}){{3}}$")]
    token: dict[str, int]

router = EventRouter(stream={STREAM!r}, group={GROUP!r}, max_deliveries=2)
routers = [router]

@router.on(ExportedPayment, aliases=("pay",))
async def charge(event: ExportedPayment) -> None:
    if event.cents > 100 and "REPAIRED" not in os.environ:
        raise ValueError(f"no more than 100 cents, not {{event.cents}} with {{event.password}}")

@router.on(ExportedPayment)
async def other(event: ExportedPayment) -> None:
    raise AssertionError("only the failing handler runs")
"""
DATA = {"order_id": "o-1", "cents": 250, "password": SECRET, "card_number": CARD, "token": {"a": 987654}}
FIELDS = {
    b"event_type": b"exported.payment",
    b"schema_version": b"1",
    b"data": json.dumps(DATA).encode(),
    b"metadata": json.dumps({"api_token": SECRET}).encode(),
}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a service, in which the commands run."""
    (tmp_path / "exported_service.py").write_text(SERVICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))
    yield tmp_path
    sys.modules.pop("exported_service", None)


def letter(rapids: Command, **parts: Any) -> str:
    options = {"handler": "pay", "error": f"no more than 100 cents, not 250 with {SECRET}", **parts}
    fields = {**FIELDS, **options.pop("fields", {})}
    return rapids.redis(lambda redis: write_through_script(redis, fields=fields, **options))[0]


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "."]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["router", "routers"])
@pytest.mark.slow
def test_the_written_test_fails_as_the_handler_did_and_passes_when_it_is_repaired(
    name: str, rapids: Command, service: Path
) -> None:
    letter_id = letter(rapids)

    wrote = rapids("dlq", "export-test", letter_id, "--app", f"exported_service:{name}", "--dlq", DLQ)

    files = sorted(path for path in service.iterdir() if "letter_" in path.name)
    assert [path.suffix for path in files] == [".json", ".py"]
    assert "does not parse" not in wrote.stderr
    for path in files:
        text = path.read_text()
        assert SECRET not in text
        assert CARD not in text
        assert "987654" not in text
    failed = run(service)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "charge: dead (max_deliveries_exceeded), 2 attempts" in failed.stdout
    assert "ValueError: no more than 100 cents, not 250" in failed.stdout
    assert SECRET not in failed.stdout
    assert run(service, REPAIRED="1").returncode == 0

    again = rapids("dlq", "export-test", letter_id, "--app", f"exported_service:{name}", "--dlq", DLQ, code=2)
    assert "is there already" in again.stderr
    log = rapids.redis(lambda redis: AuditLog(redis, DLQ).list())
    assert [(one.action, one.details["letter_id"]) for one in log.items] == [("export_ended", letter_id)]


def test_what_cannot_be_a_test_is_refused(rapids: Command, service: Path) -> None:
    app = ("--app", "exported_service:router", "--dlq", DLQ)
    unread = letter(rapids, handler="", fields={})
    gone = letter(rapids, handler="gone")
    no_json = letter(rapids, fields={b"data": b"\xff"})

    assert "--app" in rapids("dlq", "export-test", unread, code=2).stderr
    assert "no handler was reached" in rapids("dlq", "export-test", unread, *app, code=2).stderr
    assert "has the handler 'gone'" in rapids("dlq", "export-test", gone, *app, code=2).stderr
    assert "no JSON" in rapids("dlq", "export-test", no_json, *app, code=2).stderr
    assert [path.name for path in service.iterdir() if "letter_" in path.name] == []


def test_no_other_field_of_the_event_shows_what_is_hidden(rapids: Command, service: Path) -> None:
    secret = 'Geheimnis "für" Anna'  # JSON writes it with escapes
    fields = {
        b"data": json.dumps({**DATA, "password": secret, "order_id": f"o-1 {secret}"}).encode(),
        b"metadata": json.dumps({"note": f"of {secret}", "api_token": "pass-für-Ütze"}).encode(),
    }
    app = ("--app", "exported_service:router", "--dlq", DLQ)
    rapids("dlq", "export-test", letter(rapids, error="", fields=fields), *app)
    named = letter(rapids, error="", fields={**fields, b"event_type": b"exported.pass-f\xc3\xbcr-\xc3\x9ctze"})

    assert "would quote a hidden value" in rapids("dlq", "export-test", named, *app, code=2).stderr
    [fixture] = service.glob("letter_*.json")
    event = json.loads(fixture.read_text())
    assert event["data"]["order_id"] == "o-1 [redacted]"
    assert event["metadata"]["note"] == "of [redacted]"
