"""The table at the end of `make test-matrix`, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import matrix
from tests.matrix import CORE, MATRIX, ROOT, SUITE, Result, main, result_of, table
from tests.servers.choice import NAMES

REPORT = '<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="0" tests="10" time="1.0"/></testsuites>'


def test_the_matrix_is_of_servers_and_suites_that_are_there() -> None:
    assert set(MATRIX) <= set(NAMES)
    assert all((ROOT / part).exists() for part in (*SUITE, *CORE))
    assert all(any(part.startswith(whole) for whole in SUITE) for part in CORE)


def test_the_table_counts_what_failed() -> None:
    lines = table([Result("redis-6.2", 10, 3, 12.4), Result("cluster", 0, 0, 1.0, broken=True)])
    assert lines[-2:] == ["| redis-6.2 | 10 | 7 | 3 | 12 |", "| cluster | 0 | 0 | did not run | 1 |"]


def test_a_report_is_read(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert result_of("cluster", tmp_path / "report.xml", 1, 2.0) == Result("cluster", 10, 3, 2.0)
    assert result_of("cluster", tmp_path / "report.xml", 2, 2.0).broken
    assert result_of("cluster", tmp_path / "none.xml", 4, 2.0).broken


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (Result("b", 5, 0, 1.0), 0),
        (Result("b", 5, 1, 1.0), 1),
        (Result("b", 0, 0, 1.0), 1),
        (Result("b", 5, 0, 1, True), 1),
    ],
)
def test_one_failed_report_fails_the_whole_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], second: Result, code: int
) -> None:
    results = [Result("a", 5, 0, 1.0), second]
    monkeypatch.setattr(matrix, "run_on", lambda server, suite: results.pop(0))
    assert main(["redis-6.2", "cluster"]) == code
    assert "| a | 5 | 5 | 0 | 1 |" in capsys.readouterr().out


def test_an_unknown_server_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["redis-1.0"])
    assert stopped.value.code == 2
    assert "redis-1.0: must be of redis-6.2" in capsys.readouterr().err
