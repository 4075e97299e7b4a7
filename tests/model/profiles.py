"""How many examples hypothesis tries: few and always the same ones, or many at random (`HYPOTHESIS_PROFILE=thorough`).

An ordinary run is derandomized so that one commit is not red for what another brought in, and nobody meets by chance
what they did not cause. New ones are looked for on purpose, for minutes, and what is found is shrunk then: to shrink an
example that takes a second costs more than the whole suite.
"""

from __future__ import annotations

import os

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
