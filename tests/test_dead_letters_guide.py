"""docs/dead-letters.md for real: its commands run in a shell against the example, and are answered as it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis import Redis

from rapids_fastapi.admin.problems import KINDS
from tests.printed import Printed
from tests.printed_scripts import RunPrinted
from tests.support import NO_TLS, free_port

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "dead-letters.md"
PRINTED_BASE = "http://localhost:8000"
TOKEN = "night-shift"
PATIENCE = 60.0

OF_ANOTHER_TEAM = "7a2b4c6d8e0f"
"""The order, as the page prints its id, for which another team's service appends an event without a total."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what the page prints as its answer."""

    command: str
    printed: str

    @property
    def only_looks(self) -> bool:
        """Whether it may be run again."""
        return "--data" not in self.command and "--request" not in self.command


def steps() -> list[Step]:
    found: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```$", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append(Step(command, printed.strip()))
    return found


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)


@contextmanager
def example(url: str, folder: Path) -> Iterator[str]:
    """The example's address, while uvicorn serves it in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "example_app.app:app", "--port", str(port), "--log-level", "warning"]
    environment = {**os.environ, "RAPIDS_REDIS_URL": url, "RAPIDS_ADMIN_TOKEN": TOKEN}
    with (folder / "output").open("w+") as output:
        server = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)
        try:
            base = f"http://127.0.0.1:{port}"
            until(lambda: is_live(base))
            yield base
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)


def is_live(base: str) -> bool:
    try:
        return httpx.get(f"{base}/rapids/health/live", timeout=60, verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Reader:
    """A reader who types what the page prints."""

    def __init__(self, base: str) -> None:
        self.printed = Printed()
        self._base = base
        self._said = [] if shutil.which("curl") else [f'curl() {{ {sys.executable} -m tests.curl "$@"; }}']
        """What later commands need: variables and functions."""

    def follow(self, step: Step) -> None:
        """Raises `AssertionError` unless the answer is as printed. What only looks is repeated until it is."""
        command = self.printed.actual(step.command).replace(PRINTED_BASE, self._base)
        if re.match(r"\w+(=|\(\))", command):
            self._said.append(command)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.printed.check(step.printed, self._answer(command))
                return
            except AssertionError as error:
                if not step.only_looks or time.monotonic() > deadline:
                    raise AssertionError(f"$ {step.command}\n{error}") from None
                time.sleep(0.1)

    def _answer(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", "\n".join([*self._said, command])],
            env={**os.environ, "RAPIDS_ADMIN_TOKEN": TOKEN},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.stdout + done.stderr


def append_without_a_total(url: str, order_id: str) -> None:
    fields = {
        "event_type": "order.placed",
        "schema_version": "1",
        "data": f'{{"order_id":"{order_id}","customer":"Ada","items":["lamp"]}}',
        "id": "5e0d7f1c-92b3-4a64-8c7e-0f1a2b3c4d5e",
        "timestamp": "2026-11-25T12:00:00+00:00",
        "correlation_id": "from-afar",
        "causation_id": "",
        "metadata": "{}",
    }
    with Redis.from_url(url) as redis:
        redis.xadd("example:orders", fields)


@pytest.mark.slow
def test_every_command_is_answered_as_the_page_prints(redis_url: str, tmp_path: Path) -> None:
    with example(redis_url, tmp_path) as base:
        reader = Reader(base)
        for step in steps():
            reader.follow(step)
            if step.command == "order visa-4242":
                append_without_a_total(redis_url, reader.printed.actual(OF_ANOTHER_TEAM))


def test_the_page_has_commands_and_answers() -> None:
    assert len(steps()) > 20
    assert sum(bool(step.printed) for step in steps()) > 20


@pytest.mark.parametrize("block", python_blocks(), ids=["who", "replay_declined"])
@pytest.mark.slow
def test_python_runs_as_printed(block: str, tmp_path: Path, run_printed: RunPrinted) -> None:
    script = tmp_path / "reader.py"
    script.write_text(block)
    assert run_printed(script) == (0, "")


def test_the_documented_problems_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \| (\d{3}) \|", GUIDE.read_text(), flags=re.MULTILINE)
    documented = {name: int(status) for names, status in rows for name in re.findall(r"[a-z-]+", names)}
    assert len(documented) > 10
    assert documented == {name: KINDS[name].status for name in documented}


def test_links_lead_somewhere() -> None:
    text = GUIDE.read_text()
    headings = {re.sub(r"[^a-z -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+)$", text, re.M)}
    for place in re.findall(r"\]\(([^)]+)\)", text):
        file, _, heading = place.partition("#")
        assert (GUIDE.parent / file).exists() if file else heading in headings, place
