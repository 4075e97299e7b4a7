"""Redaction: hides secrets in payloads, errors and other texts before they are shown."""

from rapids.redaction.hidden_names import DEFAULT_REDACTED
from rapids.redaction.hidden_values import MASK, HiddenValues
from rapids.redaction.redactor import Location, Redactor, Searched

__all__ = ["DEFAULT_REDACTED", "MASK", "HiddenValues", "Location", "Redactor", "Searched"]
