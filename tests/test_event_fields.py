"""Fields of event classes that cannot work are refused where the class is defined, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, date, datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar, Literal, NewType
from uuid import UUID, uuid4

import pytest
from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)
from redis.asyncio import Redis
from typing_extensions import TypeAliasType, TypedDict

import rapids.events
from rapids import BaseEvent, EventEmitter, get_event_class
from rapids.exceptions import SerializationError
from tests.wire.entries import data_of, round_trip


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes defined inside a test are forgotten after it."""
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))


pytestmark = pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute:UserWarning")


def define(annotations: Mapping[str, Any], **namespace: Any) -> type[BaseEvent]:
    """A class with these fields, the values of the namespace being their defaults."""
    return type("EfDefined", (BaseEvent,), {"__annotations__": dict(annotations), **namespace})


# --- what belongs to the class ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "annotation", "value", "instead"),
    [
        ("event_type", str, "payments.taken", 'event_type: ClassVar[str] = "payments.taken"'),
        ("event_type", Literal["a"], "a", "event_type: ClassVar[str]"),
        ("schema_version", int, 2, "schema_version: ClassVar[int] = 2"),
        ("_skip_registration", bool, True, "_skip_registration: ClassVar[bool] = True"),
        ("routing_key", str, "a.b", "event_type: ClassVar[str]"),
    ],
)
def test_a_class_variable_that_became_a_field_is_refused(name: str, annotation: Any, value: Any, instead: str) -> None:
    with pytest.raises(TypeError) as raised:
        define({name: annotation}, **{name: value})

    assert f"EfDefined.{name} " in str(raised.value)
    assert instead in str(raised.value)
    assert get_event_class("ef.defined") is None


@pytest.mark.parametrize("version", ["2", 2.0, None, True, -1])
def test_a_schema_version_that_is_no_whole_number_is_refused(version: Any) -> None:
    with pytest.raises(TypeError, match=r"EfDefined\.schema_version must be a whole number, not .*ClassVar\[int\] = 2"):
        define({}, schema_version=version)


def test_a_routing_key_of_ones_own_is_refused_since_no_pattern_would_see_it() -> None:
    with pytest.raises(TypeError, match="routing_key cannot be overridden, since patterns"):
        define({}, routing_key=property(lambda self: "mine"))


# --- common fields ---------------------------------------------------------------------------------------------------


class EfOption(Enum):
    ONE = "one"


class EfText(StrEnum):
    ONE = "one"


class EfNotes(TypedDict):
    note: str


class EfModel(BaseModel):
    note: str = ""


EfName = NewType("EfName", str)
EfNumber = NewType("EfNumber", int)

CANNOT_WORK = {
    "uuid": ("id", UUID),
    "number": ("id", int),
    "none": ("id", str | None),
    "annotated": ("id", Annotated[UUID, Field()]),
    "new type": ("id", EfNumber),
    "alias": ("id", TypeAliasType("EfAlias", int | str)),
    "enum": ("id", EfOption),
    "literal": ("id", Literal["a", 1]),
    "secret": ("id", SecretStr),
    "model": ("id", EfModel),
    "date": ("timestamp", date),
    "seconds": ("timestamp", float),
    "no moment": ("timestamp", datetime | None),
    "correlation": ("correlation_id", UUID | None),
    "causation": ("causation_id", list[str]),
    "metadata": ("metadata", list[str]),
    "text": ("metadata", str),
}


@pytest.mark.parametrize(("name", "annotation"), CANNOT_WORK.values(), ids=CANNOT_WORK)
def test_a_common_field_of_another_type_is_refused(name: str, annotation: Any) -> None:
    with pytest.raises(TypeError, match=rf"EfDefined\.{name} must be a .*: keep `{name}: "):
        define({name: annotation})
    assert get_event_class("ef.defined") is None


CAN_WORK = {
    "constraint": ("id", Annotated[str, StringConstraints(pattern="^o-")], "o-1"),
    "new type": ("id", EfName, "a"),
    "text enum": ("id", EfText, EfText.ONE),
    "literal": ("id", Literal["a"], "a"),
    "aware": ("timestamp", AwareDatetime, datetime(2026, 1, 1, tzinfo=UTC)),
    "union": ("timestamp", AwareDatetime | datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    "required": ("correlation_id", str, "c"),
    "typed metadata": ("metadata", EfNotes, {"note": "a"}),
    "texts": ("metadata", dict[str, str], {"note": "a"}),
    "model": ("metadata", EfModel, EfModel(note="a")),
}


@pytest.mark.parametrize(("name", "annotation", "value"), CAN_WORK.values(), ids=CAN_WORK)
def test_a_common_field_with_a_narrower_type_works(name: str, annotation: Any, value: Any) -> None:
    event = define({name: annotation})(**{name: value})
    assert round_trip(event) == event


def test_an_id_that_is_made_for_each_event_works_and_a_fixed_one_is_refused() -> None:
    made = define({"id": str}, id=Field(default_factory=lambda: f"o-{uuid4()}"))
    assert round_trip(made()).id.startswith("o-")

    with pytest.raises(TypeError, match=r"id must be different for each event, not always 'o-1'"):
        define({"id": str}, id="o-1")


@pytest.mark.parametrize("name", ["id", "timestamp", "correlation_id", "causation_id", "metadata"])
def test_a_common_field_that_is_no_longer_a_field_is_refused(name: str) -> None:
    for declared, value in (({name: ClassVar[Any]}, "x"), ({}, property(lambda self: "x")), ({}, lambda self: "x")):
        with pytest.raises(TypeError, match=rf"EfDefined\.{name} must "):
            define(declared, **{name: value})


@pytest.mark.parametrize("name", ["timestamp", "metadata", "correlation_id"])
def test_a_default_that_the_field_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"EfDefined\.{name} must be a .*, not 7: keep"):
        define({name: Any}, **{name: 7})


