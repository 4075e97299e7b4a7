"""Failures as text: the place in the code by which they are grouped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rapids._core.failures import POSITION_LIMIT, Failure
from rapids.exceptions import HandlerTimeoutError, NonRetryableError


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
def test_a_service_that_is_installed_itself_is_the_user_s_code_all_the_same(folder: str) -> None:
    installed = code(CALLS, "shop.handlers", f"venv/{folder}/shop/handlers.py")["call"]
    error = raised_by(lambda: installed(code(RAISES, "bank.api", f"venv/{folder}/bank/api.py")["fail"]))

    assert Failure.of(error, home="shop.events").position == "shop.handlers:2 call"


def test_where_all_is_a_library_s_it_is_the_innermost_frame() -> None:
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
