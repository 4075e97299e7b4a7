"""Applications and letters for the tests of the plug-in."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import redis as redis_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids import EventEmitter
from rapids_fastapi import Rapids
from tests.fastapi.admin_paths import everything
from tests.support import PATIENCE

TOKEN = "s3cret-tökén"
BEARER = {"Authorization": b"Bearer " + TOKEN.encode()}
STREAM = "fa:orders"
DLQ = "{fa:orders}:dlq"


def admin_app(rapids: Rapids) -> FastAPI:
    """An application that runs this Rapids, with the admin."""
    app = FastAPI(lifespan=rapids.lifespan)
    app.mount("", everything())
    return app


def basic(password: str | bytes, name: str = "ann") -> dict[str, bytes]:
    """The header of HTTP Basic."""
    raw = password.encode() if isinstance(password, str) else password
    return {"Authorization": b"Basic " + base64.b64encode(name.encode() + b":" + raw)}


def rapids_with(url: str, **options: Any) -> Rapids:
    options.setdefault("emitter", EventEmitter(stream=STREAM))
    return Rapids(url=url, **options)


def client_for(url: str, *, headers: Mapping[str, Any] = BEARER, **options: Any) -> TestClient:
    """A client of an application with the admin, on this Redis: by default an operator's."""
    return TestClient(admin_app(rapids_with(url, **options)), headers=dict(headers))


@contextmanager
def client_of(app: Any, headers: Mapping[str, Any] | None = None) -> Iterator[TestClient]:
    with TestClient(app, headers=dict(headers or {})) as client:
        yield client


@asynccontextmanager
async def async_client_of(app: FastAPI, headers: Mapping[str, Any] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client on this event loop, while the application's lifespan runs."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers) as client:
            yield client


def letter_fields(**fields: str | bytes) -> dict[str, str | bytes]:
    """The fields of a dead letter, as a router writes them, with the given values."""
    return {
        "original_msg_id": "1-1",
        "original_stream": STREAM,
        "original_group": "group",
        "reason": "max_deliveries_exceeded",
        "error": "it broke",
        "handler": "handle",
        "failed_at": "2026-01-01T00:00:00+00:00",
        "event_type": "fa.thing",
        "data": '{"n": 1}',
        "schema_version": "1",
        "id": "event-1",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "correlation_id": "corr-1",
        "causation_id": "",
        "metadata": "{}",
        "error_type": "RuntimeError",
        "traceback": "Traceback: it broke",
        "deliveries": "5",
        "consumer": "web-1",
        "replay_of": "",
        "replay_count": "0",
        **fields,
    }


def put_letter(url: str, dlq: str = DLQ, **fields: str | bytes) -> str:
    """Write a dead letter, and return its id."""
    letter = letter_fields(**fields)
    with redis_sync.Redis.from_url(url) as client:
        return client.xadd(dlq, letter).decode()  # type: ignore[union-attr,arg-type]


def entries(url: str, stream: str) -> list[dict[str, str]]:
    """The entries of a stream, as text."""
    with redis_sync.Redis.from_url(url, decode_responses=True) as client:
        return [fields for _, fields in client.xrange(stream)]  # type: ignore[union-attr]


def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """`eventually`, for tests without an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout:g} s")
        time.sleep(0.02)
    return value
