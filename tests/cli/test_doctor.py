"""`rapids doctor`, and the diagnosis that it shows."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rapids import BaseEvent, EventEmitter, GroupControl
from rapids._storage import server_info
from rapids._storage.keys import Source, letter_index
from rapids._storage.server_info import ServerFacts
from rapids.inspection import CommandCounts, diagnosis
from tests.cli.helpers import Command
from tests.dead_letters.helpers import write_through_script
from tests.inspection.helpers import deliver, park
from tests.worker.helpers import DLQ

STREAM = "cli:{checked}"
UNREAD = "cli:{unread}"
TRIMMED = "cli:{trimmed}"
PARKING = "cli:{parking}"


class CliChecked(BaseEvent):
    note: str


async def seed(redis: Any) -> None:
    """A group without consumers that has work and is paused; a stream that nobody reads; keys of what is gone."""
    emitter = EventEmitter(redis, STREAM, maxlen=None)
    await emitter.emit([CliChecked(note=str(number)) for number in range(10)])
    await redis.xgroup_create(STREAM, "billing", id="0")
    await redis.xreadgroup("billing", "worker", {STREAM: ">"}, count=2)
    await redis.xgroup_delconsumer(STREAM, "billing", "worker")
    await redis.xtrim(STREAM, maxlen=4, approximate=False)
    await GroupControl(redis, STREAM, "billing").pause(actor="\x1b[31mada", reason="a test")
    await EventEmitter(redis, UNREAD).emit(CliChecked(note="1"))
    await redis.hset("{cli:gone}:rapids:ledger:billing", "1-1", "x")
    await redis.hset(f"{STREAM}:rapids:parked:gone", "1-1", "x")
    await redis.set(f"{STREAM}:rapids:due:gone-soon", "x", ex=60)


def kinds(found: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(one["severity"], one["kind"], one["subject"]) for one in found}


@pytest.mark.since("7.0", "does not count the entries that a group has read")
def test_each_finding_says_what_it_means_and_what_to_do(rapids: Command) -> None:
    rapids.redis(seed)

    [found] = rapids.json("doctor", code=1)
    shown = rapids("doctor", code=1).stdout

    group = f"billing of {STREAM}"
    assert kinds(found["findings"]) >= {
        ("danger", "no_living_consumer", group),
        ("danger", "trimmed_unread", group),
        ("warning", "paused", group),
        ("warning", "nobody_reads", UNREAD),
        ("warning", "orphaned_keys", "server"),
    }
    [orphaned] = [one for one in found["findings"] if one["kind"] == "orphaned_keys"]
    assert "{cli:gone}:rapids:ledger:billing" in orphaned["message"]
    assert "rapids:parked:gone" in orphaned["message"]
    assert "gone-soon" not in orphaned["message"], "it has a TTL"
    assert found["findings"][0]["severity"] == "danger"
    assert all(one["advice"] for one in found["findings"])
    assert r"by \x1b[31mada: a test" in shown
    assert rapids.json("doctor", "-s", UNREAD)[0]["groups"] == 0, "there is no danger in a stream that nobody reads"


def test_a_group_without_living_consumers_has_work_while_replays_wait(rapids: Command) -> None:
    async def replay(redis: Any) -> None:
        await redis.xgroup_create(STREAM, "billing", id="$", mkstream=True)
        await redis.xadd(f"{STREAM}:rapids:replay:billing", {"a": "replay"})

    rapids.redis(replay)

    [found] = rapids.json("doctor", "-s", STREAM, code=1)

    [gone] = [one for one in found["findings"] if one["kind"] == "no_living_consumer"]
    assert gone["severity"] == "danger"
    assert gone["message"].startswith("1 entry is to be handled (replays: 1), and no consumer of the group is alive")
    assert "XGROUP DESTROY" not in gone["advice"]


def test_a_server_is_judged_by_what_endangers_the_promises() -> None:
    facts = ServerFacts(
        version=(5, 0), policy="allkeys-lru", used_memory=99, maxmemory=100, is_append_only=False, clock_ahead=60.0
    )

    found = list(diagnosis._of_server(facts, knows_a_cluster=False))

    dangers = {one.kind for one in found if one.severity == "danger"}
    assert dangers == {"version", "eviction", "memory"}
    assert {one.kind for one in found} - dangers == {"clock", "persistence"}
    assert next(one for one in found if one.kind == "eviction").advice == "set it to noeviction"


async def seed_losses(redis: Any) -> None:
    """A group that a trim nearly reaches, and whose held entries it removed; a parked entry; letters that were trimmed
    and letters that cannot be counted; many keys of what is gone."""
    await EventEmitter(redis, TRIMMED, maxlen=None).emit([CliChecked(note=str(number)) for number in range(10)])
    await deliver(redis, 2, source=Source(TRIMMED, "billing"))
    await redis.xtrim(TRIMMED, maxlen=8, approximate=False)
    await EventEmitter(redis, PARKING).emit(CliChecked(note="1"))
    [parked] = await deliver(redis, 1, source=Source(PARKING, "mail"))
    await park(redis, parked, source=Source(PARKING, "mail"))
    await redis.xgroup_delconsumer(PARKING, "mail", "worker")
    await write_through_script(redis, 250, maxlen=100)
    await redis.xadd("{cli:broken}:dlq", {"x": "y"})
    await redis.set(letter_index("{cli:broken}:dlq"), "not an index")
    for number in range(7):
        await redis.hset(f"{{cli:gone-{number}}}:rapids:ledger:billing", "1-1", "x")


@pytest.mark.since("7.0", "does not count the entries that a group has read")
def test_what_was_or_will_be_lost_is_told(rapids: Command) -> None:
    rapids.redis(seed_losses)

    shown = rapids("doctor", code=1)
    text = shown.stdout

    group, mail = f"billing of {TRIMMED}", f"mail of {PARKING}"
    assert f"danger  {group}  nearly_trimmed" in text
    assert "8 of 8 entries are not read, and the stream is being trimmed: the next ones are lost" in text
    assert f"danger  {group}  trimmed_pending" in text
    assert f"{group}  no_living_consumer" not in text, "a consumer of another library was seen just now"
    assert f"warning {mail}  parked" in text
    assert "-> see rapids pending --state parked; give its routers a dlq_stream" in text
    assert f"warning {mail}  no_living_consumer" in text
    assert "it holds back trim='acknowledged'" in text
    assert f"danger  {DLQ}  letters_trimmed" in text
    assert " dead letters were trimmed before anybody handled them, last 20" in text
    assert "warning {cli:broken}:dlq  unreadable" in text
    assert "that do not exist, 7: " in text
    assert " and 2 more\n" in text
    assert "dangers," in shown.stderr


def test_a_stream_that_is_named_is_missing_or_is_none(rapids: Command) -> None:
    rapids.redis(lambda redis: redis.set("cli:text", "x"))

    shown = rapids("doctor", "-s", "cli:missing", "-s", "cli:text").stdout

    assert "warning cli:missing  no_stream" in shown
    assert "there is no such stream" in shown
    assert "warning cli:text  unreadable" in shown
    assert "not all of it can be looked at: " in shown


def test_settings_of_the_server_are_shown_with_what_to_do(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ServerFacts(
        policy="volatile-ttl",
        maxmemory=0,
        is_append_only=False,
        unsaved_for=10_800.0,
        clock_ahead=-60.0,
        is_cluster_node=True,
    )

    async def look(commands: object) -> ServerFacts:
        return facts

    monkeypatch.setattr(server_info, "look_at_server", look)
    shown = rapids("doctor", "-s", UNREAD, code=1)

    dangers = [line for line in shown.stdout.splitlines() if line.startswith("danger")]
    kinds = [line.rpartition("  ")[2] for line in dangers]
    assert set(kinds) >= {"eviction", "persistence"}
    assert "Redis deletes keys with a TTL, such as consumers' names, without an error" in shown.stdout
    assert "has made no snapshot for 3 h: a restart loses every event since then" in shown.stdout
    assert "-> set appendonly yes (appendfsync everysec)" in shown.stdout
    assert "Redis' clock is 60 s behind this machine's" in shown.stdout
    assert "-> synchronise both by NTP" in shown.stdout
    assert "its version is not known" in shown.stdout
    assert "-> it must be 6.2 or newer" in shown.stdout
    assert "-> set maxmemory, and maxmemory-policy noeviction" in shown.stdout
    assert "server unknown version, 1 streams" in shown.stderr


@pytest.mark.standalone("makes a user of one server")
def test_a_user_without_permissions_is_told_which_ones(rapids: Command) -> None:
    async def limit(redis: Any) -> None:
        await seed(redis)
        await redis.execute_command("ACL", "SETUSER", "few", "on", ">pw", f"~{STREAM}", "+@all", "-xclaim", "-zadd")

    rapids.redis(limit)
    few = Command(rapids.url.replace("redis://", "redis://few:pw@").replace("unix://", "unix://few:pw@"))
    try:
        [found] = few.json("doctor", "-s", STREAM, code=1)
    finally:
        rapids.redis(lambda redis: redis.execute_command("ACL", "DELUSER", "few"))

    [acl] = [one for one in found["findings"] if one["kind"] == "acl"]
    assert acl["severity"] == "danger"
    for refused in ("xclaim", "zadd", f"write {STREAM}:dlq"):
        assert refused in acl["message"]
    assert f"write {STREAM}," not in acl["message"]


def test_commands_are_counted(rapids: Command) -> None:
    [idle] = rapids.json("doctor", "--cost", "--seconds", "0.1")
    shown = rapids("doctor", "--cost", "--seconds", "0.1").stdout

    assert (idle["events"], idle["commands_per_event"]) == (0, None)
    assert (idle["commands"], idle["by_command"], idle["others"]) == (0, {}, {}), "what counts is not counted"
    assert "an idle hour: 0 commands" in shown
    assert "--stream is not for --cost" in rapids("doctor", "--cost", "-s", STREAM, code=2).stderr


def test_the_price_of_an_event_is_without_commands_that_only_others_run(rapids: Command) -> None:
    """Other clients are busy while events are emitted."""
    is_over = threading.Event()

    async def use_the_server(redis: Any) -> None:
        emitter = EventEmitter(redis, STREAM)
        while not is_over.is_set():
            await emitter.emit(CliChecked(note="1"))
            await redis.sadd("cli:cache", *map(str, range(20)))
            for _ in range(20):
                await redis.sismember("cli:cache", "1")

    with ThreadPoolExecutor() as threads:
        others = threads.submit(rapids.redis, use_the_server)
        try:
            [cost] = rapids.json("doctor", "--cost", "--seconds", "1")
            shown = rapids("doctor", "--cost", "--seconds", "1")
        finally:
            is_over.set()
        others.result()

    assert cost["others"].keys() == {"sadd", "sismember"}
    assert cost["others"]["sismember"] > cost["commands"] >= cost["events"] > 0
    assert cost["commands"] == sum(cost["by_command"].values())
    assert cost["commands_per_event"] < 5, "not 20 more for the cache"
    assert "not counted, since Rapids never runs them: sismember " in shown.stderr
    assert "sismember" not in shown.stdout


def test_what_is_counted_is_what_a_user_of_rapids_may_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    allowed = {name for line in re.findall(r"^ .*\+.*", page, re.M) for name in re.findall(r"(?<=\+)[a-z]+", line)}

    assert server_info.COMMANDS - allowed == {"auth", "hello", "scan"}, "a connection, and a search for streams"
    assert allowed - server_info.COMMANDS == {"sentinel"}, "a Sentinel is not the server"


def test_what_an_event_costs_is_shown_with_how_it_was_counted(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async def count(redis: object, *, seconds: float) -> CommandCounts:
        return CommandCounts({"evalsha": 6, "xadd": 2}, {f"other{n}": 7 - n for n in range(7)})

    monkeypatch.setattr(import_module("rapids.cli.doctor"), "count_commands", count)

    shown = rapids("doctor", "--cost", "--seconds", "0.1")

    lines = shown.stdout.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["COMMAND", "CALLS", "A", "SECOND"],
        ["evalsha", "6", "60.0"],
        ["xadd", "2", "20.0"],
    ]
    assert lines[3] == "8 commands and 2 events (XADD) in 0.1 s, by all clients of the server and by their scripts"
    assert lines[4] == "an event: 4.0 commands (commands / events = 8 / 2)"
    assert lines[5] == "an idle hour: count again while nothing is emitted"
    assert "never runs them: other0 7, other1 6, other2 5, other3 4, other4 3, ...\n" in shown.stderr


def test_a_search_that_was_not_complete_is_told(rapids: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rapids.redis(seed)
    monkeypatch.setattr(diagnosis, "MAX_KEYS", 1)

    warned = rapids("doctor", code=1).stderr

    assert "not all keys of the server were looked at: name the streams with --stream" in warned
