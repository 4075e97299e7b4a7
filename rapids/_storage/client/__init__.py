"""Connections to Redis: commands sent, answers read undecoded."""
