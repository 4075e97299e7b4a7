"""How many examples hypothesis tries: the profiles `quick`, `deep` and `thorough`.

`quick` is for every day, `deep` for CI (where the variable `CI` is set). Both try the same examples in every run, so
that a commit does not fail for what another one brought in. `thorough` looks for new examples at random, for an hour:
`pytest --hypothesis-profile thorough tests/model`. Only it makes an example smaller that takes a second: to do so costs
more than the whole suite.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine fails no example: how long one takes is for `make bench`."""


def register_profiles() -> None:
    """Register the profiles, and load the one that is used where the command line names none."""
    settings.register_profile("quick", COMMON, max_examples=25, derandomize=True)
    settings.register_profile("deep", COMMON, max_examples=100, derandomize=True)
    settings.register_profile("thorough", COMMON, max_examples=1_000)
    settings.load_profile("deep" if os.environ.get("CI") else "quick")


def by_profile(*, quick: int, deep: int, thorough: int) -> int:
    """The number for the profile that is loaded. Call it after pytest has read its command line, as test modules do."""
    return {"deep": deep, "thorough": thorough}.get(settings.get_current_profile_name(), quick)


def slow_examples(*, quick: int, deep: int, thorough: int) -> settings:
    """The profile that is loaded, for a test whose examples take a second each."""
    count = by_profile(quick=quick, deep=deep, thorough=thorough)
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if count == thorough else [])]
    return settings(max_examples=count, phases=phases)
