"""Conventions: every name of a span, an attribute or a metric, and the units and buckets of metrics.

From OpenTelemetry's semantic conventions for messaging, 1.44 (status: Development):
https://opentelemetry.io/docs/specs/semconv/messaging/. What they have no name for is under `rapids.`.
"""

from typing import Final

__all__ = [
    "SCHEMA_URL",
    "Attribute",
    "Metric",
    "Operation",
]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM: Final = "redis"
"""The value of `messaging.system`. The conventions list no value for Redis Streams."""

OTHER_ERROR: Final = "_OTHER"
"""The value of `error.type` for a failure without an exception."""

EXCEPTION: Final = "exception"
"""The name of the event that records an exception on a span."""

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper limits of the buckets of every duration (seconds)."""


class Operation:
    """The values of `messaging.operation.type`."""

    SEND: Final = "send"
    PROCESS: Final = "process"
    SETTLE: Final = "settle"


class Attribute:
    """The names of attributes."""

    SYSTEM: Final = "messaging.system"
    OPERATION_NAME: Final = "messaging.operation.name"
    OPERATION_TYPE: Final = "messaging.operation.type"
    DESTINATION: Final = "messaging.destination.name"
    GROUP: Final = "messaging.consumer.group.name"
    CLIENT_ID: Final = "messaging.client.id"
    MESSAGE_ID: Final = "messaging.message.id"
    CONVERSATION_ID: Final = "messaging.message.conversation_id"
    MESSAGE_COUNT: Final = "messaging.batch.message_count"
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    EXCEPTION_MESSAGE: Final = "exception.message"
    EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

    EVENT_TYPE: Final = "rapids.event_type"
    HANDLER: Final = "rapids.handler"
    ENTRY_ID: Final = "rapids.entry_id"
    DELIVERIES: Final = "rapids.deliveries"
    ATTEMPT: Final = "rapids.attempt"
    RESULT: Final = "rapids.result"
    REASON: Final = "rapids.reason"
    REPLAY_OF: Final = "rapids.replay_of"


class Metric:
    """The names of metrics."""

    SENT: Final = "messaging.client.sent.messages"
    CONSUMED: Final = "messaging.client.consumed.messages"
    OPERATION_DURATION: Final = "messaging.client.operation.duration"
    PROCESS_DURATION: Final = "messaging.process.duration"

    LAG: Final = "rapids.group.lag"
    OLDEST_UNSETTLED: Final = "rapids.group.oldest_unsettled"
    PENDING: Final = "rapids.group.pending"
    WAITING: Final = "rapids.group.waiting"
    PARKED: Final = "rapids.group.parked"
    DEAD_LETTERS: Final = "rapids.dead_letters"