def test_an_empty_id_is_refused_when_the_event_is_built() -> None:
    class EfPlain(BaseEvent):
        pass

    with pytest.raises(ValidationError, match="at least 1 character"):
        EfPlain(id="")


# --- aliases ---------------------------------------------------------------------------------------------------------

ALIASES = {
    "alias": Field(alias="id"),
    "validation alias": Field(validation_alias="correlation_id"),
    "choice": Field(validation_alias=AliasChoices("orderId", "causation_id")),
    "path": Field(validation_alias=AliasPath("metadata", "order")),
    "path in a choice": Field(validation_alias=AliasChoices("orderId", AliasPath("metadata", 0))),
    "serialization alias": Field(serialization_alias="timestamp"),
    "what migrations get": Field(validation_alias="_timestamp"),
}


@pytest.mark.parametrize("field", ALIASES.values(), ids=ALIASES)
def test_an_alias_that_is_a_common_field_is_refused(field: Any) -> None:
    with pytest.raises(TypeError, match=r"EfDefined\.order_id must not have the alias '\w+', .*: give it another"):
        define({"order_id": str}, order_id=field)
    assert get_event_class("ef.defined") is None


@pytest.mark.parametrize(
    "generator",
    [lambda name: "id" if name == "order_id" else name, AliasGenerator(serialization_alias=lambda name: name[-2:])],
)
def test_an_alias_from_a_generator_is_refused_as_well(generator: Any) -> None:
    with pytest.raises(TypeError, match=r"EfDefined\.order_id must not have the alias 'id'"):
        define({"order_id": str}, model_config=ConfigDict(alias_generator=generator))


def test_a_class_that_is_completed_later_is_checked_then() -> None:
    class EfUnfinished(BaseEvent):
        login: EfLater

    class EfLater(SecretStr):
        pass

    with pytest.raises(TypeError, match=r"EfUnfinished\.login is a EfLater"):
        EfUnfinished.model_rebuild()

    with pytest.raises(TypeError, match=r"must not have the alias 'id'"):

        class EfAlsoUnfinished(BaseEvent):
            order_id: EfMuchLater = Field(alias="id")  # type: ignore[name-defined]  # noqa: F821


# --- what does not read back -----------------------------------------------------------------------------------------


UNREADABLE = {
    "secret text": (SecretStr, "is a SecretStr, which JSON gets as asterisks"),
    "secret bytes": (SecretBytes | None, "is a SecretBytes"),
    "secret of anything": (Secret[date], "is a Secret"),
    "secrets": (dict[str, list[SecretStr]], "is a SecretStr"),
    "annotated secret": (Annotated[list[Annotated[SecretStr, Field(min_length=1)]], Field()], "is a SecretStr"),
    "iterable": (Iterable[int], r"can be read only once.*write `value: list\[...\]`"),
    "generator": (Generator[int, None, None] | None, "can be read only once"),
    "function": (Callable[[int], int], "is a function"),
}


