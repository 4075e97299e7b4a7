"""Hidden values: finds them in texts such as errors, however they are written there, and masks them.

A text and a value are compared by their letters and digits, in lower case. So quotes, escapes, groups of digits and the
margins of nested tracebacks between them make no difference.
"""

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from urllib.parse import quote

__all__ = ["MASK", "HiddenValues"]

MASK = "[redacted]"

MAX_VALUES = 100
MAX_LETTERS = 100_000
"""Characters of all values. With more values or longer ones, a search for them would take too long."""

MIN_LENGTH = 3
"""Characters of a value that can be found in a text. A shorter one is in many words: no text that has it is shown."""
MIN_LETTERS = 3
MIN_ENCODED = 6
PART = 8
"""So many letters of a value of at least twice as many are masked also without the rest of it."""
MIN_CUT = 3
"""Letters of the beginning or the end of a value that are masked where the text may be cut."""

_run = re.compile(r"[^\W_]+")
_encoded_run = re.compile(
    r"(?P<bytes>(?<!\\)(?:\\++x[0-9a-fA-F]{2})+)|(?P<units>(?<!\\)(?:\\++u[0-9a-fA-F]{4})+)"
    r"|(?P<point>(?<!\\)\\++U[0-9a-fA-F]{8})|(?P<control>(?<!\\)\\++[nrtbfav])"
    r"|(?P<percent>(?:%(?:25)*+[0-9a-fA-F]{2})+)|(?P<entity>&#?\w{1,8};)|(?P<plain>[^\W_]++)"
)
_byte = re.compile(r"(?:%(?:25)*|x)([0-9a-fA-F]{2})")
_cut_mark = re.compile(r"\.\.\.|…")


@dataclass(frozen=True, slots=True)
class _Letters:
    """The letters and digits of a text, and where each is in it."""

    text: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str, *, is_decoded: bool) -> "_Letters":
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for match in (_encoded_run if is_decoded else _run).finditer(text):
            kind = match.lastgroup
            start, end = match.span()
            if kind in (None, "plain"):
                plain = match[0]
                folded = plain.casefold()
                if len(folded) == len(plain):
                    parts.append(folded)
                    starts.extend(range(start, end))
                    ends.extend(range(start + 1, end + 1))
                    continue
                pieces = [(one.casefold(), start + at, start + at + 1) for at, one in enumerate(plain)]
            else:
                pieces = [(decoded(kind or "", match[0]), start, end)]
            for piece, first, last in pieces:
                letters = "".join(_run.findall(piece)).casefold()
                parts.append(letters)
                starts.extend([first] * len(letters))
                ends.extend([last] * len(letters))
        return cls("".join(parts), starts, ends)


def decoded(kind: str, written: str) -> str:
    """What a run of escapes stands for; empty for a control character."""
    match kind:
        case "bytes" | "percent":
            raw = bytes.fromhex("".join(_byte.findall(written)))
            try:
                return raw.decode()
            except UnicodeDecodeError:
                return raw.decode("latin-1")
        case "units":
            raw = bytes.fromhex(written.replace("\\", "").replace("u", ""))
            return raw.decode("utf-16-be", errors="ignore")
        case "point":
            number = int(written[-8:], 16)
            return chr(number) if number < 0x110000 else ""
        case "entity":
            return unescape(written)
        case _:
            return ""


