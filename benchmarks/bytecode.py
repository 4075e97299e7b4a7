"""`python -m benchmarks.bytecode`: how many instructions of bytecode an event takes, now and at an earlier commit.

The figures are the same on every machine, however busy it is. They say nothing of what C code does, which `make bench`
measures. Needs Python 3.12 or newer for the environments, which it builds as the benchmark does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.environments import BEFORE_COMMIT, IMPORTABLE, Environment, find_python, prepare
from benchmarks.processes import Failed, output_of
from benchmarks.scenario import BEFORE
from benchmarks.servers import private_server

ROWS = ("emit-one", "emit-lists", "consume-batch", "three-handlers")


async def _count(environment: Environment, url: str, row: str) -> Mapping[str, Any]:
    program = (environment.python, "-m", "benchmarks.contenders.instructions", url, row)
    return json.loads(await output_of(*program, cwd=IMPORTABLE, timeout=300))


async def run(before: str, python: str | None, functions: int) -> None:
    found = await find_python(python)
    if found.version < (3, 12):
        raise Failed(f"bytecode can be counted with Python 3.12 or newer, not with {found}")
    environments = await prepare(("ours", BEFORE), found, before)
    print(f"Instructions of bytecode an event, Python {found}; before is {before[:7]}\n")
    print(f"{'':16}{'before':>8}{'ours':>8}{'ratio':>8}")
    details: list[str] = []
    async with private_server(None) as server:
        for row in ROWS:
            counts = {name: await _count(one, server.url, row) for name, one in environments.items()}
            ours, earlier = counts["ours"]["total"], counts[BEFORE]["total"]
            print(f"{row:16}{earlier:8,.0f}{ours:8,.0f}{ours / earlier:8.3f}", flush=True)
            most = list(counts["ours"]["by_function"].items())[:functions]
            if most:
                details += [f"\n{row}", *(f"{count:8.1f}  {name}" for name, count in most)]
    print(*details, sep="\n", end="\n" if details else "")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bytecode", description=__doc__)
    parser.add_argument("--before", default=BEFORE_COMMIT, metavar="COMMIT", help="what to compare with")
    parser.add_argument("--python", help="the interpreter to build the environments with")
    parser.add_argument("--functions", type=int, default=0, help="list so many functions of each row")
    chosen = parser.parse_args(arguments)
    try:
        asyncio.run(run(chosen.before, chosen.python, chosen.functions))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
