"""An example of each answer, for OpenAPI. What would be null is left out, since FastAPI leaves that out of examples."""

from typing import Any, TypeAlias

Example: TypeAlias = dict[str, Any]

_AT = "2025-11-23T21:00:00Z"
_EVENT_ID = "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e"
_DLQ = "{orders}:dlq"
_REPLAY_STREAM = "{orders}:rapids:replay:payments"
_FINGERPRINT = "9f2c4b7d0a1e6f38"

# --- streams and groups ---------------------------------------------------------------------------------------------

_STREAM: Example = {
    "at": _AT,
    "stream": "orders",
    "length": 1204,
    "first_id": "1763928000000-0",
    "first_at": "2025-11-23T20:00:00Z",
    "last_id": "1763931600000-0",
    "last_at": _AT,
    "entries_added": 90210,
    "groups": 2,
    "memory": 262144,
}
STREAMS: Example = {"items": [_STREAM], "missing": ["invoices"]}

_PAUSE: Example = {"actor": "ann", "reason": "the bank is down", "since": "2025-11-23T20:59:00Z"}
PAUSE_RESULT: Example = {"stream": "orders", "group": "payments", "pause": _PAUSE}

GROUP: Example = {
    "at": _AT,
    "stream": "orders",
    "group": "payments",
    "last_delivered_id": "1763931590000-0",
    "last_delivered_at": "2025-11-23T20:59:50Z",
    "entries_read": 90205,
    "lag": 5,
    "lag_exact": True,
    "pending": 3,
    "held": 2,
    "waiting": 1,
    "parked": 0,
    "oldest_unsettled_id": "1763931500000-0",
    "oldest_unsettled_ms": 100000,
    "replays": 0,
    "consumers": 2,
    "consumers_alive": 1,
    "pause": _PAUSE,
}
_CONSUMER: Example = {
    "consumer": "web-1-4711",
    "alive": True,
    "alive_since": "2025-11-23T20:00:00Z",
    "seen_at": "2025-11-23T20:59:59Z",
    "idle_ms": 1000,
    "inactive_ms": 4000,
    "pending": 2,
}
GROUP_PAGE: Example = {"stream": "orders", "items": [GROUP], "next_cursor": "Z3JvdXBzOkxuQmhlVzFsYm5Sew"}
GROUP_DETAIL: Example = {"group": GROUP, "consumers": [_CONSUMER], "next_cursor": "Y29uc3VtZXJzOkxuZGxZaTB4"}

_ATTEMPT: Example = {
    "delivery": 5,
    "attempt": 1,
    "at": _AT,
    "consumer": "web-1-4711",
    "error_type": "CardDeclined",
    "error": "the card was declined",
    "recorded": True,
}
_HANDLER_ATTEMPTS: Example = {
    "handler": "take_payment",
    "attempts": [{**_ATTEMPT, "delivery": 2, "error": "[redacted]"}],
    "left_out": 0,
}
_PARKED: Example = {"handler": "send_receipt", "reason": "max_deliveries_exceeded", "error": "[redacted]"}
_PENDING: Example = {
    "consumer_alive": False,
    "idle_ms": 20000,
    "deliveries": 2,
    "due_at": "2025-11-23T21:00:20Z",
    "failures": [_PARKED],
    "attempts": [_HANDLER_ATTEMPTS],
}
PENDING_PAGE: Example = {
    "at": _AT,
    "stream": "orders",
    "group": "payments",
    "items": [
        {
            "entry_id": "1763931500000-0",
            "appended_at": "2025-11-23T20:58:20Z",
            "state": "held",
            "consumer": "web-1-4711",
            "consumer_alive": True,
            "idle_ms": 1000,
            "deliveries": 2,
            "handlers": ["take_payment"],
            "failures": [],
            "attempts": [_HANDLER_ATTEMPTS],
        }
    ],
    "next_cursor": "cGVuZGluZzoxNzYzOTMxNTAwMDAwLTFfMTc2MzkzMTU5MDAwMC0w",
}

# --- dead letters ---------------------------------------------------------------------------------------------------

