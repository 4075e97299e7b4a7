"""`python -m benchmarks.contenders JOB`: carries out one job, given as JSON; its outcome is the last line printed."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.contenders.contract import Contender, Unavailable
from benchmarks.contenders.drivers import carry_out
from benchmarks.jobs import Job, Outcome

MODULES = {
    "ours": "rapids_like",
    "before": "rapids_like",
    "peer": "rapids_like",
    "faststream": "faststream_redis",
    "floor": "floor",
}
OF_ENVIRONMENT = ("before", "peer")
"""Those whose `rapids` must be the one that is installed in their own environment."""


def contender_of(name: str) -> Contender:
    module = importlib.import_module(f"benchmarks.contenders.{MODULES[name]}")
    return module.CONTENDER


def _check_is_installed(package: ModuleType) -> None:
    """Ours has the same import name: measuring it in the name of another contender must be impossible."""
    if not Path(str(package.__file__)).is_relative_to(sys.prefix):
        raise RuntimeError(f"this contender's rapids must come from {sys.prefix}, not {package.__file__}")


def run(job: Job) -> Outcome:
    if job.contender in OF_ENVIRONMENT:
        _check_is_installed(importlib.import_module("rapids"))
    with asyncio.Runner(loop_factory=_loop_factory(job.loop)) as runner:
        try:
            if job.task.startswith("letters-"):
                return runner.run(importlib.import_module("benchmarks.contenders.letters").carry_out(job))
            return runner.run(carry_out(contender_of(job.contender), job))
        except Unavailable as missing:
            return Outcome(unavailable=str(missing))


def _loop_factory(loop: str):
    if loop == "uvloop":
        return importlib.import_module("uvloop").new_event_loop
    return asyncio.new_event_loop


if __name__ == "__main__":
    print(run(Job.from_json(sys.argv[1])).to_json())
