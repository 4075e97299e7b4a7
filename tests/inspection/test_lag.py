"""The lag as a rule, over what servers of all versions report; newer ones never report some of this."""

from __future__ import annotations

import pytest

from rapids._storage.inspection_queries import COUNTED, GroupRow, GroupRows
from rapids.inspection.snapshots import lag


def facts(
    *,
    length: int = 1_000,
    first: str | None = "1000-0",
    last: str | None = "1999-0",
    delivered: str = "1499-0",
    following: str | None = "1500-0",
    lag: int | None = None,
    counted: int = COUNTED,
) -> tuple[GroupRows, GroupRow]:
    """A stream of a thousand entries, one a millisecond, and a group that was given half of them."""
    raw = [None if entry_id is None else entry_id.encode() for entry_id in (first, last, following)]
    row = GroupRow(b"group", delivered.encode(), None, lag, counted, raw[2], 0, 0, 0, None, 0, 0, 0, 0, paused=None)
    return GroupRows(0, length, raw[0], raw[1], [row], False), row


NOTHING = {"length": 0, "first": None, "last": None, "following": None}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"lag": 500}, (500, True)),
        ({"lag": 0}, (0, True)),
        # A server counts what was added and was not read, some of which may have been trimmed away.
        ({"lag": 5_000}, (1_000, True)),
        ({"lag": -3}, (0, True)),
        # Before the first entry: all entries are to come.
        ({"delivered": "999-0", "lag": 5_000}, (1_000, True)),
        ({"delivered": "0-0"}, (1_000, True)),
        ({"delivered": "999-9", "counted": 1}, (1_000, True)),
        # Nothing is to come.
        ({"delivered": "1999-0", "following": None, "lag": 7}, (0, True)),
        ({"delivered": "1999-0", "following": None, "counted": 0}, (0, True)),
        (NOTHING, (0, True)),
        (NOTHING | {"lag": 7}, (0, True)),
        # Counted.
        ({"counted": 1}, (1, True)),
        ({"counted": COUNTED - 1}, (COUNTED - 1, True)),
        # Estimated.
        ({}, (501, False)),
        ({"delivered": "1998-0"}, (COUNTED, False)),
        ({"delivered": "1000-0"}, (1_000, False)),
        ({"length": 200, "last": "1000-199", "delivered": "1000-5", "first": "1000-0"}, (COUNTED, False)),
        ({"length": 150, "first": "1000-0", "last": "1001-0", "delivered": "1000-0"}, (150, False)),
    ],
)
def test_the_lag_is_computed_from_what_the_server_reports(seen: dict[str, object], expected: tuple[int, bool]) -> None:
    assert lag(*facts(**seen)) == expected  # type: ignore[arg-type]
