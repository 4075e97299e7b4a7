"""The redactor: hides secrets in payloads, metadata and texts such as errors.

Only what is shown is changed. A replay sends the stored bytes. What cannot be searched for secrets is not shown.
"""

import base64
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from math import isfinite, isnan
from typing import Any, TypeAlias, cast

from pydantic_core import from_json, to_json

from rapids.exceptions import json_pointer
from rapids.redaction.hidden_names import DEFAULT_REDACTED, Phrases, is_hidden, is_of_counts, part_of, phrases_of
from rapids.redaction.hidden_values import MASK, MAX_VALUES, HiddenValues
from rapids.redaction.named_values import without_named_values
from rapids.redaction.quoted_values import MIN_QUOTED, QuotedValues

__all__ = ["MAX_BYTES", "Location", "Redactor", "Searched", "is_too_large"]

MAX_DEPTH = 100
"""Levels of a payload. Code that writes JSON handles so many."""

MAX_BYTES = 2 * 1024 * 1024
MAX_JSON_VALUES = 250_000
"""Values of a document. Each takes up to 150 bytes of memory and some microseconds, whatever its length."""

MAX_HIDDEN_PARTS = 1_000_000
"""Parts of the locations of all values that are hidden in a document."""

MIN_KEY = 8
"""Characters of a key within a hidden value that is itself a hidden value: an object may have tokens as its keys."""

MAX_SPACE = 100
"""Characters of white space before a JSON document in a text."""

CUT = "…"
"""The last part of a location that was cut, so that it is not known whether its value is hidden."""

MAX_PARTS = 10
"""Parts of a location that are compared with hidden names, from its end."""

MIN_INSIDE = 6
"""Characters of a part of a hidden value that is itself a hidden value, such as the password in `user:password`."""

MAX_SEARCHED = 64 * 1024
"""Bytes: longer data are not searched for the log, as that would block the event loop."""

Location: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple["Place | None", str | int]
"""A location during a search: the one around it, and its last part."""

_of_parser = re.compile(
    r"(?:cannot read an event of type '[\w.-]{1,200}': )?(?:data: )?Invalid JSON: [A-Za-z ]+ at line \d+ column \d+"
)
"""What the parser says of data that cannot be searched, without a part of them."""

_option = re.compile(r"--?[\w.-]+")
"""Of a command: its value is the next item of a list."""
_number = re.compile(r"-?\d{1,60}(?:\.\d{1,60})?(?:[eE][+-]?\d\d?)?", re.ASCII)
_date = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?|\Z)")
_pair = re.compile(rf"\A[^\s:/@=]+:(\S{{{MIN_INSIDE},}})\Z")
_crumb = re.compile(rf"(?<![^\s;,&?])[^\s=;,&?\"']+=([^\s;,&\"']{{{MIN_INSIDE},}})")


