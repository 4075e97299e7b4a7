"""What an emitter does to store events."""