@pytest.mark.parametrize(("annotation", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_field_that_does_not_read_back_is_refused(annotation: Any, why: str) -> None:
    with pytest.raises(TypeError, match=rf"^EfDefined\.value {why}"):
        define({"value": annotation})


def test_a_required_field_that_is_not_written_is_refused() -> None:
    with pytest.raises(TypeError, match=r"EfDefined\.value is required and not written \(exclude=True\)"):
        define({"value": str}, value=Field(exclude=True))
    assert round_trip(define({"value": str}, value=Field(default="d", exclude=True))(value="x")).value == "d"


@pytest.mark.parametrize(("annotation", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_field_that_is_not_written_may_have_any_type(annotation: Any, why: str) -> None:
    assert round_trip(define({"value": annotation | None}, value=Field(default=None, exclude=True))()).value is None


def test_bytes_that_are_written_as_others_than_they_are_read_are_refused() -> None:
    with pytest.raises(TypeError, match="set ser_json_bytes and val_json_bytes"):
        define({"value": list[bytes]}, model_config=ConfigDict(ser_json_bytes="base64"))

    same = define({"value": bytes}, model_config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    assert round_trip(same(value=b"\xff\x00")).value == b"\xff\x00"


class EfAccount(BaseModel):
    parent: EfAccount | None = None
    key: SecretStr | None = None


class EfRevealed(BaseModel):
    key: SecretStr = SecretStr("s1")

    @field_serializer("key")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class EfEncoded(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64")

    value: bytes = b""


class EfOnce(BaseModel):
    values: Iterable[int] = ()


class EfLeftOut(BaseModel):
    value: str = Field(exclude=True)


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (EfAccount, r"value\.key is a SecretStr"),
        (dict[str, list[EfAccount | None]], r"value\.key is a SecretStr"),
        (EfEncoded, r"value\.value is written in one encoding"),
        (EfOnce, r"value\.values can be read only once"),
        (EfLeftOut, r"value\.value is required and not written"),
    ],
)
def test_a_field_of_a_nested_model_that_does_not_read_back_is_refused(annotation: Any, why: str) -> None:
    with pytest.raises(TypeError, match=rf"^EfDefined\.{why}"):
        define({"value": annotation})


def test_a_nested_model_may_say_how_its_secret_is_written() -> None:
    event = define({"value": EfRevealed | None})(value=EfRevealed())
    assert round_trip(event).value.key.get_secret_value() == "s1"


def test_a_secret_is_written_where_the_class_says_how() -> None:
    class EfByMethod(BaseEvent):
        value: SecretStr

        @field_serializer("value")
        def reveal(self, value: SecretStr) -> str:
            return value.get_secret_value()

    inline = Annotated[SecretStr, PlainSerializer(lambda value: value.get_secret_value())]
    for cls in (EfByMethod, define({"value": inline}), define({"value": list[inline] | inline})):
        assert data_of(cls(value="s1")) == {"value": "s1"}
        assert round_trip(cls(value="s1")).value.get_secret_value() == "s1"


class EfPairs(BaseEvent):
    counts: dict[tuple[int, int], int] = {}


class EfMasked(BaseEvent):
    card: Annotated[str, StringConstraints(pattern=r"^\d+$")] = "1"

    @field_serializer("card")
    def mask(self, card: str) -> str:
        return "*" * len(card)


class EfOdd(Enum):
    PAIR = (1, "a")


class EfOddChoice(BaseEvent):
    odd: EfOdd = EfOdd.PAIR


@pytest.mark.parametrize(
    ("event", "field"), [(EfPairs(counts={(1, 2): 3}), "counts"), (EfMasked(), "card"), (EfOddChoice(), "odd")]
)
async def test_an_event_that_its_class_does_not_read_back_is_refused_when_emitted(
    redis: Redis, event: BaseEvent, field: str
) -> None:
    emitter = EventEmitter(redis)

    for _ in range(2):
        with pytest.raises(SerializationError, match="does not read back") as raised:
            await emitter.emit(event)

    assert (raised.value.event_type, raised.value.field) == (event.event_type, field)
    assert await redis.xlen("events:all") == 0
    assert emitter.counters.total("emit_failed", outcome="unwritable") == 2


class EfItem(BaseModel):
    sku: str = "a"


class EfGift(EfItem):
    card: str = "for you"


class EfParcel(BaseEvent):
    items: dict[str, list[EfItem]] = {}
    first: EfItem | None = None
    either: EfGift | EfItem | None = None
    anything: Any = None


@pytest.mark.parametrize("fields", [{"first": EfGift()}, {"items": {"a": [EfItem(), EfGift()]}}])
async def test_a_model_that_would_lose_the_fields_of_its_subclass_is_refused(
    redis: Redis, fields: dict[str, Any]
) -> None:
    with pytest.raises(
        SerializationError, match=r"a EfGift is read back as a EfItem, so \['card'\] would be"
    ) as raised:
        await EventEmitter(redis).emit(EfParcel(**fields))
    assert raised.value.field == next(iter(fields))
    assert await redis.xlen("events:all") == 0


async def test_a_model_that_is_read_back_as_what_it_is_may_be_emitted(redis: Redis) -> None:
    for fields in ({"either": EfGift()}, {"either": EfItem()}, {"first": EfItem()}, {"anything": EfGift()}):
        await EventEmitter(redis).emit(EfParcel.model_validate(fields))


async def test_a_validator_that_fails_on_what_is_written_is_told(redis: Redis) -> None:
    class EfMigrated(BaseEvent):
        value: int = 1

        @model_validator(mode="before")
        @classmethod
        def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
            if "_schema_version" in data:
                raise KeyError("currency")
            return data

    with pytest.raises(SerializationError, match=r"a validator of .*EfMigrated fails on what is written: KeyError"):
        await EventEmitter(redis).emit(EfMigrated())


async def test_only_the_first_event_of_a_class_is_read_back(redis: Redis) -> None:
    read = 0

    class EfCounted(BaseEvent):
        value: int = 1

        @model_validator(mode="before")
        @classmethod
        def count(cls, data: dict[str, Any]) -> dict[str, Any]:
            nonlocal read
            read += "_schema_version" in data
            return data

    emitter = EventEmitter(redis)
    await emitter.emit([EfCounted(), EfCounted()])
    await emitter.emit(EfCounted())

    assert read == 1
