"""What `rapids run` finds by `module:attribute`, and what it says of what cannot be run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapids import EventEmitter, EventRouter
from rapids.cli.targets import TargetError, find, find_lifespan

WORKERS = """
from contextlib import asynccontextmanager
from rapids import EventEmitter, EventRouter

emitter = EventEmitter(stream="orders")
billing = EventRouter(stream="orders", group="billing")
mail = EventRouter(stream="orders", group="mail")
again = EventRouter(stream="orders", group="mail")
empty = EventRouter(stream="orders", group="empty")
for router in (billing, mail, again):
    @router.on("order.*")
    async def handle(event): ...
del router

every = [billing, mail, emitter]
nothing = []
mixed = [billing, "mail"]
number = 7

class Shop:
    mail = mail

def make(): return billing
async def make_later(): return every
def make_with(settings): return billing
def fail(): raise RuntimeError("no database")

@asynccontextmanager
async def lifespan(): yield 1
async def bare(): yield 1
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package `rt_shop`, importable from the current directory."""
    before = set(sys.modules)
    folder = tmp_path / "rt_shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "workers.py").write_text(WORKERS)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "needy.py").write_text("import rt_shop.nowhere\n")
    (folder / "raising.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("rt_shop"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("targets", "groups", "emitters"),
    [
        (["billing"], ["billing"], 0),
        (["billing", "mail"], ["billing", "mail"], 0),
        (["every"], ["billing", "mail"], 1),
        (["every", "mail", "emitter"], ["billing", "mail"], 1),
        (["make"], ["billing"], 0),
        (["make_later"], ["billing", "mail"], 1),
        (["Shop.mail"], ["mail"], 0),
    ],
)
async def test_routers_lists_and_factories_are_found(targets: list[str], groups: list[str], emitters: int) -> None:
    found = await find([f"rt_shop.workers:{target}" for target in targets])
    assert [router.group for router in found.routers] == groups
    assert all(isinstance(router, EventRouter) for router in found.routers)
    assert [type(emitter) for emitter in found.emitters] == [EventEmitter] * emitters


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("rt_shop/workers.py", "'rt_shop/workers.py' must be module:attribute, such as app.workers:router"),
        ("rt_shop.workers", "'rt_shop.workers' must be module:attribute; its routers are rt_shop.workers:billing, rt_"),
        ("rt_shop.workrs:billing", "there is no module 'workrs' in rt_shop; near names are workers"),
        ("rt_shp:billing", "or on the Python path; near names are rt_shop"),
        ("rt_shop.workers:biling", "rt_shop.workers has no 'biling'; near names are billing"),
        ("rt_shop.workers:zzz", "rt_shop.workers has no 'zzz'; its routers are rt_shop.workers:billing"),
        ("rt_shop.workers:number", "without arguments that returns them, not 7"),
        ("rt_shop.workers:Shop", "not the class rt_shop.workers.Shop"),
        ("rt_shop.workers:asynccontextmanager", "is the function asynccontextmanager, which needs arguments"),
        ("rt_shop.workers:make_with", "is the function make_with, which needs arguments"),
        ("rt_shop.workers:nothing", "rt_shop.workers:nothing is an empty list"),
        ("rt_shop.workers:mixed", "rt_shop.workers:mixed[1] must be an EventRouter or an EventEmitter, not 'mail'"),
        ("rt_shop.workers:emitter", "there is no router among rt_shop.workers:emitter"),
        ("rt_shop.workers:empty", "(group 'empty' on stream 'orders') has no handlers: was the module imported"),
        (
            "rt_shop.workers:every rt_shop.workers:again",
            "rt_shop.workers:every[1] and rt_shop.workers:again both read stream 'orders' as group 'mail'",
        ),
    ],
)
async def test_what_cannot_be_run_is_named_with_what_was_found_instead(targets: str, said: str) -> None:
    with pytest.raises(TargetError) as refused:
        await find(targets.split())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("target", "said", "line"),
    [
        ("rt_shop.broken:x", "SyntaxError: invalid syntax", None),
        ("rt_shop.needy:x", "No module named 'rt_shop.nowhere'", "needy.py"),
        ("rt_shop.raising:x", "ZeroDivisionError: division by zero", "raising.py"),
        ("rt_shop.workers:fail", "rt_shop.workers:fail failed: RuntimeError: no database", "workers.py"),
    ],
)
async def test_an_error_of_the_users_code_has_a_traceback_that_begins_there(
    target: str, said: str, line: str | None
) -> None:
    with pytest.raises(TargetError) as refused:
        await find([target])
    assert said in str(refused.value)
    assert refused.value.__cause__ is not None
    trace = refused.value.__cause__.__traceback__
    assert (None if trace is None else Path(trace.tb_frame.f_code.co_filename).name) == line


async def test_a_lifespan_is_an_async_context_manager_without_arguments() -> None:
    async with find_lifespan("rt_shop.workers:lifespan")() as value:
        assert value == 1
    for target, said in {"bare": "decorate it with @asynccontextmanager", "make_with": "without arguments"}.items():
        with pytest.raises(TargetError, match=said):
            find_lifespan(f"rt_shop.workers:{target}")


async def test_the_page_about_workers_has_what_can_be_run(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "workers.md").read_text()
    [block] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "rt_shop" / "page.py").write_text(block)
    [router] = (await find(["rt_shop.page:router"])).routers
    assert router.handler_targets == {"pay": ["refund.granted"]}
    async with find_lifespan("rt_shop.page:lifespan")() as value:
        assert type(value).__name__ == "Bank"
