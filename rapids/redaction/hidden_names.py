"""Hidden names: which names of fields say that their value is a secret. Names are compared by their words."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["DEFAULT_REDACTED", "Phrases", "is_hidden", "is_of_counts", "part_of", "phrases_of"]

DEFAULT_REDACTED = (
    "password",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "passcode",
    "passkey",
    "pw",
    "passwort",
    "kennwort",
    "wachtwoord",
    "mot_de_passe",
    "contraseña",
    "contrasena",
    "senha",
    "secret",
    "client_secret",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "auth_token",
    "session_token",
    "csrf_token",
    "jwt",
    "bearer",
    "otp",
    "totp",
    "otpcode",
    "pincode",
    "one_time_code",
    "2fa_code",
    "mfa_code",
    "sms_code",
    "login_code",
    "access_code",
    "reset_code",
    "verification_code",
    "security_code",
    "recovery_code",
    "backup_code",
    "auth_code",
    "authorization",
    "proxy_authorization",
    "basic_auth",
    "cookie",
    "set_cookie",
    "session_id",
    "session_key",
    "api_key",
    "x_api_key",
    "private_key",
    "secret_key",
    "access_key",
    "signing_key",
    "encryption_key",
    "account_key",
    "master_key",
    "shared_key",
    "service_key",
    "webhook_key",
    "hmac_key",
    "ssh_key",
    "license_key",
    "seed_phrase",
    "recovery_phrase",
    "mnemonic",
    "cred",
    "credential",
    "connection_string",
    "card_number",
    "card_no",
    "card_num",
    "cc_number",
    "cc_num",
    "credit_card",
    "credit_card_number",
    "account_number",
    "cvv",
    "cvc",
    "csc",
    "pin",
    "ssn",
    "social_security_number",
)
"""Names that are always hidden, alone or as words of a longer name, in any spelling: `new_password`, `apiKey`."""

Phrases: TypeAlias = frozenset[tuple[str, ...]]
"""Names as their words."""

_DESCRIBING = frozenset({"count", "type", "length", "limit", "size", "expiry", "expires", "at", "in", "policy"})
"""Last words of names whose values describe a secret, and are none: `token_type`, `password_changed_at`."""

_NAMES = frozenset({"name", "key", "field", "header", "k", "label", "loc", "path", "pointer"}) | {
    *("param", "parameter", "property", "attribute", "variable", "column")
}
_VALUES = frozenset({"value", "values", "val", "v", "content", "data", "text", "input", "answer", "default"}) | {
    *("old", "new", "before", "after", "previous", "current", "from", "to")
}

_MIN_ENDING = 5
"""Letters of a word that is also found at the end of a longer word without a boundary: `usertoken`."""
_MIN_PART = 8
"""Letters of a name that is also found anywhere in a word without boundaries: `dbpasswordold`."""
_MAX_KEPT_NAME = 200

_boundary = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")


def phrases_of(names: Iterable[str]) -> Phrases:
    """The names as words. Raises `ValueError` for a name without a letter."""
    found: set[tuple[str, ...]] = set()
    for name in names:
        if not (words := _words(name)):
            raise ValueError(f"redact must be a list of names of fields, not one with {name!r}")
        found.add(words)
    return frozenset(found)


def is_hidden(name: str, phrases: Phrases) -> bool:
    """Whether the value of a field of this name is hidden."""
    found = _is_hidden if len(name) <= _MAX_KEPT_NAME else _is_hidden.__wrapped__
    return found(name, phrases)


def is_of_counts(name: str) -> bool:
    """Whether a number in a field of this name counts things, as `max_tokens` does, and is no secret."""
    return _words(name)[-1:] == ("tokens",)


@lru_cache(maxsize=4_096)
def part_of(name: str) -> Literal["name", "value", ""]:
    """What a member of this name has, if two members are a name and its value: `field_name`, `new_value`."""
    words = _words(name[:_MAX_KEPT_NAME])
    return "name" if words[-1:] and words[-1] in _NAMES else "value" if _VALUES & {*words} else ""


@lru_cache(maxsize=4_096)
def _is_hidden(name: str, phrases: Phrases) -> bool:
    if not phrases:
        return False
    words = _words(name)
    if not words:
        return False
    *others, last = words
    if others and last in _DESCRIBING:
        return False
    sought = sought_for(phrases)
    joined = "".join(words)
    if joined in sought.wholes or (len(joined) >= _MIN_PART and any(part in joined for part in sought.parts)):
        return True
    for some in {words, tuple(word.removesuffix("s") for word in words)}:
        if any(word.endswith(sought.endings) for word in some):
            return True
        if any(some[at : at + n] in phrases for n in sought.sizes for at in range(len(some) - n + 1)):
            return True
    return False


class _Sought(NamedTuple):
    """What is searched for in each name. To look at phrase after phrase would take ten times as long."""

    wholes: frozenset[str]
    parts: tuple[str, ...]
    """What is found anywhere."""
    endings: tuple[str, ...]
    """What is found at the end of a word. Two words also without a boundary: `myapikeys`."""
    sizes: frozenset[int]
    """How many words the phrases have."""


@lru_cache(maxsize=16)
def sought_for(phrases: Phrases) -> _Sought:
    joined = {phrase: "".join(phrase) for phrase in phrases}
    return _Sought(
        frozenset(joined.values()),
        tuple(whole for whole in joined.values() if len(whole) >= _MIN_PART),
        tuple(whole for phrase, whole in joined.items() if len(phrase) > 1 or len(whole) >= _MIN_ENDING),
        frozenset(map(len, phrases)),
    )


def _words(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case, without digits at their ends: `newPassword2` is `new`, `password`."""
    parts = _boundary.split(unicodedata.normalize("NFKC", name))
    return tuple(filter(None, (part.casefold().strip("0123456789") for part in parts)))
