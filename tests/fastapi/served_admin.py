"""An application with the admin, letters, a stream, groups and pending entries, served to two users."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis as redis_sync
import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from rapids import EventEmitter, EventRouter
from rapids_fastapi import AdminUser, Rapids, rapids_admin
from rapids_fastapi.admin.auth import ALL_PERMISSIONS
from tests.fastapi.helpers import letter_fields, until

OPERATOR = {"Authorization": "Bearer operator"}
READER = {"Authorization": "Bearer reader"}
USERS = {"operator": AdminUser("operator", ALL_PERMISSIONS), "reader": AdminUser("reader", ["read"])}

# The names in the examples of the OpenAPI document, so that these find something.
STREAM = "orders"
DLQ = "{orders}:dlq"
GROUP = "payments"
LETTERS = 60
FIRST_LETTER = 1_763_932_000_000


def letter_id(n: int) -> str:
    """The id of one of the letters, for any number."""
    return f"{FIRST_LETTER + n % LETTERS}-0"


def who(connection: HTTPConnection) -> AdminUser | None:
    return USERS.get(connection.headers.get("authorization", "").removeprefix("Bearer "))


def app_on(url: str, routers: Sequence[EventRouter] = ()) -> FastAPI:
    """The application. Without routers, nothing runs in its background.

    The admin is not mounted in it: a mount of Starlette does not match paths with a line break.
    """
    rapids = Rapids(url=url, routers=routers, emitter=EventEmitter(stream=STREAM), admin_auth=who)
    app = FastAPI(lifespan=rapids.lifespan)
    app.include_router(rapids_admin)
    return app


class Serving(threading.Thread):
    """uvicorn in a thread of its own, until `server.should_exit` is set."""

    def __init__(self, app: FastAPI, port: int) -> None:
        super().__init__(name="uvicorn")
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))

    def run(self) -> None:
        asyncio.run(self.server.serve())


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The application's address, while it is served: at this port, by default at a free one."""
    thread = Serving(app, port)
    thread.start()
    try:
        until(lambda: thread.server.started or not thread.is_alive())
        yield f"http://127.0.0.1:{thread.server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        thread.server.should_exit = True
        thread.join()


def fill(url: str) -> None:
    """Letters of several kinds, and a group that has read a part of the stream."""
    with redis_sync.Redis.from_url(url) as client:
        for n in range(LETTERS):
            fields = letter_fields(
                original_msg_id=f"1-{n + 1}",
                original_stream=STREAM,
                original_group=GROUP,
                handler=f"handler{n % 3}",
                event_type=f"shop.thing{n % 4}",
                error_type=("KeyError", "CardDeclined")[n % 2],
            )
            client.xadd(DLQ, fields, id=letter_id(n))
            client.xadd(STREAM, {"event_type": "shop.thing", "data": "{}", "id": f"event-{n}"})
        for group in (GROUP, "others"):
            client.xgroup_create(STREAM, group, id="0")
        client.xreadgroup(GROUP, "web-1", {STREAM: ">"}, count=20)


def contents(url: str) -> dict[bytes, tuple[bytes, Any]]:
    """All keys of the server, with their type and their serialized value."""
    with redis_sync.Redis.from_url(url) as client:
        return {key: (client.type(key), client.dump(key)) for key in client.scan_iter(count=1_000)}  # type: ignore[misc]
