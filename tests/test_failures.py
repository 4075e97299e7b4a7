"""Failures: the position in the code by which they are grouped, and their text."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from rapids import BaseEvent, CallNext, Delivery, Depends, EventRouter
from rapids._core.failures import ERROR_LIMIT, POSITION_LIMIT, TRACEBACK_LIMIT, Failure, is_of_signal
from rapids.exceptions import HandlerTimeoutError, MaxRetriesExceededError, NonRetryableError
from rapids.testing import deliver
from tests.support import interruptible


def line_of(text: str) -> int:
    """The first line of this file that has the text."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def code(source: str, module: str | None, filename: str) -> dict[str, Any]:
    """A module's names, made of a source as if it had been imported from that file."""
    names: dict[str, Any] = {} if module is None else {"__name__": module}
    exec(compile(source, filename, "exec"), names)
    return names


def raised_by(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


CALLS = "def call(inner):\n    return inner()\n"
RAISES = "class Bank:\n    def pay(self):\n        raise ValueError('no')\n\ndef fail():\n    Bank().pay()\n"
LIBRARY = str(Path("venv") / "lib" / "site-packages" / "bank" / "api.py")


def test_the_position_is_that_of_the_innermost_frame() -> None:
    error = raised_by(code(RAISES, "shop.payments", "shop/payments.py")["fail"])

    assert Failure.of(error).position == "shop.payments:3 Bank.pay"


def test_a_library_is_left_out() -> None:
    shop = code(CALLS, "shop.handlers", "shop/handlers.py")["call"]
    error = raised_by(lambda: shop(code(RAISES, "bank.api", LIBRARY)["fail"]))

    assert Failure.of(error).position == "shop.handlers:2 call"


def test_the_standard_library_is_left_out() -> None:
    shop = code("import json\n\nasync def pay():\n    json.loads('{')\n", "shop.handlers", "shop/handlers.py")["pay"]

    assert Failure.of(raised_by(lambda: asyncio.run(shop()))).position == "shop.handlers:4 pay"


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_an_installed_service_counts_as_the_users_code(folder: str) -> None:
    installed = code(CALLS, "shop.handlers", f"venv/{folder}/shop/handlers.py")["call"]
    error = raised_by(lambda: installed(code(RAISES, "bank.api", f"venv/{folder}/bank/api.py")["fail"]))

    assert Failure.of(error, home="shop.events").position == "shop.handlers:2 call"


def test_without_user_code_the_position_is_the_innermost_frame() -> None:
    error = raised_by(code(RAISES, "bank.api", LIBRARY)["fail"])
    error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # without this test's own frame

    assert Failure.of(error).position == "bank.api:3 Bank.pay"


def test_an_error_that_was_never_raised_has_no_position() -> None:
    assert Failure.of(ValueError("no")).position == ""


async def test_a_time_out_has_the_position_of_what_it_interrupted() -> None:
    async def pay() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(pay())
    await asyncio.sleep(0)
    task.cancel()
    timed_out = HandlerTimeoutError("pay", 1.0, "e1")
    try:
        await task
    except asyncio.CancelledError as interrupted:
        timed_out.__cause__ = interrupted

    position = Failure.of(timed_out).position
    assert position.endswith("pay")
    assert f"{__name__}:{line_of('asyncio.Event().wait()')} " in position


def test_a_non_retryable_error_has_the_position_of_its_cause() -> None:
    cause = raised_by(code(RAISES, "shop.payments", "shop/payments.py")["fail"])

    assert Failure.of(NonRetryableError("pay", cause, "e1")).position == "shop.payments:3 Bank.pay"


def test_a_position_names_no_path_and_is_the_same_from_any_folder() -> None:
    positions = {
        Failure.of(raised_by(code(RAISES, "shop.payments", f"{folder}/shop/payments.py")["fail"])).position
        for folder in ("", "srv", str(Path("srv") / "releases" / "17"))
    }
    assert positions == {"shop.payments:3 Bank.pay"}


@pytest.mark.parametrize("module", [None, 7, "", "\ud800", "m" * 100_000])
def test_a_hostile_module_name_still_becomes_a_position_that_can_be_stored(module: Any) -> None:
    position = Failure.of(raised_by(code(RAISES, module, "x.py")["fail"])).position

    assert 0 < len(position) <= POSITION_LIMIT
    assert position.encode().decode() == position


class Placeless(Exception):
    """Its own code is in the way of where it came from."""

    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no place for you")

    __cause__ = __traceback__  # type: ignore[assignment]


def test_an_error_with_a_broken_traceback_has_no_position() -> None:
    assert Failure.of(raised_by(lambda: (_ for _ in ()).throw(Placeless()))).position == ""


def test_a_very_deep_traceback_has_a_position() -> None:
    deep = code("def fall():\n    fall()\n", "shop.deep", "shop/deep.py")["fall"]

    assert Failure.of(raised_by(deep)).position == "shop.deep:2 fall"


class TbSent(BaseEvent):
    pass


def fail() -> None:
    json.loads("{")


def opened() -> Iterator[None]:
    yield
    fail()


async def replaces() -> AsyncIterator[None]:
    try:
        yield
    except ValueError as error:
        raise KeyError from error


async def through(delivery: Delivery, call_next: CallNext) -> None:
    await call_next(delivery)


async def test_tracebacks_of_handlers_begin_in_their_code() -> None:
    """Through middleware, threads and providers that are open, after a time limit, and those of causes, too."""
    router = EventRouter(middleware=[through], max_deliveries=1)

    @router.on(TbSent)
    async def in_thread(event: TbSent, it: Annotated[None, Depends(fail)]) -> None: ...

    @router.on(TbSent)
    async def at_the_end(event: TbSent, it: Annotated[None, Depends(opened)]) -> None: ...

    @router.on(TbSent)
    async def replaced(event: TbSent, it: Annotated[None, Depends(replaces)]) -> None:
        fail()

    @router.on(TbSent, timeout=0.01)
    async def late(event: TbSent) -> None:
        await asyncio.Event().wait()

    def files(error: BaseException | None) -> list[list[str]]:
        """The files of each traceback, of the error and of those that it refers to."""
        if error is None:
            return []
        own = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        return [own, *files(error.__cause__ or error.__context__)]

    outcomes = await deliver(router, TbSent())
    here, decoder = __file__, json.decoder.__file__
    assert files(outcomes["in_thread"].error)[0][0] == here
    assert files(outcomes["in_thread"].error)[0][-1] == decoder
    for name, of_each in {"replaced": 2, "at_the_end": 1}.items():
        shown = files(outcomes[name].error)
        assert [one[0] for one in shown] == [here] * of_each, name
    assert isinstance(outcomes["late"].error, HandlerTimeoutError)
    own, interrupted = files(outcomes["late"].error)
    assert (own, interrupted[0]) == ([], here)


# --- text ------------------------------------------------------------------------------------------------------------


class Plain(Exception):
    """An application's own error."""


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


def test_a_failure_is_described_by_type_text_and_traceback() -> None:
    failure = Failure.of(caught(Plain("why")))

    assert failure.error_type == f"{__name__}.Plain"
    assert failure.message == "why"
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert failure.traceback.endswith("Plain: why\n")
    assert "in caught" in failure.traceback


def test_a_builtin_error_is_described_without_its_module() -> None:
    assert Failure.of(KeyError("x")) == Failure("KeyError", "'x'", "KeyError: 'x'\n")


def test_an_error_without_text_is_described_by_its_type() -> None:
    assert Failure.of(asyncio.CancelledError()).message == "CancelledError"


def test_a_non_retryable_error_around_a_cause_is_described_by_its_cause() -> None:
    failure = Failure.of(caught(NonRetryableError("pay", caught(Plain("declined")), "e1")))
    assert (failure.error_type, failure.message) == (f"{__name__}.Plain", "declined")
    assert Failure.of(NonRetryableError("declined")).error_type == "rapids.exceptions.NonRetryableError"


def test_the_error_of_exhausted_retries_names_the_last_error() -> None:
    failure = Failure.of(MaxRetriesExceededError("pay", 3, "e1", Plain("busy")))
    assert failure.message == "handler 'pay' failed on event e1 after 3 attempts: Plain: busy"


def test_huge_texts_are_cut() -> None:
    failure = Failure.of(caught(Plain("x" * 1_000_000 + "end")))

    assert failure.message == "x" * ERROR_LIMIT
    assert len(failure.traceback) == TRACEBACK_LIMIT
    assert failure.traceback.endswith("end\n"), "its end is where the error is"


class Raising(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


class NotText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Interrupting(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError


class BadNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes for you")


def hostile_errors() -> list[BaseException]:
    unprintable_place = SyntaxError("bad")
    unprintable_place.text = b"\xff"  # type: ignore[assignment]
    unprintable_place.filename, unprintable_place.lineno = 7, "x"  # type: ignore[assignment]
    circular = Plain("a")
    circular.__cause__ = Plain("b")
    circular.__cause__.__context__ = circular
    deep = Plain("0")
    for number in range(3_000):
        outer = Plain(str(number))
        outer.__cause__ = deep
        deep = outer
    noted = Plain("noted")
    noted.__notes__ = ["\ud800", 3]  # type: ignore[attr-defined]
    renamed: type[Exception] = type("Name" * 2_000, (Exception,), {"__module__": "\ud800"})
    return [
        Raising(),
        NotText(),
        Interrupting(),
        BadNotes(),
        Plain("\ud800 lone"),
        Plain("\x00 zero"),
        unprintable_place,
        circular,
        deep,
        noted,
        renamed("x"),
        BaseExceptionGroup("group", [Raising(), KeyboardInterrupt()]),
    ]


@pytest.mark.parametrize("error", hostile_errors(), ids=lambda error: ascii(type(error).__name__)[:20])
def test_a_hostile_error_still_becomes_text_that_can_be_stored(error: BaseException) -> None:
    failure = Failure.of(error)

    for text in (failure.error_type, failure.message, failure.traceback):
        assert isinstance(text, str)
        assert text.encode().decode() == text
    assert failure.message
    assert len(failure.error_type) <= ERROR_LIMIT
    assert len(failure.message) <= ERROR_LIMIT
    assert len(failure.traceback) <= TRACEBACK_LIMIT


# --- errors of signals ----------------------------------------------------------------------------------------------


def test_an_error_that_code_raises_itself_is_not_of_a_signal() -> None:
    def again() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise

    for leave in (again, partial(sys.exit, 2)):
        with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
            leave()
        assert not is_of_signal(raised.value)
    assert not is_of_signal(KeyboardInterrupt())
    assert not is_of_signal(ValueError())


@pytest.mark.parametrize("wrap", [lambda function: function, partial], ids=["plain", "partial"])
def test_an_error_of_a_signal_handler_is_of_a_signal(wrap: Callable[[Any], Any]) -> None:
    def leave(*_: object) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, wrap(leave))
    try:
        with pytest.raises(SystemExit) as raised:
            signal.raise_signal(signal.SIGTERM)
        assert is_of_signal(raised.value)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(SystemExit) as raised:
        leave()
    assert not is_of_signal(raised.value), "it is no signal handler now"


def test_an_interrupt_from_the_keyboard_is_of_a_signal() -> None:
    with interruptible(), pytest.raises(KeyboardInterrupt) as raised:
        signal.raise_signal(signal.SIGINT)
    assert is_of_signal(raised.value)


def test_values_that_pydantic_quotes_are_not_stored() -> None:
    class Card(BaseModel):
        number: int
        holder: dict[str, int]

    secret = "eyJhbGciOi, input_type=x]\n" + "s3cret" * 10
    try:
        try:
            Card.model_validate({"number": secret, "holder": secret})
        except ValidationError as error:
            raise ExceptionGroup("several", [error, ValueError("input_value='s3cret")]) from error
    except ExceptionGroup as error:
        failure = Failure.of(error)
    single = Failure.of(ValueError("input_value='eyJ"))
    for text in (failure.message, failure.traceback, single.message, single.traceback):
        assert "eyJ" not in text
        assert "s3cret" not in text
    assert "input_value=…, input_type=str" in failure.traceback
