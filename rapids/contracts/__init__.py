"""Contracts: what a service says of its events, for other teams and for the next version of itself."""

from rapids.contracts.asyncapi_document import ASYNCAPI_VERSION, asyncapi_document

__all__ = ["ASYNCAPI_VERSION", "asyncapi_document"]
