"""The routers of a `Rapids` hide in their log what its admin hides."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter
from rapids.backoff import constant
from rapids.testing import tracked
from rapids_fastapi import Rapids
from tests.support import eventually

SECRET = "Kq7hunterZx9"


class FlLogin(BaseEvent):
    user: str = "ann"
    password: str = SECRET
    iban: str = ""
    text: str = ""


def router_on(stream: str) -> EventRouter:
    return EventRouter(
        stream=stream,
        max_deliveries=2,
        block_ms=200,
        redelivery_backoff=constant(0.01),
        default_backoff=constant(0.01),
        default_retries=1,
    )


async def lines_of(
    redis_url: str,
    caplog: pytest.LogCaptureFixture,
    event: FlLogin,
    error: Callable[[FlLogin], Exception],
    **options: Any,
) -> str:
    """All lines about an event whose handler raises `error(event)`."""
    caplog.set_level(logging.DEBUG, "rapids")
    router = router_on("fl:logins")

    @router.on(FlLogin)
    async def log_in(event: FlLogin) -> None:
        raise error(event)

    async with Rapids(url=redis_url, routers=[router], **options).lifespan(), tracked(router, redis=redis_url) as t:
        await t.emit(event)
        await t.settled()
    formatter = logging.Formatter("%(message)s")
    about = [record for record in caplog.records if hasattr(record, "handler")]
    assert len(about) == 4, "two attempts, a delivery, a letter"
    errors = [record.exc_info[1] for record in about if record.exc_info]
    return "\n".join([*map(formatter.format, about), *(repr(record.args) for record in about), *map(repr, errors)])


ERRORS: dict[str, Callable[[FlLogin], Exception]] = {
    "as it is": lambda event: ValueError(f"no such password: {event.password}"),
    "quoted": lambda event: KeyError(json.dumps(event.password)),
    "in capitals": lambda event: ValueError(event.password.upper()),
    "in a group": lambda event: ExceptionGroup("all", [ValueError(event.password)]),
    "named": lambda event: ValueError("cannot log in with api_key=Ab12Cd34Ef56"),
    "in an address": lambda event: OSError("https://ann:Ab12Cd34Ef56@bank/"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
async def test_no_line_shows_a_hidden_value(
    redis_url: str, caplog: pytest.LogCaptureFixture, error: Callable[[FlLogin], Exception]
) -> None:
    text = await lines_of(redis_url, caplog, FlLogin(), error)
    assert "[redacted]" in text
    assert "in log_in" in text, "the traceback"
    assert SECRET.casefold() not in text.casefold()
    assert "Ab12Cd34Ef56" not in text


async def test_the_names_of_the_application_are_hidden(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    event = FlLogin(iban="DE89370400440532013000")

    def error(event: FlLogin) -> Exception:
        return ValueError(f"{event.user} has {event.iban}")

    assert event.iban in await lines_of(redis_url, caplog, event, error)
    caplog.clear()
    text = await lines_of(redis_url, caplog, event, error, redact=["iban"])
    assert event.iban not in text
    assert "ValueError: ann has [redacted]" in text


async def test_nothing_is_hidden_with_none(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    text = await lines_of(redis_url, caplog, FlLogin(), ERRORS["as it is"], redact=None)
    assert f"ValueError: no such password: {SECRET}" in text


async def test_errors_about_large_payloads_are_not_shown(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """To search for what to hide in them would block the event loop."""
    text = await lines_of(redis_url, caplog, FlLogin(text="x" * 70_000), lambda event: ValueError("no money"))
    assert "ValueError: [redacted]" in text
    assert "no money" not in text


async def test_what_the_parser_says_is_shown(redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    router = router_on("fl:logins")

    @router.on(FlLogin)
    async def log_in(event: FlLogin) -> None: ...

    fields = {"event_type": FlLogin.event_type, "data": f'{{"password": "{SECRET}",}}', "id": "e-1", "timestamp": "x"}
    await redis.xadd("fl:logins", fields)  # type: ignore[arg-type]
    async with Rapids(url=redis_url, routers=[router]).lifespan():
        await eventually(lambda: router.counters.total("dead") == 1)
    assert "cannot read an event of type 'fl.login': data: Invalid JSON: " in caplog.text
    assert SECRET not in caplog.text
