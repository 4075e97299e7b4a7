"""Which stream or dead-letter stream a command is about that names none."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids._storage.keys import announced_routers
from tests.cli.helpers import Command

BOOKS, LOANS, DEFAULT = "cli:{books}", "cli:{loans}", "events:all"


class CliBookLent(BaseEvent):
    title: str


router = EventRouter(stream=LOANS, group="desk")


@router.on(CliBookLent)
async def lend(event: CliBookLent) -> None: ...


async def seed(redis: Any) -> None:
    """A stream with the group `desk`, and an entry that says which one it is in each of the streams."""
    for stream in (BOOKS, LOANS, DEFAULT):
        await EventEmitter(redis, stream).emit(CliBookLent(title=stream))
    await redis.xgroup_create(BOOKS, "desk", id="0")


def announce(rapids: Command, *streams: str, dlq: str | None = None) -> None:
    """A router announces itself for each of these streams."""
    rows = {orjson.dumps([stream, "desk", dlq or f"{stream}:dlq", None]): time.time() * 1_000 for stream in streams}
    rapids.redis(lambda redis: redis.zadd(announced_routers(), rows))


def tailed(rapids: Command, *options: str) -> str:
    [entry] = rapids.json("tail", "--no-follow", *options)
    return entry["payload"]["value"]["title"]


def test_a_command_about_a_group_finds_its_stream(rapids: Command) -> None:
    rapids.redis(seed)
    announce(rapids, LOANS)  # of a router that is not there any more

    assert tailed(rapids, "--group", "desk") == BOOKS
    [paused] = rapids.json("pause", "desk", "--yes")
    [resumed] = rapids.json("resume", "desk", "--yes")
    assert (paused["stream"], resumed["stream"]) == (BOOKS, BOOKS)
    assert "nothing is pending" in rapids("pending", "desk").stderr
    assert "no stream of this server has a group 'x'" in rapids("pending", "x", code=2).stderr
    rapids.redis(lambda redis: redis.xgroup_create(LOANS, "desk", id="0"))
    assert "several streams have a group 'desk'" in rapids("pause", "desk", "--yes", code=2).stderr


def test_other_commands_are_about_the_only_stream_of_the_routers(
    rapids: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapids.redis(seed)
    emit = ("emit", "cli_book.lent", '{"title": "x"}', "--dry-run")

    assert tailed(rapids) == DEFAULT
    assert f"in {{{DEFAULT}}}:dlq" in rapids("dlq", "list").stderr
    announce(rapids, BOOKS, dlq="cli:failed")
    assert tailed(rapids) == BOOKS
    assert "0 letters in cli:failed" in rapids("dlq", "list").stderr
    [emitted] = rapids.json(*emit)
    [of_app] = rapids.json(*emit, "--app", "tests.cli.test_stream_choice:router")
    assert (emitted["stream"], of_app["stream"]) == (BOOKS, LOANS)

    announce(rapids, LOANS)
    several = f"several streams: {BOOKS}, {LOANS}; name one with --stream, or set RAPIDS_STREAM\n"
    assert rapids("tail", code=2).stderr == f"rapids: routers of this server have {several}"
    assert "several dead-letter streams: cli:failed, " in rapids("dlq", "causes", code=2).stderr
    monkeypatch.setenv("RAPIDS_STREAM", LOANS)
    assert tailed(rapids) == LOANS
    assert f"in {LOANS}:dlq" in rapids("dlq", "causes").stderr
    assert tailed(rapids, "-s", BOOKS) == BOOKS
    monkeypatch.setenv("RAPIDS_STREAM", "")
    announce(rapids, DEFAULT)
    assert tailed(rapids) == DEFAULT


def test_a_user_who_may_not_see_the_routers_gets_the_default(rapids: Command) -> None:
    rapids.redis(seed)
    rapids.redis(lambda redis: redis.set(announced_routers(), "another type, which the server refuses to read"))

    assert tailed(rapids) == DEFAULT
