"""Correlation in any log record, whoever writes it."""

import logging

from rapids.correlation import get_causation_id, get_correlation_id

__all__ = ["CorrelationLogFilter"]


class CorrelationLogFilter(logging.Filter):
    """Adds `correlation_id` and `causation_id` to every record: those of the running scope or handler, else "-".

    Add it to a handler rather than to a logger, so that it sees the records of all loggers:

        handler.addFilter(CorrelationLogFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s [%(correlation_id)s] %(message)s"))

    A record that brings its own id, as Rapids' records about an entry do, keeps it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, current in (("correlation_id", get_correlation_id), ("causation_id", get_causation_id)):
            if not getattr(record, name, None):
                setattr(record, name, current() or "-")
        return True
