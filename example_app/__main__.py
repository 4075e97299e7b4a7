"""`python -m example_app` runs the demo. `--once` stops after it and checks the result."""

import argparse
import sys

__all__ = ["main"]

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m example_app", description="Order fulfilment with Rapids, live.")
    parser.add_argument("--once", action="store_true", help="stop after the demo; exit 1 if a check fails")
    parser.add_argument("--port", type=int, default=8000, help="the port (%(default)s); a free one if it is in use")
    chosen = parser.parse_args(arguments)
    try:
        return _run(once=chosen.once, port=chosen.port)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(*, once: bool, port: int) -> int:
    # Imported here, since the import takes time, and Ctrl-C during it must not print a traceback.
    from example_app.demo.show import DemoError, run

    try:
        return run(once=once, port=port)
    except DemoError as error:
        print(f"example_app: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
