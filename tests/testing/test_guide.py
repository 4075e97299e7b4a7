"""docs/testing.md for real: its tests run as printed, with a plain configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.testing.pytest_run import run_pytest

GUIDE = ROOT / "docs" / "testing.md"


@pytest.mark.slow
@pytest.mark.smoke
def test_the_tests_of_the_guide_pass_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)
    files = dict(blocks)
    written = sum(len(re.findall(r"^(?:async )?def test_", text, flags=re.MULTILINE)) for text in files.values())
    assert len(files) == len(blocks) >= 3
    ran = run_pytest(tmp_path, files)
    assert ran.outcomes == {"passed": written}, ran.output
