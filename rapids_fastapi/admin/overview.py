"""The overview over HTTP: streams, groups and dead letters at a glance, and their last hour in steps."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator, TypeAdapter
from starlette.concurrency import run_in_threadpool

from rapids.inspection import Overview, SeriesStep, StreamSeries, read_series
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.examples import GROUP, Example
from rapids_fastapi.admin.models import MAX_NAME
from rapids_fastapi.admin.payload import cleaned
from rapids_fastapi.admin.problems import answers, refusals_as_problems
from rapids_fastapi.admin.query import StreamDep

__all__ = ["router"]

_ACCESS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")

_AT, _BEGAN = "2025-11-23T20:59:31Z", "2025-11-23T20:00:00Z"
_OVERVIEW: Example = {
    "at": _AT,
    "charts_since": _BEGAN,
    "chart_step": 60,
    "findings": [
        {
            "kind": "failing",
            "severity": "danger",
            "message": "`take_payment` has failed 312 times since 20:14 UTC, CardDeclined; nothing else is affected",
            "advice": "read the newest dead letter, correct the cause, then replay all 312 letters",
            "stream": "orders",
            "group": "payments",
            "handler": "take_payment",
            "dlq": "{orders}:dlq",
            "fingerprint": "9f2c4b7d0a1e6f38",
            "count": 312,
            "since": "2025-11-23T20:14:03Z",
            "last_at": "2025-11-23T20:59:29Z",
        }
    ],
    "streams": [
        {
            "stream": "orders",
            "length": 1204,
            "first_at": _BEGAN,
            "last_at": _AT,
            "appended_per_second": 12.4,
            "appended": [740, 744, 391],
            "groups": [
                {
                    **{name: value for name, value in GROUP.items() if name != "pause"},
                    "dlq": "{orders}:dlq",
                    "dead_letters": 312,
                    "handled_per_second": 11.9,
                    "failed_per_second": 0.4,
                    "last_hour": {"delivered": 40012, "handled": 39000, "failed": 320, "retried": 8, "dead": 312},
                    "delivered": [738, 742, 390],
                    "handled": [731, 729, 377],
                    "failed": [7, 13, 13],
                    "dead": [7, 13, 13],
                    "handling": {"p50": 0.01, "p95": 0.05, "p99": 0.25},
                }
            ],
            "more_groups": False,
        }
    ],
    "queues": [
        {"length": 312, "maxlen": 10000, "unindexed": 0, "cut": 2, "cut_at": _BEGAN, "dlq": "{orders}:dlq", "causes": 1}
    ],
    "missing": ["invoices"],
}
_SERIES: Example = {
    "stream": "orders",
    "at": _AT,
    "since": _BEGAN,
    "step": 300,
    "appended": [3700, 3712, 1804],
    "groups": [
        {
            "group": "payments",
            "delivered": [3698, 3711, 1799],
            "handled": [3660, 3641, 1742],
            "failed": [38, 70, 57],
            "retried": [0, 0, 1],
            "dead": [38, 70, 56],
            "handling": {"bounds": [0.01, 0.1], "counts": [[2001, 1600, 97], [2011, 1597, 103], [904, 801, 94]]},
        }
    ],
}

router: APIRouter = APIRouter(prefix="/api", route_class=AdminRoute, dependencies=CREDENTIALS)


_OVERVIEWS, _STREAMS = TypeAdapter(Overview), TypeAdapter(StreamSeries)


async def _written(adapter: TypeAdapter[Any], value: object) -> Response:
    """The answer, made in a thread: FastAPI would make it in the event loop, which takes seconds for many groups."""
    shown = await run_in_threadpool(lambda: adapter.dump_json(cleaned(value), by_alias=True))
    return Response(shown, media_type="application/json")


def _number(text: object) -> object:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else text


@router.get(
    "/overview",
    summary="Everything at a glance",
    response_model=Overview,
    openapi_extra=needs("read"),
    responses=answers(*_ACCESS, *_OUTAGE, example=_OVERVIEW),
)
async def get_overview(parts: RunningDep) -> Response:
    """What is wrong, and all streams, groups and dead-letter queues, with the last hour in steps of a minute.

    It is read from Redis at most once a second, for all requests together.
    """
    return await _written(_OVERVIEWS, await parts.overview.read())


@router.get(
    "/series",
    summary="Read the last hour of a stream and its groups",
    response_model=StreamSeries,
    openapi_extra=needs("read", limited="searches"),
    responses=answers(
        *_ACCESS, "stream-needed", "stream-not-found", "group-not-found", "too-busy", *_OUTAGE, example=_SERIES
    ),
)
async def get_series(
    parts: RunningDep,
    stream: StreamDep,
    group: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_NAME, description="Only this group.", examples=["payments"]),
    ] = None,
    step: Annotated[SeriesStep, BeforeValidator(_number), Query(description="Seconds of a step.", examples=[10])] = 60,
) -> Response:
    """What was appended to a stream and what its groups did in each step of the last hour.

    Workers write it soon after each ten seconds.
    """
    with refusals_as_problems():
        series = await read_series(parts.redis, stream, group=group, step=step)
    return await _written(_STREAMS, series)
