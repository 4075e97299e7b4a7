"""The formats on the wire. Nothing outside this package knows a field's name."""
