"""The command `dlq export-test`: a dead letter as a test of its handler, for pytest."""

import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from rapids import DeadLetter, DeadLetterQueue, EventRouter
from rapids.audit import AuditLog
from rapids.cli.catalog_commands import App, load
from rapids.cli.consent import actor
from rapids.cli.display import note
from rapids.cli.letter_commands import LetterId
from rapids.cli.letter_options import EventStream, QueueName, dlq_app
from rapids.cli.root import Url, execute, fail
from rapids.cli.shown_letters import redactor
from rapids.cli.stream_choice import chosen_queue
from rapids.cli.targets import attribute_at
from rapids.exceptions import DeserializationError
from rapids.redaction import MASK, HiddenValues, Location, Redactor, Searched, escaped
from rapids.rehearsal import stored_event

__all__ = ["export_test"]

MAX_ERROR = 300
MIN_SECRET = 4
"""Characters of a hidden value that must not be anywhere in the files. A shorter one is in many texts by chance."""

TEST = '''"""A dead letter as a test: {what}.

Written by `rapids dlq export-test {letter_id}`. The event is in {fixture}, where hidden values
are replaced. The test fails as the handler did, until the handler is repaired.
"""

import asyncio
from pathlib import Path

from {module} import {root}

from rapids.testing import deliver, load_event

EVENT = Path(__file__).with_name({fixture!r})


def test_{name}() -> None:
    failing = {router}
    outcomes = asyncio.run(deliver(failing, load_event(EVENT), only={handler!r}))
    outcomes.done({handler!r})
'''


@dlq_app.command("export-test")
def export_test(
    letter_id: LetterId,
    targets: App = None,
    dlq: QueueName = None,
    stream: EventStream = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the two files.")] = Path(),
    url: Url = None,
) -> None:
    """Write a test for pytest that runs the failing handler on the event of a dead letter.

    The event is in a file of its own, with other values in place of hidden ones. The test fails as the handler did,
    until the handler is repaired; then keep it. --app names the router, or a list of routers, that has the handler.
    """
    if not targets or len(targets) != 1:
        fail("say where the router of the handler is: --app module:router")
    routers = load(targets)
    name = chosen_queue(url, dlq, stream)
    letter = execute(url, lambda redis: DeadLetterQueue(redis, name).get(letter_id))
    if not letter.handler:
        fail(f"no handler was reached by this event ({letter.reason}): see rapids dlq show {letter_id} --app ...")
    router, handler = handler_of(letter, routers)
    fixture = without_secrets(letter, hides := redactor())
    stem = f"letter_{re.sub(r'[^0-9A-Za-z]', '_', letter.id)}"
    what = hides.text(f"{letter.error_type}: {letter.error}", fixture.hidden, MAX_ERROR)
    module, _, attribute = targets[0].partition(":")
    test = TEST.format(
        what=in_a_docstring(f"handler {handler!r} on {letter.event_type}, {what}"),
        letter_id=letter.id,
        fixture=f"{stem}.json",
        module=module,
        root=attribute.partition(".")[0],
        name=re.sub(r"\W", "_", f"{handler}_on_{letter.event_type}", flags=re.ASCII),
        router=router_expression(attribute, attribute_at(targets[0]), router),
        handler=handler,
    )
    files = {f"test_{stem}.py": test, f"{stem}.json": json.dumps(fixture.event, indent=2) + "\n"}
    secrets = [one for one in fixture.secrets if len(one) >= MIN_SECRET]
    as_written = {form for one in secrets for form in (one, json.dumps(one)[1:-1], in_a_docstring(one))}
    if leaks := [file for file, text in files.items() if any(one in text for one in as_written)]:
        fail(f"nothing was written: {leaks[0]} would quote a hidden value")
    write_files(output, files)
    details = {"letters": "1", "letter_id": letter.id[:200], "end": "complete"}
    entry = {"actor": actor(), "reason": "export-test"}
    execute(url, lambda redis: AuditLog(redis, name).add("export_ended", **entry, details=details))
    note(f"wrote {', '.join(str(output / file) for file in files)}")
    if not fixture.parses:
        note("its class does not parse the event with the replaced values: put fitting ones into the JSON file")


def handler_of(letter: DeadLetter, routers: tuple[EventRouter, ...]) -> tuple[EventRouter, str]:
    """The router that the letter is of, and the present name of its handler."""
    found = [
        (router, handler.name)
        for router in routers
        if (router.stream, router.group) == (letter.stream, letter.group)
        for handler in router.handlers
        if letter.handler in (handler.name, *handler.aliases)
    ]
    if not found:
        where = f"group {letter.group!r} on stream {letter.stream!r}"
        fail(f"no router of --app has the handler {letter.handler!r} in {where}")
    return found[0]


