"""The environment: every variable `RAPIDS_...` that Rapids reads, what is allowed in it, and which ones are unknown."""

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

__all__ = ["VARIABLES", "Environment", "Variable"]

Reader: TypeAlias = Literal["web", "rapids run", "rapids"]

Number = TypeVar("Number", int, float)

_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
"""As the command `rapids` reads flags."""

_SERVICE_LINKS = re.compile(r"\w+_SERVICE_HOST|\w+_SERVICE_PORT(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?")
"""What Kubernetes sets in each container for a service whose name begins with `rapids`."""

_logger = logging.getLogger("rapids")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment."""

    name: str
    read_by: tuple[Reader, ...]
    """`web`: `Rapids.from_env()`. `rapids run`: the workers. `rapids`: the other commands that need Redis."""
    allowed: str
    meaning: str


_ALL: tuple[tuple[str, tuple[Reader, ...], str, str], ...] = (
    ("REDIS_URL", ("web", "rapids run", "rapids"), "an address", "which Redis to use"),
    ("STREAM", ("rapids",), "a name", "`--stream` of commands about one stream"),
    ("ADMIN_TOKEN", ("web",), "4 characters or more", "who has it may use the admin, if there is no `admin_auth`"),
    (
        "WATCH",
        ("web",),
        "names with commas between them, or `none`",
        "streams of workers in the admin; unset: all it finds",
    ),
    ("DEAD_LETTERS", ("web", "rapids run"), "true, false", "default dead-letter streams for routers without one"),
    (
        "REDACT",
        ("web", "rapids run", "rapids"),
        "names with commas between them",
        "names of fields that are hidden as well",
    ),
    ("ADMIN_SEARCHES", ("web",), "1 to 1000", "searches of the admin at a time"),
    ("ADMIN_EXPORTS", ("web",), "1 to 1000", "exports at a time"),
    ("ADMIN_LIVE", ("web",), "1 to 1000", "live streams of operations at a time"),
    ("METRICS", ("web",), "off, permission, anyone", "who may read `/rapids/metrics`"),
    ("CONNECT_TIMEOUT", ("web",), "seconds above 0", "how long Redis may take to answer at the start"),
    ("ROUTERS", ("rapids run",), "module:name ...", "the routers to run"),
    ("PROCESSES", ("rapids run",), "1 or more", "how many processes run them"),
    ("LIFESPAN", ("rapids run",), "module:name", "the lifespan of each process"),
    ("GRACEFUL_TIMEOUT", ("rapids run",), "seconds", "how long running handlers may take at a stop"),
    ("UVLOOP", ("rapids run",), "true, false", "whether to run on uvloop"),
    ("OTEL", ("rapids run",), "true, false", "whether to send traces and metrics by OpenTelemetry"),
    ("RELOAD", ("rapids run",), "true, false", "whether to restart when code changes"),
    ("RELOAD_DIR", ("rapids run",), "folders", "where to look for changes"),
    ("HEALTH_PORT", ("rapids run",), "0 to 65535", "the port for probes"),
    ("HEALTH_HOST", ("rapids run",), "an address", "the address for probes"),
    ("METRICS_PORT", ("rapids run",), "0 to 65535", "the port for Prometheus"),
    ("METRICS_HOST", ("rapids run",), "an address", "the address for Prometheus"),
    ("LOG_FORMAT", ("rapids run",), "text, json", "lines for people or for machines"),
    ("LOG_LEVEL", ("rapids run",), "debug, info, ...", "which lines of the log are written"),
)

VARIABLES: Mapping[str, Variable] = {
    variable.name: variable for variable in (Variable(f"RAPIDS_{one[0]}", one[1], one[2], one[3]) for one in _ALL)
}
"""All of them by name. One without a value counts as unset."""


class Environment:
    """The variables of a process. `values`: by default, `os.environ`.

    Each method raises `ValueError` with the variable, its value and what is allowed.
    """

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = os.environ if values is None else values

    def text(self, name: str) -> str | None:
        """The value without white space around it; None if it is unset or empty."""
        return self._values.get(VARIABLES[name].name, "").strip() or None

    def flag(self, name: str, default: bool) -> bool:
        """True or False, as the command `rapids` reads it."""
        value = self.text(name)
        if value is None:
            return default
        if (found := _FLAGS.get(value.lower())) is None:
            raise ValueError(f"{name} must be true or false, not {value!r}")
        return found

    def number(self, name: str, kind: type[Number], default: Number) -> Number:
        """A number, of which only the kind is checked."""
        value = self.text(name)
        if value is None:
            return default
        try:
            return kind(value)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} must be {what} ({VARIABLES[name].allowed}), not {value!r}") from None

    def names(self, name: str) -> list[str] | None:
        """Names that commas separate; None if it is unset."""
        value = self.text(name)
        if value is None:
            return None
        found = [one.strip() for one in value.split(",")]
        if not all(found):
            raise ValueError(f"{name} must be {VARIABLES[name].allowed}, not {value!r}")
        return found

    def unknown(self) -> list[str]:
        """The variables `RAPIDS_...` that nothing in Rapids reads, except what Kubernetes sets for services."""
        return sorted(
            name
            for name, value in self._values.items()
            if name.startswith("RAPIDS_")
            and name not in VARIABLES
            and not _SERVICE_LINKS.fullmatch(name)
            and not (name.endswith("_PORT") and "://" in value)
        )

    def warn_of_unknown(self) -> None:
        """Log one line at WARNING that names all unknown variables. They may have been misspelt."""
        described: list[str] = []
        for name in self.unknown():
            close = difflib.get_close_matches(name, VARIABLES, 1, 0.8)
            described.append(f"{name} (did you mean {close[0]}?)" if close else name)
        if described:
            _logger.warning("unknown variables of the environment have no effect: %s", ", ".join(described))
