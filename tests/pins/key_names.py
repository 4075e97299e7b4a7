"""The names of all keys, for a plain stream and for one that names its slot of a Cluster."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from rapids._storage import keys

__all__ = ["lines"]

STREAMS = ("orders", "{shop}:orders")
ARGUMENTS = {"group": "GROUP", "letter_id": "LETTER-ID", "operation_id": "OPERATION-ID", "kind": "KIND"}


def lines() -> list[str]:
    """The names alone, sorted: the functions that make them are private and may change theirs."""
    return sorted({name for stream in STREAMS for name in names_for(stream)})


def names_for(stream: str) -> Iterator[str]:
    for value in vars(keys).values():
        if isinstance(value, bytes) and value:
            yield value.decode()
        elif inspect.isfunction(value) and value.__module__ == keys.__name__ and not value.__name__.startswith("_"):
            arguments = [argument(name, stream) for name in inspect.signature(value).parameters]
            made: Any = value(*arguments)
            if isinstance(made, str):
                yield made
    source = keys.Source(stream, "GROUP")
    for one in (source, source.replays()):
        yield one.stream
        yield one.consumer("CONSUMER")
        yield one.handlers("CONSUMER")
        for name, value in vars(keys.Source).items():
            if isinstance(value, property):
                yield getattr(one, name)


def argument(name: str, stream: str) -> str:
    match name:
        case "stream":
            return stream
        case "dlq":
            return f"{stream}-dlq"
        case _:
            return ARGUMENTS.get(name, name.upper())
