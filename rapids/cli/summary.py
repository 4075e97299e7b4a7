"""The summary of what runs, printed at the start: routers, groups, handlers, patterns and dead-letter streams."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rapids import __version__
from rapids.cli.log_lines import LogFormat
from rapids.clients import masked
from rapids.router import EventRouter

__all__ = ["RunningRouter", "show_running"]

_logger = logging.getLogger("rapids")


@dataclass(frozen=True, slots=True)
class RunningRouter:
    """What runs of one router."""

    stream: str
    group: str
    dlq_stream: str | None
    handlers: dict[str, list[str]]
    """What each handler is for, by its name: event types and patterns."""

    @classmethod
    def of(cls, router: EventRouter) -> "RunningRouter":
        return cls(router.stream, router.group, router.dlq_stream, router.handler_targets)


def show_running(log_format: LogFormat, url: str, routers: Sequence[RunningRouter], processes: int = 1) -> None:
    """Print what runs to standard error; as a line of the log if that is JSON."""
    where, count = masked(url), _counted(processes, "process", "processes")
    if log_format == "json":
        extra = {"redis": where, "processes": processes, "routers": [asdict(router) for router in routers]}
        _logger.info("%s in %s on %s", _counted(len(routers), "router", "routers"), count, where, extra=extra)
        return
    lines = [f"rapids {__version__}: {_counted(len(routers), 'router', 'routers')} in {count} on {where}"]
    for router in sorted(routers, key=lambda one: (one.stream, one.group)):
        lines += ["", f"stream {router.stream}  group {router.group}"]
        width = max(map(len, router.handlers))
        lines += [f"  {name:<{width}}  {', '.join(targets)}" for name, targets in router.handlers.items()]
        lines += [f"  dead letters: {router.dlq_stream or 'none, entries that fail for good are parked'}"]
    sys.stderr.write("\n".join(lines) + "\n\n")
    sys.stderr.flush()


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
