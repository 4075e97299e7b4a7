"""What one run is asked to be, and the short times with which the routers in it heal."""

from __future__ import annotations

from dataclasses import dataclass

STREAM = "chaos:events"
GROUP = "chaos-group"
DLQ = "{chaos:events}:dlq"
"""In the slot of the stream, as it must be on a Cluster."""

CLAIM_MIN_IDLE_MS = 1_500
BLOCK_MS = 500
BATCH_SIZE = 10
MAX_DELIVERIES = 5
SHUTDOWN_TIMEOUT = 5.0
CONSUMER_TTL = 10.0

STOP_PATIENCE = SHUTDOWN_TIMEOUT + 10.0
"""Seconds a worker may take to stop, with its server gone too; beyond that it hangs."""

EVERY = 3
"""Of so many workers, one is a `rapids run` with two processes. The others are processes of their own."""

CONCURRENCY = 8
KEYS = 41
"""A prime, so that the events of each kind spread over all keys: the retries of one key wait for each other."""


TOPOLOGIES = {"standalone": 0, "sentinel": 2, "cluster": 1}
"""How many replicas an emit waits for: all that a master has, and so the one that takes its place, whichever it is.

With fewer, Sentinel may choose another than the one that confirmed: the offsets it compares are up to a second old, and
in a planned failover the others still confirm to the old master after one of them was chosen.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    seconds: float = 120.0
    """How long events are emitted and faults strike, from the first event on; draining comes on top."""
    least_events: int = 1
    """Emit on until the stream has so many: a busy machine may need more than the seconds."""
    seed: int = 0
    workers: int = 6
    emitters: int = 2
    rate: float = 200.0
    """Events per second, of all emitters together."""
    faults_per_second: float = 0.8
    drain_seconds: float = 60.0
    """After so long without a change, what is still pending counts as unsettled."""
    keep: bool = False
    """Leave the folder with the logs and the server's data where it is."""
    quiet: bool = False
    topology: str = "standalone"
    """One of `TOPOLOGIES`."""
    seconds_between_failovers: float = 10.0
    """Where there are several servers, what happens to them happens about so often."""

    @property
    def replicas(self) -> int:
        return TOPOLOGIES[self.topology]
