"""Requests to replay a dead letter, also with patched or replaced data. Answers do not reveal hidden values."""

from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

from pydantic import ConfigDict
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue
from rapids.dead_letters import Difference, Replay, Scope
from rapids.dead_letters.edit import merge_patch
from rapids.exceptions import EditRefusedError, LetterStateError, json_pointer
from rapids.redaction import MASK, Redactor
from rapids.redaction.redactor import is_too_large
from rapids_fastapi.admin.auth import AdminUser
from rapids_fastapi.admin.models import Answer, Reason, Request, example
from rapids_fastapi.admin.payload import clean
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.redacted_letter import (
    MAX_POINTER,
    ParseProblem,
    names_place,
    redacted_diff,
    redacted_problem,
)

__all__ = ["EditCheck", "EditRequest", "ReplayRequest", "edit_check", "replayed"]

MAX_ERRORS = 100

MAX_CHANGED = 1024 * 1024
MAX_CHANGED_VALUES = 100_000
"""Bytes and values of data that can be changed here: they are read, searched, validated and compared."""

_UNSEEN = ParseProblem(
    pointer="", message="what is wrong is shown to users with the permission 'read'", type="not_shown"
)

_UNSEARCHED = ParseProblem(
    pointer="", message="the stored data cannot be searched for hidden values: send whole data", type="too_deep"
)
_TOO_LARGE = ParseProblem(
    pointer="", message="the stored data are too large to be changed here: change them from Python", type="too_large"
)

Result = TypeVar("Result")
Location: TypeAlias = tuple[str | int, ...]


class InvalidDataProblem(Problem):
    """The problem for changed data that are refused."""

    def __init__(self, errors: Sequence[ParseProblem], count: int) -> None:
        super().__init__(
            "data-invalid",
            "Nothing was sent. `errors` has what is wrong, and where in the event: its own and the common fields.",
            errors=[error.model_dump() for error in errors],
            error_count=count,
        )
        self.errors: list[ParseProblem] = list(errors)
        self.count = count


class EditRequest(Request):
    """Changed data of an event."""

    model_config: ClassVar[ConfigDict] = example(patch={"total": 12.5})

    patch: dict[str, Any] | None = None
    """Change some of the event's own fields (permission `edit`), by a JSON Merge Patch (RFC 7396). A field in the patch
    gets its value from there, or is removed by null. Other fields keep their stored values, also hidden ones."""
    data: dict[str, Any] | None = None
    """Replace all of the event's own fields (permission `edit`). Not together with `patch`."""


class ReplayRequest(EditRequest):
    """How to replay."""

    model_config: ClassVar[ConfigDict] = example(scope="handler", patch={"total": 12.5}, reason="the total was a text")

    scope: Scope = "handler"
    """Who gets the event again: the handler that failed, all matching handlers of its group, or all groups of the
    stream."""
    reason: Reason = ""
    """Why; kept in the letter's history."""


class EditCheck(Answer):
    """What a replay with changed data would do."""

    accepted: bool
    """Whether the event's class in this process accepts the data. Nothing was sent."""
    problems: list[ParseProblem]
    """Why not: the first 100 errors. Without the permission `read`, they say nothing of the data."""
    problem_count: int
    diff: tuple[Difference, ...]
    """Where the changed data differ from the letter's, if they are accepted. Empty without the permission `read`."""


async def replayed(
    body: ReplayRequest, letter_id: str, queue: DeadLetterQueue, user: AdminUser, redactor: Redactor
) -> Replay:
    """Replay a letter as requested. Raises `Problem`, and what `DeadLetterQueue.replay` raises."""
    if body.data is None and body.patch is None:
        return await queue.replay(letter_id, scope=body.scope, actor=user.name, reason=body.reason)
    if not user.may("edit"):
        raise Problem("forbidden", "To change data needs the permission 'edit'.", permission="edit")
    letter = await queue.get(letter_id)
    if letter.state != "dead":
        raise LetterStateError(letter_id, letter.state, "dead")

    async def replay() -> tuple[Replay, tuple[Difference, ...]]:
        sent = await queue.replay(
            letter_id, scope=body.scope, data=body.data, patch=body.patch, actor=user.name, reason=body.reason
        )
        return sent, sent.diff

    sent, diff = await _with_change(body, letter, user, redactor, replay)
    return replace(sent, diff=diff)


async def edit_check(
    body: EditRequest, letter_id: str, queue: DeadLetterQueue, user: AdminUser, redactor: Redactor
) -> EditCheck:
    """Try changed data without sending them. Raises `Problem`, and what `DeadLetterQueue.check_edit` raises."""
    if body.data is None and body.patch is None:
        raise Problem("invalid", "Give patch or data.")
    letter = await queue.get(letter_id)

    async def check() -> tuple[None, tuple[Difference, ...]]:
        return None, await queue.check_edit(letter_id, data=body.data, patch=body.patch)

    try:
        _, diff = await _with_change(body, letter, user, redactor, check)
    except InvalidDataProblem as problem:
        return EditCheck(accepted=False, problems=problem.errors, problem_count=problem.count, diff=())
    return EditCheck(accepted=True, problems=[], problem_count=0, diff=diff)


