"""The traces of the demo are those that docs/telemetry.md shows."""

from __future__ import annotations

import re

import httpx
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from example_app.app import create_app
from example_app.settings import Settings
from rapids.testing import tracked
from tests.fastapi.helpers import async_client_of
from tests.house.source import ROOT
from tests.support import eventually
from tests.telemetry.recording import Recording, as_text

PAGE = ROOT / "docs" / "telemetry.md"
TOKEN = "a token for tests"


async def test_the_traces_in_the_docs_are_those_of_the_demo(recording: Recording, redis_url: str) -> None:
    app = create_app(Settings(redis_url=redis_url, admin_token=TOKEN), telemetry=recording.telemetry)
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=recording.tracer_provider,
        meter_provider=recording.meter_provider,
        exclude_spans=["receive", "send"],
    )
    try:
        async with async_client_of(app) as http, tracked(app) as t:
            await place(http, "visa-4242")
            await t.settled()
            order_id = await place(http, "declined")
            await t.settled()
            [letter] = t.dead_letters
            await http.put(f"/orders/{order_id}/card", json={"card": "visa-4242"})
            operator = {"Authorization": f"Bearer {TOKEN}"}
            await http.post(f"/rapids/api/dead-letters/{letter.id}/replay", json={}, headers=operator)
            await t.settled()
            await eventually(lambda: len(recording.of("process", result="done")) == 8)
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
    [shown] = re.findall(r"(?ms)^```text\n(trace 1\n.*?)^```$", PAGE.read_text(encoding="utf-8"))
    assert as_text(recording.spans) == shown


async def place(http: httpx.AsyncClient, card: str) -> str:
    order = {"customer": "Ada", "items": ["lamp"], "total": "48.90", "card": card}
    answer = await http.post("/orders", json=order)
    assert answer.status_code == 202, answer.text
    return answer.json()["order_id"]
