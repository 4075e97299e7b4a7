"""`rapids doctor`, and the diagnosis that it shows."""

from __future__ import annotations

from typing import Any

import pytest

from rapids import BaseEvent, EventEmitter, GroupControl
from rapids._storage.server_info import ServerFacts
from rapids.inspection import diagnosis
from tests.cli.helpers import Command

STREAM = "cli:{checked}"
UNREAD = "cli:{unread}"


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
    assert idle["commands_per_hour"] == pytest.approx(idle["commands"] / 0.1 * 3600)
    assert "an idle hour:" in shown
