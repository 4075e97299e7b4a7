"""The log of failures: what is written of one cause, and what is only counted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rapids._worker import failure_log
from rapids._worker.failure_log import LINES, MAX_CAUSES, Cause, FailureLog

CONTEXT = {"stream": "orders", "group": "billing", "consumer": "w"}
PAY: Cause = ("a failed delivery", "order.placed", "pay", "ValueError")


def write(log: FailureLog, cause: Cause = PAY) -> None:
    log.write(logging.WARNING, cause, "%s failed", cause[2], extra=CONTEXT)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_after_ten_lines_only_the_number_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_log, "WINDOW", 0.2)
    log = FailureLog(CONTEXT)
    for _ in range(LINES + 311):
        write(log)
    assert lines(caplog) == ["pay failed"] * LINES
    while len(lines(caplog)) == LINES:
        await asyncio.sleep(0.01)
    [summed] = caplog.records[LINES:]
    assert summed.getMessage().startswith(
        "a failed delivery of handler 'pay' on 'order.placed' with ValueError: ... 311 more in the last "
    )
    assert {name: vars(summed)[name] for name in CONTEXT} == CONTEXT
    write(log)
    assert lines(caplog)[-1] == "pay failed", "the next window has its own lines"
    log.close()
    assert len(lines(caplog)) == LINES + 2


async def test_a_close_tells_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(CONTEXT)
    for _ in range(LINES + 2):
        write(log)
    write(log, ("a dead letter", *PAY[1:]))
    log.close()
    log.close()
    assert [line for line in lines(caplog) if "more in" in line] == [
        "a failed delivery of handler 'pay' on 'order.placed' with ValueError: ... 2 more in the last 0 s"
    ]


async def test_any_number_of_causes_needs_little_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    log = FailureLog(CONTEXT)
    for number in range(3 * MAX_CAUSES):
        write(log, ("a failed delivery", f"type.{number}", "pay", "ValueError"))
    assert len(log._windows) <= MAX_CAUSES + 1  # pyright: ignore[reportPrivateUsage]
    log.close()
