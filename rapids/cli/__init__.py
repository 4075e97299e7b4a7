"""The command `rapids`, of the extra `cli`: runs routers as worker processes, and shows and repairs what failed."""

import sys

__all__ = ["main"]

MISSING = "the command rapids needs the extra 'cli': pip install 'rapids-fastapi[cli]' ({})"


def main() -> None:
    """Run the command with the arguments of this process, and exit with its code."""
    try:
        from rapids.cli.root import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(MISSING.format(error))
    app()
