"""What a dead letter holds, as it may be shown: bytes of any kind and size made into harmless JSON."""

import base64
import codecs
from dataclasses import dataclass
from typing import Any

import orjson

from rapids_fastapi.admin.redaction import Redactor, TooDeepError
from rapids_fastapi.admin.schemas import Payload

__all__ = ["LONGEST_IN_DETAIL", "LONGEST_IN_LIST", "LONGEST_IN_PART", "Shown", "clean", "show"]

LONGEST_IN_LIST = 4 * 1024
"""Bytes of a payload that a list shows whole."""

LONGEST_IN_DETAIL = 16 * 1024 * 1024

LONGEST_IN_PART = 64 * 1024
"""Bytes of a payload that is looked into where all of it is not wanted, or where it is no JSON: that takes longer."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload to show, and what had to be hidden in it."""

    payload: Payload
    secrets: frozenset[str]
    is_searched: bool = True
    """Whether all of it was looked at: else there may be more to hide than is known."""

    @classmethod
    def known(cls, *parts: "Shown") -> frozenset[str] | None:
        """What had to be hidden in all the parts; None where not all of one was looked at."""
        if not all(part.is_searched for part in parts):
            return None
        return frozenset[str]().union(*(part.secrets for part in parts))


def show(raw: bytes, redactor: Redactor, longest: int) -> Shown:
    """The payload, redacted; cut where it has more than `longest` bytes."""
    size = len(raw)
    if size > max(longest, LONGEST_IN_PART):
        # Parsing it to show its first lines would cost more than they are worth.
        return Shown(Payload(encoding="omitted", value=None, size=size, truncated=True), frozenset(), is_searched=False)
    try:
        secrets: set[str] = set()
        value = redactor.value(orjson.loads(raw), secrets)
    except (orjson.JSONDecodeError, TooDeepError):
        return _other(raw, redactor, min(longest, LONGEST_IN_PART))
    if size <= longest:
        return Shown(Payload(encoding="json", value=value, size=size, truncated=False), frozenset(secrets))
    start = orjson.dumps(value)[:longest].decode(errors="ignore")
    return Shown(Payload(encoding="text", value=start, size=size, truncated=True), frozenset(secrets))


def _other(raw: bytes, redactor: Redactor, longest: int) -> Shown:
    size, truncated = len(raw), len(raw) > longest
    start = raw[:longest]
    is_text = _is_text(start, was_cut=truncated)
    secrets: set[str] = set()
    masked = redactor.raw(start, secrets)
    if truncated and size <= LONGEST_IN_PART:  # what is not shown may be spoken of
        redactor.raw(raw, secrets)
    value: Any = masked.decode(errors="ignore") if is_text else base64.b64encode(masked).decode()
    shown = Payload(encoding="text" if is_text else "base64", value=value, size=size, truncated=truncated)
    return Shown(shown, frozenset(secrets), is_searched=size <= LONGEST_IN_PART)


def _is_text(raw: bytes, *, was_cut: bool) -> bool:
    """Whether it is UTF-8; of the last character, a cut may have left a part."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=not was_cut)
    except UnicodeDecodeError:
        return False
    return True


def clean(text: str, longest: int) -> str:
    """Text that any JSON writer can write, cut at `longest` characters."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.encode(errors="replace").decode()
