"""Data of any kind and size, made safe to show: redacted, cut, and without text that JSON cannot hold."""

import base64
import codecs
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast

from pydantic_core import to_json

from rapids.inspection import PendingEntry
from rapids.redaction import HiddenValues, Redactor, Searched
from rapids.redaction.redactor import MAX_BYTES, is_too_large
from rapids_fastapi.admin.models import Answer

__all__ = [
    "MAX_IN_DETAIL",
    "MAX_IN_LIST",
    "MAX_IN_PART",
    "MAX_SEARCHED",
    "MAX_TEXT",
    "Payload",
    "Shown",
    "clean",
    "cleaned",
    "filled",
    "redacted_entry",
    "show",
    "show_event",
]

MAX_IN_LIST = 4 * 1024
"""Bytes: a list shows a longer payload cut."""

MAX_IN_DETAIL = MAX_BYTES

MAX_IN_PART = 64 * 1024
"""Bytes: a longer payload is searched only for the details of one letter, and only if it is JSON."""

MAX_TEXT = 1_000
"""Characters of a name, a reason or an error in an answer."""

MAX_SEARCHED = 8 * MAX_TEXT
"""Characters of an error that are searched for hidden values, before it is cut for an answer."""

Value = TypeVar("Value")
Model = TypeVar("Model", bound=Answer)


class Payload(Answer):
    """An event's data or metadata, redacted."""

    encoding: Literal["json", "text", "base64", "omitted", "withheld"]
    """How `value` represents the payload. `json`: the JSON value. `text`: the beginning of a cut payload, or text that
    is not JSON. `base64`: bytes that are not UTF-8. `omitted`: null, because the payload is too large. `withheld`:
    null, because it is not JSON, or nested deeper than 100 levels, so that it is not known what to hide in it. Without
    redaction, such a payload is shown as `text` or `base64`."""
    value: Any
    size: int
    """Bytes as stored."""
    truncated: bool
    """Whether `value` is only a part of the payload."""

    @classmethod
    def omitted(cls, size: int) -> "Payload":
        """In place of a payload that is too large."""
        return cls(encoding="omitted", value=None, size=size, truncated=True)


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload that may be shown, and what was hidden in it."""

    payload: Payload
    searched: Searched | None = None
    """What was found in it; None if it was not searched, so that it may contain secrets that are not known."""

    @property
    def hidden(self) -> frozenset[str]:
        """The hidden values that are known."""
        return self.searched.values if self.searched else frozenset()


def show_event(
    data: bytes | None, metadata: bytes | None, redactor: Redactor, longest: int, *, sizes: tuple[int, int] = (0, 0)
) -> tuple[Shown, Shown]:
    """The data and the metadata of an event, as `show` has each. What is hidden in one is hidden in the other, too.

    Metadata are read twice for that, and never shown if they have more than `MAX_IN_PART` bytes.
    """
    of_metadata = min(longest, MAX_IN_PART)
    beside = show(metadata, redactor, of_metadata, size=sizes[1])
    shown = show(data, redactor, longest, size=sizes[0], also=beside.hidden)
    if shown.hidden and beside.searched is not None:
        beside = show(metadata, redactor, of_metadata, size=sizes[1], also=shown.hidden)
    return shown, beside


def show(raw: bytes | None, redactor: Redactor, longest: int, *, size: int = 0, also: Collection[str] = ()) -> Shown:
    """The payload, redacted, and cut after `longest` bytes. `raw` is None if it was not read; it has `size` bytes.

    `also`: as in `Redactor.document`.
    """
    size = size if raw is None else len(raw)
    if raw is None or size > max(longest, MAX_IN_PART) or is_too_large(raw):
        # To parse it, and then show only its first lines, would take too long.
        return Shown(Payload.omitted(size))
    searched = redactor.document(raw, also) if raw else None
    if searched is None:
        if raw and redactor.names:
            return Shown(Payload(encoding="withheld", value=None, size=size, truncated=True))
        return Shown(_plain(raw, min(longest, MAX_IN_PART)), redactor.document(b""))
    if size <= longest:
        return Shown(Payload(encoding="json", value=searched.shown, size=size, truncated=False), searched)
    start = to_json(searched.shown)[:longest].decode(errors="ignore")
    return Shown(Payload(encoding="text", value=start, size=size, truncated=True), searched)


def _plain(raw: bytes, longest: int) -> Payload:
    """A payload that is not JSON, and in which nothing is hidden."""
    size, truncated = len(raw), len(raw) > longest
    start = raw[:longest]
    try:  # the cut may be inside of a character
        codecs.getincrementaldecoder("utf-8")().decode(start, final=not truncated)
    except UnicodeDecodeError:
        return Payload(encoding="base64", value=base64.b64encode(start).decode(), size=size, truncated=truncated)
    return Payload(encoding="text", value=start.decode(errors="ignore"), size=size, truncated=truncated)


def redacted_entry(entry: PendingEntry, redactor: Redactor, hidden: HiddenValues) -> PendingEntry:
    """A pending entry with hidden values removed from its errors."""
    failures = [replace(one, error=redactor.text(one.error, hidden, MAX_SEARCHED)) for one in entry.failures]
    attempts = [
        replace(
            of,
            attempts=tuple(replace(one, error=redactor.text(one.error, hidden, MAX_SEARCHED)) for one in of.attempts),
        )
        for of in entry.attempts
    ]
    return replace(entry, failures=tuple(failures), attempts=tuple(attempts))


def clean(text: str, longest: int = MAX_TEXT) -> str:
    """Text that any JSON writer can write, cut to `longest` characters."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.encode(errors="replace").decode()


def cleaned(value: Value) -> Value:
    """The value with every text in it `clean`, also in tuples, mappings and frozen dataclasses."""
    return cast("Value", _cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, tuple):
        return tuple(map(_cleaned, cast("tuple[Any, ...]", value)))
    if isinstance(value, Mapping):
        return {_cleaned(name): _cleaned(member) for name, member in cast("Mapping[Any, Any]", value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        members = {field.name: _cleaned(getattr(value, field.name)) for field in fields(value) if field.init}
        return replace(value, **members)
    return value


def filled(model: type[Model], value: object, **redacted: Any) -> Model:
    """An answer with the given fields. Its other fields are those of the value, `cleaned`."""
    same = {name: cleaned(getattr(value, name)) for name in model.model_fields if name not in redacted}
    return model(**same, **redacted)
