"""Replaying a letter with other data: what is hidden in it stays hidden, and is kept where it was not changed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue
from rapids._core.parse_problem import ParseProblem
from rapids.dead_letters import Replay, Scope
from rapids.exceptions import EditRefusedError, LetterStateError
from rapids_fastapi.admin.auth import AdminUser
from rapids_fastapi.admin.keeping import ABSENT, Keeper
from rapids_fastapi.admin.payload import clean
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.redacted_letter import MAX_POINTER, redacted_diff, redacted_problem
from rapids_fastapi.admin.redacted_letter import ParseProblem as ShownProblem
from rapids_fastapi.admin.redaction import Redactor, TooDeepError

__all__ = ["replay_as"]


class Asked(Protocol):
    """How to replay."""

    scope: Scope
    data: dict[str, Any] | None
    reason: str


_MOST_ERRORS = 100


async def replay_as(body: Asked, letter_id: str, queue: DeadLetterQueue, user: AdminUser, redactor: Redactor) -> Replay:
    """Replay a letter as asked for. Raises `Problem`, and what `DeadLetterQueue.replay` raises."""
    if body.data is None:
        return await queue.replay(letter_id, scope=body.scope, actor=user.name, reason=body.reason)
    if not user.may("edit"):
        raise Problem("forbidden", "Other data need the permission 'edit'.", permission="edit")
    letter = await queue.get(letter_id)
    if letter.state != "dead":
        raise LetterStateError(letter_id, letter.state, "dead")
    data = await run_in_threadpool(_meant, body.data, letter, redactor)
    try:
        replay = await queue.replay(letter_id, scope=body.scope, data=data, actor=user.name, reason=body.reason)
    except EditRefusedError as error:
        raise await run_in_threadpool(_refusal, error, data, letter, redactor) from None
    return replace(replay, diff=redacted_diff(replay.diff, redactor))


def _meant(sent: dict[str, Any], letter: DeadLetter, redactor: Redactor) -> dict[str, Any]:
    """The data with what was hidden in them. Raises `Problem` where that is not clear."""
    if _secrets(redactor, [sent]) is None:
        raise _invalid([ShownProblem(pointer="", message="nested too deep", type="too_deep")], 1)
    keeper = Keeper(redactor)
    data = keeper.kept(sent, _stored(letter.data, redactor))
    if keeper.problems:  # they tell of nothing but names, which are shown
        shown = [_plain(problem) for problem in keeper.problems[:_MOST_ERRORS]]
        raise _invalid(shown, len(keeper.problems))
    return data


def _read(raw: bytes) -> object:
    try:
        return from_json(raw)
    except ValueError:
        return ABSENT


def _stored(raw: bytes, redactor: Redactor) -> object:
    """What is stored, unless it cannot be searched for what is hidden in it."""
    stored = _read(raw)
    return ABSENT if _secrets(redactor, [stored]) is None else stored


def _secrets(redactor: Redactor, values: Iterable[object]) -> frozenset[str] | None:
    """What is to be hidden in the values, None where one is not known, or too deep to be searched."""
    found: set[str] = set()
    try:
        for value in values:
            if value is ABSENT:
                return None
            redactor.value(value, found)
    except TooDeepError:
        return None
    return frozenset(found)


def _refusal(error: EditRefusedError, data: dict[str, Any], letter: DeadLetter, redactor: Redactor) -> Problem:
    secrets = _secrets(redactor, [data, _read(letter.metadata or b"{}")])
    return _invalid([redacted_problem(problem, redactor, secrets) for problem in error.problems], error.problem_count)


def _invalid(errors: Sequence[ShownProblem], count: int) -> Problem:
    return Problem(
        "data-invalid",
        "Nothing was sent. `errors` has what is wrong, with pointers into the event: its own and the common fields.",
        errors=[error.model_dump() for error in errors],
        error_count=count,
    )


def _plain(problem: ParseProblem) -> ShownProblem:
    return ShownProblem(pointer=clean(problem.pointer, MAX_POINTER), message=problem.message, type=problem.type)
