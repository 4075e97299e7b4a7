"""docs/deployment.md: its service runs as printed, and its files fit together, the command line, and the probes."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rapids import EventRouter
from rapids.background import routers_running
from rapids.clients import open_client
from rapids.environment import VARIABLES
from tests.fastapi.helpers import async_client_of
from tests.support import eventually

PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"
TOKEN = "a token for the page"


def files() -> dict[str, str]:
    """The files that the page prints, by the name in their first line."""
    blocks = re.findall(r"^```(?:python|ini|dockerfile|yaml)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


FILES = files()


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
                assert f"--health-port={port['containerPort']}" in container["args"]
    for name, service in services().items():
        for path in re.findall(r"http://localhost:(\d+)(/[\w/]+)", str(service["healthcheck"])):
            assert path == {"web": ("8000", "/rapids/health/ready"), "workers": ("8081", "/health/ready")}[name]


def test_files_set_only_variables_that_there_are() -> None:
    for name, text in FILES.items():
        used = set(re.findall(r"\bRAPIDS_\w+", text))
        assert used <= set(VARIABLES), name


def service_module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's service can be imported."""
    for name, text in FILES.items():
        if name.startswith("app/"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
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
    async with async_client_of(web.app, {"Authorization": f"Bearer {TOKEN}"}) as http:
        assert (await http.post("/orders/A-1?total=12.5")).status_code == 202
        async with open_client(redis_url) as redis, routers_running([router], redis):
            await eventually(lambda: _is_handled(http))
    assert "charging 12.5 for A-1" in capsys.readouterr().out


async def _is_handled(http: httpx.AsyncClient) -> bool:
    groups = await http.get("/rapids/api/groups")
    if groups.status_code == 404:
        return False
    [group] = groups.json()["items"]
    return (group["group"], group["lag"], group["pending"]) == ("billing", 0, 0)
