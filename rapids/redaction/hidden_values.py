"""Hidden values: finds them in texts such as errors, however they are written there, and masks them.

A text and a value are compared by their letters and digits, in lower case. So quotes, escapes, groups of digits and the
margins of nested tracebacks between them make no difference.
"""

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape, unescape
from itertools import compress
from unicodedata import is_normalized, normalize
from urllib.parse import quote

__all__ = ["MASK", "HiddenValues"]

MASK = "[redacted]"

MAX_VALUES = 100
MAX_LETTERS = 20_000
"""Characters of all values. With more values or longer ones, a search for them would take too long."""

MIN_LENGTH = 3
"""Characters of a value that can be found in a text. A shorter one is in many words: no text that has it is shown."""
MIN_LETTERS = 3
MIN_ENCODED = 6
PART = 8
"""So many letters of a value of at least twice as many are masked also without the rest of it."""
SAMPLE = 4
"""Letters in a row of a text that are looked up, so that not each part of it has to be."""
MIN_CUT = 3
"""Letters of the beginning or the end of a value that are masked where the text may be cut."""

_run = re.compile(r"[^\W_]+")
_escape = re.compile(
    r"(?P<bytes>(?<!\\)(?:\\++x[0-9a-fA-F]{2})+)|(?P<units>(?<!\\)(?:\\++u[0-9a-fA-F]{4})+)"
    r"|(?P<point>(?<!\\)\\++U[0-9a-fA-F]{8})|(?P<control>(?<!\\)\\++[nrtbfav])"
    r"|(?P<percent>(?:%(?:25)*+[0-9a-fA-F]{2})+)|(?P<entity>&(?:amp;)*#?\w{1,8};)"
)
_are_letters = bytes(chr(code).isalnum() and code < 128 for code in range(256))
"""For each byte of ASCII whether it is a letter or a digit."""
_byte = re.compile(r"(?:%(?:25)*|x)([0-9a-fA-F]{2})")
_base64 = re.compile(r"[A-Za-z0-9+/_-]")
_cut_mark = re.compile(r"\.\.\.|…")


class _Letters:
    """The letters and digits of a text, in lower case, and where each is in it."""

    def __init__(self, text: str, *, is_decoded: bool) -> None:
        """`is_decoded`: with what escapes in the text stand for in place of them."""
        self._whole = text
        self.escapes = list(_escape.finditer(text)) if is_decoded else []
        self.text: str = "".join(_run.findall(text)).casefold() if self._is_plain else self._places.text

    def start(self, at: int) -> int:
        """Where a letter begins in the text, or the escape that stands for it."""
        return self._places.starts[at]

    def end(self, at: int) -> int:
        """Where it ends."""
        return self._places.starts[at] + 1 if self._is_plain else self._places.ends[at]

    def after(self, place: int) -> int:
        """Which letter is the first at a place of the text or after it."""
        return bisect_left(self._places.starts, place)

    @property
    def _is_plain(self) -> bool:
        return not self.escapes and self._whole.isascii()

    @cached_property
    def _places(self) -> "_Places":
        """All of it. Of plain text, it is only needed if something was found in it."""
        text, parts = self._whole, _Places()
        if self._is_plain:
            return _Places(starts=list(compress(range(len(text)), text.encode().translate(_are_letters))))
        done = 0
        for match in self.escapes:
            parts.add_plain(text, done, match.start())
            done = match.end()
            letters = folded(decoded(match.lastgroup or "", match[0]))
            parts.add(letters, match.start(), done)
        parts.add_plain(text, done, len(text))
        return parts


@dataclass(slots=True)
class _Places:
    text: str = ""
    starts: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])

    def add(self, letters: str, start: int, end: int) -> None:
        """Add letters that one part of the text stands for."""
        self.text += letters
        self.starts += [start] * len(letters)
        self.ends += [end] * len(letters)

    def add_plain(self, text: str, start: int, end: int) -> None:
        """Add the letters of a part of the text that has no escapes."""
        for match in _run.finditer(text, start, end):
            plain, first = match[0], match.start()
            small = plain.casefold()
            if len(small) == len(plain) and (small.isascii() or is_normalized("NFKD", small)):
                self.text += small
                self.starts += range(first, match.end())
                self.ends += range(first + 1, match.end() + 1)
            else:
                for at, letter in enumerate(plain, first):
                    self.add(folded(letter), at, at + 1)


def folded(text: str) -> str:
    """The letters and digits of a text, in lower case, without accents, and each in its usual width."""
    return "".join(_run.findall(normalize("NFKD", text.casefold())))


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
            return unescape(f"&{written[1:-1].rpartition(';')[2]};")  # the last one: it may be escaped twice
        case _:
            return ""


