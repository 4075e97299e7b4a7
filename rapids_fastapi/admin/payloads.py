"""What a dead letter holds, as it may be shown: bytes of any kind and size made into harmless JSON."""

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from rapids_fastapi.admin.redaction import Redactor, TooDeepError
from rapids_fastapi.admin.schemas import Payload

__all__ = ["LONGEST_IN_DETAIL", "LONGEST_IN_LIST", "Shown", "clean", "show"]

LONGEST_IN_LIST = 4 * 1024
"""Bytes of a payload that a list shows whole."""

LONGEST_IN_DETAIL = 16 * 1024 * 1024

_PARSED_FOR_PREVIEW = 256 * 1024


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload to show, and what had to be hidden in it."""

    payload: Payload
    secrets: frozenset[str]


def show(raw: bytes, redactor: Redactor, longest: int) -> Shown:
    """The payload, redacted; cut where it has more than `longest` bytes."""
    size = len(raw)
    if size > max(longest, _PARSED_FOR_PREVIEW):
        # Parsing it to show its first page would cost more than the page is worth.
        return Shown(Payload(encoding="omitted", value=None, size=size, truncated=True), frozenset())
    try:
        secrets: set[str] = set()
        value = redactor.value(orjson.loads(raw), secrets)
    except (orjson.JSONDecodeError, TooDeepError):
        return Shown(_other(redactor.raw(raw), size, longest), frozenset())
    if size <= longest:
        return Shown(Payload(encoding="json", value=value, size=size, truncated=False), frozenset(secrets))
    start = orjson.dumps(value)[:longest].decode(errors="ignore")
    return Shown(Payload(encoding="text", value=start, size=size, truncated=True), frozenset(secrets))


def _other(raw: bytes, size: int, longest: int) -> Payload:
    truncated = len(raw) > longest
    try:
        whole = raw.decode()
    except UnicodeDecodeError:
        value: Any = base64.b64encode(raw[:longest]).decode()
        return Payload(encoding="base64", value=value, size=size, truncated=truncated)
    value = whole.encode()[:longest].decode(errors="ignore")
    return Payload(encoding="text", value=value, size=size, truncated=truncated)


def clean(text: str, longest: int) -> str:
    """Text that any JSON writer can write, cut at `longest` characters."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.encode(errors="replace").decode()
