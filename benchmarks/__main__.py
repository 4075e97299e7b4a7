"""`python -m benchmarks`: measure Rapids, a hand-written floor, rapids-streams 0.3.0 and FastStream."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.environments import BEFORE_COMMIT, HOME, ROOT
from benchmarks.processes import Failed
from benchmarks.run import Options, Run
from benchmarks.scenario import ALL, BEFORE, KNOWN, Scenario
from benchmarks.scenarios import SCENARIOS

ROUNDS = 5
FEWEST_LETTERS = 20_000
"""With fewer there is no page so far down as the scenarios look."""


def options(arguments: list[str]) -> Options:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="SCENARIO,...", help=f"some of: {', '.join(names)}; a prefix takes all")
    parser.add_argument(
        "--contenders", default=",".join(ALL), help=f"some of {', '.join(KNOWN)}; ours always is (default: %(default)s)"
    )
    parser.add_argument("--before", default=BEFORE_COMMIT, metavar="COMMIT", help=f"what `{BEFORE}` is built from")
    parser.add_argument(
        "--letters", type=_count, metavar="COUNT", help="dead letters at the most, instead of a million"
    )
    parser.add_argument("--rounds", type=int, default=os.environ.get("BENCH_ROUNDS", ROUNDS), help="or BENCH_ROUNDS")
    parser.add_argument("--quick", action="store_true", help="small counts, one round: whether the harness works")
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the processors")
    parser.add_argument("--python", help="the interpreter to build the environments with (3.12+ for the peer)")
    parser.add_argument(
        "--server", type=Path, help="another server's executable, such as .servers/redis-8.2/redis-server"
    )
    parser.add_argument("--output", type=Path, help="the folder for the results")
    chosen = parser.parse_args(arguments)
    wanted = [name for name in (chosen.only or "").split(",") if name]
    unknown = [name for name in wanted if not any(one.startswith(name) for one in names)]
    contenders = {"ours", *filter(None, chosen.contenders.split(","))}
    if unknown or contenders - set(KNOWN):
        parser.error(f"there is no {', '.join([*unknown, *sorted(contenders - set(KNOWN))])}")
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {chosen.rounds}")
    partial = (
        chosen.quick
        or chosen.letters is not None
        or chosen.server is not None
        or bool(wanted)
        or contenders != set(ALL)
    )
    return Options(
        scenarios=tuple(_at_most(one, chosen.letters) for one in SCENARIOS if _is_wanted(one, wanted)),
        contenders=tuple(name for name in KNOWN if name in contenders),
        rounds=1 if chosen.quick else chosen.rounds,
        quick=chosen.quick,
        pinned=not chosen.no_pin,
        python=chosen.python,
        before=chosen.before,
        server=chosen.server,
        output=chosen.output or (HOME / "results" if partial else ROOT / "benchmarks" / "results"),
    )


def _count(text: str) -> int:
    if (count := int(text)) < FEWEST_LETTERS:
        raise argparse.ArgumentTypeError(f"must be at least {FEWEST_LETTERS:,}, not {count:,}")
    return count


def _is_wanted(scenario: Scenario, prefixes: list[str]) -> bool:
    return not prefixes or any(scenario.name.startswith(prefix) for prefix in prefixes)


def _at_most(scenario: Scenario, letters: int | None) -> Scenario:
    if letters is None or not scenario.task.startswith("letters-"):
        return scenario
    return replace(scenario, count=min(scenario.count, letters))


async def _run(chosen: Options) -> list[str]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await Run(chosen).carry_out()


def main(arguments: list[str]) -> int:
    try:
        failures = asyncio.run(_run(options(arguments)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return 130
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
