"""Quoted inputs: what Pydantic shows of a refused input in its errors, removed from texts that quote these."""

__all__ = ["without_inputs"]


def without_inputs(text: str) -> str:
    """The text without the values that Pydantic quotes, which may be secret, and which it may cut in the middle."""
    first, *others = text.split("input_value=")
    shown = [first]
    for part in others:
        # A value may itself have this, so that the last one counts.
        end = part.rfind(", input_type=")
        shown.append("input_value=…" + (part[end:] if end >= 0 else ""))
    return "".join(shown)
