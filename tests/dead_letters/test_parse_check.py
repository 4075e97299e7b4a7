"""Would it parse today? A letter's event against the class that is registered now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, Json, ValidationError, create_model, field_validator, model_validator
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetter, DeadLetterQueue
from rapids._core.outcomes import Dead, Failure, Reason
from rapids._wire.entry_format import StoredEvent, decode, event_type_in, newer_version
from rapids._wire.letter_format import Origin, write_letter
from rapids.dead_letters import ParseCheck, ParseProblem
from rapids.events import get_event_class
from rapids.exceptions import DeserializationError
from tests.dead_letters.helpers import REFERENCE_FIELDS, write
from tests.wire.entries import entry
from tests.wire.test_events_untrusted import raw_entries
from tests.worker.helpers import DLQ

DEAD = Dead("pay", Reason.DESERIALIZATION_ERROR, Failure("DeserializationError", "cannot read", ""))


class PtItem(BaseModel):
    price: float


class PtCart(BaseEvent):
    items: list[PtItem]


class PtNumbers(BaseEvent):
    numbers: list[int]


class PtTree(BaseEvent):
    child: dict[str, Any]


class PtNested(BaseEvent):
    child: PtNested | None = None
    price: float = 0


class PtJson(BaseEvent):
    text: Json[Any]


class PtGuarded(BaseEvent):
    word: str

    @field_validator("word")
    @classmethod
    def _guard(cls, word: str) -> str:
        match word:
            case "key":
                raise KeyError("there is no such key")
            case "mute":
                raise _MuteError
            case "mute value":
                raise _MuteValueError
            case "other model":
                _let_through({"price": "4111 1111 1111 1111 and a long text behind it"})
            case "long":
                raise ValueError("x" * 100_000)
        return word


def _let_through(item: dict[str, Any]) -> None:
    try:
        PtItem.model_validate(item)
    except ValidationError as error:
        raise ValueError(f"no item: {error}") from error


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _MuteValueError(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class PtMigrated(BaseEvent):
    schema_version = 2

    full_name: str

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.pop("_schema_version", 2) < 2:
            data["full_name"] = data.pop("name")
        data.pop("_timestamp", None)
        return data


def letter_of(fields: list[bytes]) -> DeadLetter:
    return DeadLetter.read("1-0", write_letter(fields, Origin("1-1", "orders", "billing", "worker-1", 1), DEAD))


def check_of(cls: type[BaseEvent], data: Any, **fields: Any) -> ParseCheck:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return letter_of(entry(event_type=cls.event_type, data=raw, **fields)).check_parsing()


def problem_of(check: ParseCheck) -> ParseProblem:
    [problem] = check.problems
    assert check.problem_count == 1
    return problem


def defined(**fields: Any) -> type[BaseEvent]:
    """The class of `pt.changing`, as it now is: the same module and name, so that it replaces the last one."""
    return create_model("PtChanging", __base__=BaseEvent, __module__=__name__, **fields)


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_a_fixed_class_is_seen_before_replaying() -> None:
    defined(total=(int, ...))
    letter = letter_of(entry(event_type="pt.changing", data='{"total":"12.50"}'))

    before = letter.check_parsing()
    defined(total=(float, ...))
    after = letter.check_parsing()

    assert (before.outcome, problem_of(before).location, problem_of(before).type) == (
        "invalid",
        ("total",),
        "int_parsing",
    )
    assert after == ParseCheck("parses", f"{__name__}.PtChanging")


def test_problems_have_their_position_and_no_values() -> None:
    check = check_of(PtCart, {"items": [{"price": 1}, {"price": "4111 1111"}, {}]}, timestamp="4111 1111")

    assert (check.outcome, check.event_class, check.problem_count) == ("invalid", f"{__name__}.PtCart", 3)
    assert {(problem.location, problem.type) for problem in check.problems} == {
        (("items", 1, "price"), "float_parsing"),
        (("items", 2, "price"), "missing"),
        (("timestamp",), "datetime_from_date_parsing"),
    }
    assert "Field required" in [problem.message for problem in check.problems]
    assert "4111" not in repr(check)


def test_an_undeclared_type_is_unknown() -> None:
    assert letter_of(entry(event_type="pt.unheard_of")).check_parsing() == ParseCheck("unknown_type", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": b'{"numbers":"\xff"}'}, "Invalid JSON"),
        ({"data": b"{\x00\x1b}"}, "Invalid JSON"),
        ({"data": b'{"numbers":[1}'}, "Invalid JSON"),
        ({"data": b"[" * 100_000}, "not a JSON object"),
        ({"data": b'{"numbers":' + b"[" * 5_000_000 + b"}"}, "Invalid JSON: recursion limit exceeded"),
        ({"data": b"[1]"}, "data is not a JSON object"),
        ({"data": None}, "missing or empty: data"),
        ({"metadata": b"{"}, "EOF while parsing"),
        ({"id": b"\xff"}, "can't decode"),
        ({"event_type": b"\xff"}, "no readable event_type"),
        ({"event_type": None}, "no readable event_type"),
    ],
)
def test_a_letter_that_holds_no_event_is_unreadable(changes: dict[str, bytes | None], message: str) -> None:
    check = letter_of(entry(**{"event_type": "pt.numbers", "data": '{"numbers":[]}'} | changes)).check_parsing()

    assert check.outcome == "unreadable"
    assert message in problem_of(check).message
    assert problem_of(check).location == ()


def test_a_repeated_field_is_seen_as_a_worker_sees_it() -> None:
    check = letter_of([*entry(event_type="pt.numbers"), b"data", b"{}"]).check_parsing()

    assert (check.outcome, problem_of(check).message) == ("unreadable", "a field is repeated")


@pytest.mark.parametrize("data", [b"[1]", b"{", b"\xff"])
def test_an_event_of_no_class_has_to_be_readable_too(data: bytes) -> None:
    check = letter_of(entry(event_type="pt.unheard_of", data=data)).check_parsing()

    assert (check.outcome, check.event_class, check.problem_count) == ("unreadable", None, 1)


def test_a_letter_that_was_tampered_with_is_unreadable() -> None:
    letter = DeadLetter.read("1-0", [b"event_type", b"pt.numbers", b"original_fields", b"7:x"])

    assert letter.check_parsing().outcome == "unreadable"
    assert "original_fields" in problem_of(letter.check_parsing()).message


def test_a_letter_that_is_not_from_redis_is_unreadable() -> None:
    assert DeadLetter.read("1-0", []).check_parsing().outcome == "unreadable"


def test_a_field_that_should_hold_json_is_the_class_s_affair() -> None:
    check = check_of(PtJson, {"text": "{"})

    assert (check.outcome, problem_of(check).location) == ("invalid", ("text",))


# --- migrations and validators --------------------------------------------------------------------------------------


def test_a_migration_is_applied() -> None:
    assert check_of(PtMigrated, {"name": "Ada"}, schema_version="1").outcome == "parses"
    assert problem_of(check_of(PtMigrated, {"name": "Ada"}, schema_version="2")).location == ("full_name",)


def test_a_version_newer_than_the_class_is_not_read_as_an_older_one() -> None:
    for cls, data in ((PtMigrated, {"full_name": "Ada"}), (PtNumbers, {"numbers": []}), (PtNumbers, {"other": 1})):
        check = check_of(cls, data, schema_version="3")

        assert (check.outcome, check.event_class) == ("newer_version", f"{__name__}.{cls.__name__}")
        why = f"its schema version is 3, and the class of this process has {cls.schema_version}"
        assert problem_of(check) == ParseProblem((), why, "newer_version")
    assert check_of(PtNumbers, b"[", schema_version="3").outcome == "unreadable"


def test_a_failed_migration_is_reported_by_the_name_of_its_error() -> None:
    check = check_of(PtMigrated, {"nom": "Ada"}, schema_version="1")

    assert (check.outcome, problem_of(check)) == ("invalid", ParseProblem((), "'name'", "KeyError"))


@pytest.mark.parametrize(
    ("word", "problem_type", "message"),
    [
        ("key", "KeyError", "there is no such key"),
        ("mute", "_MuteError", "text could not be made"),
        ("mute value", "RuntimeError", "no text"),
        ("other model", "value_error", "input_value=…, input_type=str"),
        ("long", "value_error", "xxx…"),
    ],
)
def test_a_validator_may_raise_anything(word: str, problem_type: str, message: str) -> None:
    check = check_of(PtGuarded, {"word": word})

    assert (check.outcome, problem_of(check).type) == ("invalid", problem_type)
    assert message in problem_of(check).message
    assert len(problem_of(check).message) <= 500
    assert "4111" not in repr(check)


# --- in bounds ------------------------------------------------------------------------------------------------------


def test_only_the_first_problems_are_listed_and_all_are_counted() -> None:
    check = check_of(PtNumbers, {"numbers": ["x"] * 1_000})

    assert (len(check.problems), check.problem_count) == (20, 1_000)
    assert [problem.location for problem in check.problems] == [("numbers", at) for at in range(20)]


def test_very_many_problems_are_only_counted() -> None:
    check = check_of(PtNumbers, {"numbers": ["x"] * 1_250_000})

    assert (check.outcome, check.problem_count) == ("invalid", 1_250_000)
    [problem] = check.problems
    assert (problem.type, problem.message) == ("too_many_errors", "1250000 validation errors, too many to list")


def test_a_place_deep_down_and_a_long_name_are_cut() -> None:
    deep: dict[str, Any] = {"price": "x"}
    for _ in range(100):
        deep = {"child": deep}

    location = problem_of(check_of(PtNested, deep)).location
    assert location == (*["child"] * 32, "…")


def test_a_payload_of_megabytes_parses() -> None:
    assert check_of(PtTree, {"child": {"text": "x\x00\u202e" * 1_000_000}}).outcome == "parses"


# --- as a worker would ----------------------------------------------------------------------------------------------


@given(raw_entries())
def test_a_check_finds_what_a_worker_would_find(fields: list[bytes]) -> None:
    event_type = event_type_in(fields) or ""
    cls = get_event_class(event_type)
    is_newer = cls is not None and newer_version(cls, fields) is not None
    try:
        StoredEvent.read(fields).generic() if is_newer else decode(event_type, fields)
    except (DeserializationError, ValueError):
        expected = {"invalid", "unreadable"}
    else:
        expected = {"newer_version"} if is_newer else {"parses", "unknown_type"}

    check = letter_of(fields).check_parsing()

    assert check.outcome in expected
    assert bool(check.problems) == expected.isdisjoint({"parses", "unknown_type"})


async def test_letters_read_from_redis_can_be_checked_whatever_was_done_to_them(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    bad = await write(redis, fields={b"data": b'{"number":"x"}'})
    old = await redis.xadd(DLQ, REFERENCE_FIELDS)  # type: ignore[arg-type]

    [of_old, listed] = (await queue.list()).items
    assert of_old.id == old.decode()
    assert of_old.check_parsing().outcome == "parses"
    assert listed.check_parsing().outcome == "invalid"
    await queue.discard(bad)
    assert (await queue.get(bad)).check_parsing() == listed.check_parsing()
    await queue.restore(bad)
    assert (await queue.get(bad)).check_parsing() == listed.check_parsing()
