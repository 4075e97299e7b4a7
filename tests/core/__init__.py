"""The logic that needs no server."""
