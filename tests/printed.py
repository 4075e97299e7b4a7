"""Whether an answer is what a page prints: what differs each time (ids, times) is compared by what it stands for."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["Printed"]

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
ENTRY_ID = r"\b\d{13}-\d+\b"
DIGITS = r"(?:\b|(?<=\b0x))[0-9a-f]{32}\b|\b[0-9a-f]{16}\b|\b[0-9a-f]{12}\b"
UUID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
VARIES = re.compile(f"({TIME}|{UUID}|{ENTRY_ID}|{DIGITS})")
REST = "..."
"""At the end of a text or a list: more of it is not printed. As a value: anything."""


class Printed:
    """What the ids on a page stand for, as far as answers have shown: each for one thing only."""

    def __init__(self) -> None:
        self._stands_for: dict[str, str] = {}

    def actual(self, text: str) -> str:
        """A text of the page with the ids that it stands for."""
        return VARIES.sub(lambda found: self._stands_for.get(found[0], found[0]), text)

    def check(self, printed: str, answer: str) -> None:
        """Raises `AssertionError` unless the answer has what is printed: of JSON, fields may be left out on the page;
        of other texts, lines."""
        learned = dict(self._stands_for)
        try:
            if (document := _document(printed)) is None:
                self._lines(printed.splitlines(), answer.splitlines())
            else:
                self._value(document, json.loads(answer), "")
        except (AssertionError, ValueError) as error:
            self._stands_for = learned
            raise AssertionError(f"{error}; the answer:\n{answer}") from error

    def _value(self, printed: Any, found: Any, where: str) -> None:
        if isinstance(printed, dict) and isinstance(found, dict):
            for name, value in printed.items():
                assert name in found, f"{where}/{name} is missing"
                self._value(value, found[name], f"{where}/{name}")
        elif isinstance(printed, list) and isinstance(found, list):
            rest = printed[-1:] == [REST]
            wanted = printed[:-1] if rest else printed
            assert len(found) >= len(wanted) if rest else len(found) == len(wanted), f"{where} has {len(found)} items"
            for at, value in enumerate(wanted):
                self._value(value, found[at], f"{where}/{at}")
        elif isinstance(printed, str) and isinstance(found, str):
            self._text(printed, found, where)
        else:
            assert printed in (found, REST), f"{where} is {found!r}, and {printed!r} is printed"

    def _lines(self, printed: list[str], found: list[str]) -> None:
        left = iter(found)
        for line in printed:
            assert any(self._is_text(line, one) for one in left), f"no line {line!r}, or not there"

    def _is_text(self, printed: str, found: str) -> bool:
        try:
            self._text(printed, found, "")
        except AssertionError:
            return False
        return True

    def _text(self, printed: str, found: str, where: str) -> None:
        said = f"{where} is {found!r}, and {printed!r} is printed"
        beginning, is_whole = printed.removesuffix(REST), not printed.endswith(REST)
        wanted, given = VARIES.split(beginning), VARIES.split(found)
        assert len(wanted) == len(given) if is_whole else len(wanted) <= len(given), said
        for at, (one, other) in enumerate(zip(wanted, given, strict=False)):
            if at % 2:
                self._varying(one, other, said)
            elif at == len(wanted) - 1 and not is_whole:
                assert other.startswith(one), said
            else:
                assert one == other, said

    def _varying(self, printed: str, found: str, said: str) -> None:
        if re.fullmatch(TIME, printed):
            assert re.fullmatch(TIME, found), said
            return
        known = self._stands_for.setdefault(printed, found)
        assert known == found, f"{said}; it stood for {known!r} before"


def _document(text: str) -> Any:
    """What is printed as JSON; None for anything else."""
    try:
        return json.loads(text)
    except ValueError:
        return None
