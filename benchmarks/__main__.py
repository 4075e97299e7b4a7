"""`python -m benchmarks`: measure Rapids beside a hand-written floor, rapids-streams 0.3.0 and FastStream."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from benchmarks.environments import HOME, ROOT
from benchmarks.processes import Failed
from benchmarks.run import Options, Run
from benchmarks.scenario import ALL
from benchmarks.scenarios import SCENARIOS

ROUNDS = 5


def options(arguments: list[str]) -> Options:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="SCENARIO,...", help=f"some of: {', '.join(names)}; a prefix takes all")
    parser.add_argument("--contenders", default=",".join(ALL), help="some of the default: %(default)s; ours always is")
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
    if unknown or contenders - set(ALL):
        parser.error(f"there is no {', '.join([*unknown, *sorted(contenders - set(ALL))])}")
    if chosen.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {chosen.rounds}")
    partial = chosen.quick or chosen.server is not None or bool(wanted) or contenders != set(ALL)
    return Options(
        scenarios=tuple(one for one in SCENARIOS if not wanted or any(one.name.startswith(name) for name in wanted)),
        contenders=tuple(name for name in ALL if name in contenders),
        rounds=1 if chosen.quick else chosen.rounds,
        quick=chosen.quick,
        pinned=not chosen.no_pin,
        python=chosen.python,
        server=chosen.server,
        output=chosen.output or (HOME / "results" if partial else ROOT / "benchmarks" / "results"),
    )


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
