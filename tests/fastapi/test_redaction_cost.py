"""What redaction costs, compared with text of the same length that has nothing to do with hidden values.

A fault here is a matter of orders of magnitude. `python -m benchmarks.redacted_page` measures a usual page.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from rapids.redaction import HiddenValues, Redactor, named_values
from rapids.redaction.named_values import without_named_values


def least(work: Callable[[], object]) -> float:
    """The least processor time of several runs, so that it does not matter what else the machine does."""
    spent: list[float] = []
    for _ in range(7):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def test_a_text_of_beginnings_of_parts_of_hidden_values_is_no_dearer_than_others() -> None:
    """Who writes events has both the values and the text: this took 0.6 s of the processor, 400 times as long."""
    some = random.Random(1)
    hidden = HiddenValues("aaaa" + "".join(some.choices("bcdefghijklm", k=900)) for _ in range(20))
    plain, hostile = (letter * 10_000 + "z" for letter in "za")
    assert hidden.text(plain) == plain  # what is searched for is made before the measurement
    assert hidden.text(hostile) == hostile
    assert least(lambda: hidden.text(hostile)) < 30 * least(lambda: hidden.text(plain))


class Recording:
    """A pattern that records how many characters one call searches."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.longest = 0

    def search(self, text: str, at: int = 0, end: int = sys.maxsize) -> re.Match[str] | None:
        self.longest = max(self.longest, min(end, len(text)) - at)
        return self.pattern.search(text, at, end)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        self.longest = max(self.longest, len(text))
        return self.pattern.finditer(text)

    def match(self, text: str, at: int) -> re.Match[str] | None:
        return self.pattern.match(text, at)


@pytest.mark.parametrize("sign", ["_named", "_element"])
def test_a_long_text_is_searched_in_pieces_between_which_other_threads_run(
    monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    """A search keeps all other threads from running, also the event loop's: 0.5 s for two million characters."""
    recording = Recording(getattr(named_values, sign))
    monkeypatch.setattr(named_values, sign, recording)
    without_named_values("<" + "<a>" * 200_000 + "</", Redactor.of(()).names, set())
    assert 0 < recording.longest < 70_000


@pytest.mark.parametrize("before", range(0, 40, 3))
def test_a_value_at_the_end_of_a_piece_is_found(before: int) -> None:
    names, filling = Redactor.of(()).names, "<a>" * (named_values.PIECE // 3)
    text = f"{filling[before:]} 'db_password' : 'hunter2 xyz' api_key=abc1 {filling}"
    assert "hunter2" not in without_named_values(text, names, set())
    assert "abc1" not in without_named_values(text, names, set())


def test_a_text_of_beginnings_of_cookies_is_no_dearer_than_others() -> None:
    """Each of them was read to the end of the text: 16 kB took 0.2 s, 64 kB 2.5 s, 15 MB days, with the GIL held."""
    names = Redactor.of(()).names
    plain, hostile = (sign * 5_000 for sign in ("cooxie:", "cookie:"))
    assert without_named_values(hostile, names, set()) == hostile
    assert least(lambda: without_named_values(hostile, names, set())) < 30 * least(
        lambda: without_named_values(plain, names, set())
    )


def test_a_bracket_before_many_backslashes_is_no_dearer_than_before_others() -> None:
    """From each of them, a quote was looked for behind all others. A logged error about 64 kB took the GIL for seconds,
    a shown payload of a megabyte for an hour."""
    names = Redactor.of(()).names
    plain, hostile = (f"password=[{sign * 8_000}" for sign in ("x", "\\"))
    assert without_named_values(hostile, names, set()) == "password=[redacted]"
    assert least(lambda: without_named_values(hostile, names, set())) < 30 * least(
        lambda: without_named_values(plain, names, set())
    )
