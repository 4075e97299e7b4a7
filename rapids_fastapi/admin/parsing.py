"""Would it parse today? The answer as it may be shown: without what is hidden in the payload."""

from rapids import DeadLetter
from rapids._core.parse_problem import json_pointer
from rapids.dead_letters import ParseProblem
from rapids.dead_letters.parse_check import ELLIPSIS
from rapids_fastapi.admin import schemas
from rapids_fastapi.admin.payloads import Shown, clean
from rapids_fastapi.admin.redaction import MASK, Redactor

__all__ = ["LARGEST_CHECKED", "parse_check_of", "shown_problem"]

LARGEST_CHECKED = 1024 * 1024
"""Bytes of data and metadata. Validating more can hold up the process, from a thread too, and take a gigabyte."""

_LONGEST_POINTER = 4_000
_LONGEST_TEXT = 1_000


def parse_check_of(letter: DeadLetter, redactor: Redactor, data: Shown, metadata: Shown) -> schemas.ParseCheck:
    """Whether the letter's event would parse, told without what was hidden in its data and metadata."""
    if len(letter.data) + len(letter.metadata) > LARGEST_CHECKED:
        return schemas.ParseCheck(outcome="too_large", event_class=None, problems=[], problem_count=0)
    check = letter.check_parsing()
    secrets = data.secrets | metadata.secrets
    # What Pydantic reads and orjson does not, such as NaN, was not searched for secrets; validators may speak of them.
    searched = all(part.payload.encoding == "json" or not part.payload.size for part in (data, metadata))
    are_known = searched or check.outcome != "invalid"
    return schemas.ParseCheck(
        outcome=check.outcome,
        event_class=check.event_class,
        problems=[shown_problem(problem, redactor, secrets if are_known else None) for problem in check.problems],
        problem_count=check.problem_count,
    )


def shown_problem(problem: ParseProblem, redactor: Redactor, secrets: frozenset[str] | None) -> schemas.ParseProblem:
    """The problem, without the secrets of the event it is about; None where those are not known."""
    location, hidden = problem.location, redactor.hidden_at(problem.location)
    if hidden is not None:  # the keys below are hidden too, and a message may quote a part of the value
        location = location[: hidden + 1]
    is_unclear = hidden is not None or secrets is None or location[-1:] == (ELLIPSIS,)
    return schemas.ParseProblem(
        pointer=clean(json_pointer(location), _LONGEST_POINTER),
        message=MASK if is_unclear and redactor.names else _message(problem.message, redactor, secrets or frozenset()),
        type=clean(problem.type, _LONGEST_TEXT),
    )


def _message(text: str, redactor: Redactor, secrets: frozenset[str]) -> str:
    masked = redactor.text(text, secrets).encode(errors="replace")
    return clean(redactor.raw(masked).decode(), _LONGEST_TEXT)
