"""Telling what is lost: entries that the stream had and that nobody of the group has handled."""

import logging

from rapids._worker.context import WorkerContext

__all__ = ["report_lost"]

logger = logging.getLogger("rapids.worker")


def report_lost(context: WorkerContext, count: int | None, message: str, *args: object, **extra: object) -> None:
    """Log a loss of so many entries, at ERROR; None where it is not known how many.

    `extra` is what the record says beside the context of the context.
    """
    logger.error(message, *args, extra={**context.log, "lost_count": count, **extra})
