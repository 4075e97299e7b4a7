"""`make coverage-slow`: the lines that only slow tests reach, from the data of two runs.

python -m tests.slow_coverage .coverage.quick .coverage.slow
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from coverage import CoverageData


def main(quick_file: str, slow_file: str) -> int:
    """Print a line for each file, and the sum."""
    quick, slow = CoverageData(quick_file), CoverageData(slow_file)
    quick.read()
    slow.read()
    total = 0
    for file in sorted(slow.measured_files()):
        if only := sorted(set(slow.lines(file) or ()) - set(quick.lines(file) or ())):
            total += len(only)
            print(f"{Path(file).relative_to(Path.cwd())}: {', '.join(ranges(only))}")
    print(f"{total} lines are reached by slow tests alone")
    return 0


def ranges(lines: Iterable[int]) -> Iterator[str]:
    """`1, 2, 3, 7` as `1-3` and `7`."""
    for _, group in groupby(enumerate(lines), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        yield str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
