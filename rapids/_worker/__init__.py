"""What runs between `start()` and `stop()`: each task has a small object, a file and a name of its own."""
