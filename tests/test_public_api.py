"""What users build on is as it is pinned under `tests/pins/`: the public API, the wire format, key names, OpenAPI."""

from __future__ import annotations

import difflib

import pytest

from tests.pins import PINS, path_of, pinned


@pytest.mark.parametrize("name", PINS)
def test_the_public_api_is_as_pinned(name: str) -> None:
    before, now = pinned(name), PINS[name]()

    difference = list(difflib.unified_diff(before, now, "pinned", "now", lineterm="", n=0))
    assert difference == [], (
        f"tests/pins/{path_of(name).name} differs. If this change is wanted, run `make pins`, commit the file, "
        "and write it into CHANGELOG.md:\n" + "\n".join(difference)
    )