@dataclass(frozen=True, slots=True)
class Searched:
    """A JSON value with the mask in place of what is hidden in it."""

    shown: Any
    values: frozenset[str]
    """What is hidden."""
    places: frozenset[Location]
    """Where."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """The names of the fields that are hidden, and the functions that hide their values."""

    names: Phrases

    @classmethod
    def of(cls, names: Sequence[str] | None) -> "Redactor":
        """A redactor that hides the given names and `DEFAULT_REDACTED`. With None, it hides nothing.

        Raises `ValueError` or `TypeError` for anything but a list of names.
        """
        if names is None:
            return cls(frozenset())
        if isinstance(names, str):
            raise TypeError(f"redact must be a list of names of fields, or None, not {names!r}")
        for name in names:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
                raise ValueError(f"redact must be a list of names of fields, not one with {name!r}")
        return cls(phrases_of((*DEFAULT_REDACTED, *names)))

    def document(self, raw: bytes, also: Collection[str] = ()) -> Searched | None:
        """A JSON document, parsed as a worker parses it; None if that cannot be done, or it is too deep or too large.

        `also`: what is hidden in documents beside it, and is hidden where this one quotes it.
        """
        if not raw:
            return Searched("", frozenset(), frozenset())
        if is_too_large(raw):
            return None
        try:
            return self._searched(from_json(raw), also, _replaced(raw.decode()) if self.names else ())
        except (ValueError, RecursionError):
            return None

    def value(self, value: object, also: Collection[str] = ()) -> Searched | None:
        """A JSON value, as in `document`; None if it is too deep to be searched, or too much is hidden in it."""
        return self._searched(value, also, ())

    def _searched(self, value: object, also: Collection[str], replaced: Iterable[object]) -> Searched | None:
        search = _Search(self)
        shown = search.shown(value, None, 0)
        for one in replaced:
            search.hide(one, 0)
        if search.is_refused:
            return None
        values = {*search.values, *also} if self.names else ()
        if (quoted := QuotedValues.of(values)).values:
            shown = quoted.without(shown)
        return Searched(shown, frozenset(search.values), frozenset(search.places))

    def hidden(self, *searched: Searched | None) -> HiddenValues:
        """What to hide in texts about the documents: if one of them could not be searched, all of the text."""
        if not self.names:
            return HiddenValues(())
        values: set[str] = set()
        for one in searched:
            if one is None:
                return HiddenValues(None)
            values |= one.values
        return HiddenValues(values)

    def text(self, text: str, hidden: HiddenValues, longest: int) -> str:
        """A text, such as an error, with hidden values masked, and with what looks like a secret by itself.

        Only the first `longest` characters are searched and returned.
        """
        text = text[:longest]
        if not self.names or not text or _of_parser.fullmatch(text):
            return text
        first, *others = text.split("input_value=")  # what Pydantic quotes of its input, and may have cut
        kept = [part[end:] if (end := part.rfind(", input_type=")) >= 0 else "" for part in others]
        return self.named(hidden.text("input_value=…".join((first, *kept))), set())

    def named(self, text: str, values: set[str]) -> str:
        """The text without what a name or its form shows to be a secret. That is added to `values`."""
        return without_named_values(text, self.names, values) if self.names else text

    def hides(self, name: str) -> bool:
        """Whether the value of a field of this name is hidden."""
        return is_hidden(name, self.names)

    def error(self, data: bytes, metadata: bytes, text: str) -> str:
        """An error about an event, for the log: give it to `EventRouter.use_log_redaction`.

        Of data of more than 64 KiB it is not known what to hide in the text, so that it is masked as a whole.
        """
        searched = [self.document(raw) if len(raw) <= MAX_SEARCHED else None for raw in (data, metadata)]
        return self.text(text, self.hidden(*searched), len(text))

    def problem(self, location: Location, message: str, hidden: HiddenValues, longest: int) -> tuple[str, str]:
        """What is wrong with an event, as a JSON Pointer and a message, without what is hidden in the event.

        Of a hidden field, neither what is below it nor the message is shown: they may quote its value.
        """
        at = self.hidden_at(location)
        is_unclear = at is not None or (location[-1:] == (CUT,) and self.names)
        if at is not None or not hidden.are_known:
            location = location[: (at or 0) + 1]
        # Part by part: the pointer writes a slash as ~1, and a value that has one would not be found in it.
        location = tuple(MASK if isinstance(part, str) and hidden.are_quoted_by(part) else part for part in location)
        shown = MASK if is_unclear else self.text(message, hidden, longest)
        return self.text(json_pointer(location), hidden, longest), shown

    def hidden_at(self, location: Location, places: frozenset[Location] = frozenset()) -> int | None:
        """The index of the first part of a location whose value is hidden; None if there is none.

        `places` are those that a search of the document has found.
        """
        for at, name in enumerate(location):
            if (isinstance(name, str) and self.hides(name)) or location[: at + 1] in places:
                return at
        return None


@dataclass(slots=True)
class _Search:
    redactor: Redactor
    values: set[str] = field(default_factory=set[str])
    places: set[Location] = field(default_factory=set[Location])
    hidden_parts: int = 0
    is_refused: bool = False
    """Whether it is too deep, or too much is hidden in it."""

    def shown(self, value: object, place: Place | None, depth: int) -> Any:
        """The value as it is shown."""
        if depth > MAX_DEPTH:
            self.is_refused = True
            return None
        match value:
            case str():
                return self._shown_text(value, depth)
            case float() if not isfinite(value):
                return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"  # JSON has no such number
            case dict():
                members = cast("dict[str, object]", value)
                hidden = self.hidden_members(members)
                return {
                    self._shown_text(name, depth): self._masked(member, (place, name), depth)
                    if name in hidden
                    else self.shown(member, (place, name), depth + 1)
                    for name, member in members.items()
                }
            case list():
                items = cast("list[object]", value)
                hidden_items = self.hidden_items(items)
                return [
                    self._masked(item, (place, at), depth)
                    if at in hidden_items
                    else self.shown(item, (place, at), depth + 1)
                    for at, item in enumerate(items)
                ]
            case _:
                return value

    def _shown_text(self, text: str, depth: int) -> str:
        """The text; if it is a JSON document itself, with what is hidden in that."""
        start = text[:MAX_SPACE].lstrip()[:1]
        if start in ("{", "[", '"') and self.redactor.names:
            try:
                inner, replaced = from_json(text), _replaced(text)
            except (ValueError, RecursionError):
                pass
            else:
                search = _Search(self.redactor, self.values)  # its places are no places of the whole document
                shown = search.shown(inner, None, depth + 1)
                for one in replaced:
                    search.hide(one, depth + 1)
                self.is_refused |= search.is_refused
                return text if shown == inner and not replaced else to_json(shown).decode()
        return self.redactor.named(text, self.values)

    def hidden_members(self, members: Mapping[str, object]) -> set[str]:
        """The names whose values are hidden."""
        hidden: set[str] = set()
        is_naming = False
        for name, member in members.items():
            if self.redactor.hides(name):
                if not (isinstance(member, int | float) and is_of_counts(name)):
                    hidden.add(name)
            elif isinstance(member, str | list) and part_of(name) == "name":
                texts = [member] if isinstance(member, str) else cast("list[object]", member)[-MAX_PARTS:]
                is_naming |= any(isinstance(one, str) and self.redactor.hides(one) for one in texts)
        if is_naming:  # a name and its value as two members: {"name": "authorization", "value": "Bearer ..."}
            hidden |= {name for name in members if part_of(name) == "value"}
        return hidden

    def hidden_items(self, items: Sequence[object]) -> set[int]:
        """Names and values in turn, as in a pair of a header's name and value; what follows an option of a command."""
        options = (at for at, name in enumerate(items[:-1]) if isinstance(name, str) and _option.fullmatch(name))
        hidden = {at + 1 for at in options if self.redactor.hides(str(items[at]))}
        if len(items) % 2 == 0 and all(isinstance(name, str) for name in items[::2]):
            hidden |= {at + 1 for at in range(0, len(items), 2) if self.redactor.hides(str(items[at]))}
        return hidden

    def _masked(self, value: object, place: Place, depth: int) -> str:
        around, part = place
        location = [part]
        while around is not None:
            around, part = around
            location.append(part)
        self.hidden_parts += len(location)
        if self.hidden_parts > MAX_HIDDEN_PARTS:
            self.is_refused = True
        else:
            self.places.add(tuple(reversed(location)))
        self.hide(value, depth)
        return MASK

    def hide(self, value: object, depth: int) -> None:
        """Add everything in the value to what is hidden."""
        left: list[tuple[object, int]] = [(value, depth + 1)]
        while left:
            one, deep = left.pop()
            if deep > MAX_DEPTH:
                self.is_refused = True
            elif isinstance(one, dict):
                members = cast("dict[str, object]", one)
                self.values.update(name for name in members if len(name) >= MIN_KEY)
                left += [(member, deep + 1) for member in members.values()]
            elif isinstance(one, list):
                left += [(member, deep + 1) for member in cast("list[object]", one)]
            elif one is not None and not isinstance(one, bool) and (text := str(one)):
                self.values.add(text)
                if len(self.values) > MAX_VALUES:  # no text about so many is shown
                    continue
                self.values.update(filter(None, credentials_in(text)))
                if isinstance(one, str):
                    self.redactor.named(one, self.values)
                    if one.lstrip()[:1] in ("{", "[", '"'):
                        with suppress(ValueError, RecursionError):
                            left.append((from_json(one), deep + 1))


