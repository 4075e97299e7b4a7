"""What a worker's parts share: this process as a member of its group."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rapids._core.counter_state import Counts
from rapids._core.outages import Outages
from rapids._core.settings import RouterSettings
from rapids._storage.client.connections import Commands
from rapids._storage.keys import Source
from rapids._worker.identity import Identity

__all__ = ["Member"]


@dataclass(frozen=True, slots=True)
class Member:
    """How a process reaches its group and goes by in it."""

    commands: Commands
    """The connection for all but reading."""
    sources: Sequence[Source]
    """The stream, and the group's replay stream."""
    settings: RouterSettings
    identity: Identity
    outages: Outages
    repair: Callable[[Exception], Awaitable[None]]
    """Makes a lost group again, if that is what the error says."""
    context: dict[str, object]
    """What every log line says: stream, group, consumer."""
    counts: Counts

    @property
    def name(self) -> str:
        """The consumer's name. Another one from when another process took it."""
        return self.identity.name
