"""What emitting, lags, scopes and lookups give. Checked by pyright (see pyrightconfig.json), never run."""

from typing import assert_type

from redis.asyncio import Redis

from rapids import (
    BaseEvent,
    ConsumerLag,
    DeadLetter,
    DeadLetterQueue,
    Delivery,
    Event,
    EventEmitter,
    EventRouter,
    GenericEvent,
    GroupControl,
    GroupStartPosition,
    HealthReason,
    LetterFilter,
    LetterPage,
    Pause,
    RouterHealth,
    correlation_scope,
    current_delivery,
    get_causation_id,
    get_correlation_id,
    get_event_class,
)
from rapids.exceptions import EmitError, HandlerTimeoutError, MaxRetriesExceededError, NonRetryableError, RetryAfter


class UserCreated(BaseEvent):
    user_id: str


class UserDeleted(BaseEvent):
    user_id: str


async def emitting(redis: Redis, emitter: EventEmitter, created: UserCreated, deleted: UserDeleted) -> None:
    assert_type(await emitter.emit(created), str)
    assert_type(await emitter.emit(GenericEvent(raw_type="a.b"), caused_by=created), str)
    assert_type(await emitter.emit([created, created]), list[str])
    assert_type(await emitter.emit([created, deleted, GenericEvent(raw_type="a.b")]), list[str])
    assert_type(await emitter.emit((created,)), list[str])
    users: list[UserCreated] = [created]
    assert_type(await emitter.emit(users, caused_by=deleted), list[str])
    assert_type(emitter.configured, bool)
    emitter.configure(redis)
    await emitter.emit("user.created")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await emitter.emit(UserCreated)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await emitter.emit(created, caused_by="an id")  # pyright: ignore[reportArgumentType, reportCallIssue]


def events(created: UserCreated) -> None:
    assert_type(UserCreated.event_type, str)
    assert_type(created.schema_version, int)
    assert_type(created.correlation_id, str | None)
    assert_type(get_event_class("user.created"), type[BaseEvent] | None)
    UserCreated()  # pyright: ignore[reportCallIssue]
    UserCreated(user_id=3)  # pyright: ignore[reportArgumentType]


def options(redis: Redis) -> None:
    EventEmitter(redis, "users", maxlen=None)
    EventEmitter(maxlen="many")  # pyright: ignore[reportArgumentType]
    EventEmitter(max_length=3)  # pyright: ignore[reportCallIssue]
    EventRouter(redis, group_start_id=GroupStartPosition.LATEST, dlq_stream=None)
    EventRouter(group_start_id="1701234567890-0")
    EventRouter(batch_size="10")  # pyright: ignore[reportArgumentType]


async def running(redis: Redis, router: EventRouter) -> None:
    assert_type(await router.start(redis), None)
    assert_type(await router.stop(), None)
    assert_type(router.running, bool)
    assert_type(router.dlq_stream, str | None)
    assert_type(router.last_progress, float | None)
    health = await router.health()
    assert_type(health, RouterHealth)
    assert_type(health.reason, HealthReason)
    health.ready = True  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(await router.pause(actor="ada", reason="why"), Pause)
    assert_type(await GroupControl(redis, "users", "group").resume(), Pause | None)
    lag = await router.get_consumer_lag()
    assert_type(lag, ConsumerLag)
    assert_type(lag.lag, int | None)
    lag.lag = 3  # pyright: ignore[reportAttributeAccessIssue]


async def correlation() -> None:
    async with correlation_scope() as made:
        assert_type(made, str)
    with correlation_scope("request-1") as given:
        assert_type(given, str)
    assert_type(get_correlation_id(), str | None)
    assert_type(get_causation_id(), str | None)
    assert_type(current_delivery(), Delivery | None)
    correlation_scope(3)  # pyright: ignore[reportArgumentType]


async def letters(queue: DeadLetterQueue) -> None:
    page = await queue.list(LetterFilter(event_type="order.*"), limit=10)
    assert_type(page, LetterPage)
    assert_type(page.items, tuple[DeadLetter, ...])
    assert_type(page.cursor, str | None)
    assert_type(await queue.get("1-0"), DeadLetter)
    assert_type((await queue.replay("1-0", scope="everyone")).entry_id, str)
    await queue.replay("1-0", scope="nobody")  # pyright: ignore[reportArgumentType]


def errors(
    emit: EmitError, late: HandlerTimeoutError, exhausted: MaxRetriesExceededError, hopeless: NonRetryableError
) -> None:
    assert_type(emit.attempts, int)
    assert_type(emit.unknown, tuple[str, ...])
    assert_type(late.timeout, float)
    assert_type(exhausted.last_error, BaseException)
    assert_type(hopeless.cause, BaseException | None)
    NonRetryableError("why")
    NonRetryableError("ship", ValueError("why"), "event-1")
    NonRetryableError("ship", ValueError("why"))  # pyright: ignore[reportCallIssue]
    RetryAfter(30, "busy")
    RetryAfter("soon")  # pyright: ignore[reportArgumentType]


def bases(event: UserCreated) -> Event:
    return event


def names() -> None:
    from rapids import EventEmiter  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnusedImport]  # noqa: F401
