"""What a test of the telemetry records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.telemetry.recording import Recording


@pytest.fixture
def recording() -> Iterator[Recording]:
    recording = Recording()
    yield recording
    recording.close()
