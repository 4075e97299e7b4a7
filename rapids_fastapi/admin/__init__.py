"""The admin over HTTP."""
