"""What runs between `start()` and `stop()`: one small object, file and named task for each duty."""
