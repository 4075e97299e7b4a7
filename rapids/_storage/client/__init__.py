"""Connections to Redis, which send commands and return undecoded answers."""
