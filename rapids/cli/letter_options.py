"""The options by which commands choose dead letters."""

import inspect
import re
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Annotated, Any, TypeAlias

import typer

from rapids import DeadLetter, DeadLetterQueue, LetterFilter
from rapids.cli.root import app, fail

__all__ = ["EventStream", "QueueName", "choosing", "dlq_app", "letters_of"]

dlq_app: typer.Typer = typer.Typer(
    name="dlq", no_args_is_help=True, help="Show, replay, discard and restore dead letters."
)
app.add_typer(dlq_app)

QueueName: TypeAlias = Annotated[
    str | None,
    typer.Option("--dlq", help="The dead-letter stream; by default that of --stream, or the only one of the routers."),
]
EventStream: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--stream", "-s", envvar="RAPIDS_STREAM", help="The event stream whose default dead-letter stream it is."
    ),
]

PAGE = 200
UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


def _option(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Letters to choose")


def _chosen(
    *,
    event_type: Annotated[str | None, _option("--type", help="The event type, or a pattern: 'order.*'.")] = None,
    handler: Annotated[str | None, _option("--handler", help="The handler that failed; '' for none.")] = None,
    group: Annotated[str | None, _option("--group", help="The group.")] = None,
    letter_reason: Annotated[
        str | None, _option("--letter-reason", help="Why Rapids stopped, such as non_retryable.")
    ] = None,
    error_type: Annotated[str | None, _option("--error-type", help="The class of the error.")] = None,
    fingerprint: Annotated[str | None, _option("--fingerprint", help="A cause, as `dlq causes` shows it.")] = None,
    text: Annotated[str | None, _option("--text", "-q", help="A text in payload, error or ids; all are read.")] = None,
    since: Annotated[str | None, _option("--since", help="Failed since then: 30min, 2h, 3d or ISO 8601.")] = None,
    until: Annotated[str | None, _option("--until", help="Failed before this time.")] = None,
) -> LetterFilter:
    """The filter that the options give."""
    try:
        return LetterFilter(
            event_type=event_type,
            handler=handler,
            group=group,
            reason=letter_reason,
            error_type=error_type,
            fingerprint=fingerprint,
            q=text,
            since=_moment("--since", since),
            until=_moment("--until", until),
        )
    except ValueError as error:
        fail(str(error))


def choosing(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of `_chosen` to a command, but for some. The command gets the filter as its argument `wanted`.

    typer takes the options of a command from its signature.
    """
    options = [option for name, option in inspect.signature(_chosen).parameters.items() if name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def decorated(**given: Any) -> None:
            wanted = _chosen(**{option.name: given.pop(option.name) for option in options})
            command(wanted=wanted, **given)

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "wanted"
        ]
        function: Any = decorated
        function.__signature__ = inspect.Signature([*own, *options])
        return decorated

    return decorate


def _moment(option: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,6})\s*(s|min|h|d)", given.strip()):
            return datetime.now(UTC) - timedelta(seconds=int(age[1]) * UNITS[age[2]])
        moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError):  # before the year 1
        fail(f"{option} must be an age such as 30min, 2h or 3d, or a time such as 2026-11-30T16:00:00Z, not {given!r}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


async def letters_of(
    queue: DeadLetterQueue, wanted: LetterFilter, limit: int | None
) -> AsyncGenerator[tuple[DeadLetter | None, int]]:
    """The letters that match, newest first, each with how many there are at most; then None if there are more."""
    cursor: str | None = None
    left = limit
    while True:
        page = await queue.list(wanted, cursor=cursor, limit=PAGE if left is None else min(left, PAGE))
        for letter in page.items:
            yield letter, page.total
        cursor = page.cursor
        if left is not None:
            left -= len(page.items)
        if cursor is None:
            return
        if left is not None and left <= 0:
            yield None, page.total
            return
