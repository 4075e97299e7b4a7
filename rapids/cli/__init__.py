"""The command `rapids`, of the extra `cli`: runs routers as worker processes, and shows and repairs what failed."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Typer

__all__ = ["command", "main"]

PARTS = (
    "run",
    "letter_commands",
    "letter_changes",
    "letter_export",
    "exported_test",
    "event_feed",
    "catalog_commands",
    "schema_commands",
    "event_commands",
    "group_commands",
    "pending_entries",
    "doctor",
)
"""The modules that have commands, in the order of the help."""

STANDARD_ERROR = 2
"""The number of its file; those of standard input and output are below."""

MISSING = "the command rapids needs the extra 'cli': pip install 'rapids-fastapi[cli]' ({})"


def command() -> "Typer":
    """The command with all its parts, each of which adds itself. Raises `ImportError` without the extra."""
    from rapids.cli.root import app

    for name in PARTS:
        import_module(f"rapids.cli.{name}")
    return app


def main() -> None:
    """Run the command with the arguments of this process, and exit with its code."""
    _open_standard_streams()
    try:
        app = command()
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(MISSING.format(error))
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(130)
    app()


def _open_standard_streams() -> None:
    """Open streams that the caller has closed (`2>&-`) on the null device. Otherwise a connection gets their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - until the end of the process, as the others
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
