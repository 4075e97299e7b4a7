"""Event classes: frozen Pydantic models, each with its event type.

The registry maps each `event_type` to its class. A class is registered when it is defined.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from inspect import isabstract
from os import urandom
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapids._core.event_fields import check_fields, check_schema_version
from rapids.exceptions import DuplicateEventTypeError

__all__ = ["BaseEvent", "Event", "GenericEvent", "event_classes", "event_type_of", "get_event_class", "kind_of"]


_RANDOM_BITS = 0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF
_VERSION_4 = 0x00000000_0000_4000_8000_000000000000


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4), like `str(uuid4())`, in half the time."""
    digits = f"{int.from_bytes(urandom(16)) & _RANDOM_BITS | _VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC; one without a time zone is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


UNCHECKED = "_unchecked"
"""In the `__dict__` of an event of which Pydantic has not validated all fields."""

TYPE_LIMIT = 512
"""The longest event type, in characters. No class can declare a longer one, and no pattern is compared with it."""


class Event(BaseModel):
    """The fields of every event. Subclass `BaseEvent`, not this class.

    `timestamp` is in UTC; one given without a time zone is taken as UTC.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    id: str = Field(default_factory=_new_id, min_length=1)
    timestamp: Annotated[datetime, AfterValidator(in_utc)] = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def routing_key(self) -> str:
        """The text that glob patterns are matched against: the event's type on the wire."""
        raise NotImplementedError("an event is a BaseEvent or a GenericEvent")


class BaseEvent(Event):
    """The base of your events.

    The event type comes from the class name (`UserCreated` is `user.created`, `S3ObjectUploaded` is
    `s3_object.uploaded`) unless the subclass sets `event_type: ClassVar[str]` to another text than "". A subclass is
    registered under its event type when it is defined, unless it is abstract or itself sets
    `_skip_registration: ClassVar[bool] = True`.

    `schema_version` is a whole number. Raise it on breaking changes: a `model_validator(mode="before")` then finds the
    stored version as `_schema_version`, and the event's time stamp as `_timestamp`, in its input.

    Raises `TypeError` for a subclass that cannot work: a common field with another type, an alias that is the name of a
    common field, or a field that cannot be read back, such as a `SecretStr`, which is written as asterisks. Raises
    `DuplicateEventTypeError` when another class already has the `event_type`. A class that is defined again with the
    same module and name (a reload, a notebook cell) replaces the earlier one.
    """

    event_type: ClassVar[str] = ""
    schema_version: ClassVar[int] = 1
    _skip_registration: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_complete__:
            check_fields(cls)
        if cls.__dict__.get("event_type", "") == "":
            cls.event_type = event_type_of(cls.__name__)
        if not isinstance(cls.event_type, str) or len(cls.event_type) > TYPE_LIMIT or not _is_unicode(cls.event_type):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(
                f"{cls.__qualname__}.event_type must be a string of at most {TYPE_LIMIT} characters that UTF-8 can "
                f"hold, not {cls.event_type!r}"
            )
        check_schema_version(cls, cls.schema_version)
        if not (isabstract(cls) or cls.__dict__.get("_skip_registration", False)):
            known = _registry.get(cls.event_type)
            if known is not None and not same_class(known, cls):
                raise DuplicateEventTypeError(
                    f"Duplicate event_type {cls.event_type!r}: it is already {known.__module__}.{known.__qualname__}; "
                    f"give {cls.__module__}.{cls.__qualname__} another one: event_type: ClassVar[str] = ..."
                )
            _registry[cls.event_type] = cls

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        check_fields(cls)

    @property
    def routing_key(self) -> str:
        return self.event_type

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, as of Pydantic, which does not validate them. So `emit` first makes sure that the
        copy can be read back."""
        copied = super().model_copy(update=update, deep=deep)
        if update and not update.keys() <= Event.model_fields.keys():  # these are checked in every event
            vars(copied)[UNCHECKED] = True
        return copied

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """An event whose values are not validated, as of Pydantic. So `emit` first makes sure that it can be read
        back."""
        constructed = super().model_construct(_fields_set, **values)
        vars(constructed)[UNCHECKED] = True
        return constructed


class GenericEvent(Event):
    """An event of a type without a registered class. `raw_type` is the type; `data` holds the fields read from JSON."""

    raw_type: str
    data: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def routing_key(self) -> str:
        return self.raw_type


@lru_cache(maxsize=4_096)
def kind_of(cls: type) -> type[Event] | None:
    """`BaseEvent`, `GenericEvent`, or None for any other class. Checking each event with Pydantic takes longer."""
    return next((kind for kind in (BaseEvent, GenericEvent) if issubclass(cls, kind)), None)


_registry: dict[str, type[BaseEvent]] = {}


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: a lone surrogate is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def get_event_class(event_type: str) -> type[BaseEvent] | None:
    """The class registered under `event_type`, or None."""
    return _registry.get(event_type)


def event_classes() -> tuple[type[BaseEvent], ...]:
    """All classes that are registered now, by event type."""
    return tuple(cls for _, cls in sorted(_registry.items()))


def types_below(base: type[BaseEvent]) -> list[str]:
    """The registered event types of a class and its subclasses."""
    return [
        event_type for event_type, cls in _registry.items() if any(same_class(above, base) for above in cls.__mro__)
    ]


def same_class(one: type, other: type) -> bool:
    """Whether both are the same class, or one of them is a later definition of the other."""
    return one is other or (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def event_type_of(class_name: str) -> str:
    """The event type for a class name: its words in lower case, a dot before the last one, `_` between the others."""
    spaced = re.sub(r"([^_])([A-Z][a-z]+)", r"\1_\2", class_name.strip("_"))
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", spaced).lower().split("_")
    *first, last = [word for word in words if word]
    return f"{'_'.join(first)}.{last}" if first else last
