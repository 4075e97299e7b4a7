"""`python -m tests.chaos`: emit, handle, break things, and see whether every promise was kept."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from tests.chaos.checks import check
from tests.chaos.evidence import Evidence
from tests.chaos.report import details, table
from tests.chaos.run import carry_out
from tests.chaos.settings import TOPOLOGIES, Options


def options(arguments: list[str]) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="how long faults strike")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="what the faults are drawn from")
    parser.add_argument("--topology", choices=TOPOLOGIES, default=defaults.topology, help="what kind of servers")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--emitters", type=int, default=defaults.emitters)
    parser.add_argument("--rate", type=float, default=defaults.rate, help="events per second, all emitters together")
    parser.add_argument("--faults-per-second", type=float, default=defaults.faults_per_second)
    parser.add_argument("--seconds-between-failovers", type=float, default=defaults.seconds_between_failovers)
    parser.add_argument("--drain-seconds", type=float, default=defaults.drain_seconds, help="how long without a change")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and data")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    return Options(**vars(parser.parse_args(arguments)))


async def _run(chosen: Options) -> Evidence:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await carry_out(chosen)


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    try:
        evidence = asyncio.run(_run(chosen))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return 130
    promises = check(evidence)
    print(table(chosen, evidence, promises))
    if any(promise.broken_by for promise in promises):
        print(details(promises))
        again = f"--topology {chosen.topology} --seed {chosen.seed} --seconds {chosen.seconds:g}"
        print(f"\nAgain: python -m tests.chaos {again} --keep")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
