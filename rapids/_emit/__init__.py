"""The run time of the emitter: how events are stored."""
