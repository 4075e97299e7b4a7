"""docs/start.md, docs/tutorial.md and docs/observe.md for real: their files are saved, their commands typed, and print
what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.docs.reader import Reader


@pytest.mark.slow
@pytest.mark.smoke
def test_start_goes_from_nothing_to_a_repaired_failure(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.follow(DOCS / "start.md")


@pytest.mark.slow
def test_the_tutorial_grows_one_service(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.follow(DOCS / "tutorial.md")


@pytest.mark.slow
def test_traces_metrics_and_an_alert_are_seen(tmp_path: Path) -> None:
    assert shutil.which("promtool"), 'this page needs Prometheus: run "apt-get install prometheus" as root'
    shutil.copy(DOCS / "prometheus" / "rapids-alerts.yml", tmp_path)
    with Reader(tmp_path) as reader:
        reader.follow(DOCS / "observe.md")
