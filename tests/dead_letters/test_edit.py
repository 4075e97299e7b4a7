"""Replaying a dead letter with other data: what is checked first, what is sent, and what is kept of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator
from pydantic.alias_generators import to_camel
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, GenericEvent
from rapids._core.outcomes import Dead, Failure, Reason
from rapids._storage.keys import audit_log
from rapids._wire.encoding import encode
from rapids._wire.entry_format import decode, event_type_in, pairs
from rapids._wire.letter_format import Origin, original_fields, write_letter
from rapids.dead_letters import Difference
from rapids.dead_letters.edit import Edit, edited
from rapids.exceptions import DeserializationError, EditRefusedError, LetterNotFoundError, LetterStateError
from tests.dead_letters.helpers import REFERENCE_FIELDS, write
from tests.dead_letters.test_replay import Moody, moody_router, replayed
from tests.dead_letters.test_replay import dead as until_dead
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    fields_of,
    make_emitter,
    replay_stream,
    running,
)

DEAD = Dead("pay", Reason.NON_RETRYABLE, Failure("ValueError", "declined", ""))


class EdLine(BaseModel):
    kind: Literal["line"] = "line"
    price: float


class EdGift(BaseModel):
    kind: Literal["gift"] = "gift"
    to: str


class EdCart(BaseEvent):
    lines: list[Annotated[EdLine | EdGift, Field(discriminator="kind")]] = []
    by_number: dict[int, int] = {}
    total: float = 0
    at: datetime | None = None
    when: int | list[int] = 0


class EdClosed(BaseEvent):
    model_config = ConfigDict(extra="forbid")

    n: int


class EdOpen(BaseEvent):
    model_config = ConfigDict(extra="allow")

    n: int

    @computed_field
    def twice(self) -> int:
        return 2 * self.n


class EdAliased(BaseEvent):
    model_config = ConfigDict(alias_generator=to_camel)

    order_number: int


class EdVersioned(BaseEvent):
    schema_version: ClassVar[int] = 3

    cents: int

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: Any) -> Any:
        if data.get("_schema_version", 3) < 3:
            data["cents"] = round(data.pop("price") * 100)
        return data


def entry_of(event: BaseEvent | GenericEvent, **changed: bytes) -> list[bytes]:
    flat = encode(event, correlation_id=event.correlation_id, causation_id=event.causation_id)
    return [part for name, value in pairs(flat) for part in (name, changed.get(name.decode(), value))]


def letter_of(event: BaseEvent | GenericEvent | None = None, **changed: bytes) -> list[bytes]:
    fields = entry_of(event or EdCart(), **changed)
    return write_letter(fields, Origin("1-1", STREAM, GROUP, "w", 5), DEAD)


def event_in(edit: Edit) -> Any:
    fields = original_fields(edit.fields)
    return decode(event_type_in(fields) or "", fields)


def refused(letter: list[bytes], data: Any) -> list[tuple[str, str]]:
    with pytest.raises(EditRefusedError) as caught:
        edited(letter, data=data)
    assert caught.value.problem_count >= len(caught.value.problems)
    return [(problem.pointer, problem.type) for problem in caught.value.problems]


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_the_data_are_sent_as_they_are_given() -> None:
    event = EdCart(total=1, correlation_id="c", causation_id="b", metadata={"m": 1})
    edit = edited(letter_of(event), data={"total": "2.50", "unheard_of": [1]})

    assert event_in(edit) == event.model_copy(update={"total": 2.5})
    assert edit.data == '{"total":"2.50","unheard_of":[1]}'
    before, after = original_fields(letter_of(event)), original_fields(edit.fields)
    assert after[::2] == before[::2]
    assert [name for name, old, new in zip(after[::2], before[1::2], after[1::2], strict=True) if old != new] == [
        b"data"
    ]
    assert ("/total", "replace", 1.0, "2.50") in [(one.pointer, one.op, one.before, one.after) for one in edit.diff]


def test_values_that_pydantic_can_write_as_json_are_taken() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    edit = edited(letter_of(), data={"total": Decimal("1.10"), "at": at, "lines": (EdGift(to="x"),)})
    assert (event_in(edit).total, event_in(edit).at, event_in(edit).lines) == (1.1, at, [EdGift(to="x")])


def test_data_that_were_no_json_can_be_replaced() -> None:
    for broken in (b"{broken", b"", b"[1]", b"\xff", b'{"total": "\\ud800"}'):
        edit = edited(letter_of(data=broken), data={"total": 1})
        assert event_in(edit).total == 1
        [one] = edit.diff
        assert (one.pointer, one.op, one.after) == ("", "replace", {"total": 1})
    edit = edited(letter_of(data=b'{"total": NaN}'), data={"total": 1})
    assert edit.diff == (Difference("/total", "replace", "NaN", 1),)


def test_today_s_schema_version_and_no_migration() -> None:
    old = letter_of(EdVersioned(cents=1), schema_version=b"1", data=b'{"price": 1.5}')
    edit = edited(old, data={"cents": 160})
    assert event_in(edit).cents == 160
    assert dict(zip(edit.fields[::2], edit.fields[1::2], strict=True))[b"schema_version"] == b"3"
    assert refused(old, {"price": 1.6}) == [("/cents", "missing")]


def test_a_patch_does_not_make_newer_data_older_ones() -> None:
    newer = letter_of(EdVersioned(cents=1), schema_version=b"4")
    with pytest.raises(EditRefusedError, match="schema version is 4, and the class of this process has 3") as raised:
        edited(newer, patch={"cents": 2})
    assert [(problem.pointer, problem.type) for problem in raised.value.problems] == [("", "newer_version")]
    sent = edited(newer, data={"cents": 2}).fields  # all of the data are of this version
    assert sent[sent.index(b"schema_version") + 1] == b"3"


@pytest.mark.parametrize("without", [b"schema_version", b"causation_id"])
def test_entries_that_are_not_as_we_write_them_keep_their_other_fields(without: bytes) -> None:
    fields = entry_of(EdCart(total=1))
    at = fields.index(without)
    odd = [*fields[:at], *fields[at + 2 :], b"extra", b"\xff\x00", b"traceparent", b"00-x"]
    letter = write_letter(odd, Origin("1-1", STREAM, GROUP, "w", 5), DEAD)
    assert b"original_fields" in letter[::2]

    edit = edited(letter, data={"total": 2})

    sent = original_fields(edit.fields)
    assert set(odd[::2]) - set(sent[::2]) == set()
    assert sent[sent.index(b"extra") + 1] == b"\xff\x00"
    assert (event_in(edit).total, sent[sent.index(b"schema_version") + 1]) == (2, b"1")


def test_letters_of_rapids_streams() -> None:
    letter = [part.encode() for pair in (REFERENCE_FIELDS | {"event_type": "ed.cart"}).items() for part in pair]
    edit = edited(letter, data={"total": 2})
    assert (event_in(edit).total, event_in(edit).id) == (2, "1701234567890-0")


# --- what is refused ------------------------------------------------------------------------------------------------


def test_every_fault_has_its_place_in_the_data() -> None:
    data = {
        "lines": [{"kind": "line", "price": "x"}, {"kind": "gift"}, {"kind": "dog"}, 7],
        "by_number": {"a/b": 1, "2": "y"},
        "total": [],
        "when": ["z"],
    }
    assert refused(letter_of(), data) == [
        ("/lines/0/price", "float_parsing"),
        ("/lines/1/to", "missing"),
        ("/lines/2", "union_tag_invalid"),
        ("/lines/3", "dict_type"),
        ("/by_number/a~1b", "int_parsing"),
        ("/by_number/2", "int_parsing"),
        ("/total", "float_type"),
        ("/when", "int_type"),
        ("/when/0", "int_parsing"),
    ]


def test_the_first_hundred_faults_and_how_many_there_are() -> None:
    with pytest.raises(EditRefusedError, match=r"/when/0: Input should be .*; and 142 more") as caught:
        edited(letter_of(), data={"when": ["x"] * 150, "total": "y"})
    assert (len(caught.value.problems), caught.value.problem_count) == (100, 152)


def test_unknown_names_are_a_matter_for_the_class() -> None:
    assert refused(letter_of(EdClosed(n=1)), {"n": 1, "other": 2}) == [("/other", "extra_forbidden")]
    edit = edited(letter_of(EdOpen(n=1)), data={"n": 1, "twice": 9, "other": 2})
    assert event_in(edit).model_extra == {"twice": 9, "other": 2}
    assert event_in(edit).twice == 2


def test_aliases_are_taken_as_a_worker_takes_them() -> None:
    letter = letter_of(EdAliased.model_validate({"orderNumber": 1}))
    assert event_in(edited(letter, data={"orderNumber": 2})).order_number == 2
    assert event_in(edited(letter, data={"order_number": 3})).order_number == 3
    assert refused(letter, {"order_number": "x"}) == [("/order_number", "int_parsing")]
    # Under an alias too, the id would be read from the data.
    assert refused(letter, {"order_number": 3, "correlationId": "mine"}) == [("/correlationId", "locked")]


@pytest.mark.parametrize("name", ["id", "timestamp", "correlation_id", "causation_id", "metadata", "_schema_version"])
def test_common_fields_are_locked(name: str) -> None:
    assert refused(letter_of(), {name: "x"}) == [(f"/{name}", "locked")]
    edit = edited(letter_of(data=json.dumps({name: "x"}).encode()), data={name: "x", "total": 5})
    assert (event_in(edit).total, event_in(edit).id) == (5, dict_of(edit.fields)[b"id"].decode())


@pytest.mark.parametrize("guess", ["right", "wrong", ["right"], {"x": 1}])
def test_no_guess_of_a_value_under_the_name_of_a_common_field_is_confirmed(guess: Any) -> None:
    """A value there may be hidden, in the data of other writers: `metadata` has any keys."""
    letter = letter_of(data=b'{"metadata": {"password": "right"}, "total": 1}')
    given = {"metadata": {"password": guess}, "total": 2}
    with pytest.raises(EditRefusedError) as caught:
        edited(letter, patch=given)
    assert [(one.pointer, one.type) for one in caught.value.problems] == [("/metadata", "locked")]
    edit = edited(letter, data=given)
    assert json.loads(edit.data) == {"metadata": {"password": "right"}, "total": 2}
    assert [one.pointer for one in edit.diff] == ["/total"]
    assert json.loads(edited(letter, patch={"total": 3}).data)["metadata"] == {"password": "right"}
    assert json.loads(edited(letter, patch={"metadata": None}).data) == {"total": 1}


def dict_of(fields: Any) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def test_data_that_is_no_json_is_refused() -> None:
    nan = float("nan")
    broken = "\ud800"
    data = {"total": nan, "lines": [{"price": -float("inf")}], "by_number": {broken: 1}, "when": broken}
    assert sorted(refused(letter_of(), data)) == [
        *[("/by_number", "not_json"), ("/lines/0/price", "not_json"), ("/total", "not_json"), ("/when", "not_json")]
    ]
    assert refused(letter_of(), {"total": object()}) == [("", "not_json")]
    deep: Any = []
    deep.append(deep)
    assert refused(letter_of(), {"lines": deep}) == [("/lines", "too_deep")]
    with pytest.raises(EditRefusedError, match="/total: NaN and infinities are not JSON"):
        edited(letter_of(), data={"total": nan})


@pytest.mark.parametrize("data", [[], "x", 1, [("total", 1)]])
def test_data_must_be_a_mapping(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be a mapping of the event's own fields, not a "):
        edited(letter_of(), data=data)


def test_without_a_class_nothing_can_be_checked() -> None:
    letter = letter_of(GenericEvent(raw_type="ed.unheard_of"))
    assert refused(letter, {"a": 1}) == [("", "unknown_type")]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"id": b""}, "missing or empty: id"),
        ({"event_type": b""}, "no readable event_type"),
        ({"metadata": b"{"}, "EOF while parsing"),
        ({"correlation_id": b"\xff"}, "codec can't decode"),
    ],
)
def test_a_fault_outside_the_data_cannot_be_fixed_by_other_data(changed: dict[str, bytes], why: str) -> None:
    with pytest.raises(DeserializationError, match=why):
        edited(letter_of(**changed), data={})


def test_a_fault_of_a_common_field_says_so() -> None:
    assert refused(letter_of(timestamp=b"yesterday"), {"total": "x"})[::-1][:2] == [
        ("/total", "float_parsing"),
        ("/timestamp", "datetime_from_date_parsing"),
    ] or refused(letter_of(timestamp=b"yesterday"), {}) == [("/timestamp", "datetime_from_date_parsing")]


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["total", "when", "lines", "id"]), st.from_type(object)))
def test_any_data_are_accepted_or_refused(data: dict[str, Any]) -> None:
    try:
        edit = edited(letter_of(), data=data)
    except EditRefusedError:
        return
    assert decode("ed.cart", original_fields(edit.fields)).routing_key == "ed.cart"


# --- through the queue ----------------------------------------------------------------------------------------------


async def test_the_handler_that_failed_gets_the_changed_event(redis: Redis) -> None:
    failing, fine = Moody(), Moody()
    fine.works = True
    queue = DeadLetterQueue(redis, DLQ)
    async with running(moody_router(redis, ("fine", fine), ("failing", failing))):
        event = DvOrder(number=7, text="x", correlation_id="c", causation_id="b", metadata={"m": 1})
        await make_emitter(redis).emit(event)
        [letter_id] = await until_dead(redis)
        failing.works = True

        replay = await queue.replay(letter_id, data={"number": 8, "text": "x"}, actor="ada", reason="typo")
        await replayed(redis)

    assert failing.seen == [event, event.model_copy(update={"number": 8})]
    assert fine.seen == [event]
    diff = (Difference("/number", "replace", 7, 8),)
    assert replay.diff == diff
    letter = await queue.get(letter_id)
    assert (letter.state, json.loads(letter.data)["number"]) == ("replayed", 7)
    [change] = letter.history
    assert (change.action, change.actor, change.reason, change.scope) == ("replayed", "ada", "typo", "handler")
    assert (json.loads(change.data), change.diff) == ({"number": 8, "text": "x"}, diff)
    await check_keys(redis)


async def test_the_audit_records_that_data_changed_and_not_how(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await queue.replay(await write(redis, number=7), data={"text": "s3cret"}, actor="ada")
    await queue.replay(await write(redis, number=7), actor="ben")
    edited, plain = [fields for _, fields in await redis.xrange(audit_log(DLQ))]
    assert (edited[b"actor"], edited[b"edited"]) == (b"ada", b"true")
    assert b"edited" not in plain
    assert b"s3cret" not in str(edited).encode()


async def test_to_everyone_the_changed_event_is_appended(redis: Redis) -> None:
    letter_id = await write(redis, number=7)
    replay = await DeadLetterQueue(redis, DLQ).replay(letter_id, scope="everyone", data={"number": 8})
    assert (replay.stream, replay.diff[0].pointer) == (STREAM, "/number")
    [(_, sent)] = await redis.xrange(STREAM)
    assert json.loads(sent[b"data"]) == {"number": 8}
    assert b"replay_of" not in sent


async def test_a_letter_that_fails_again_has_the_changed_data(redis: Redis) -> None:
    failing = Moody()
    queue = DeadLetterQueue(redis, DLQ)
    async with running(moody_router(redis, ("failing", failing))):
        await make_emitter(redis).emit(DvOrder(number=7))
        [first] = await until_dead(redis)
        await queue.replay(first, data={"number": 8})
        await eventually(lambda: _has_another(queue, first))
    [letter] = (await queue.list()).items
    assert (json.loads(letter.data), letter.replay_of, letter.history) == ({"number": 8}, first, ())


async def _has_another(queue: DeadLetterQueue, than: str) -> bool:
    items = (await queue.list()).items
    return bool(items) and items[0].id != than


async def test_a_refused_replay_changes_nothing(redis: Redis) -> None:
    letter_id = await write(redis, number=7)
    queue = DeadLetterQueue(redis, DLQ)
    with pytest.raises(EditRefusedError, match="/number: "):
        await queue.replay(letter_id, data={"number": "x"})
    assert ((await queue.get(letter_id)).state, await redis.exists(replay_stream())) == ("dead", 0)
    await queue.replay(letter_id)
    assert (await queue.get(letter_id)).history[0].data == ""


async def test_the_state_comes_first(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    letter_id = await write(redis)
    await queue.discard(letter_id)
    with pytest.raises(LetterStateError, match="is discarded"):
        await queue.replay(letter_id, data={"number": "x"})
    with pytest.raises(LetterNotFoundError):
        await queue.replay("1-1", data={"number": "x"})


async def test_an_old_letter_takes_what_it_leaves_out_from_its_entry(redis: Redis) -> None:
    fields = fields_of(DvOrder(number=5, text="x", correlation_id="c"))
    entry_id = as_text(await redis.xadd(STREAM, fields))  # type: ignore[arg-type]
    old = REFERENCE_FIELDS | {"original_msg_id": entry_id, "data": as_text(fields[b"data"])}
    letter_id = as_text(await redis.xadd(DLQ, old))  # type: ignore[arg-type]

    await DeadLetterQueue(redis, DLQ).replay(letter_id, data={"number": 6})

    [(_, sent)] = await redis.xrange(replay_stream())
    assert (sent[b"id"], sent[b"correlation_id"], json.loads(sent[b"data"])) == (fields[b"id"], b"c", {"number": 6})
