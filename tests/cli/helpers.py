"""The command `rapids`, run in this process against the tests' server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from click.testing import Result
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from typer.testing import CliRunner

from rapids.cli import command
from rapids.cli import consent as asked
from tests.servers.client import connected

T = TypeVar("T")

APP = command()


class Command:
    """The command with the address of the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, code: int = 0, answer: str | None = None) -> Result:
        result = CliRunner().invoke(APP, list(arguments), env={"RAPIDS_REDIS_URL": self.url}, input=answer)
        assert result.exit_code == code, f"{result.exit_code}: {result.output} {result.exception!r}"
        assert "\x1b" not in result.output, "something from Redis controls the terminal, or there are colours in a pipe"
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        """What the command prints with `--json`: the object of each line."""
        return [json.loads(line) for line in self(*arguments, "--json", code=code).stdout.splitlines()]

    def redis(self, work: Callable[[Redis | RedisCluster], Awaitable[T]]) -> T:
        """The result of some work with a client of the same server."""

        async def session() -> T:
            async with connected(self.url) as client:
                return await work(client)

        return asyncio.run(session())


@pytest.fixture
def rapids(redis_address: str) -> Command:
    return Command(redis_address)


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits at the terminal and can answer."""
    monkeypatch.setattr(asked, "is_interactive", lambda: True)
