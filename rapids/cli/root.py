"""The root of the command `rapids`: what all its commands share, and the commands put together."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, NoReturn, TypeAlias

import typer
from redis.exceptions import RedisError

from rapids.clients import RedisClient, masked, open_client

__all__ = ["Url", "app", "connected", "fail"]

USAGE = 2
"""The exit code when nothing was done: a wrong option, or no Redis. 1 is for what was done and failed."""

ENVIRONMENT = "RAPIDS_REDIS_URL"

app: typer.Typer = typer.Typer(name="rapids", no_args_is_help=True, pretty_exceptions_enable=False)

Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", envvar=ENVIRONMENT, help="The address of Redis, such as redis://localhost:6379/0."),
]
"""The option `--url` of every command that needs Redis."""


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Print one line to standard error, and exit."""
    typer.echo(f"rapids: {message}", err=True)
    raise typer.Exit(code)


@asynccontextmanager
async def connected(url: str | None) -> AsyncGenerator[RedisClient]:
    """A client that has had an answer. Without one, the command ends with one line that says why."""
    if url is None:
        fail(f"no address of Redis: give --url, or set {ENVIRONMENT}")
    try:
        async with open_client(url) as client:
            try:
                await client.ping()  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues] - typed loosely there
            except (RedisError, OSError) as error:
                fail(f"Redis at {masked(url)} cannot be used: {error}")
            yield client
    except ValueError as error:
        fail(str(error))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rapids {version('rapids-fastapi')}")
        raise typer.Exit


@app.callback()
def rapids(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run Rapids routers as worker processes, and show and repair what failed."""
