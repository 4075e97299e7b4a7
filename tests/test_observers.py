"""Observers cannot harm a router, whatever they do."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

from rapids import observers
from rapids._core.counter_state import Counts
from rapids.observers import Detail, Lost, Observers, OutageEnded
from tests.support import interruptible

DETAIL = OutageEnded("orders", "billing", 1.5)


def test_all_observers_are_called_in_order() -> None:
    received: list[object] = []
    Observers([lambda detail: received.append((1, detail)), lambda detail: received.append((2, detail))]).tell(DETAIL)
    assert received == [(1, DETAIL), (2, DETAIL)]


@pytest.mark.parametrize(
    "error", [ValueError("no"), asyncio.CancelledError(), StopIteration(), GeneratorExit(), SystemExit(2)]
)
def test_an_observer_that_raises_is_logged_once_and_does_not_affect_others(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, received = 0.0, list[object]()
    monkeypatch.setattr("rapids.observers.time.monotonic", lambda: 1_000 + now)

    def broken(detail: Detail) -> None:
        raise error

    group = Observers([broken, received.append, broken])
    for _ in range(100):
        group.tell(DETAIL)

    assert len(received) == 100
    assert [record.getMessage() for record in caplog.records] == [
        f"observer {at} raised on OutageEnded, 1 times so far; this is logged at most once in 60 s" for at in (1, 3)
    ]
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    now = 61.0
    group.tell(DETAIL)
    assert "101 times so far" in caplog.records[-1].getMessage()


def test_a_signal_ends_the_program_in_an_observer_too() -> None:
    def leave(detail: Detail) -> None:
        signal.raise_signal(signal.SIGINT)

    with interruptible(), pytest.raises(KeyboardInterrupt):
        Observers([leave]).tell(DETAIL)


def test_a_log_handler_that_raises_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("rapids.observers.logger.error", fail)
    Observers([fail]).tell(DETAIL)


def test_every_detail_is_a_frozen_documented_value_and_exported() -> None:
    for kind in get_args(Detail):
        assert is_dataclass(kind)
        assert kind.__doc__
        assert "__slots__" in vars(kind)
        assert kind.__name__ in observers.__all__
        assert {"stream", "delivery"} & {field.name for field in fields(kind)}
    with pytest.raises(FrozenInstanceError):
        DETAIL.seconds = 0.0  # type: ignore[misc]


def test_without_observers_nothing_is_called() -> None:
    assert Counts("orders", "billing").observers is None


def test_losses_are_reported_to_observers() -> None:
    received: list[object] = []
    Counts("orders", "billing", [received.append]).lost(None)
    assert received == [Lost("orders", "billing", None, "unread", ())]
