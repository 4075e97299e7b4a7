"""Redaction: hides secrets in payloads, metadata and errors.

Only what is shown is changed. A replay sends the stored bytes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["DEFAULT_REDACTED", "MASK", "Redactor", "TooDeepError"]

DEFAULT_REDACTED = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "client_secret",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "auth_token",
    "session_token",
    "csrf_token",
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "api_key",
    "x_api_key",
    "private_key",
    "secret_key",
    "access_key",
    "credentials",
    "card_number",
    "credit_card",
    "credit_card_number",
    "cvv",
    "cvc",
    "pin",
    "ssn",
    "social_security_number",
)
"""Names of fields that are always hidden, in any spelling: `api_key`, `apiKey`, `API-Key`."""

MASK = "[redacted]"

_MAX_DEPTH = 100
_MIN_IN_TEXT = 3
_MAX_IN_TEXT = 100
_SEPARATORS = dict.fromkeys(map(ord, " \t\r\n_-."))


class TooDeepError(ValueError):
    """A value is nested too deep to be searched."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """The names of the fields that are hidden, and the functions that hide their values."""

    names: frozenset[str]
    in_bytes: re.Pattern[bytes] | None

    @classmethod
    def of(cls, names: Sequence[str] | None) -> "Redactor":
        """A redactor that hides the given names and `DEFAULT_REDACTED`. With None, it hides nothing.

        Raises `ValueError` or `TypeError` for anything but a list of names.
        """
        if names is None:
            return cls(frozenset(), None)
        if isinstance(names, str):
            raise TypeError(f"redact must be a list of names of fields, or None, not {names!r}")
        for name in names:
            if not isinstance(name, str) or not _plain(name):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
                raise ValueError(f"redact must be a list of names of fields, not one with {name!r}")
        plain = frozenset(_plain(name) for name in (*DEFAULT_REDACTED, *names))
        # Between any two letters there may be a separator, since plain names have none.
        words = b"|".join(rb"[\s_.-]?".join(re.escape(letter).encode() for letter in name) for name in sorted(plain))
        value = rb"\"(?:[^\"\\]|\\.)*\"?|[^\s\",;&}\]]+"
        return cls(plain, re.compile(rb"(?i)(\b(?:" + words + rb")[\"']?\s*[:=]\s*)(?:" + value + rb")"))

    def value(self, value: object, secrets: set[str]) -> Any:
        """A copy of a JSON value in which the values of the names are masked, at any depth.

        The masked values are added to `secrets`. Raises `TooDeepError`.
        """
        return self._walk(value, secrets, 0)

    def raw(self, data: bytes, secrets: set[str] | None = None) -> bytes:
        """Bytes that are not JSON. What looks like the value of one of the names is masked, and added to `secrets`."""
        if self.in_bytes is None:
            return data

        def masked(match: re.Match[bytes]) -> bytes:
            value = match[0][len(match[1]) :].strip(b"\"'").decode(errors="replace")
            if secrets is not None and value:
                secrets.add(value)
            return match[1] + MASK.encode()

        return self.in_bytes.sub(masked, data)

    def redacted(self, text: str, secrets: Iterable[str] | None, *, was_cut: bool = False) -> str:
        """The text without the secrets, like `text`. If they are None, which means not known, only the mask."""
        if secrets is None:
            return MASK if text and self.names else text
        return self.text(text, secrets, was_cut=was_cut)

    def text(self, text: str, secrets: Iterable[str], shortest: int = _MIN_IN_TEXT, *, was_cut: bool = False) -> str:
        """A text, such as an error, with the secrets of a payload masked.

        Secrets with fewer than `shortest` characters are not masked: many words contain them. If there are more than
        100 secrets, a search for each would take too long, so that only the mask is returned. `was_cut`: the text may
        end with the beginning of a secret, which is masked, too.
        """
        secrets = set(secrets)
        if len(secrets) > _MAX_IN_TEXT:
            return MASK if text else ""
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= shortest:
                text = text.replace(secret, MASK)
        return _without_end(text, secrets) if was_cut else text

    def hides(self, name: str) -> bool:
        """Whether the value of a field of this name is hidden."""
        return _plain(name) in self.names

    def hidden_at(self, location: Sequence[str | int]) -> int | None:
        """The index of the first name in a location whose value is hidden; None if there is none."""
        names = enumerate(location)
        return next((at for at, name in names if isinstance(name, str) and self.hides(name)), None)

    def _walk(self, value: object, secrets: set[str], depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise TooDeepError
        if isinstance(value, Mapping):
            items = cast(Mapping[str, object], value).items()
            shown: dict[str, Any] = {}
            for key, member in items:
                if self.hides(key):
                    _gather(member, secrets, depth + 1)
                    shown[key] = MASK
                else:
                    shown[key] = self._walk(member, secrets, depth + 1)
            return shown
        if isinstance(value, list):
            return [self._walk(member, secrets, depth + 1) for member in cast(list[object], value)]
        return value


def _gather(value: object, secrets: set[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise TooDeepError
    if isinstance(value, Mapping):
        value = list(cast(Mapping[str, object], value).values())
    if isinstance(value, list):
        for member in cast(list[object], value):
            _gather(member, secrets, depth + 1)
    elif value is not None and not isinstance(value, bool) and str(value):
        secrets.add(str(value))


def _without_end(text: str, secrets: Iterable[str]) -> str:
    """The text, with the mask instead of the beginning of a secret at its end. The longest one counts."""
    ends = (
        length
        for secret in secrets
        for length in range(_MIN_IN_TEXT, min(len(secret), len(text) + 1))
        if text.endswith(secret[:length])
    )
    length = max(ends, default=0)
    return text[:-length] + MASK if length else text


def _plain(name: str) -> str:
    return name.casefold().translate(_SEPARATORS)
