"""Rapids: a typed, async-first event router on Redis Streams."""

from rapids.correlation import correlation_scope, get_causation_id, get_correlation_id
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, current_delivery
from rapids.events import BaseEvent, Event, GenericEvent, get_event_class
from rapids.exceptions import RapidsError
from rapids.settings import GroupStartPosition
