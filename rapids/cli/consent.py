"""The consent to a change: who asks for it, why, and the question before it."""

import getpass
import sys
from typing import Annotated, TypeAlias

import typer

from rapids.cli.display import safe
from rapids.cli.root import fail

__all__ = ["DryRun", "Reason", "Yes", "actor", "agree", "is_interactive"]

MAX_ACTOR = 200
"""Characters of an actor in the audit log."""

MAX_REASON = 1_000
"""Characters of a reason there."""


def _short(reason: str) -> str:
    if len(reason) > MAX_REASON:
        fail(f"--reason must have at most {MAX_REASON:,} characters, not {len(reason):,}")
    return reason


Reason: TypeAlias = Annotated[str, typer.Option("--reason", callback=_short, help="Why; it is kept in the audit log.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where nobody can answer.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")]


def actor() -> str:
    """Who is named in the audit log: `cli:` and the name of the user of this machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        name = "unknown"
    return f"cli:{safe(name)}"[:MAX_ACTOR]


def is_interactive() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agree(question: str, *, yes: bool) -> None:
    """Ask, and end the command with the code 2 unless the answer is yes. With `--yes`, nothing is asked.

    The question is on standard error. Where nobody can answer, the command ends and says so.
    """
    if yes:
        return
    if not is_interactive():
        fail(f"nothing was changed: this is no terminal, so nobody can be asked ({safe(question)}); give --yes")
    if not typer.confirm(safe(question), err=True):
        fail("nothing was changed")
