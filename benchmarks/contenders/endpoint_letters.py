"""The admin over the dead letters of a run: the plug-in, as the guide shows it."""

from __future__ import annotations

import os

from fastapi import FastAPI

from benchmarks.jobs import DLQ, GROUP, STREAM
from rapids import Event, EventRouter
from rapids_fastapi import Rapids, TokenAuth, rapids_admin

router = EventRouter(stream=STREAM, group=GROUP, dlq_stream=DLQ, dlq_maxlen=None)


@router.on("no.such.event")
async def handle(event: Event) -> None:
    """A router without handlers does not start."""


app = FastAPI(
    lifespan=Rapids(
        routers=[router], url=os.environ["BENCH_REDIS_URL"], admin_auth=TokenAuth(os.environ["BENCH_TOKEN"])
    ).lifespan
)
app.include_router(rapids_admin)
