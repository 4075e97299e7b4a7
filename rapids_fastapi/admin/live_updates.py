"""Live updates over HTTP: one stream of server-sent events for letters, groups, pauses and operations."""

import json
import re
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.changes import KINDS, Item, Kind, LiveState
from rapids_fastapi.admin.pages import path_of
from rapids_fastapi.admin.problems import answers
from rapids_fastapi.admin.progress import EventStream, LastEventId, sent, server_sent

__all__ = ["router"]

_ITEM = {"dlq": "{orders}:dlq", "length": 312, "causes": 1, "cut": 0, "last_at": "2025-11-23T20:59:29+00:00"}

NOTHING = ".".join("0" for _ in KINDS)
"""In place of the id of an event: no kind is known."""

router: APIRouter = APIRouter(prefix="/api", route_class=AdminRoute, dependencies=CREDENTIALS)


class Changes:
    """What a client does not know yet. `seen`: the id of the last event that it has received."""

    def __init__(self, seen: str | None) -> None:
        is_ours = re.fullmatch(r"[0-9a-f]{1,8}(\.[0-9a-f]{1,8}){3}", seen or "")
        self._known: dict[Kind, str] = dict(zip(KINDS, (is_ours[0] if is_ours else NOTHING).split("."), strict=True))
        self._last: LiveState | None = None

    def found_in(self, state: LiveState) -> list[tuple[str, Kind, str]]:
        """An event for each kind that has changed, as its id, its name and its data."""
        events: list[tuple[str, Kind, str]] = []
        for kind in KINDS:
            if state.digests[kind] == self._known[kind]:
                continue
            items = state.items[kind]
            before: Mapping[tuple[str, ...], Item] = {} if self._last is None else self._last.items[kind]
            is_complete = not before or not before.keys() <= items.keys()
            changed = [item for name, item in items.items() if is_complete or before.get(name) != item]
            self._known[kind] = state.digests[kind]
            data = json.dumps({"items": changed, "complete": is_complete})  # no text in it can end the event
            events.append((".".join(self._known[one] for one in KINDS), kind, data))
        self._last = state
        return events


@router.get(
    "/live",
    summary="Listen for what changes",
    openapi_extra=needs("read", limited="live"),
    response_class=EventStream,
    responses={
        **answers(
            "admin-closed",
            "unauthenticated",
            "auth-unavailable",
            "forbidden",
            "invalid",
            "too-busy",
            "redis-unavailable",
            "not-running",
        ),
        200: EventStream.documented(
            "The data of the events `letters`, `groups`, `pauses` and `operations` are JSON: the `items` that have "
            "changed, and whether these are all (`complete`); the data of `problem`, the last event, is a problem",
            "letters",
            sent("5b2e91c0.0fd2ce10.e1a3ba5d.90a4b1f2", "letters", json.dumps({"items": [_ITEM], "complete": True})),
        ),
    },
)
async def listen(request: Request, parts: RunningDep, last_event_id: LastEventId = None) -> Response:
    """What has changed, as server-sent events: names, ids and counts of `letters`, `groups`, `pauses` and `operations`.

    The first events have everything of their kind, later ones what has changed since, within about a second. The
    stream ends after 15 s. Browsers reconnect by themselves, and get only the kinds that have changed since.
    """
    changes = Changes(last_event_id)

    async def look() -> tuple[list[str], bool]:
        state = await parts.changes.read(parts.overview, parts.queues)
        return [sent(*event) for event in changes.found_in(state)], False

    return EventStream(server_sent(look, path_of(request)), headers={"X-Accel-Buffering": "no"})
