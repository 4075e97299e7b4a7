"""The root of the command `rapids`: what all its commands share."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar

import typer
from redis.exceptions import RedisClusterException, RedisError
from typer.core import TyperGroup

from rapids import __version__
from rapids.clients import RedisClient, open_client, reach
from rapids.exceptions import RapidsError, RedisUnavailableError
from rapids.redaction import escaped

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "Url", "app", "connected", "errors_in_a_line", "execute", "fail"]

Result = TypeVar("Result")

FAILED = 1
"""The exit code when something was done, and not all of it succeeded; or when `doctor` found a danger."""

USAGE = 2
"""The exit code when nothing was done: a wrong option, nothing with that name, no consent, or no Redis."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of other programs."""

MAX_LINE = 1_000
"""Characters of an error."""

ENVIRONMENT = "RAPIDS_REDIS_URL"

USAGE_ERROR: type = typer.BadParameter.__mro__[1]
"""What typer raises for anything that is wrong with the arguments. It exports only this subclass."""


class OneLineErrors(TyperGroup):
    """Commands whose wrong options end in one line, as their other errors do, and not in a panel."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _usage_in_a_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _usage_in_a_line():
            return super().invoke(ctx)


@contextmanager
def _usage_in_a_line() -> Generator[None]:
    try:
        yield
    except Exception as error:
        wrong: Any = error
        if not isinstance(error, USAGE_ERROR) or not wrong.format_message():  # the help, which was asked for
            raise
        command = wrong.ctx.command_path if wrong.ctx is not None else "rapids"
        fail(f'{_wrong_usage(wrong)}; see "{command} --help"')


def _wrong_usage(error: Any) -> str:
    """The option or variable, what is allowed, and the value; or what typer says, where there is no value."""
    why, param = error.__cause__, getattr(error, "param", None)
    if param is None or not hasattr(why, "errors"):
        text: str = error.format_message().rstrip(".")
        return text[:1].lower() + text[1:]
    [first, *_] = why.errors()
    value = repr(first["input"])
    allowed = first["msg"].removeprefix("Value error, ").partition(", unable to")[0].rstrip(".")
    allowed = allowed.replace("Input should be", "must be", 1).replace(f"{value} is not", "must be", 1)
    if error.ctx.get_parameter_source(param.name).name == "ENVIRONMENT":
        return f"{param.envvar} {allowed}, not {value}"
    name = max(param.opts, key=len) if param.param_type_name == "option" else param.metavar
    return f"{name} {allowed}, not {value}"


app: typer.Typer = typer.Typer(
    name="rapids",
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", envvar=ENVIRONMENT, help="The address of Redis, such as redis://localhost:6379/0."),
]
"""The option `--url` of every command that needs Redis."""


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Print one line to standard error, and exit."""
    line = " ".join(message.split())
    typer.echo(f"rapids: {escaped(line[:MAX_LINE])}", err=True)
    raise typer.Exit(code)


@asynccontextmanager
async def connected(url: str | None) -> AsyncGenerator[RedisClient]:
    """A client that has had an answer. Without one, the command ends with one line that says why."""
    if not url:
        fail(f"no address of Redis: give --url, or set {ENVIRONMENT}")
    try:
        async with open_client(url) as client:
            await reach(client, url)
            yield client
    except (ValueError, RedisUnavailableError) as error:
        fail(str(error))


def execute(url: str | None, work: Callable[[RedisClient], Awaitable[Result]]) -> Result:
    """Run a command's work with a client. What Redis or Rapids refuses ends the command with one line that says why."""

    async def session() -> Result:
        async with connected(url) as client:
            return await work(client)

    with errors_in_a_line():
        return asyncio.run(session())


@contextmanager
def errors_in_a_line() -> Generator[None]:
    """End the command with one line for an error of Redis or Rapids, and without one after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (RapidsError, RedisError, RedisClusterException) as error:
        fail(str(error) or type(error).__name__)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rapids {__version__}")
        raise typer.Exit


@app.callback()
def rapids(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run Rapids routers as worker processes, and show and repair what failed."""
