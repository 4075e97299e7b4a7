"""A reader who does what a page says: saves its files, types its commands, and runs services in another terminal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from tests.docs.pages import Block, blocks
from tests.house.source import ROOT
from tests.printed import Printed
from tests.support import PATIENCE, free_port

__all__ = ["Reader", "constant"]

SERVICES = {
    "uvicorn": "Uvicorn running on",
    "rapids run": "started: ",
    "prometheus": "Server is ready to receive web requests",
}
"""Commands that go on running, with what they print when they are ready."""

PREPARATIONS = ("pip install", "python -m venv")
"""What the environment of the tests has already."""

AGES = re.compile(r"\b\d+ (ms|s|min|h)\b( ago)?")
CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")
SECONDS = re.compile(r"\bin \d+\.\d\ds\b")
GAPS = re.compile(r"  +")


class Reader:
    """Follows a page in a folder of its own. Raises `AssertionError` where something else happens than is printed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._printed = Printed()
        self._ports: dict[str, str] = {}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._output: dict[str, Path] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        alone = {name: value for name, value in os.environ.items() if not name.startswith(("RAPIDS_", "PYTEST"))}
        (folder / ".curlrc").write_text("silent\nshow-error\n")  # no progress among the answers
        self._environment = {
            **alone,
            "PATH": path,
            "CURL_HOME": str(folder),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # only what a reader has installed
            "PYTEST_PLUGINS": "pytest_asyncio.plugin,rapids_pytest",
        }
        ours = f'curl() {{ PYTHONPATH={ROOT} {sys.executable} -m tests.curl "$@"; }}\n'
        self._before = "" if shutil.which("curl") else ours

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for service in self._services.values():
            service.terminate()
        for service in self._services.values():
            service.wait(timeout=PATIENCE)

    def follow(self, page: Path, heading: str | None = None) -> None:
        """Do everything that the page says, from its beginning to its end, or what is under one heading.

        A block of Python or YAML whose first line names no file is not saved.
        """
        for block in blocks(page, "python", "yaml", "console", "text"):
            if heading not in (None, block.heading):
                continue
            try:
                self._do(block)
            except AssertionError as error:
                raise AssertionError(f"{block.place}: {error}") from None

    def _do(self, block: Block) -> None:
        if block.language in ("python", "yaml"):
            if name := re.match(r"# (\S+\.(?:py|yml))\n", block.text):
                (self._folder / name[1]).write_text(self._with_ports(block.text))
        elif block.language == "text":
            self._until(lambda: self._check(block.text, self._said()), f"the services print\n{block.text}")
        else:
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                self._type(command, printed.strip())

    def _type(self, command: str, printed: str) -> None:
        if command.startswith(PREPARATIONS):
            return
        if exported := re.fullmatch(r"export (.+)", command):
            self._environment |= dict(one.split("=", 1) for one in shlex.split(exported[1]))
        elif service := next((one for one in SERVICES if command.startswith(one)), None):
            self._start(service, command)
            self._until(lambda: self._check(printed, self._output[service].read_text()), f"{command} prints\n{printed}")
        else:
            only_looks = not re.search(r"\s(-X|--yes|-d)\s", f"{command} ")
            typed = self._with_ports(self._printed.actual(command))
            self._until(lambda: self._check(printed, self._run(typed)), f"$ {command}", only_once=not only_looks)

    def _start(self, service: str, command: str) -> None:
        if running := self._services.pop(service, None):
            running.terminate()
            assert running.wait(timeout=PATIENCE) in (0, -15)
        port = f" --port {self._port('8000')}" if service == "uvicorn" else ""
        ported = re.sub(r"(-port) (\d+)", lambda found: f"{found[1]} {self._port(found[2])}", self._with_ports(command))
        self._output[service] = self._folder / f".{service}.output"
        with self._output[service].open("wb") as output:
            self._services[service] = subprocess.Popen(
                shlex.split(ported + port), cwd=self._folder, env=self._environment, stdout=output, stderr=output
            )
        self._until(
            lambda: self._check(f"...{SERVICES[service]}", self._output[service].read_text()), f"{command} starts"
        )

    def _said(self) -> str:
        return "\n".join(output.read_text() for output in self._output.values())

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", self._before + command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.stdout + done.stderr

    def _check(self, printed: str, answer: str) -> None:
        """Lines are compared; ages, times of day and the width of columns may differ."""
        if printed.startswith("..."):
            assert printed[3:] in answer, answer
        else:
            self._printed.check(constant(self._with_ports(printed)), constant(answer))

    def _until(self, check, expected: str, only_once: bool = False) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                check()
                return
            except AssertionError as error:
                if only_once or time.monotonic() > deadline:
                    raise AssertionError(f"{expected}\n{error}") from None
                time.sleep(0.1)

    def _port(self, printed: str) -> str:
        return self._ports.setdefault(printed, str(free_port()))

    def _with_ports(self, command: str) -> str:
        return re.sub(r"\b(?:localhost|127\.0\.0\.1):(\d+)", lambda found: f"127.0.0.1:{self._port(found[1])}", command)


def constant(text: str) -> str:
    """The text without what differs each time, and is no id: ages, times of day, and the width of columns."""
    text = CLOCK.sub("00:00:00", AGES.sub("0 s", SECONDS.sub("in 0.00s", text)))
    return "\n".join(GAPS.sub("  ", line).rstrip() for line in text.splitlines())
