"""What `router.on` lets a handler's parameter be. Checked by pyright (see pyrightconfig.json), never run.

A line with `# pyright: ignore[...]` must be an error: an ignore that nothing needs fails the check.
"""

from collections.abc import Awaitable
from typing import Annotated, Any, Union, assert_type

from rapids import BaseEvent, Delivery, Depends, Event, EventEmitter, EventRouter, GenericEvent
from rapids.backoff import Backoff, constant, exponential, linear


class DocumentEvent(BaseEvent):
    doc_id: str


class DocumentCreated(DocumentEvent):
    title: str


class DocumentDeleted(DocumentEvent):
    deleted_by: str


class OrderPlaced(BaseEvent):
    order_id: str


router = EventRouter()


# --- a class --------------------------------------------------------------------------------------------------------


@router.on(OrderPlaced)
async def takes_the_event(event: OrderPlaced) -> None:
    assert_type(event.order_id, str)


@router.on(OrderPlaced)
async def returns_something(event: OrderPlaced) -> int:
    return 1


@router.on(DocumentCreated)
async def takes_its_base(event: DocumentEvent) -> None:
    assert_type(event.doc_id, str)


@router.on(DocumentCreated)
async def takes_any_event(event: Event) -> None:
    assert_type(event.routing_key, str)


@router.on(DocumentCreated)
async def is_not_annotated(event: Any) -> None: ...


@router.on(DocumentEvent)
async def takes_all_below(event: DocumentEvent) -> None: ...


@router.on(OrderPlaced)  # pyright: ignore[reportArgumentType]
async def takes_another(event: DocumentCreated) -> None: ...


@router.on(DocumentEvent)  # pyright: ignore[reportArgumentType]
async def takes_only_some_of_them(event: DocumentCreated) -> None: ...


@router.on(OrderPlaced)  # pyright: ignore[reportArgumentType]
async def takes_none() -> None: ...


@router.on(OrderPlaced)  # pyright: ignore[reportArgumentType]
def is_not_async(event: OrderPlaced) -> None: ...


@router.on(GenericEvent)
async def takes_the_unknown(event: GenericEvent) -> None:
    assert_type(event.data, dict[str, Any])


@router.on(GenericEvent)  # pyright: ignore[reportArgumentType]
async def takes_the_known_for_the_unknown(event: OrderPlaced) -> None: ...


# --- a union --------------------------------------------------------------------------------------------------------


@router.on(DocumentCreated | DocumentDeleted)
async def takes_either(event: DocumentCreated | DocumentDeleted) -> None:
    assert_type(event.doc_id, str)


@router.on(Union[DocumentCreated, DocumentDeleted])  # noqa: UP007 - that is the case
async def takes_either_spelt_out(event: DocumentCreated | DocumentDeleted) -> None: ...


@router.on(DocumentCreated | DocumentDeleted)
async def takes_what_both_are(event: DocumentEvent) -> None: ...


@router.on(DocumentCreated | DocumentDeleted)  # pyright: ignore[reportArgumentType]
async def takes_only_one_of_them(event: DocumentCreated) -> None: ...


@router.on(DocumentCreated | DocumentDeleted)  # pyright: ignore[reportArgumentType]
async def takes_neither(event: OrderPlaced) -> None: ...


@router.on(DocumentCreated | OrderPlaced | GenericEvent)
async def takes_three(event: Event) -> None: ...


# --- a pattern: what matches is not known before it arrives ---------------------------------------------------------


@router.on("document.*")
async def takes_whatever_matches(event: DocumentCreated | DocumentDeleted) -> None: ...


@router.on("*")
async def takes_everything(event: Event) -> None: ...


@router.on("*")  # pyright: ignore[reportArgumentType]
def is_not_async_either(event: Event) -> None: ...


# --- dependencies: whether something can fill them is known only when the handler is registered ---------------------


async def number() -> int:
    return 1


@router.on(OrderPlaced)
async def takes_dependencies(
    event: OrderPlaced, number: Annotated[int, Depends(number)], *, delivery: Delivery, emitter: EventEmitter
) -> str:
    return event.order_id


@router.on("*")
async def takes_an_old_style_one(event: Event, number: int = Depends(number)) -> None: ...


@router.on(OrderPlaced)  # pyright: ignore[reportArgumentType]
async def takes_another_and_dependencies(event: DocumentCreated, number: Annotated[int, Depends(number)]) -> None: ...


async def its_dependencies_keep_their_types(a_delivery: Delivery) -> None:
    outcome = await takes_dependencies(OrderPlaced(order_id="a"), 1, delivery=a_delivery, emitter=EventEmitter())
    assert_type(outcome, str)
    await takes_dependencies(OrderPlaced(order_id="a"), "1", delivery=a_delivery, emitter=EventEmitter())  # pyright: ignore[reportArgumentType]


router.use_dependencies(emitter=EventEmitter(), overrides=lambda: {number: lambda: 2})
router.use_dependencies(emitter=3)  # pyright: ignore[reportArgumentType]
router.dependency_overrides[number] = lambda: 2
Depends("number")  # pyright: ignore[reportArgumentType]


# --- what stays and what is refused ---------------------------------------------------------------------------------


async def a_handler_keeps_its_type() -> None:
    outcome = await returns_something(OrderPlaced(order_id="a"))
    assert_type(outcome, int)


@router.on(
    OrderPlaced,
    timeout=60,
    retries=3,
    backoff=exponential(base=2, max_delay=30),
    retryable_exceptions=(ConnectionError, TimeoutError),
    name="ship",
)
async def with_all_options(event: OrderPlaced) -> None: ...


def own_backoff(attempt: int) -> float:
    return attempt / 2


assert_type(exponential(), Backoff)
assert_type(linear(), Backoff)
assert_type(constant(1)(3), float)
router.on(OrderPlaced, backoff=own_backoff)
router.on(OrderPlaced, backoff=3)  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(OrderPlaced, retries="3")  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(OrderPlaced, retryable_exceptions=[ConnectionError])  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(OrderPlaced, retry=3)  # pyright: ignore[reportCallIssue]


# --- middleware -----------------------------------------------------------------------------------------------------


async def middleware(delivery: Delivery, call_next: Any) -> None:
    assert_type(delivery.event, Event)
    assert_type(delivery.deliveries, int)
    assert_type(delivery.replay_of, str | None)


EventRouter(middleware=[middleware])


def unused(awaitable: Awaitable[None]) -> None: ...


# --- what is no target ----------------------------------------------------------------------------------------------

router.on(3)  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(OrderPlaced(order_id="a"))  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(str)  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on(DocumentCreated | int)  # pyright: ignore[reportArgumentType, reportCallIssue]
router.on([DocumentCreated])  # pyright: ignore[reportArgumentType, reportCallIssue]
