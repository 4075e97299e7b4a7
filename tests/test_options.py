"""Options: the signature, the checked settings, the docstring and the page's table list the same options and defaults.

Each test has the option in its name, so that an option that is missing in one place fails by its name.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING, fields
from typing import Any, get_overloads

import pytest

from rapids import EventEmitter, EventRouter, GroupStartPosition
from rapids._core.handlers import HandlerRegistry
from rapids._core.settings import EmitterSettings, RouterSettings
from rapids.backoff import exponential
from tests.house.source import ROOT

PAGE = ROOT / "docs" / "options.md"
MADE = {EventEmitter: EmitterSettings, EventRouter: RouterSettings}

NOT_SETTINGS = {"redis", "middleware"}
"""Options that are objects of the user's: the router and the emitter keep them themselves."""

DEFAULTS_IN_WORDS = {
    "consumer": "`hostname-pid`",
    "group_start_id": "`BEGINNING`",
    "default_backoff": "`exponential()`",
    "redelivery_backoff": "exponential, up to `claim_min_idle_ms`",
}
"""What the page's table says where the default is not written as Python would write it."""


def signature(made: type) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in inspect.signature(made).parameters.items() if name != "self"}


def settings_of(made: type) -> dict[str, Any]:
    """The checked options with their defaults."""
    return {
        one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(MADE[made])
    }


def table_of(made: type) -> dict[str, str]:
    """The options and defaults in the page's table."""
    page = PAGE.read_text()
    table = page.split(f"\n## `{made.__name__}`\n\n| option | default | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()]
    return {option.strip("`"): default for option, default in rows}


OPTIONS = [
    pytest.param(made, option, id=f"{made.__name__}-{option}")
    for made in MADE
    for option in dict.fromkeys((*signature(made), *settings_of(made), *table_of(made)))
]


@pytest.mark.parametrize(("made", "option"), OPTIONS)
def test_an_option_of_the_signature_is_checked_and_has_the_same_default(made: type, option: str) -> None:
    assert option in signature(made), f"the signature of {made.__name__} has no option {option}"
    if option in NOT_SETTINGS:
        assert option not in settings_of(made)
        return
    assert option in settings_of(made), f"{MADE[made].__name__} does not check the option {option}"
    default = signature(made)[option].default
    if option == "default_backoff":
        default = exponential()  # a default that is created, so None stands for it
    assert settings_of(made)[option] == default


@pytest.mark.parametrize(("made", "option"), OPTIONS)
def test_an_option_is_in_the_table_of_the_page_with_its_default(made: type, option: str) -> None:
    assert option in table_of(made), f"the page's table of {made.__name__} has no option {option}"
    said = table_of(made)[option]
    if option in DEFAULTS_IN_WORDS:
        assert said == DEFAULTS_IN_WORDS[option]
    else:
        assert ast.literal_eval(said.strip("`")) == signature(made)[option].default


@pytest.mark.parametrize(("made", "option"), OPTIONS)
def test_an_option_is_explained_in_the_docstring(made: type, option: str) -> None:
    assert f"`{option}`" in inspect.getdoc(made), f"the docstring of {made.__name__} does not explain {option}"


def test_every_default_in_words_is_of_an_option() -> None:
    assert set(signature(EventRouter)) > set(DEFAULTS_IN_WORDS)
    assert GroupStartPosition.BEGINNING.name == "BEGINNING"


# --- options of on() ------------------------------------------------------------------------------------------------


def keywords(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("option", keywords(EventRouter.on))
def test_an_option_of_on_is_in_every_overload_the_docstring_and_the_page(option: str) -> None:
    overloads = get_overloads(HandlerRegistry.on)
    assert len(overloads) == 3
    for overload in overloads:
        assert keywords(overload).get(option) == keywords(EventRouter.on)[option], (
            f"an overload of on() differs in {option}"
        )
    assert f"`{option}`" in inspect.getdoc(EventRouter.on), f"the docstring of on() does not explain {option}"
    line = re.search(r"`router\.on\(target, \.\.\.\)`: .*", PAGE.read_text())[0]
    assert re.search(rf"`{option}\b", line), f"the page does not list the option {option} of on()"


def test_an_overload_of_on_has_no_other_option() -> None:
    for overload in get_overloads(HandlerRegistry.on):
        assert set(keywords(overload)) == set(keywords(EventRouter.on))
