"""What a router logged about gaps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

ReportedGaps = Callable[[], list[tuple[str, str | None, int | None]]]


def reported_gaps(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None, int | None]]:
    """After which entry, before which, and how many were lost."""
    found = [record for record in caplog.records if "before the group had read them" in record.getMessage()]
    assert all(record.levelno == logging.ERROR for record in found)
    return [(record.after, record.before, record.lost_count) for record in map(_any, found)]


def _any(value: Any) -> Any:
    return value


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged before entries are lost."""
    found = [record for record in caplog.records if "may lose some" in record.getMessage()]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]
