"""Servers of every kind Rapids runs on: the builds, and launchers for one server, a Sentinel's fleet and a Cluster."""
