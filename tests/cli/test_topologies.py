"""Every command on a Cluster and behind a Sentinel, beside the worker that it looks at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Operation, Selector
from tests.cli.helpers import Command
from tests.cli.running import rapids_run
from tests.fastapi.helpers import until
from tests.servers.cluster import Cluster
from tests.servers.sentinel import SentinelFleet

pytestmark = pytest.mark.slow

STREAM = ("--stream", "run")
DLQ = "{run}:dlq"
SERVERS = {"Cluster": lambda: Cluster(replicas=0), "Sentinel": lambda: SentinelFleet(replicas=0, sentinels=1)}


@pytest.fixture(params=SERVERS)
def rapids(request: pytest.FixtureRequest) -> Iterator[Command]:
    """The command, with the address of several servers."""
    servers = SERVERS[request.param]()
    try:
        asyncio.run(servers.start())
        yield Command(servers.url)
    finally:
        servers.close()


def test_every_command_works_with_several_servers(rapids: Command, tmp_path: Path) -> None:
    with rapids_run(tmp_path, rapids.url, "--graceful-timeout", "0") as command:
        for n in (1, -5, -5, -5, -1):  # one is answered, three fail, one is held
            emitted = ("emit", "run.noted", json.dumps({"n": n}), *STREAM, "--correlation-id", f"walk {n}", "--yes")
            assert rapids.json(*emitted)[0]["stream"] == "run"
        until(lambda: command.notes("answered", 1, "a pool") and command.notes("began", -1))
        until(lambda: len(rapids.json("dlq", "list", *STREAM)) == 3)
        look(rapids)
        [paused] = rapids.json("pause", "notes", *STREAM, "--reason", "a walk", "--yes")
        assert paused["pause"]["reason"] == "a walk"
        assert rapids.json("resume", "notes", *STREAM, "--yes")[0]["pause"] is None
        assert command.stop() == 0
    change(rapids)


def look(rapids: Command) -> None:
    """What the commands show that change nothing."""
    assert {one["stream"]: one["groups"] for one in rapids.json("streams")} == {"run": 2, DLQ: 0}
    groups = {one["group"]: one for one in rapids.json("groups")}
    assert {name: (one["held"], one["consumers_alive"]) for name, one in groups.items()} == {
        "notes": (1, 1),
        "answers": (0, 1),
    }
    [consumer] = rapids.json("groups", "notes")[0]["consumer_list"]
    [held] = rapids.json("pending", "notes", *STREAM)
    assert (held["state"], held["consumer"]) == ("held", consumer["consumer"])
    tailed = rapids.json("tail", *STREAM, "--no-follow")
    assert sorted(one["event_type"] for one in tailed) == ["run.answered", *["run.noted"] * 5]
    [tree] = rapids.json("trace", "walk 1")
    assert [event["event_type"] for event in tree["events"]] == ["run.noted", "run.answered"]
    assert tree["complete"]
    assert [one["count"] for one in rapids.json("dlq", "causes", *STREAM)] == [3]
    [doctor] = rapids.json("doctor", *STREAM)
    assert not {"acl", "cluster", "no_living_consumer", "unreadable"} & {one["kind"] for one in doctor["findings"]}
    until(lambda: rapids.json("doctor", "--cost", "--seconds", "0.2")[0]["commands"] > 0)  # a router may rest


def change(rapids: Command) -> None:
    """What becomes of three letters, without a worker."""
    first, *_ = (one["id"] for one in rapids.json("dlq", "list", *STREAM))
    assert rapids.json("dlq", "replay", first, *STREAM, "--yes")[0]["done"] == 1
    assert rapids.json("dlq", "show", first, *STREAM)[0]["state"] == "replayed"
    assert rapids.json("dlq", "discard", "--handler", "handle", *STREAM, "--yes")[0]["done"] == 2
    assert rapids.json("dlq", "restore", "--all", *STREAM, "--yes")[0]["done"] == 2
    assert len(rapids("dlq", "export", *STREAM).stdout.splitlines()) == 2

    async def begin(redis: Any) -> Operation:
        return await DeadLetterQueue(redis, DLQ).operations.start(
            "discard", Selector(filter=LetterFilter()), actor="somebody else"
        )

    begun = rapids.redis(begin)
    [ended] = rapids.json("dlq", "continue", begun.id, *STREAM, "--yes")
    assert (ended["state"], ended["done"]) == ("completed", 2)