@dataclass(frozen=True)
class _Forms:
    """Everything that is searched for."""

    short: frozenset[str]
    """Values that are too short to be found."""
    exact: frozenset[str]
    """Forms of values that have too few letters."""
    whole: frozenset[str]
    """The letters and digits of all forms of the other values."""
    base64: frozenset[str]
    """Those of base64 in longer data. The letters beside them may have some bits of the value."""
    long: frozenset[str]
    """Those of which parts are searched for, too."""
    samples: frozenset[str]
    """All `SAMPLE` letters in a row of those."""
    beginnings: frozenset[str]
    """Of less than two parts."""
    endings: frozenset[str]

    @classmethod
    def of(cls, values: frozenset[str]) -> "_Forms":
        exact: set[str] = set()
        whole: set[str] = set()
        inside: set[str] = set()
        short = frozenset(value for value in values if len(value) < MIN_LENGTH)
        for value in values - short:
            plain = _Letters(value, is_decoded=False).text
            if len(plain) < MIN_LETTERS:
                exact |= {
                    value,
                    repr(value)[1:-1],
                    json.dumps(value)[1:-1],
                    quote(value, safe="", errors="replace"),
                    escape(value),
                }
            else:
                whole.add(plain)
            raw = value.encode(errors="replace")
            encoded = list[str]()
            for before in range(3):  # base64 at each place that the value can have in longer data
                text = base64.b64encode(b"\0" * before + raw).decode()
                unclear = (0, 3, 2)[(before + len(raw)) % 3]  # characters that depend on what follows
                encoded.append(text[(0, 2, 3)[before] : len(text) - unclear])
            letters = ["".join(_run.findall(form)).casefold() for form in encoded]
            inside.update(letters)
            letters += [raw.hex(), "".join(_run.findall(base64.b64encode(raw).decode())).casefold()]
            letters.append(_Letters(value, is_decoded=True).text)
            whole |= {form for form in letters if len(form) >= MIN_ENCODED}
        sizes = [(form, range(MIN_CUT, min(len(form), 2 * PART))) for form in whole]
        long = frozenset(form for form in whole if len(form) >= 2 * PART)
        return cls(
            short,
            frozenset(exact),
            frozenset(whole),
            frozenset(inside),
            long,
            frozenset(form[at : at + SAMPLE] for form in long for at in range(len(form) - SAMPLE + 1)),
            frozenset(form[:size] for form, allowed in sizes for size in allowed),
            frozenset(form[-size:] for form, allowed in sizes for size in allowed),
        )

    @cached_property
    def parts(self) -> frozenset[str]:
        """All `PART` letters in a row of the long ones. To search each of those for each part would take minutes."""
        return frozenset(form[at : at + PART] for form in self.long for at in range(len(form) - PART + 1))

    def may_quote_short(self, text: str) -> bool:
        """Whether a value that is too short to be found may be in the text."""
        letters = "".join(_run.findall(text)).casefold() if self.short else ""
        return any(value in text or value.casefold() in letters for value in self.short)

    def found(self, letters: str, cuts: set[int]) -> Iterator[tuple[int, int]]:
        """Where they are among the letters of a text, which may be cut at some places."""
        for form in self.whole:
            yield from places(letters, form)
        if self.long:
            yield from self._parts(letters)
        for cut in cuts:
            for size in range(2 * PART - 1, MIN_CUT - 1, -1):
                if cut >= size and letters[cut - size : cut] in self.beginnings:
                    yield cut - size, cut
                    break
            for size in range(2 * PART - 1, MIN_CUT - 1, -1):
                if cut + size <= len(letters) and letters[cut : cut + size] in self.endings:
                    yield cut, cut + size
                    break

    def _parts(self, letters: str) -> Iterator[tuple[int, int]]:
        """Where parts of long forms are. Any part has one of the samples of the text whole in it."""
        done = 0
        for sampled in range(0, len(letters) - SAMPLE + 1, PART - SAMPLE + 1):
            if letters[sampled : sampled + SAMPLE] in self.samples:
                for at in range(max(done, sampled + SAMPLE - PART), min(sampled, len(letters) - PART) + 1):
                    if letters[at : at + PART] in self.parts:
                        yield at, at + PART
                done = sampled + 1


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

    def text(self, text: str, *, may_be_cut: bool = True) -> str:
        """The text with the mask in place of each value, and of a part of it where the text may be cut."""
        if not text or self._values == frozenset():
            return text
        forms = self.forms
        if forms is None or forms.may_quote_short(text):
            return MASK
        marks = [mark for form in forms.exact for mark in places(text, form)]
        readings = [_Letters(text, is_decoded=False)]
        if any(sign in text for sign in "\\%&") and (unescaped := _Letters(text, is_decoded=True)).escapes:
            readings.append(unescaped)
        for letters in readings:
            cuts = {0, len(letters.text)} if may_be_cut else set[int]()
            for mark in _cut_mark.finditer(text) if may_be_cut and ("..." in text or "…" in text) else ():
                cuts.add(letters.after(mark.start()))
            for first, last in forms.found(letters.text, cuts):
                # A part at an end of the text: the signs beyond its letters may be of the value, too.
                form = letters.text[first:last]
                is_part = form not in forms.whole
                start = 0 if is_part and first == 0 else letters.start(first)
                end = len(text) if is_part and last == len(letters.text) else letters.end(last - 1)
                if form in forms.base64:
                    start -= bool(_base64.match(text, start - 1)) if start else 0
                    end += bool(_base64.match(text, end))
                marks.append((start, end))
        shown: list[str] = []
        done = 0
        for start, end in sorted(marks):
            if start > done or not shown:
                shown += [text[done:start], MASK]
            done = max(done, end)
        return "".join((*shown, text[done:]))

    def are_quoted_by(self, name: str) -> bool:
        """Whether a name has a whole value in it. The beginning of one, or one of two characters, is no sign."""
        if any(len(value) >= MIN_LENGTH and value in name for value in self._values or ()):
            return True  # also if a text about the values is masked as a whole: too many, or a short one is in it
        inside = f"x{name}x"
        return self.text(inside) not in (inside, MASK)


def places(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where a form is in a text."""
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + len(form))
