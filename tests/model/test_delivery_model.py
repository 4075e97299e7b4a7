"""The model itself: what may happen, in any order, and the promises that hold whatever happened.

`profiles.py` says how many examples there are and why. Timing is the server's and the machine's whatever the example:
a failure may not come back, so each says all that happened.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from rapids.dead_letters import Scope
from tests.model.events import GROUPS, Script, scripts
from tests.model.harness import Harness
from tests.model.profiles import by_profile, slow_examples
from tests.model.promises import Evidence, Promises

pytestmark = pytest.mark.slow

PROFILE = settings(
    slow_examples(quick=4, deep=16, thorough=150),
    stateful_step_count=by_profile(quick=25, deep=25, thorough=40),
)

any_ = st.integers(0, 100)
events = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2, 3]), scripts), min_size=1, max_size=3)
runs = st.integers(1, 6)
scopes: st.SearchStrategy[Scope] = st.sampled_from(["handler", "group", "everyone"])


class DeliveryMachine(RuleBasedStateMachine):
    """Every rule is something that happens to a service in its life, or that its operator does.

    Rules have no preconditions: what there is at a moment depends on timing, and hypothesis must be able to go the same
    way twice. A rule with nothing to act on does nothing.
    """

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(self.url)

    @initialize(groups=st.sampled_from([GROUPS[:1], GROUPS]), processes=st.integers(1, 2), given=events)
    def begin(self, groups: tuple[str, ...], processes: int, given: list[tuple[int, Script]]) -> None:
        self.harness.run(self.harness.emit(given))
        for group in groups:
            for _ in range(processes):
                self.harness.run(self.harness.start(group))

    @rule(given=events)
    def emit(self, given: list[tuple[int, Script]]) -> None:
        self.harness.run(self.harness.emit(given))

    @rule(given=events, runs=runs)
    def emit_and_wait(self, given: list[tuple[int, Script]], runs: int) -> None:
        self.harness.run(self.harness.emit(given))
        self.harness.run(self.harness.wait(runs))

    @rule(runs=runs)
    def wait(self, runs: int) -> None:
        self.harness.run(self.harness.wait(runs))

    @rule(which=any_, new_name=st.booleans())
    def start(self, which: int, new_name: bool) -> None:
        groups = self.harness.groups
        self.harness.run(self.harness.start(groups[which % len(groups)], new_name=new_name))

    @rule(which=any_, runs=runs)
    def kill(self, which: int, runs: int) -> None:
        self.harness.run(self.harness.wait(runs))
        self.harness.run(self.harness.kill(which))

    @rule(which=any_)
    def stop(self, which: int) -> None:
        self.harness.run(self.harness.stop(which))

    @rule(keep=st.integers(0, 5))
    def trim(self, keep: int) -> None:
        self.harness.run(self.harness.trim(keep))

    @rule(which=any_, scope=scopes)
    def replay(self, which: int, scope: Scope) -> None:
        self.harness.run(self.harness.replay(which, scope))

    @rule(which=any_, back=st.booleans())
    def discard(self, which: int, back: bool) -> None:
        """Discard a letter, or bring a discarded one back."""
        self.harness.run(self.harness.restore(which) if back else self.harness.discard(which))

    @rule(which=any_)
    def destroy_group(self, which: int) -> None:
        groups = self.harness.groups
        self.harness.run(self.harness.destroy(groups[which % len(groups)]))

    @rule(which=st.none() | any_, scripts_too=st.booleans())
    def cut_connections(self, which: int | None, scripts_too: bool) -> None:
        if scripts_too:
            self.harness.run(self.harness.flush_scripts())
        self.harness.run(self.harness.cut_connections(which))

    def teardown(self) -> None:
        harness = self.harness
        try:
            harness.run(harness.drain())
            evidence = harness.run(Evidence.gather(harness.redis, harness.groups))
            Promises(harness.world, evidence).check()
        except Exception as error:
            error.add_note(harness.world.report())
            raise
        finally:
            harness.close()


@pytest.mark.timeout(by_profile(quick=300, deep=600, thorough=3_600))
def test_the_promises_hold_whatever_happens(redis_url: str) -> None:
    machine = type("Machine", (DeliveryMachine,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=PROFILE)
