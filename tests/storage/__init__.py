"""The storage layer by itself."""
