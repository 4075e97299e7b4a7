"""`python -m example_app`: see the service at work. `--once`: and check that it worked."""

import argparse
import sys

__all__ = ["main"]

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m example_app", description="Order fulfilment with Rapids, live.")
    parser.add_argument("--once", action="store_true", help="stop after the story; exit 1 unless all went as it should")
    parser.add_argument("--port", type=int, default=8000, help="where to serve (%(default)s); a free one if taken")
    chosen = parser.parse_args(arguments)
    try:
        return _run(once=chosen.once, port=chosen.port)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(*, once: bool, port: int) -> int:
    # Imported here, since this takes the better part of a second, in which Ctrl-C should be no error either.
    from example_app.demo.show import DemoError, run

    try:
        return run(once=once, port=port)
    except DemoError as error:
        print(f"example_app: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
