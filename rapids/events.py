"""Events: frozen Pydantic models that know their name on the wire.

The registry maps each `event_type` to its class; it fills itself as classes are defined.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from inspect import isabstract
from os import urandom
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rapids.exceptions import DuplicateEventTypeError

__all__ = ["BaseEvent", "Event", "GenericEvent", "event_type_of", "get_event_class", "kind_of"]


_RANDOM_BITS = 0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF
_VERSION_4 = 0x00000000_0000_4000_8000_000000000000


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4), as `str(uuid4())` would give it in twice the time."""
    digits = f"{int.from_bytes(urandom(16)) & _RANDOM_BITS | _VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _now() -> datetime:
    return datetime.now(UTC)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


TYPE_LIMIT = 512
"""Characters of an event type. A longer one is not a type anybody declared, and is not matched against patterns."""


class Event(BaseModel):
    """What every event has. Subclass `BaseEvent`, not this.

    `timestamp` is in UTC; one given without a time zone is taken as UTC.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    id: str = Field(default_factory=_new_id)
    timestamp: Annotated[datetime, AfterValidator(_in_utc)] = Field(default_factory=_now)
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def routing_key(self) -> str:
        """What glob patterns are matched against: the event's type on the wire."""
        raise NotImplementedError("an event is a BaseEvent or a GenericEvent")


class BaseEvent(Event):
    """The base of your events.

    A subclass is named after its class (`UserCreated` is `user.created`, `S3ObjectUploaded` is `s3_object.uploaded`)
    unless it sets `event_type: ClassVar[str]`, and is registered under that name when it is defined, unless it is
    abstract or sets `_skip_registration: ClassVar[bool] = True` itself.

    `schema_version` is a whole number to raise on breaking changes; a `model_validator(mode="before")` then finds the
    stored version as `_schema_version`, and the event's time stamp as `_timestamp`, among its input.

    Raises `DuplicateEventTypeError` when another class already has the `event_type`. Defining a class again under the
    same module and name (a reload, a notebook cell) replaces it.
    """

    event_type: ClassVar[str] = ""
    schema_version: ClassVar[int] = 1
    _skip_registration: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "event_type" not in cls.__dict__:
            cls.event_type = event_type_of(cls.__name__)
        if not isinstance(cls.event_type, str) or not 0 < len(cls.event_type) <= TYPE_LIMIT:  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(
                f"{cls.__qualname__}.event_type must be a string of 1 to {TYPE_LIMIT} characters, "
                f"not {cls.event_type!r}"
            )
        if not (isabstract(cls) or cls.__dict__.get("_skip_registration", False)):
            _register(cls)

    @property
    def routing_key(self) -> str:
        return self.event_type


class GenericEvent(Event):
    """An event whose `raw_type` no class is registered for; `data` holds its fields as JSON gave them."""

    raw_type: str
    data: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def routing_key(self) -> str:
        return self.raw_type


@lru_cache(maxsize=4_096)
def kind_of(cls: type) -> type[Event] | None:
    """`BaseEvent`, `GenericEvent`, or None for the class of anything else. Asking each event takes Pydantic longer."""
    return next((kind for kind in (BaseEvent, GenericEvent) if issubclass(cls, kind)), None)


_registry: dict[str, type[BaseEvent]] = {}


def get_event_class(event_type: str) -> type[BaseEvent] | None:
    """The class registered under `event_type`, or None."""
    return _registry.get(event_type)


def same_class(one: type, other: type) -> bool:
    """Whether both are the same class, or one is a later definition of the other."""
    return one is other or (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _register(cls: type[BaseEvent]) -> None:
    known = _registry.get(cls.event_type)
    if known is not None and not same_class(known, cls):
        raise DuplicateEventTypeError(
            f"event_type {cls.event_type!r} is already {known.__module__}.{known.__qualname__}; "
            f"give {cls.__module__}.{cls.__qualname__} another one: event_type: ClassVar[str] = ..."
        )
    _registry[cls.event_type] = cls


def event_type_of(class_name: str) -> str:
    """The name on the wire for a class name: its words in lower case, a dot before the last, `_` between the rest."""
    spaced = re.sub(r"([^_])([A-Z][a-z]+)", r"\1_\2", class_name.strip("_"))
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", spaced).lower().split("_")
    *first, last = [word for word in words if word]
    return f"{'_'.join(first)}.{last}" if first else last
