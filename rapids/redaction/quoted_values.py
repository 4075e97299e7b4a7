"""Quoted values: masks hidden values where other values of a payload quote them as they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from rapids.redaction.hidden_values import MASK

__all__ = ["QuotedValues"]

MIN_QUOTED = 4
"""Characters of a hidden value that is also masked where other values of the payload quote it."""

MAX_QUOTED = 100
"""Hidden values that are masked one by one in a text. If there are more, a text that quotes one is masked as a whole:
to look for each of them in each text would take minutes."""

MAX_ALIKE = 100
"""Of more hidden values with one beginning, the beginning alone counts as a quote."""

_HIDDEN = "\ud800"
"""In no text that was JSON. The mask itself could have hidden values in it, and grow with each of them."""


@dataclass(frozen=True, slots=True)
class QuotedValues:
    """The hidden values that are long enough to be looked for in other values."""

    values: frozenset[str]
    one_by_one: Sequence[str] = ()
    """The longest first. Empty if there are too many."""
    by_beginning: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """By their first `MIN_QUOTED` characters, if there are too many."""

    @classmethod
    def of(cls, values: Iterable[str]) -> "QuotedValues":
        """Those of the hidden values."""
        long = frozenset(one for one in values if len(one) >= MIN_QUOTED)
        if len(long) <= MAX_QUOTED:
            return cls(long, sorted(long, key=len, reverse=True))
        alike: dict[str, list[str]] = {}
        for one in long:
            alike.setdefault(one[:MIN_QUOTED], []).append(one)
        return cls(long, by_beginning={beginning: tuple(those) for beginning, those in alike.items()})

    def without(self, shown: Any) -> Any:
        """A JSON value, without the hidden values that its texts, names and numbers quote."""
        match shown:
            case str() if shown != MASK and len(shown) >= MIN_QUOTED:
                return self._text_without(shown)
            case dict():
                members = cast("dict[str, object]", shown)
                return {self.without(name): self.without(member) for name, member in members.items()}
            case list():
                return [self.without(item) for item in cast("list[object]", shown)]
            case str() | bool() | None:
                return shown
            case _:
                return MASK if str(shown) in self.values else shown

    def _text_without(self, text: str) -> str:
        if self.one_by_one and len(text) < len(self.one_by_one[-1]):
            return text
        for one in self.one_by_one:
            text = text.replace(one, _HIDDEN)
        if self.by_beginning:
            for at in range(len(text) - MIN_QUOTED + 1):
                alike = self.by_beginning.get(text[at : at + MIN_QUOTED], ())
                if len(alike) > MAX_ALIKE or text.startswith(alike, at):
                    return MASK
        return text.replace(_HIDDEN, MASK)
