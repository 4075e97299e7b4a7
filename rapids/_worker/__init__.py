"""The run time of a router, from `start()` to `stop()`. Each long-lived task has a class, a module and a name."""
