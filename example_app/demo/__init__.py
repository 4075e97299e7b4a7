"""The demo around the service: plays customers and an operator over HTTP, and tells what can be seen happening."""
