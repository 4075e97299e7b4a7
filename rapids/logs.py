"""A logging filter that adds correlation and causation ids to log records."""

import logging

from rapids._core.log_lines import escaped
from rapids.correlation import get_causation_id, get_correlation_id

__all__ = ["CorrelationLogFilter"]


class CorrelationLogFilter(logging.Filter):
    """Adds `correlation_id` and `causation_id` of the running scope or handler to every record; "-" if there are none.

    Add it to a log handler, not to a logger, so that it gets the records of all loggers:

        handler.addFilter(CorrelationLogFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s [%(correlation_id)s] %(message)s"))

    A record that already has an id, like Rapids' own records about an entry, keeps it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, current in (("correlation_id", get_correlation_id), ("causation_id", get_causation_id)):
            if not getattr(record, name, None):
                setattr(record, name, escaped(current() or "-"))
        return True
