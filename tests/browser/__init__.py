"""The dashboard in a browser, on an application with real failures."""
