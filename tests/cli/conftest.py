"""The command, for all tests of it."""

from tests.cli.helpers import rapids, somebody

__all__ = ["rapids", "somebody"]
