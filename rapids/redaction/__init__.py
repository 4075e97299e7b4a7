"""Redaction: hides secrets in payloads, errors and other texts, and makes texts safe to print."""

from rapids._core.control_characters import escaped
from rapids.redaction.hidden_defaults import without_hidden_defaults
from rapids.redaction.hidden_names import DEFAULT_REDACTED
from rapids.redaction.hidden_values import MASK, HiddenValues
from rapids.redaction.redactor import Location, Redactor, Searched

__all__ = [
    "DEFAULT_REDACTED",
    "MASK",
    "HiddenValues",
    "Location",
    "Redactor",
    "Searched",
    "escaped",
    "without_hidden_defaults",
]
