"""`make test-matrix`: the delivery suite on each kind of server, and one table of how it went.

python -m tests.matrix                          # all of it
python -m tests.matrix redis-6.2 cluster        # these
python -m tests.matrix --core redis-6.2         # the core of the suite, as CI runs it
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.servers.choice import NAMES

ROOT = Path(__file__).parents[1]

MATRIX = ("redis-6.2", "redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1", "sentinel", "cluster")
SUITE = ("tests/worker", "tests/redis", "tests/dead_letters", "tests/inspection", "tests/servers/test_fixtures.py")
CORE = (
    "tests/worker/test_attempts.py",
    "tests/worker/test_reclaiming.py",
    "tests/worker/test_group_state.py",
    "tests/worker/test_lanes.py",
    "tests/worker/test_stopping.py",
    "tests/redis/test_clients.py",
    "tests/redis/test_settlement.py",
    "tests/dead_letters",
    "tests/servers/test_fixtures.py",
)
"""What is different between servers, if anything is: groups, pending entries, scripts, letters."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the suite on one kind of server."""

    server: str
    tests: int
    failed: int
    seconds: float
    broken: bool = False
    """Whether pytest ended otherwise than with a count, such as for want of a server."""

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.broken and self.tests > 0


def main(arguments: Sequence[str]) -> int:
    """Run, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description="The delivery suite on each server.")
    parser.add_argument("--core", action="store_true", help="only the core of the suite")
    parser.add_argument("servers", nargs="*", default=MATRIX, help=f"of {', '.join(NAMES)}")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.servers) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(NAMES)}")
    results = [run_on(server, CORE if chosen.core else SUITE) for server in chosen.servers]
    print("\n".join(table(results)), flush=True)
    return 0 if all(result.is_good for result in results) else 1


def run_on(server: str, suite: Sequence[str]) -> Result:
    """Run the suite on one kind of server; what it prints is shown as it comes."""
    print(f"\n--- {server} " + "-" * (95 - len(server)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-m=integration",  # what needs no server is the same on all
            "--numprocesses=2",
            "--dist=loadgroup",
            f"--server={server}",
            f"--junit-xml={report}",
        ]
        code = subprocess.run([*command, *suite], cwd=ROOT, check=False).returncode
        return result_of(server, report, code, time.monotonic() - began)


def result_of(server: str, report: Path, code: int, seconds: float) -> Result:
    """From pytest's report and exit code, which is 0 or 1 where tests were run."""
    if not report.exists():
        return Result(server, 0, 0, seconds, broken=True)
    suites = list(ElementTree.parse(report).iter("testsuite"))
    failed = sum(int(suite.get(kind, 0)) for suite in suites for kind in ("failures", "errors"))
    tests = sum(int(suite.get("tests", 0)) for suite in suites)
    return Result(server, tests, failed, seconds, broken=code not in (0, 1))


def table(results: Sequence[Result]) -> list[str]:
    """A line for each server, in Markdown."""
    lines = ["", "| server | tests | passed | failed | seconds |", "|:--|--:|--:|--:|--:|"]
    for result in results:
        failed = "did not run" if result.broken else str(result.failed)
        passed = result.tests - result.failed
        lines.append(f"| {result.server} | {result.tests} | {passed} | {failed} | {result.seconds:.0f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