async def _with_change(
    body: EditRequest,
    letter: DeadLetter,
    user: AdminUser,
    redactor: Redactor,
    act: Callable[[], Awaitable[tuple[Result, tuple[Difference, ...]]]],
) -> tuple[Result, tuple[Difference, ...]]:
    """What `act` returns, with only the differences that the user may see. Raises `Problem` for data that are refused,
    here or by `act`, without what the user may not see."""
    if body.data is not None and body.patch is not None:
        raise Problem("invalid", "Give either patch or data, not both.")
    change: dict[str, Any] = (body.data if body.patch is None else body.patch) or {}
    if is_too_large(letter.data, MAX_CHANGED, MAX_CHANGED_VALUES):
        raise InvalidDataProblem([_TOO_LARGE], 1)
    await run_in_threadpool(_check_masks, change, redactor)
    if body.patch is not None and (shown := await run_in_threadpool(shown_by, body.patch, letter, redactor)):
        if not user.may("read"):
            raise InvalidDataProblem([_UNSEEN], 1)
        raise InvalidDataProblem(shown[:MAX_ERRORS], len(shown))
    try:
        result, diff = await act()
    except EditRefusedError as error:
        if not user.may("read"):  # errors may quote the letter, and their pointers name its keys
            raise InvalidDataProblem([_UNSEEN], 1) from None
        raise await run_in_threadpool(_refusal, error, body, letter, redactor) from None
    if not user.may("read"):
        return result, ()
    return result, await run_in_threadpool(_shown_diff, diff, change, body, letter, redactor)


def _shown_diff(
    diff: Sequence[Difference], change: dict[str, Any], body: EditRequest, letter: DeadLetter, redactor: Redactor
) -> tuple[Difference, ...]:
    """The differences without hidden values."""
    metadata = redactor.document(letter.metadata)
    before = redactor.document(letter.data, metadata.values if metadata else ())
    try:
        after = change if body.patch is None else merge_patch(from_json(letter.data), change)
    except ValueError:
        after = change
    also = [value for one in (before, metadata) if one is not None for value in one.values]
    return redacted_diff(diff, redactor, before, redactor.value(after, also), metadata, patch=body.patch)


def _check_masks(change: dict[str, Any], redactor: Redactor) -> None:
    """Raises `Problem` if a hidden field has the mask as its value."""
    if (searched := redactor.value(change)) is None:
        raise InvalidDataProblem([ParseProblem(pointer="", message="nested too deep", type="too_deep")], 1)
    message = "this is the mask of a hidden value: leave the field out of a patch to keep it, or write the value"
    errors = [
        ParseProblem(pointer=clean(json_pointer(location), MAX_POINTER), message=message, type="hidden_value")
        for location in _masks(change, redactor, (), searched.places)
    ]
    if errors:
        raise InvalidDataProblem(errors[:MAX_ERRORS], len(errors))


def shown_by(patch: dict[str, Any], letter: DeadLetter, redactor: Redactor) -> list[ParseProblem]:
    """The stored values that are hidden and would no longer be: a patch changes the name next to them."""
    before = redactor.document(letter.data)
    if before is None:  # a patch could make something of them that is shown
        return [_UNSEARCHED] if redactor.names and _is_json(letter.data) else []
    if not before.places:
        return []
    after = redactor.value(merge_patch(from_json(letter.data), patch))
    if after is None:
        return []
    message = "this hidden value would be shown if the name next to it is changed: write the value, too, or remove it"
    return [
        ParseProblem(pointer=clean(json_pointer(place), MAX_POINTER), message=message, type="hidden_value")
        for place in sorted(before.places, key=str)
        if not names_place(patch, place) and not any(place[:size] in after.places for size in range(1, len(place) + 1))
    ]


def _is_json(raw: bytes) -> bool:
    try:
        from_json(raw)
    except ValueError:  # to patch that is refused anyway
        return False
    return True


def _masks(value: object, redactor: Redactor, location: Location, places: Set[Location]) -> Iterator[Location]:
    """The locations that have the mask as their value, of hidden fields and of `places` that are hidden otherwise."""
    if value == MASK and (location in places or (isinstance(name := location[-1], str) and redactor.hides(name))):
        yield location
    elif isinstance(value, dict):
        for name, member in cast("dict[str, object]", value).items():
            yield from _masks(member, redactor, (*location, name), places)
    elif isinstance(value, list):
        for at, member in enumerate(cast("list[object]", value)):
            yield from _masks(member, redactor, (*location, at), places)


def _refusal(error: EditRefusedError, body: EditRequest, letter: DeadLetter, redactor: Redactor) -> InvalidDataProblem:
    """The problem for changed data that is wrong, without the secrets of the event, which errors may quote."""
    kept = None if body.patch is None else letter.data
    searched = [redactor.document(letter.metadata), redactor.value(body.data if body.patch is None else body.patch)]
    hidden = redactor.hidden(*searched, *([] if kept is None else [redactor.document(kept)]))
    errors = [redacted_problem(problem, redactor, hidden) for problem in error.problems]
    return InvalidDataProblem(errors, error.problem_count)