@dataclass(frozen=True, slots=True)
class _Forms:
    """Everything that is searched for."""

    short: frozenset[str]
    """Values that are too short to be found."""
    exact: frozenset[str]
    """Forms of values that have too few letters."""
    whole: frozenset[str]
    """The letters and digits of all forms of the other values."""
    parts: frozenset[str]
    beginnings: frozenset[str]
    """Without those that `parts` has."""
    endings: frozenset[str]

    @classmethod
    def of(cls, values: frozenset[str]) -> "_Forms":
        exact: set[str] = set()
        whole: set[str] = set()
        short = frozenset(value for value in values if len(value) < MIN_LENGTH)
        for value in values - short:
            plain = _Letters.of(value, is_decoded=False).text
            if len(plain) < MIN_LETTERS:
                exact |= {value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe="", errors="replace")}
            else:
                whole.add(plain)
            raw = value.encode(errors="replace")
            encoded = [raw.hex(), base64.b64encode(raw).decode()]
            for before in range(3):  # base64 at each place that the value can have in longer data
                text = base64.b64encode(b"\0" * before + raw).decode()
                unclear = (0, 3, 2)[(before + len(raw)) % 3]  # characters that depend on what follows
                encoded.append(text[(0, 2, 3)[before] : len(text) - unclear])
            letters = ["".join(_run.findall(form)).casefold() for form in encoded]
            letters.append(_Letters.of(value, is_decoded=True).text)
            whole |= {form for form in letters if len(form) >= MIN_ENCODED}
        sizes = [(form, range(MIN_CUT, min(len(form), 2 * PART))) for form in whole]
        return cls(
            short,
            frozenset(exact),
            frozenset(whole),
            frozenset(
                form[at : at + PART] for form in whole if len(form) >= 2 * PART for at in range(len(form) - PART + 1)
            ),
            frozenset(form[:size] for form, allowed in sizes for size in allowed),
            frozenset(form[-size:] for form, allowed in sizes for size in allowed),
        )

    def may_quote_short(self, text: str) -> bool:
        """Whether a value that is too short to be found may be in the text."""
        letters = "".join(_run.findall(text)).casefold() if self.short else ""
        return any(value in text or value.casefold() in letters for value in self.short)

    def found(self, letters: str, cuts: set[int]) -> Iterator[tuple[int, int]]:
        """Where they are among the letters of a text, which may be cut at some places."""
        for form in self.whole:
            yield from places(letters, form)
        if self.parts:
            for at in range(len(letters) - PART + 1):
                if letters[at : at + PART] in self.parts:
                    yield at, at + PART
        for cut in cuts:
            for size in range(2 * PART - 1, MIN_CUT - 1, -1):
                if cut >= size and letters[cut - size : cut] in self.beginnings:
                    yield cut - size, cut
                    break
            for size in range(2 * PART - 1, MIN_CUT - 1, -1):
                if cut + size <= len(letters) and letters[cut : cut + size] in self.endings:
                    yield cut, cut + size
                    break


class HiddenValues:
    """The values to hide in texts. None: they are not known, so that no text is shown."""

    def __init__(self, values: Iterable[str] | None) -> None:
        self._values = None if values is None else frozenset(filter(None, values))

    @property
    def are_known(self) -> bool:
        """Whether it is known what to hide."""
        return self._values is not None

    @cached_property
    def forms(self) -> _Forms | None:
        """What is searched for; None if it is not known or too much."""
        values = self._values
        if values is None or len(values) > MAX_VALUES or sum(map(len, values)) > MAX_LETTERS:
            return None
        return _Forms.of(values)

    def text(self, text: str) -> str:
        """The text with the mask in place of each value, and of a part of it where the text may be cut."""
        if not text or self._values == frozenset():
            return text
        forms = self.forms
        if forms is None or forms.may_quote_short(text):
            return MASK
        marks = [mark for form in forms.exact for mark in places(text, form)]
        readings = [_Letters.of(text, is_decoded=False)]
        if any(sign in text for sign in "\\%&"):
            readings.append(_Letters.of(text, is_decoded=True))
        for letters in readings:
            cuts = {0, len(letters.text)}
            for mark in _cut_mark.finditer(text):
                cuts.add(bisect_left(letters.starts, mark.start()))
            for first, last in forms.found(letters.text, cuts):
                # A part at an end of the text: the signs beyond its letters may be of the value, too.
                is_part = letters.text[first:last] not in forms.whole
                start = 0 if is_part and first == 0 else letters.starts[first]
                end = len(text) if is_part and last == len(letters.text) else letters.ends[last - 1]
                marks.append((start, end))
        shown: list[str] = []
        done = 0
        for start, end in sorted(marks):
            if start > done or not shown:
                shown += [text[done:start], MASK]
            done = max(done, end)
        return "".join((*shown, text[done:]))


def places(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where a form is in a text."""
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + len(form))
