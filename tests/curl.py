"""`python -m tests.curl`: as much of curl as the pages use, for machines that have none."""

from __future__ import annotations

import argparse
import sys

import httpx

from tests.support import NO_TLS

MAX_TIME = 28
"""What curl exits with when its time is over."""


def main(arguments: list[str]) -> int:
    chosen = _options().parse_args(arguments)
    method = chosen.request or ("GET" if chosen.data is None else "POST")
    headers = dict(one.split(": ", 1) for one in chosen.header)
    user = tuple(chosen.user.split(":", 1)) if chosen.user else None
    timeout = httpx.Timeout(30.0, read=chosen.max_time)
    with httpx.stream(
        method, chosen.url, content=chosen.data, headers=headers, auth=user, timeout=timeout, verify=NO_TLS
    ) as answer:
        if chosen.include:
            print(f"{answer.http_version} {answer.status_code} {answer.reason_phrase}")
            print("".join(f"{name.lower()}: {value}\n" for name, value in answer.headers.items()))
        try:
            for text in answer.iter_text():
                print(text, end="", flush=True)
        except httpx.ReadTimeout:
            return MAX_TIME
        except BrokenPipeError:  # `| head`
            sys.stderr.close()
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--show-error", action="store_true")
    parser.add_argument("--no-buffer", action="store_true")
    parser.add_argument("--include", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--header", "-H", action="append", default=[])
    parser.add_argument("--data")
    parser.add_argument("--request", "-X")
    parser.add_argument("--max-time", type=float, default=30.0, help="here: between two pieces of the answer")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
