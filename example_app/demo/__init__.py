"""The demo: plays customers and an operator over HTTP, and prints what happens in the service."""
