"""Log lines of worker processes: readable text, or one JSON object each."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import orjson

from rapids.logs import CorrelationLogFilter, protect_loggers
from rapids.redaction import escaped

__all__ = ["JsonLines", "LogFormat", "LogLevel", "TextLines", "log_to_stderr"]

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""The attributes of any record. The others are extra fields."""

SHOWN = ("stream", "group", "correlation_id")
"""The extra fields in a line for people. `JsonLines` has all of them."""

IDS = ("correlation_id", "causation_id", "trace_id", "span_id")
"""What `CorrelationLogFilter` adds to each record."""

COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


def log_to_stderr(log_format: LogFormat, level: LogLevel) -> None:
    """Send the records of all loggers of this process to standard error, in place of earlier log handlers."""
    handler = logging.StreamHandler()
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines(colours=colours))
    handler.addFilter(CorrelationLogFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    protect_loggers()


class JsonLines(logging.Formatter):
    """A record as one JSON object: `time`, `level`, `logger`, `message`, `pid`, the extra fields, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The object. A field that JSON cannot hold is its text."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **_extra(record),
        }
        if (trace := _trace(self, record)) is not None:
            fields["exception"] = trace
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        try:
            return orjson.dumps(fields, default=str).decode()
        except TypeError:  # keys that are no texts, characters that UTF-8 cannot hold, huge numbers
            return json.dumps({str(name): _plain(value) for name, value in fields.items()}, default=str)


class TextLines(logging.Formatter):
    """A record as a line for people, with its correlation id and its place: stream, group, entry.

    Control characters are escaped and further lines are indented, also of other loggers: no text forges a line.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<8}"
        colour = COLOURS.get(record.levelname)
        if self._colours and colour is not None:
            level = f"\033[{colour}m{level}\033[0m"
        first, *others = record.getMessage().rstrip("\n").split("\n")
        message, extra = escaped(first), _extra(record)
        about = " ".join(
            f"{name}={escaped(str(extra[name]))}"
            for name in SHOWN
            if name in extra and f"{extra[name]!r}" not in message
        )
        if about:
            about = f"  \033[2m{about}\033[0m" if self._colours else f"  {about}"
        lines = [f"{when}.{int(record.msecs):03} {level} [{record.process}] {escaped(record.name)}: {message}{about}"]
        lines += _indented(others)
        if (trace := _trace(self, record)) is not None:
            is_ours = record.name.partition(".")[0] == "rapids"  # the filter of these loggers has done it
            lines += [trace] if is_ours else _indented(trace.split("\n"))
        if record.stack_info:
            lines += _indented(self.formatStack(record.stack_info).split("\n"))
        return "\n".join(lines)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The traceback: the text that was given, in which secrets are hidden, or that of the error."""
    if record.exc_text:
        return record.exc_text
    return formatter.formatException(record.exc_info) if record.exc_info else None


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {escaped(line)}" for line in lines]


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """The extra fields. `CorrelationLogFilter` sets ids to "-" if there are none."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in STANDARD and not (value == "-" and name in IDS)
    }


def _plain(value: object) -> object:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
