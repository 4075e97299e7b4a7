"""`rapids events`, `rapids emit`, and what `--app` adds to `rapids dlq show`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rapids import BaseEvent, EventRouter
from rapids._storage.keys import audit_log
from rapids.audit import AuditLog
from tests.cli.helpers import Command
from tests.dead_letters.helpers import write_through_script
from tests.worker.helpers import STREAM as LETTERS

STREAM = "cli:{emitted}"
APP = ("--app", "tests.cli.test_event_commands:routers")


class CliSeatBooked(BaseEvent):
    """A seat was booked."""

    seat: str
    rows: int


class CliSeatFreed(BaseEvent):
    seat: str


router = EventRouter(stream=STREAM, group="seating")
routers = [router]


@router.on(CliSeatBooked)
async def seat(event: CliSeatBooked) -> None: ...


@router.on("cli_seat.*")
async def log(event: BaseEvent) -> None: ...


def entries(rapids: Command) -> list[Any]:
    return rapids.json("tail", "-s", STREAM, "--no-follow")


def test_the_catalog_has_each_event_type_with_its_handlers() -> None:
    rapids = Command("")

    catalog = {one["event_type"]: one for one in rapids.json("events", *APP)}
    table = rapids("events", *APP).stdout

    booked = catalog["cli_seat.booked"]
    assert [(one["group"], one["handler"]) for one in booked["handlers"]] == [("seating", "seat"), ("seating", "log")]
    assert (booked["schema_version"], booked["description"]) == (1, "A seat was booked.")
    assert "seat" in booked["json_schema"]["properties"]
    assert [one["handler"] for one in catalog["cli_seat.freed"]["handlers"]] == ["log"]
    assert "seating: seat, seating: log" in table
    assert "--app" in rapids("events", code=2).stderr
    assert "cannot be imported" in rapids("events", "--app", "tests.nothing:router", code=2).stderr


def test_an_event_is_emitted_by_somebody_who_was_asked(rapids: Command, somebody: None) -> None:
    emit = ("emit", "cli_seat.booked", '{"seat": "12A", "rows": 1}', "-s", STREAM)

    assert "valid by tests.cli.test_event_commands.CliSeatBooked" in rapids(*emit, *APP, "--dry-run").stderr
    [previewed] = rapids.json(*emit, *APP, "--dry-run")
    assert (previewed["event_type"], previewed["stream"], previewed["entry_id"]) == ("cli_seat.booked", STREAM, None)
    rapids(*emit, *APP, answer="n\n", code=2)
    assert entries(rapids) == []

    rapids(*emit, *APP, "--correlation-id", "trip-1", "--reason", "by phone", answer="y\n")
    [stored] = rapids.json("emit", "legacy.thing", '{"any": 1}', "-s", STREAM, "-y")

    booked, legacy = entries(rapids)
    assert (booked["correlation_id"], booked["payload"]["value"]) == ("trip-1", {"seat": "12A", "rows": 1})
    assert (legacy["event_type"], legacy["entry_id"]) == ("legacy.thing", stored["entry_id"])
    log = rapids.redis(lambda redis: AuditLog(redis, STREAM).list())
    assert [(one.action, one.reason, one.actor[:4]) for one in log.items[::-1]] == [
        ("event_emitted", "by phone", "cli:"),
        ("event_emitted", "", "cli:"),
    ]


def test_an_event_without_its_audit_line_counts_as_emitted(rapids: Command) -> None:
    rapids.redis(lambda redis: redis.set(audit_log(STREAM), "no stream"))

    refused = rapids("emit", "x.y", "{}", "-s", STREAM, "-y", code=1)

    [stored] = entries(rapids)
    assert f"stored as {stored['entry_id']}" in refused.stderr
    assert "the event is stored, and the audit log does not have it: WRONGTYPE" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("cli_seat.booked", '{"rows": "x"}', *APP), "seat: Field required; rows: Input should be a valid integer"),
        (("cli_seat.boked", "{}", *APP), "near are cli_seat.booked"),
        (("x.y", "{"), "DATA is not JSON"),
        (("x.y", "[" * 100_000), "DATA is not JSON: maximum recursion depth"),
        (("x.y", "{}", "-y", "--reason", "r" * 1_001), "--reason must have at most 1,000 characters, not 1,001"),
        (("x.y", "[]"), "must be a JSON object"),
        (("x.y", '{"id": "1"}'), "DATA has id"),
        (("x.y", "{}"), "give --yes"),
    ],
)
def test_what_is_no_event_is_refused(rapids: Command, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in rapids("emit", "-s", STREAM, *arguments, code=2).stderr
    assert entries(rapids) == []


def test_a_letter_says_whether_it_would_parse_today(rapids: Command) -> None:
    data = json.dumps({"seat": "hunter2", "rows": "x"}).encode()
    fields = {b"event_type": b"cli_seat.booked", b"data": data}
    [letter_id] = rapids.redis(lambda redis: write_through_script(redis, fields=fields))

    [one] = rapids.json("dlq", "show", letter_id, "-s", LETTERS, *APP)

    assert one["parse_check"]["outcome"] == "invalid"
    assert one["parse_check"]["problems"][0]["pointer"] == "/rows"
    assert "no: invalid (/rows: " in rapids("dlq", "show", letter_id, "-s", LETTERS, *APP).stdout
    fields[b"data"] = b'{"seat": "1A", "rows": 1}'
    [valid] = rapids.redis(lambda redis: write_through_script(redis, fields=fields))
    [said] = [line for line in rapids("dlq", "show", valid, "-s", LETTERS, *APP).stdout.splitlines() if "parse" in line]
    assert said.split() == ["would", "parse", "yes"]