def is_too_large(raw: bytes, most_bytes: int = MAX_BYTES, most_values: int = MAX_JSON_VALUES) -> bool:
    """Whether a document has too many bytes or values to be parsed and searched. Before each value is one of the signs
    that are counted, except the first one. In texts there may be more of them."""
    return len(raw) > most_bytes or sum(map(raw.count, (b",", b"[", b"{"))) > most_values


def _replaced(text: str) -> list[object]:
    """The values of a JSON document after which another one with the same name follows in their object.

    Workers read the last one, and it is shown. But validators of a class may get, and quote, the others, too. They
    count as hidden, whatever their name: a hidden name may be around them.

    Raises `ValueError` or `RecursionError` for what cannot be searched.
    """
    found: list[object] = []

    def members_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            found.extend(value for name, value in pairs if members[name] is not value)
        return members

    json.loads(text, object_pairs_hook=members_of, parse_int=str, parse_float=str)
    return found


def credentials_in(value: str) -> Iterator[str]:
    """What a text may quote of a value: a number in another notation, a date as `repr` writes it, credentials of a
    header, what base64 or hex stand for, the password of `user:password`, values of cookies."""
    if _number.fullmatch(value):
        yield from (form for form in _notations(Decimal(value)) if len(form) >= MIN_QUOTED)
    if date := _date.match(value):
        parts = [str(int(part)) for part in date.groups() if part]
        yield from (", ".join(parts[:size]) for size in range(3, len(parts) + 1))
        return
    texts = [value, *_decoded(value, MIN_INSIDE)]
    scheme, _, rest = value.partition(" ")
    if rest and scheme.isalpha():
        pairs = list(_decoded(rest, 1))
        texts += [rest, *pairs]
        yield from (pair.partition(":")[2] for pair in pairs)
    for text in texts:
        yield text
        yield from _pair.findall(text) or _crumb.findall(text)


def _notations(number: Decimal) -> Iterator[str]:
    """A number without zeros around it, without an exponent, with one, and its whole part."""
    plain = format(abs(number), "f")
    whole, _, fraction = plain.partition(".")
    yield f"{whole}.{fraction}".rstrip("0").rstrip(".") if fraction else whole
    yield str(abs(number).normalize())
    yield whole


def _decoded(value: str, least: int) -> Iterator[str]:
    """The text of at least so many characters that a value in base64 or hex stands for, if it does."""
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    padded = plain + "=" * (-len(plain) % 4)
    for decode, written in ((bytes.fromhex, value), (partial(base64.b64decode, validate=True), padded)):
        with suppress(ValueError):
            text = decode(written).decode().strip()
            if len(text) >= least and "".join(text.split()).isprintable():
                yield text