def router_expression(attribute: str, found: object, router: EventRouter) -> str:
    """How the test gets the router."""
    if isinstance(found, EventRouter):
        return attribute
    if isinstance(getattr(found, "routers", None), tuple):
        attribute += ".routers"
    elif not isinstance(found, list | tuple):
        fail("--app must name a router, a list of routers or a Rapids here, no function that makes them")
    return f"next(one for one in {attribute} if (one.stream, one.group) == {(router.stream, router.group)!r})"


@dataclass(frozen=True, slots=True)
class _Document:
    """A JSON document of an event."""

    value: Any
    searched: Searched

    def replaced(self, *, by_kind: bool) -> Any:
        """The value without what is hidden: masked, or with values of the same kinds."""
        shown = self.searched.shown
        if not by_kind:
            return shown
        for place in self.searched.places:
            with suppress(LookupError, TypeError):  # a name on the way was hidden itself
                shown = _with(shown, place, _of_its_kind(reduce(getitem, place, self.value), self.searched.values))
        return shown


@dataclass(frozen=True, slots=True)
class _Fixture:
    """An event without its hidden values."""

    event: dict[str, Any]
    hidden: HiddenValues
    secrets: frozenset[str]
    """The hidden values."""
    parses: bool
    """Whether its class parses it, or did not parse it before either."""


def without_secrets(letter: DeadLetter, hiding: Redactor) -> _Fixture:
    def document(raw: bytes, also: Collection[str]) -> _Document:
        searched = hiding.document(raw, also)
        if searched is None:
            fail("the event is no JSON, or too large to search it for hidden values")
        return _Document(json.loads(raw), searched)

    written = letter.metadata or b"{}"  # what is hidden in one is hidden in the other, too
    data = document(letter.data, document(written, ()).searched.values)
    metadata = document(written, data.searched.values)
    hidden = hiding.hidden(data.searched, metadata.searched)
    common = {
        "event_type": letter.event_type,
        "schema_version": letter.schema_version or "1",
        "id": hiding.text(letter.event_id, hidden, MAX_ERROR) or "event-1",
        "timestamp": letter.timestamp,
        "correlation_id": hiding.text(letter.correlation_id, hidden, MAX_ERROR),
        "causation_id": hiding.text(letter.causation_id, hidden, MAX_ERROR),
    }
    secrets = data.searched.values | metadata.searched.values
    did_parse = letter.check_parsing().outcome in ("parses", "unknown_type")
    event: dict[str, Any] = {}
    for by_kind in (False, True):
        event = {
            **common,
            "data": data.replaced(by_kind=by_kind),
            "metadata": metadata.replaced(by_kind=by_kind),
        }
        try:
            stored_event(event)
        except DeserializationError:
            continue
        return _Fixture(event, hidden, secrets, True)
    return _Fixture(event, hidden, secrets, not did_parse)


def _with(value: Any, place: Location, new: Any) -> Any:
    """The value with another one at a place."""
    if not place:
        return new
    first, *rest = place
    if isinstance(value, dict):
        return {**cast("dict[Any, Any]", value), first: _with(value[first], tuple(rest), new)}
    items = list(cast("list[Any]", value))
    items[cast(int, first)] = _with(items[cast(int, first)], tuple(rest), new)
    return items


def _of_its_kind(value: Any, secrets: Collection[str]) -> Any:
    """Another value of the same kind: of a text, one of the same form."""
    match value:
        case bool() | None:
            return None if value is None else False
        case int() | float():
            return type(value)(0)
        case str():
            form = re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", value))
            return MASK if any(secret in form for secret in secrets) else form
        case dict():
            members = cast("dict[str, Any]", value).values()
            return {f"key{at}": _of_its_kind(one, secrets) for at, one in enumerate(members)}
        case _:
            return [_of_its_kind(one, secrets) for one in value]


def in_a_docstring(text: str) -> str:
    line = " ".join(escaped(text).split())
    return line.replace("\\", "\\\\").replace('"', "'")


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write all files, none of which may exist."""
    try:
        if there := [name for name in files if (folder / name).exists()]:
            fail(f"{folder / there[0]} is there already")
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        fail(f"{folder} cannot be written to: {error.strerror or error}")
