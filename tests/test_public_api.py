"""What users build on is as it is pinned under `tests/pins/`: the public API, the wire format, key names, OpenAPI."""

from __future__ import annotations

import ast
import difflib
import importlib
import subprocess
import sys

import pytest

import rapids
from tests.house.source import ROOT
from tests.pins import PINS, path_of, pinned


@pytest.mark.parametrize("name", PINS)
def test_the_public_api_is_as_pinned(name: str) -> None:
    before, now = pinned(name), PINS[name]()

    difference = list(difflib.unified_diff(before, now, "pinned", "now", lineterm="", n=0))
    assert difference == [], (
        f"tests/pins/{path_of(name).name} differs. If this change is wanted, run `make pins`, commit the file, "
        "and write it into CHANGELOG.md:\n" + "\n".join(difference)
    )


# --- import rapids --------------------------------------------------------------------------------------------------


def names_for_type_checkers() -> dict[str, str]:
    """Each name that `rapids` imports for type checkers, with its module."""
    tree = ast.parse((ROOT / "rapids" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_type_checkers_and_python_find_the_same_names() -> None:
    assert set(names_for_type_checkers()) == set(rapids.__all__)
    for name, module in names_for_type_checkers().items():
        assert getattr(rapids, name) is getattr(importlib.import_module(module), name), name


def test_import_rapids_imports_nothing_until_a_name_is_used() -> None:
    script = (
        "import sys, rapids\n"
        "def seen(): return {name.partition('.')[0] for name in sys.modules} & {'pydantic', 'redis', 'orjson'}\n"
        "assert not seen(), seen()\n"
        "rapids.EventEmitter\n"
        "assert seen() == {'pydantic', 'redis', 'orjson'}, seen()\n"
        "assert 'rapids.router' not in sys.modules\n"
        "assert rapids.backoff.constant(1)(1) == 1, 'a public module needs no import of its own'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for name in ("nothing", "_nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(rapids, name)
