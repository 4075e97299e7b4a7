"""docs/deployment.md: its service runs as printed, and its files fit together, the command line, and the probes."""

from __future__ import annotations

import configparser
import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml

from rapids import EventRouter
from rapids.cli import command
from rapids.environment import VARIABLES
from rapids.testing import tracked
from tests.fastapi.helpers import async_client_of
from tests.support import eventually

PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"
TOKEN = "a token for the page"
MARGIN = 10
"""Seconds that a process gets besides those that it may take."""


def files() -> dict[str, str]:
    """The files that the page prints, by the name in their first line."""
    blocks = re.findall(r"^```(?:python|ini|dockerfile|yaml)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


FILES = files()


def units() -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for name in ("orders-workers", "orders-web"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(FILES[f"/etc/systemd/system/{name}.service"])
        found[name] = unit["Service"]
    return found


def services() -> dict[str, Any]:
    return yaml.safe_load(FILES["compose.yaml"])["services"]


def pods() -> dict[str, Any]:
    """The pods of the deployments."""
    documents = [*yaml.safe_load_all(FILES["orders.yaml"]), yaml.safe_load(FILES["orders-scaling.yaml"])]
    assert [one["kind"] for one in documents] == ["Deployment", "Service", "Deployment", "ScaledObject"]
    names = {one["metadata"]["name"] for one in documents if one["kind"] == "Deployment"}
    assert documents[-1]["spec"]["scaleTargetRef"]["name"] in names
    for one in documents[0], documents[2]:
        assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    assert documents[1]["spec"]["selector"] == documents[0]["spec"]["selector"]["matchLabels"]
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment"
    }


def stops() -> Iterator[tuple[str, list[str], float]]:
    """What starts a process, with its options, and how many seconds it has to stop."""
    for name, unit in units().items():
        assert (unit["KillSignal"], unit["KillMode"]) == ("SIGTERM", "mixed"), name
        yield name, shlex.split(unit["ExecStart"]), float(unit["TimeoutStopSec"])
    for name, service in services().items():
        if "build" in service:
            yield name, service["command"], float(service["stop_grace_period"].removesuffix("s"))
    for name, pod in pods().items():
        [container] = pod["containers"]
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        yield name, container["args"], pod["terminationGracePeriodSeconds"] - float(before[1])


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(command())
    return group.commands


def options(arguments: list[str]) -> Mapping[str, Any]:
    """The options of a `rapids run`, as the command itself reads them."""
    run = commands()["run"]
    with run.make_context("run", list(arguments)) as context:
        return dict(context.params)


def test_a_process_is_killed_later_than_it_may_take_to_stop() -> None:
    seen = 0
    for name, (program, *arguments), seconds in stops():
        if program.endswith("rapids"):
            read = options(arguments[1:])
            assert arguments[0] == "run"
            assert list(read["targets"]) == ["app.workers:router"]
            limit = read["graceful_timeout"]
        else:
            assert program.endswith("uvicorn"), name
            limit = float(arguments[arguments.index("--timeout-graceful-shutdown") + 1])
        assert seconds >= limit + MARGIN, name
        seen += 1
    assert seen == 6


def test_every_command_line_of_workers_is_one_that_the_command_takes() -> None:
    lines = re.findall(r"^\$ rapids run (.*)$", PAGE.read_text(), re.M)
    assert [options(shlex.split(line))["health_port"] for line in lines] == [8081]


def test_probes_ask_what_answers() -> None:
    module = service_module("app.web")
    paths = set(module.app.openapi()["paths"])
    for name, pod in pods().items():
        [container] = pod["containers"]
        [port] = container["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == port["name"]
            if name == "orders-web":
                assert asked["path"] in paths
                assert str(port["containerPort"]) in container["args"]
            else:
                assert asked["path"] in ("/health/live", "/health/ready")
                assert options(container["args"][2:])["health_port"] == port["containerPort"]
    for name, service in services().items():
        for path in re.findall(r"http://localhost:(\d+)(/[\w/]+)", str(service["healthcheck"])):
            assert path == {"web": ("8000", "/rapids/health/ready"), "workers": ("8081", "/health/ready")}[name]


def test_files_set_only_variables_that_there_are() -> None:
    for name, text in FILES.items():
        used = set(re.findall(r"\bRAPIDS_\w+", text))
        assert used <= set(VARIABLES), name


def test_the_table_has_every_variable_of_the_command_line_and_no_other() -> None:
    read: dict[str, set[str]] = {"rapids run": set(), "rapids": {"RAPIDS_REDACT"}}  # no option of each command
    for name, one in commands().items():
        read["rapids run" if name == "run" else "rapids"] |= variables(one)
    table = {kind: {name for name, one in VARIABLES.items() if kind in one.read_by} for kind in read}
    assert read == table


def variables(one: Any) -> set[str]:
    own = {str(option.envvar) for option in one.params if option.envvar}
    return own.union(*(variables(part) for part in getattr(one, "commands", {}).values()))


def service_module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's service can be imported. Its event has another name here: other tests have a class of that name."""
    for name, text in FILES.items():
        if name.startswith("app/"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.replace("OrderPlaced", "DeOrderPlaced"))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name == "app" or name.startswith("app.")]:
        del sys.modules[name]


async def test_the_web_application_shows_what_its_workers_do(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAPIDS_REDIS_URL", redis_url)
    monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", TOKEN)
    web, router = service_module("app.web"), service_module("app.workers").router
    assert isinstance(router, EventRouter)
    async with (
        async_client_of(web.app, {"Authorization": f"Bearer {TOKEN}"}) as http,
        tracked(router, redis=redis_url) as t,
    ):
        assert (await http.post("/orders/A-1?total=12.5")).status_code == 202
        await t.settled()
        t.all_handled()
        await eventually(lambda: _is_handled(http))
    assert "charging 12.5 for A-1" in capsys.readouterr().out


async def _is_handled(http: httpx.AsyncClient) -> bool:
    groups = await http.get("/rapids/api/groups")
    if groups.status_code == 404:
        return False
    [group] = groups.json()["items"]
    return (group["group"], group["lag"], group["pending"]) == ("billing", 0, 0)
