"""The options of the emitter and the router, checked once when they are given."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal, TypeAlias, get_args

from rapids._core.checks import (
    at_least,
    backoff,
    flag,
    observers,
    one_of,
    plain_function,
    positive_seconds,
    seconds,
    stream_name,
    text,
)
from rapids._core.entry_id import numbers
from rapids.backoff import Backoff, exponential
from rapids.events import BaseEvent, Event, GenericEvent, get_event_class, types_below
from rapids.observers import Observer

__all__ = [
    "EmitterSettings",
    "GroupStartPosition",
    "LogRedaction",
    "OrderBy",
    "RouterSettings",
    "Trim",
    "check_key_field",
]

OrderBy: TypeAlias = Callable[[Event], Hashable]
"""A function from an event to its key. Events of one key are handled one after another; None means no order."""

LogRedaction: TypeAlias = Callable[[bytes, bytes, str], str]
"""A function (data, metadata, text): the text, such as an error, without what is secret in it. `data` and `metadata`
are the JSON documents of the event that it is about, as they are stored; empty if there are none."""

Trim: TypeAlias = Literal["acknowledged"]
"""What a router removes from its stream: the entries that every group has settled."""

RESERVED = "rapids:"
"""The prefix of Rapids' own consumer names, which hold entries that wait or are parked."""


class GroupStartPosition(StrEnum):
    """Where a *new* consumer group starts. An existing group keeps its place."""

    BEGINNING = "0"
    """The oldest entry of the stream."""

    LATEST = "$"
    """Only entries appended after the group was created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterSettings:
    """`EventEmitter`'s options; its docstring explains them."""

    stream: str = "events:all"
    maxlen: int | None = 100_000
    max_retries: int = 3
    retry_delay: float = 0.1
    replicas: int = 0
    observers: Sequence[Observer] = ()
    timeout: float = 15.0

    def __post_init__(self) -> None:
        stream_name("stream", self.stream)
        if self.maxlen is not None:
            at_least("maxlen", self.maxlen, 1, or_none=True)
        at_least("max_retries", self.max_retries, 1)
        seconds("retry_delay", self.retry_delay)
        at_least("replicas", self.replicas, 0)
        observers("observers", self.observers)
        positive_seconds("timeout", self.timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """`EventRouter`'s options; its docstring explains them."""

    stream: str = "events:all"
    group: str = "default"
    consumer: str | None = None
    batch_size: int = 10
    block_ms: int = 5_000
    handler_timeout: float = 30.0
    group_start_id: str = GroupStartPosition.BEGINNING
    claim_interval: int = 10
    claim_min_idle_ms: int = 60_000
    default_retries: int = 0
    default_backoff: Backoff = field(default_factory=exponential)
    redelivery_backoff: Backoff | None = None
    max_deliveries: int = 5
    dlq_stream: str | None = None
    dlq_maxlen: int | None = 10_000
    shutdown_timeout: float = 30.0
    consumer_ttl: float = 3_600.0
    concurrency: int = 1
    order_by: OrderBy | None = None
    retry_blocks_key: bool = True
    exclusive: bool = False
    observers: Sequence[Observer] = ()
    trim: Trim | None = None

    def __post_init__(self) -> None:
        stream_name("stream", self.stream)
        text("group", self.group)
        if self.consumer is not None:
            text("consumer", self.consumer)
            if self.consumer.startswith(RESERVED):
                raise ValueError(f"consumer must not begin with {RESERVED!r}, which is Rapids' own: {self.consumer!r}")
        at_least("batch_size", self.batch_size, 1)
        at_least("block_ms", self.block_ms, 1)
        positive_seconds("handler_timeout", self.handler_timeout)
        start_position("group_start_id", self.group_start_id)
        at_least("claim_interval", self.claim_interval, 1)
        at_least("claim_min_idle_ms", self.claim_min_idle_ms, 1)
        at_least("default_retries", self.default_retries, 0)
        backoff("default_backoff", self.default_backoff)
        if self.redelivery_backoff is not None:
            backoff("redelivery_backoff", self.redelivery_backoff)
        at_least("max_deliveries", self.max_deliveries, 1)
        if self.dlq_stream is not None:
            stream_name("dlq_stream", self.dlq_stream)
            if self.dlq_stream == self.stream:
                raise ValueError(f"dlq_stream must be another stream than stream, not {self.dlq_stream!r} as well")
        if self.dlq_maxlen is not None:
            at_least("dlq_maxlen", self.dlq_maxlen, 1, or_none=True)
        seconds("shutdown_timeout", self.shutdown_timeout)
        positive_seconds("consumer_ttl", self.consumer_ttl)
        at_least("concurrency", self.concurrency, 1)
        if self.order_by is not None:
            plain_function("order_by", self.order_by, "a function from an event to its key, or None")
        flag("retry_blocks_key", self.retry_blocks_key)
        flag("exclusive", self.exclusive)
        observers("observers", self.observers)
        if self.trim is not None:
            one_of("trim", self.trim, get_args(Trim), or_none=True)

    def redelivery_delay(self, deliveries: int) -> float:
        """Seconds to wait after the `deliveries`-th failed delivery.

        Without a `redelivery_backoff`, it is exponential and never longer than `claim_min_idle_ms`: after that time,
        another consumer would take a failed entry in any case.
        """
        if self.redelivery_backoff is not None:
            return self.redelivery_backoff(deliveries)
        return exponential(max_delay=self.claim_min_idle_ms / 1000)(deliveries)

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all options."""
        return frozenset(option.name for option in fields(cls))


def order_by(value: "str | OrderBy | None") -> "OrderBy | None":
    """The `order_by` option as a function from an event to its key. A name stands for the event's field.

    Raises `TypeError` for anything else, `ValueError` for text that cannot be a field's name.
    """
    allowed = "a field's name or a plain function from an event to its key"
    if value is None:
        return None
    if not isinstance(value, str):
        plain_function("order_by", value, allowed)
        return value
    if not value.isidentifier():
        raise ValueError(f"order_by must be {allowed}, not {value!r}")
    name = value

    def field_of(event: Event) -> Hashable:
        return event.data.get(name) if isinstance(event, GenericEvent) else getattr(event, name, None)

    return field_of


def check_key_field(name: str, is_handled: Callable[[str], bool]) -> None:
    """Raise `ValueError` if none of the event classes that a router handles has the field that `order_by` names.

    Not where it is given: a class may be defined later. Types without a class may have any field.
    """
    handled = [
        cls
        for event_type in types_below(BaseEvent)
        if (cls := get_event_class(event_type)) is not None and is_handled(event_type)
    ]
    # A property is as good as a field. A class that keeps undeclared fields may have any.
    may_have_it = any(
        name in cls.model_fields or hasattr(cls, name) or cls.model_config.get("extra") == "allow" for cls in handled
    )
    if handled and not may_have_it:
        names = sorted({cls.__name__ for cls in handled})
        raise ValueError(
            "order_by must be a field of an event class that the router has a handler for (here "
            f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}), or a function, not {name!r}"
        )


def start_position(option: str, value: str) -> str:
    """`$`, or an entry id: one or two 64-bit whole numbers."""
    entry_id = str(value) if "-" in str(value) else f"{value}-0"
    if value != "$" and numbers(entry_id) is None:
        raise ValueError(
            f"{option} must be a GroupStartPosition or an entry id such as '1701234567890-0', not {value!r}"
        )
    return value
