"""What `make bench` measures, by the options it is given."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import options
from benchmarks.environments import BEFORE_COMMIT, HOME
from benchmarks.scenario import ALL


def test_by_default_everything_is_measured_but_no_earlier_commit() -> None:
    assert options([]).contenders == ALL


def test_an_earlier_commit_is_measured_after_ours_on_request() -> None:
    chosen = options(["--only", "emit,consume", "--contenders", "before,ours", "--rounds", "3"])

    assert (chosen.contenders, chosen.before, chosen.rounds) == (("ours", "before"), BEFORE_COMMIT, 3)
    assert chosen.output == HOME / "results", "only a whole run replaces the results in the repository"
    assert {scenario.name.split("-")[0] for scenario in chosen.scenarios} == {"emit", "consume"}


def test_another_commit_can_be_named() -> None:
    assert options(["--contenders", "before", "--before", "HEAD"]).before == "HEAD"


def test_fewer_letters_are_measured_on_request_and_nothing_else_is_smaller() -> None:
    chosen = {scenario.name: scenario.count for scenario in options(["--letters", "50000"]).scenarios}

    assert (chosen["letters-move"], chosen["backlog-1m"]) == (50_000, 1_000_000)


@pytest.mark.parametrize("arguments", [["--contenders", "after"], ["--only", "nothing"], ["--letters", "10"]])
def test_an_unknown_option_value_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(arguments)

    assert arguments[1] in capsys.readouterr().err
