"""Which kinds of faults strike a run, how often, and with what: all of it drawn from the seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.chaos.faults import (
    Fault,
    KillClients,
    KillEmitter,
    KillServer,
    KillWorker,
    PauseClients,
    RestartWorker,
    StopWorker,
)
from tests.chaos.fleet_faults import HandOver, KillMaster, KillOtherMaster, MoveSlot, PauseMaster
from tests.chaos.settings import CLAIM_MIN_IDLE_MS, Options

LEASE = CLAIM_MIN_IDLE_MS / 1000

Draw = Callable[[random.Random, float, Options], Fault]

OF_PROCESSES: Sequence[tuple[int, Draw]] = (
    (6, lambda rng, at, options: KillWorker(at, rng.randrange(options.workers))),
    (2, lambda rng, at, options: RestartWorker(at, rng.randrange(options.workers))),
    (5, lambda rng, at, options: StopWorker(at, rng.randrange(options.workers), _seconds(rng, 0.5, 3 * LEASE))),
    (1, lambda rng, at, options: KillEmitter(at, rng.randrange(options.emitters))),
)
"""How often each kind is drawn, as against the others, and how."""

OF_ONE_SERVER: Sequence[tuple[int, Draw]] = (
    (3, lambda rng, at, options: KillServer(at, _seconds(rng, 0.0, 2 * LEASE))),
    (3, lambda rng, at, options: KillClients(at, rng.choice((0.2, 0.5, 1.0)), rng.randrange(2**32))),
    (2, lambda rng, at, options: KillClients(at, rng.choice((0.5, 1.0)), rng.randrange(2**32), times=20)),
    # Now and then longer than every time-out there is: 5 s, see `worker.ANSWER_TIMEOUT`.
    (2, lambda rng, at, options: PauseClients(at, _seconds(rng, 0.2, 2 * LEASE), rng.choice(("ALL", "WRITE")))),
    (1, lambda rng, at, options: PauseClients(at, _seconds(rng, 5.5, 7.0), rng.choice(("ALL", "WRITE")))),
)

_FAILOVERS: Sequence[Draw] = (
    lambda rng, at, options: KillMaster(at, _seconds(rng, 0.0, 3.0)),
    lambda rng, at, options: PauseMaster(at, _seconds(rng, 0.0, 4.0)),
    lambda rng, at, options: HandOver(at),
)

OF_FLEETS: Mapping[str, Sequence[Draw]] = {
    "sentinel": (*_FAILOVERS, lambda rng, at, options: HandOver(at, coordinated=False)),
    "cluster": (
        *_FAILOVERS,
        lambda rng, at, options: MoveSlot(at, _seconds(rng, 0.0, 0.6), _seconds(rng, 0.0, 2.0)),
        lambda rng, at, options: KillOtherMaster(at, rng.randrange(2), _seconds(rng, 0.0, 3.0)),
    ),
}
"""Faults of the servers: each kind once, in any order, then each once more, and so on."""


def draw(options: Options) -> list[Fault]:
    """The faults of a run, in order of time: the same for the same options."""
    rng = random.Random(options.seed)
    if options.topology not in OF_FLEETS:
        return list(_at_random(rng, (*OF_PROCESSES, *OF_ONE_SERVER), options.faults_per_second, options))
    share = _weight(OF_PROCESSES) / _weight((*OF_PROCESSES, *OF_ONE_SERVER))
    of_processes = _at_random(rng, OF_PROCESSES, options.faults_per_second * share, options)
    return sorted([*of_processes, *_in_turn(rng, OF_FLEETS[options.topology], options)], key=lambda fault: fault.at)


def _at_random(
    rng: random.Random, weighted: Sequence[tuple[int, Draw]], per_second: float, options: Options
) -> Iterator[Fault]:
    weights, kinds = zip(*weighted, strict=True)
    at = 1.0
    while (at := at + rng.expovariate(per_second)) < options.seconds:
        yield rng.choices(kinds, weights)[0](rng, round(at, 2), options)


def _in_turn(rng: random.Random, kinds: Sequence[Draw], options: Options) -> Iterator[Fault]:
    at, left = 2.0, list[Draw]()
    while (at := at + _seconds(rng, 0.5, 1.5) * options.seconds_between_failovers) < options.seconds:
        left = left or rng.sample(kinds, k=len(kinds))
        yield left.pop()(rng, round(at, 2), options)


def _weight(weighted: Sequence[tuple[int, Draw]]) -> int:
    return sum(weight for weight, _ in weighted)


def _seconds(rng: random.Random, least: float, most: float) -> float:
    return round(rng.uniform(least, most), 2)