_PAYLOAD: Example = {
    "encoding": "json",
    "value": {"order_id": "A-17", "card_number": "[redacted]"},
    "size": 61,
    "truncated": False,
}
_METADATA: Example = {"encoding": "json", "value": {}, "size": 2, "truncated": False}
_DIFFERENCE: Example = {"pointer": "/total", "op": "replace", "before": "12,50", "after": 12.5, "cut": False}
_SUMMARY: Example = {
    "id": "1763932000000-0",
    "state": "dead",
    "event_type": "order.placed",
    "event_id": _EVENT_ID,
    "handler": "take_payment",
    "group": "payments",
    "stream": "orders",
    "reason": "max_deliveries_exceeded",
    "error_type": "CardDeclined",
    "error": "the card was declined",
    "deliveries": 5,
    "failed_at": _AT,
    "correlation_id": "web-1",
    "fingerprint": _FINGERPRINT,
    "replay_count": 1,
    "payload": _PAYLOAD,
}
DEAD_LETTER_PAGE: Example = {
    "dlq": _DLQ,
    "items": [_SUMMARY],
    "next_cursor": "bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA",
    "total": 1,
    "total_exact": True,
    "scanned": 1,
}
REPLAY: Example = {
    "letter_id": "1763932000000-0",
    "scope": "handler",
    "stream": _REPLAY_STREAM,
    "entry_id": "1763932100000-0",
    "diff": [_DIFFERENCE],
}
_WHOLE_LETTER: Example = {
    **_SUMMARY,
    "dlq": _DLQ,
    "entry_id": "1763931000000-0",
    "timestamp": "2025-11-23T20:59:00+00:00",
    "causation_id": "",
    "schema_version": "1",
    "metadata": _METADATA,
    "traceback": "Traceback (most recent call last): ...",
    "position": "shop.payments:41 take_payment",
    "attempts": [{**_ATTEMPT, "delivery": 1, "at": "2025-11-23T20:59:10Z"}, _ATTEMPT],
    "attempts_left_out": 0,
    "consumer": "web-1-4711",
    "replay_of": "1763931900000-0",
}
_OUTCOME: Example = {
    "at": "2025-11-23T21:10:00Z",
    "scope": "handler",
    "stream": _REPLAY_STREAM,
    "entry_id": "1763932200000-0",
    "outcome": "failed_again",
    "letters": ["1763932260000-0"],
    "inferred": False,
}
_CHANGE: Example = {
    "action": "replayed",
    "at": "2025-11-23T21:10:00Z",
    "actor": "ann",
    "reason": "the total was a text",
    "scope": "handler",
    "stream": _REPLAY_STREAM,
    "entry_id": "1763932200000-0",
    "operation": "",
    "data": {**_PAYLOAD, "value": {"order_id": "A-17", "total": 12.5}, "size": 33},
    "diff": [_DIFFERENCE],
}
DEAD_LETTER: Example = {
    **_WHOLE_LETTER,
    "attempts": [],
    "history": [],
    "replays": [],
    "parse_check": {
        "outcome": "invalid",
        "event_class": "shop.events.OrderPlaced",
        "problems": [{"pointer": "/total", "message": "Field required", "type": "missing"}],
        "problem_count": 1,
    },
}

_CAUSE: Example = {
    "fingerprint": _FINGERPRINT,
    "group": "payments",
    "handler": "take_payment",
    "event_type": "order.placed",
    "reason": "max_deliveries_exceeded",
    "error_type": "CardDeclined",
    "position": "shop.payments:41 take_payment",
    "count": 4120,
    "first_at": "2025-11-23T20:00:00Z",
    "last_at": _AT,
}
QUEUE_STATS: Example = {
    "dlq": _DLQ,
    "length": 4377,
    "maxlen": 10000,
    "unindexed": 0,
    "cut": 12,
    "cut_at": "2025-11-22T03:14:00Z",
}
CAUSE_PAGE: Example = {
    "dlq": _DLQ,
    "items": [_CAUSE],
    "next_cursor": "bGV0dGVyLWdyb3Vwczo0MTIwOjlmMmM0YjdkMGExZTZmMzg",
    "total": 3,
    "letters": 4377,
    "stats": QUEUE_STATS,
}

# --- operations -----------------------------------------------------------------------------------------------------

OPERATION: Example = {
    "id": "0a4dcf0e3f0f4f2b",
    "dlq": _DLQ,
    "kind": "replay",
    "state": "completed",
    "selector": {"filter": {"event_type": "order.*", "handler": "take_payment"}},
    "scope": "handler",
    "rate": 200.0,
    "max_items": 5000,
    "actor": "ann",
    "reason": "the bank is back",
    "created_at": "2025-11-23T21:10:00Z",
    "updated_at": "2025-11-23T21:10:21Z",
    "ended_at": "2025-11-23T21:10:21Z",
    "total": 4120,
    "total_exact": True,
    "done": 4117,
    "skipped": 2,
    "failed": 1,
    "errors": [{"letter_id": "1763932000000-0", "error": "the letter does not name the stream of its event"}],
    "owner": "web-1-4711",
    "canary": {"share": 0.1, "wait": 3600.0, "failed_again": 52, "why": "35 of 211 replays of step 7 failed again"}
    | {"steps": [{"step": 7, "size": 211, "sent": 211, "handled": 176, "failed_again": 35, "waiting": 0}]}
    | {"stopped": "failed_again", "failures": []},
}
OPERATION_PAGE: Example = {
    "dlq": _DLQ,
    "items": [OPERATION],
    "next_cursor": "b3BlcmF0aW9uczowYTRkY2YwZTNmMGY0ZjJi",
}
PREVIEW: Example = {
    "dlq": _DLQ,
    "total": 4120,
    "total_exact": True,
    "sample": [_SUMMARY],
    "checked": 200,
    "unparseable": 3,
    "steps": [1, 5, 25, 125, 625, 3125, 214],
}

