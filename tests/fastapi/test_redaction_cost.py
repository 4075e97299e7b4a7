"""What redaction costs, compared with text of the same length that has nothing to do with hidden values.

A fault here is a matter of orders of magnitude. `python -m benchmarks.redacted_page` measures a usual page.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rapids.redaction import HiddenValues, Redactor
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


def test_a_text_of_beginnings_of_cookies_is_no_dearer_than_others() -> None:
    """Each of them was read to the end of the text: 16 kB took 0.2 s, 64 kB 2.5 s, 15 MB days, with the GIL held."""
    names = Redactor.of(()).names
    plain, hostile = (sign * 5_000 for sign in ("cooxie:", "cookie:"))
    assert without_named_values(hostile, names, set()) == hostile
    assert least(lambda: without_named_values(hostile, names, set())) < 30 * least(
        lambda: without_named_values(plain, names, set())
    )
