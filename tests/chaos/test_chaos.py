"""A short run of the whole thing: `make chaos` is the long one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.chaos.checks import check
from tests.chaos.report import details, table
from tests.chaos.run import carry_out
from tests.chaos.settings import Options

pytestmark = pytest.mark.slow

SEED = 2980
"""Its 17 faults in 18 seconds are of every kind, without the pauses beyond all time-outs."""


@pytest.mark.integration
@pytest.mark.smoke
async def test_every_promise_is_kept_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rc-"))  # short: a unix socket's path has 107 bytes at most
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    options = Options(seconds=18, least_events=500, seed=SEED, workers=4, rate=120, faults_per_second=0.9, quiet=True)

    evidence = await carry_out(options)

    promises = check(evidence)
    print(table(options, evidence, promises))
    assert not any(promise.broken_by for promise in promises), details(promises)
    assert len(evidence.faults) > 6, "hardly anything was struck"
    folder.rmdir()  # empty: the run leaves nothing
