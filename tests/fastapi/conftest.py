"""Fixtures of the plug-in's tests. `tests/fastapi/helpers.py` has what needs arguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids_fastapi.admin import failed_logins, problems, progress
from tests.fastapi.helpers import TOKEN, client_for
from tests.support import PATIENCE

MAKES_REQUESTS_WHEN_COLLECTED = "test_admin_schemathesis.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file of slow tests where `-m` leaves these out: to collect it takes longer than all others."""
    leaves_out_slow = "not slow" in config.option.markexpr
    return True if leaves_out_slow and collection_path.name == MAKES_REQUESTS_WHEN_COLLECTED else None


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens the admin for requests with `TOKEN`."""
    monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", TOKEN)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials do not slow down the requests after them."""
    monkeypatch.setattr(failed_logins, "DELAY", 0.0)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is given up since the machine is slow."""
    monkeypatch.setattr(problems, "ANSWER_TIMEOUT", PATIENCE)


@pytest.fixture(autouse=True)
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only asks each route once need not listen for 15 s."""
    monkeypatch.setattr(progress, "MAX_SECONDS", 0.1)


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    """An operator's client of an application with the admin, without routers."""
    with client_for(redis_url) as client:
        yield client


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis_sync.Redis]:
    """A client of the empty server, decoded, without an event loop."""
    with redis_sync.Redis.from_url(redis_url, decode_responses=True) as raw:
        yield raw
