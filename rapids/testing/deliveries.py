"""Deliveries without Redis: a router's handlers run on one event, and what became of each."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, overload

from rapids.emitter import as_read
from rapids.events import Event
from rapids.rehearsal import HandlerOutcome, RehearsedAttempt, stored_event
from rapids.router import EventRouter
from rapids.testing.recording_emitter import RecordingEmitter
from rapids.testing.repetition import (
    EmitNotes,
    Probe,
    check_probe,
    differences,
    notes_of_emits,
    raise_differences,
    repetition,
)

__all__ = ["Outcomes", "deliver", "load_event"]


class Outcomes(Sequence[HandlerOutcome]):
    """What became of each handler of an event, in the order of their registration.

    `outcomes["ship"]` is that of one handler.
    """

    def __init__(self, event: Event, outcomes: Sequence[HandlerOutcome], where: str, emitter: RecordingEmitter) -> None:
        self.emitter = emitter
        """The emitter that handlers got which asked for one."""
        self._event = event
        self._outcomes = tuple(outcomes)
        self._where = where

    @overload
    def __getitem__(self, index: int | str) -> HandlerOutcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[HandlerOutcome]: ...
    def __getitem__(self, index: int | str | slice) -> HandlerOutcome | Sequence[HandlerOutcome]:
        """The outcome of the handler of a name, or by position. Raises `AssertionError` for a handler that did not
        run, and `IndexError`."""
        __tracebackhide__ = True
        if not isinstance(index, str):
            return self._outcomes[index]
        for outcome in self._outcomes:
            if outcome.handler == index:
                return outcome
        raise AssertionError(f"expected handler {index!r} to run, but {self}")

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[HandlerOutcome]:
        return iter(self._outcomes)

    def done(self, *handlers: str) -> None:
        """These handlers ran, and each returned at last; without names, all did, and at least one ran.

        Raises `AssertionError`, which says what became of each.
        """
        __tracebackhide__ = True
        wanted = [self[name] for name in handlers] if handlers else self._outcomes
        if not wanted or any(outcome.state != "done" for outcome in wanted):
            names = " and ".join(map(repr, handlers))
            raise AssertionError(f"expected {f'handler {names}' if names else 'all handlers'} to be done, but {self}")

    def dead(self, handler: str, error: type[BaseException] | None = None) -> HandlerOutcome:
        """The outcome of a handler that failed for good, with an error of this class, if one is given.

        Raises `AssertionError`, which says what became of each.
        """
        __tracebackhide__ = True
        outcome = self[handler]
        if outcome.state != "dead" or (error is not None and not isinstance(outcome.error, error)):
            by = "" if error is None else f" by {error.__name__}"
            raise AssertionError(f"expected handler {handler!r} to be dead{by}, but {self}")
        return outcome

    def __str__(self) -> str:
        if not self._outcomes:
            return f"no handler of {self._where} is for {self._event.routing_key!r}"
        return "\n".join((f"of {self._event.routing_key!r} in {self._where}:", *map(_line, self._outcomes)))

    def __repr__(self) -> str:
        return f"<Outcomes {self}>"


def load_event(path: str | Path) -> Event:
    """The event in a file that `rapids dlq export-test` has written, read as a worker reads it.

    Raises `DeserializationError` if its class refuses it, `ValueError` for a file that is not JSON, and `OSError`.
    """
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return stored_event(cast("dict[str, Any]", found))


async def deliver(
    router: EventRouter,
    event: Event,
    *,
    emitter: RecordingEmitter | None = None,
    deliveries: int = 100,
    only: str | None = None,
    probe: Probe | None = None,
) -> Outcomes:
    """Run a router's handlers on an event, with middleware, dependencies, time limits and all retries. Needs no Redis.

        outcomes = await deliver(router, OrderPlaced(order_id="o-1"))
        outcomes.done()

    Nothing waits: the next attempt comes at once, and so does the next delivery, until every handler is done or dead.
    The outcomes say how long a router would have waited. Time limits of handlers are kept. The router may have any
    options, and need not have a client. What an event must be to be emitted it must be here, too.

    `emitter`: for handlers and providers that ask for one; by default a new one. It is `outcomes.emitter`. Other
    dependencies are replaced by the overrides of the router and of its application, as in production.
    `deliveries`: how many there are at most. With 1, a handler that would run again later is `waiting`.
    `only`: the name of the one handler to run, as in a replay of its dead letter; by default all that match.

    With `--rapids-twice` or `--rapids-crash`, every handler that is done gets the event once more, and `AssertionError`
    says of each how that was not without effect. `probe`: a function, plain or async, that gives the state which must
    not change then.

    Raises `SerializationError` for an event that could not be emitted, `ValueError` for `deliveries` below 1, or if the
    router has no handler `only`.
    """
    __tracebackhide__ = True
    check_probe(probe)
    if only is not None and only not in router.handler_names:
        raise ValueError(f"only must be one of {', '.join(router.handler_names)}, not {only!r}")
    if isinstance(deliveries, bool) or not isinstance(deliveries, int) or deliveries < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise ValueError(f"deliveries must be a whole number from 1, not {deliveries!r}")
    read = as_read(event)
    where = f"group {router.group!r} on stream {router.stream!r}"
    recorder = RecordingEmitter(stream=router.stream) if emitter is None else emitter
    rehearsal, how = router.rehearsal(recorder), repetition.get()
    token = notes_of_emits.set(notes := EmitNotes(keeps=True))
    try:
        outcomes = await rehearsal.run(read, most=deliveries, only=only)
    finally:
        notes_of_emits.reset(token)
    if how is not None:
        done = [outcome.handler for outcome in outcomes if outcome.state == "done"]
        found = await differences(rehearsal, read, done, emitted=notes.events, how=how, probe=probe)
        raise_differences(how, f"{read.routing_key!r} ({where})", found)
    return Outcomes(read, outcomes, where, recorder)


def _line(outcome: HandlerOutcome) -> str:
    attempts = outcome.attempts
    counted = "1 attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
    if outcome.deliveries > 1:
        counted += f" in {outcome.deliveries} deliveries"
    why = f" ({outcome.reason})" if outcome.reason else ""
    lines = [f"  {outcome.handler or '(no handler)'}: {outcome.state}{why}, {counted}"]
    if outcome.error_text and not (attempts and attempts[-1].error):
        lines.append(f"    {outcome.error_text}")
    return "\n".join((*lines, *(_attempt_line(one) for one in attempts if one.error is not None)))


def _attempt_line(one: RehearsedAttempt) -> str:
    after = "" if one.retry_in is None else f"; the next one {one.retry_in:g} s later"
    error = one.error
    text = f"{type(error).__name__}: {error}".splitlines()
    return f"    delivery {one.delivery}, attempt {one.attempt}: {text[0] if text else ''}{after}"
