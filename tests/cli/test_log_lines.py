"""The log lines of worker processes."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from rapids.cli.log_lines import JsonLines, TextLines


def record(message: str, *arguments: object, level: int = logging.INFO, error: bool = False, **extra: Any) -> Any:
    made = logging.LogRecord(
        "shop.mail", level, __file__, 7, message, arguments, sys.exc_info() if error else None, func="send"
    )
    vars(made).update(extra)
    return made


def test_a_line_of_json_has_time_level_logger_message_and_the_extra_fields() -> None:
    fields = json.loads(
        JsonLines().format(record("sent %s", "it\n", stream="orders", correlation_id="-", attempt=2, to={"a": 1}))
    )
    assert fields.pop("time").endswith("+00:00")
    assert isinstance(fields.pop("pid"), int)
    assert fields == {
        "level": "info",
        "logger": "shop.mail",
        "message": "sent it\n",
        "stream": "orders",
        "attempt": 2,
        "to": {"a": 1},
    }


def test_no_text_forges_a_line_for_people_or_controls_the_terminal() -> None:
    forged = "x\n2026-01-01 00:00:00.000 ERROR    [1] rapids: forged \x1b[31m"
    try:
        raise ValueError(forged)
    except ValueError:
        made = record("order %s", forged, error=True, correlation_id=forged, stack_info=forged)
    made.name = forged
    first, *others = TextLines().format(made).split("\n")
    assert "x\\n2026-01-01 00:00:00.000 ERROR    [1] rapids: forged \\x1b[31m: order x" in first
    assert "ValueError: x" in "".join(others)
    assert "  correlation_id=x\\n2026" in first
    assert all(line.startswith("  ") and line.strip() for line in others)
    assert "\x1b" not in "".join((first, *others))


def test_a_line_of_json_holds_errors_and_what_json_cannot_hold() -> None:
    try:
        raise ValueError("no \ud800 text")
    except ValueError:
        line = JsonLines().format(record("bad \ud800", error=True, what=object(), huge=2**80, keys={("a",): 1}))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == "bad \ud800"
    assert fields["exception"].startswith("Traceback (most recent call last)")
    assert fields["what"].startswith("<object object")
    assert (fields["huge"], fields["keys"]) == (2**80, "{('a',): 1}")


@pytest.mark.parametrize("colours", [False, True])
def test_a_line_for_people_has_the_place_unless_the_message_says_it(colours: bool) -> None:
    lines = TextLines(colours=colours)
    line = lines.format(record("stopped", stream="orders", group="mail", consumer="c", level=logging.WARNING))
    assert ("\033[" in line) == colours
    assert line.replace("\033[2m", "").replace("\033[0m", "").endswith("shop.mail: stopped  stream=orders group=mail")
    assert lines.format(record("started: group 'mail'", group="mail")).endswith("shop.mail: started: group 'mail'")
