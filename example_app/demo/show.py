"""Starts everything, plays the story, checks it or keeps running, and closes everything."""

import asyncio
import base64
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import httpx
from redis.exceptions import RedisClusterException, RedisError

from example_app.app import create_app
from example_app.demo.checks import CHECKS, Evidence, end_of, verdict
from example_app.demo.narration import Narrator, RequestNarration, narrated_logs, wants_colour
from example_app.demo.serving import ServingError, listening, serving
from example_app.demo.story import Story, StoryError
from example_app.settings import Settings
from rapids.clients import RedisClient, check_url, open_client
from rapids.embedded import EmbeddedServerError, is_embedded_url, open_embedded
from rapids.exceptions import reason
from rapids.sessions import OFFER_SECONDS, Sessions
from rapids_fastapi import CorrelationMiddleware

__all__ = ["DemoError", "run"]

TOKEN_VARIABLE = "RAPIDS_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
INTERRUPTED = 130


class DemoError(Exception):
    """The demo cannot continue. The message is for the user who started it."""


@dataclass(frozen=True, slots=True)
class Show:
    """One run of the demo."""

    settings: Settings
    narrator: Narrator
    token: str
    port: int

    async def once(self) -> int:
        """Play the story and check the result: 0 if all checks pass, else 1."""
        async with self._playing() as (story, redis):
            self._introduce(str(story.http.base_url))
            began_after = await end_of(redis, self.settings.stream)
            await story.play()
            return await self._check(Evidence(story, redis, self.settings.stream, began_after))

    async def until_interrupted(self) -> int:
        """Play the story and keep running until cancelled."""
        async with self._playing() as (story, redis):
            address = str(story.http.base_url)
            link = await self._link(address, redis)
            self.narrator.chapter(f"Dashboard: {address}/rapids/")
            self.narrator.say(f"  log in once, within {OFFER_SECONDS // 60} minutes: {link}")
            self._introduce(address)
            await story.play()
            await story.leave_failures()
            self._invite(address, link)
            await asyncio.Event().wait()
        return 0

    @asynccontextmanager
    async def _playing(self) -> AsyncGenerator[tuple[Story, RedisClient]]:
        """Redis, the service, and a client for each."""
        async with _address(self.settings.redis_url) as url, open_client(url) as redis:
            await _reach(redis, self.settings.stream)
            settings = replace(self.settings, redis_url=url, admin_token=self.token)
            app = create_app(settings, middleware=[self.narrator.handler])
            narrated = CorrelationMiddleware(RequestNarration(app, self.narrator))
            async with (
                serving(narrated, listening(self.port)) as address,
                httpx.AsyncClient(base_url=address, trust_env=False, timeout=60) as http,
            ):
                yield Story(http, self.token, self.narrator), redis

    async def _check(self, evidence: Evidence) -> int:
        self.narrator.chapter("Checked:")
        wrong = {what: await verdict(check, evidence) for what, check in CHECKS.items()}
        for what, complaint in wrong.items():
            self.narrator.verdict(what, complaint)
        return 1 if any(wrong.values()) else 0

    async def _link(self, address: str, redis: RedisClient) -> str:
        """A link that logs in once, as a user whose name the histories show."""
        credentials = base64.b64encode(f"you:{self.token}".encode())
        code = await Sessions(redis, self.settings.stream).offer(b"Basic " + credentials)
        return f"{address}/rapids/#login={code}"

    def _introduce(self, address: str) -> None:
        embedded = is_embedded_url(self.settings.redis_url)
        self.narrator.chapter(f"Order fulfilment at {address}, on {'an embedded Valkey' if embedded else 'your Redis'}")
        self.narrator.say(f"  stream {self.settings.stream}; docs at {address}/docs")

    def _invite(self, address: str, link: str) -> None:
        given = os.environ.get(TOKEN_VARIABLE, "").strip() == self.token
        token = f"${TOKEN_VARIABLE}" if given else self.token
        order = '{"customer": "You", "items": ["tea"], "total": "4.20", "card": "declined"}'
        tell = self.narrator.say
        self.narrator.chapter("Your turn. Requests that you send are shown here:")
        tell(f"  dashboard     {address}/rapids/, which shows what failed")
        tell(f"  log in once   {link}")
        tell(f"  admin token   {'the one in ' if given else ''}{token.removeprefix('$')}")
        tell(f"  docs          {address}/docs")
        tell(f'  dead letters  curl -H "Authorization: Bearer {token}" {address}/rapids/api/dead-letters')
        tell(f"  an order      curl {address}/orders -H 'Content-Type: application/json' -d '{order}'")
        tell("\nCtrl-C stops everything.")


def run(*, once: bool, port: int) -> int:
    """Run the demo and return its exit code. Raises `DemoError`."""
    cast(Any, sys.stdout).reconfigure(errors="replace")  # a terminal without arrows must not stop the demo
    narrator = Narrator(sys.stdout, colour=wants_colour(sys.stdout))
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or secrets.token_urlsafe(16)
    show = Show(_checked(Settings.from_environment()), narrator, token, port)
    try:
        with narrated_logs(narrator):
            return asyncio.run(_interruptible(show, once=once))
    except (ServingError, StoryError, EmbeddedServerError, RedisError, RedisClusterException) as error:
        raise DemoError(str(error)) from error


async def _interruptible(show: Show, *, once: bool) -> int:
    """The show, stopped gracefully by Ctrl-C or SIGTERM. A second signal ends it at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(show.once() if once else show.until_interrupted())

    def interrupt() -> None:
        if task.cancelling():
            # An exception raised while things are closed would only print tracebacks. What stays open here is ended by
            # the supervisor of the embedded server.
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        show.narrator.say("\nstopping")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED if once else 0


def _checked(settings: Settings) -> Settings:
    """The settings. Raises `DemoError` for an invalid address."""
    try:
        check_url("RAPIDS_REDIS_URL", settings.redis_url)
    except ValueError as error:
        raise DemoError(str(error)) from error
    return settings


@asynccontextmanager
async def _address(url: str) -> AsyncGenerator[str]:
    """An address for the service and for us; for `embedded:`, that of a server that runs during the block."""
    if is_embedded_url(url):
        async with open_embedded(url) as server:
            yield server.url
    else:
        yield url


async def _reach(redis: RedisClient, stream: str) -> None:
    """Raises `DemoError` if Redis does not answer."""
    try:
        async with asyncio.timeout(5):
            await redis.exists(stream)
    except (RedisError, RedisClusterException, OSError) as error:
        raise DemoError(
            f"cannot reach Redis (RAPIDS_REDIS_URL): {reason(error) if str(error) else 'no answer within 5 s'}"
        ) from error
