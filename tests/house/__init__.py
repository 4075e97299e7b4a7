"""The house rules: what the source looks like, and how many modules an event passes."""
