"""Causation trees as they may be shown: redacted, cut, and free of what JSON cannot hold."""

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter
from rapids.inspection import CausationTree, Inspector, PendingEntry, TracedDelivery, TracedEvent, TracedLetter
from rapids_fastapi.admin import event_schemas as schemas
from rapids_fastapi.admin.letters import replays_of
from rapids_fastapi.admin.payloads import LONGEST_IN_LIST, Shown, show
from rapids_fastapi.admin.redaction import Redactor
from rapids_fastapi.admin.schemas import Payload
from rapids_fastapi.state import Running

__all__ = ["links_of", "tree_of"]


def tree_of(tree: CausationTree, redactor: Redactor, base: str, cursor: str | None) -> schemas.CausationTree:
    """The tree; `base` is the path of the API, `cursor` what to give out for the next one."""
    return schemas.CausationTree(
        at=tree.at,
        correlation_id=tree.correlation_id,
        began_at=tree.began_at,
        roots=list(tree.roots),
        events=[_event(event, redactor) for event in tree.events],
        replays=[
            schemas.ReplayUnderWay.model_validate(
                {**_members(replay, "delivery"), "delivery": _delivery(replay.delivery, redactor, None)}
            )
            for replay in tree.replays
        ],
        letters=[_letter(letter, redactor, base) for letter in tree.letters],
        windows=[schemas.Window.model_validate(window) for window in tree.windows],
        complete=tree.complete,
        limits=list(tree.limits),
        next_cursor=cursor,
    )


async def links_of(parts: Running, letter: DeadLetter, dlq: str, base: str) -> schemas.Links:
    """What else has the letter's correlation id, among the newest letters of all queues."""
    wanted = letter.correlation_id or letter.event_id
    if not 0 < len(wanted) <= schemas.LONGEST_ID:
        return schemas.Links(causation_tree=None, letters=[], windows=[], complete=False)
    found = await Inspector(parts.redis).letters_of(wanted, dlqs=sorted(parts.queues))
    others = [one for one in found.letters if (one.dlq, one.id) != (dlq, letter.id)]
    return schemas.Links(
        causation_tree=f"{base}/events?{urlencode({'correlation_id': wanted})}",
        letters=await run_in_threadpool(lambda: [_letter(one, parts.redactor, base) for one in others]),
        windows=[schemas.Window.model_validate(window) for window in found.windows],
        complete=found.complete,
    )


def _event(event: TracedEvent, redactor: Redactor) -> schemas.Event:
    data = _shown(event.data, event.data_size, redactor)
    metadata = _shown(event.metadata, event.metadata_size, redactor)
    secrets = Shown.known(data, metadata)
    return schemas.Event.model_validate(
        {
            **_members(event, "data", "metadata", "deliveries"),
            "data": data.payload,
            "metadata": metadata.payload,
            "deliveries": [_delivery(delivery, redactor, secrets) for delivery in event.deliveries],
        }
    )


def _delivery(delivery: TracedDelivery, redactor: Redactor, secrets: Iterable[str] | None) -> schemas.Delivery:
    return schemas.Delivery(
        group=delivery.group,
        state=delivery.state,
        inferred=delivery.inferred,
        pending=None if delivery.pending is None else _pending(delivery.pending, redactor, secrets),
        handlers=[schemas.HandlerState.model_validate(handler) for handler in delivery.handlers],
        letters=list(delivery.letters),
    )


def _pending(entry: PendingEntry, redactor: Redactor, secrets: Iterable[str] | None) -> schemas.Pending:
    failures = [replace(one, error=redactor.told(one.error, secrets)) for one in entry.failures]
    attempts = [
        replace(of, attempts=tuple(replace(one, error=redactor.told(one.error, secrets)) for one in of.attempts))
        for of in entry.attempts
    ]
    return schemas.Pending.model_validate(replace(entry, failures=tuple(failures), attempts=tuple(attempts)))


def _letter(letter: TracedLetter, redactor: Redactor, base: str) -> schemas.LetterLink:
    parts = [_shown(raw, 0, redactor) for raw in (letter.data, letter.metadata)]
    return schemas.LetterLink.model_validate(
        {
            **_members(letter, "data", "metadata", "history", "error", "replays"),
            "href": f"{base}/dead-letters/{quote(letter.id, safe='')}?{urlencode({'dlq': letter.dlq})}",
            "error": redactor.told(letter.error, Shown.known(*parts)),
            "replays": replays_of(letter.replays),
        }
    )


def _members(of: object, *but: str) -> dict[str, object]:
    names = getattr(of, "__dataclass_fields__", {})
    return {name: getattr(of, name) for name in names if name not in but}


def _shown(raw: bytes | None, size: int, redactor: Redactor) -> Shown:
    if raw is None:
        return Shown(Payload(encoding="omitted", value=None, size=size, truncated=True), frozenset(), is_searched=False)
    return show(raw, redactor, LONGEST_IN_LIST)