# --- events ---------------------------------------------------------------------------------------------------------

_DELIVERY: Example = {
    "group": "payments",
    "state": "waiting",
    "inferred": False,
    "pending": _PENDING,
    "handlers": [
        {"handler": "take_payment", "state": "waiting", "failed_deliveries": 1, "due_at": "2025-11-23T21:00:20Z"}
    ],
    "letters": ["1763931600000-0"],
}
_EVENT: Example = {
    "stream": "orders",
    "entry_id": "1763931500000-0",
    "appended_at": "2025-11-23T20:58:20Z",
    "event_id": _EVENT_ID,
    "event_type": "order.placed",
    "timestamp": "2025-11-23T20:58:20+00:00",
    "causation_id": "",
    "schema_version": "1",
    "depth": 0,
    "children": [],
    "missing_parent": False,
    "in_cycle": False,
    "copies": 1,
    "data": _PAYLOAD,
    "metadata": _METADATA,
    "deliveries": [_DELIVERY],
}
_LETTER_LINK: Example = {
    "dlq": _DLQ,
    "id": "1763931600000-0",
    "href": "/rapids/api/dead-letters/1763931600000-0?dlq=%7Borders%7D%3Adlq",
    "state": "dead",
    "stream": "orders",
    "entry_id": "1763931500000-0",
    "group": "payments",
    "handler": "take_payment",
    "event_id": _EVENT_ID,
    "event_type": "order.placed",
    "reason": "non_retryable",
    "error_type": "CardDeclined",
    "error": "the card was declined",
    "deliveries": 1,
    "failed_at": _AT,
    "replay_count": 0,
    "replays": [_OUTCOME],
}
_REPLAY_UNDER_WAY: Example = {
    "stream": _REPLAY_STREAM,
    "entry_id": "1763931700000-0",
    "appended_at": _AT,
    "group": "payments",
    "handler": "take_payment",
    "letter_id": "1763931600000-0",
    "count": 1,
    "event_id": _EVENT_ID,
    "original_entry_id": "1763931500000-0",
    "delivery": {"group": "payments", "state": "undelivered", "inferred": False, "handlers": [], "letters": []},
}
_WINDOW: Example = {
    "stream": "orders",
    "kind": "events",
    "entries": 1204,
    "newest_id": "1763931600000-0",
    "newest_at": _AT,
    "oldest_id": "1763928000000-0",
    "oldest_at": "2025-11-23T20:00:00Z",
    "first_id": "1763928000000-0",
    "reaches_further": False,
    "exhausted": True,
}
CAUSATION_TREE: Example = {
    "at": _AT,
    "correlation_id": "web-1",
    "began_at": "2025-11-23T20:58:20Z",
    "roots": [0],
    "events": [_EVENT],
    "replays": [_REPLAY_UNDER_WAY],
    "letters": [_LETTER_LINK],
    "windows": [_WINDOW],
    "complete": True,
    "limits": [],
    "next_cursor": "ZXZlbnRzOlcze30sIisiXQ",
}
LINKED_DEAD_LETTER: Example = {
    **DEAD_LETTER,
    "attempts": _WHOLE_LETTER["attempts"],
    "history": [_CHANGE],
    "replays": [_OUTCOME],
    "links": {
        "causation_tree": "/rapids/api/events?correlation_id=web-1",
        "letters": [_LETTER_LINK],
        "windows": [{**_WINDOW, "stream": _DLQ, "kind": "letters"}],
        "complete": True,
    },
}

# --- audit, capabilities, health ------------------------------------------------------------------------------------

AUDIT_PAGE: Example = {
    "items": [
        {
            "id": "1763932200000-0",
            "at": "2025-11-23T21:10:00Z",
            "stream": _DLQ,
            "actor": "ann",
            "action": "letter_replayed",
            "reason": "the bank is back",
            "operation": "",
            "target": "1763932000000-0",
            "details": {"scope": "handler"},
        }
    ],
    "next_cursor": "YXVkaXQ6MTc2MzkzMjIwMDAwMC0wIHtvcmRlcnN9OmRscQ",
}
CAPABILITIES: Example = {
    "version": "0.2.0",
    "user": {"name": "ann", "permissions": ["read", "replay"]},
    "dead_letter_queues": [{"name": _DLQ, "groups": ["payments"]}],
    "streams": ["orders"],
    "replay_scopes": ["handler", "group", "everyone"],
    "max_page": 200,
    "max_body": 65536,
}
HEALTH: Example = {"status": "ok"}
