"""Loading the Lua scripts: what they include, and where an error in them is."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, checked, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

FOLDER = Path(scripts.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts of the test's own."""
    monkeypatch.setattr(scripts, "files", lambda _: tmp_path)
    monkeypatch.setattr(scripts, "load", scripts.load.__wrapped__)
    (tmp_path / "lib").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_each_script_loads_and_has_a_position_for_each_line(name: str) -> None:
    script = scripts.load(name)

    assert len(script.source.splitlines()) == len(script.lines)
    assert b"-- include" not in script.source
    assert b"$" not in re.sub(rb"'\^[^']*\$'|'\$'", b"", script.source), "a name of keys.py was not filled in"


def test_each_file_of_lib_is_included_by_a_script() -> None:
    included = {line.rpartition(":")[0] for name in NAMES for line in scripts.load(name).lines}
    assert {path.name for path in (FOLDER / "lib").iterdir()} == {
        name.removeprefix("lib/") for name in included if name.startswith("lib/")
    }


@pytest.mark.parametrize(
    "line", ["-- include: lib/unknown.lua", "-- include: unknown.lua", "-- include lib/known.lua", "-- includes known"]
)
def test_an_include_line_that_names_no_file_of_lib_fails(line: str, folder: Path) -> None:
    (folder / "lib" / "known.lua").write_text("local known = 1\n")
    (folder / "one.lua").write_text(f"return 1\n{line}\n")

    with pytest.raises(ValueError, match=r"one\.lua:2"):
        scripts.load("one")


def test_a_file_is_included_once_and_before_what_uses_it(folder: Path) -> None:
    (folder / "lib" / "low.lua").write_text("local low = 1\n")
    (folder / "lib" / "high.lua").write_text("-- include: lib/low.lua\nlocal high = low + 1\n")
    (folder / "one.lua").write_text("-- include: lib/high.lua\n-- include: lib/low.lua\nreturn high\n")

    script = scripts.load("one")

    assert script.source == b"local low = 1\nlocal high = low + 1\nreturn high\n"
    assert script.lines == ("lib/low.lua:1", "lib/high.lua:2", "one.lua:3")


@pytest.mark.parametrize(("key", "position"), [("a list", "lib/part.lua:3"), ("a string", "one.lua:3")])
async def test_an_error_in_a_script_names_the_file_and_its_line(
    redis: "Redis", folder: Path, key: str, position: str
) -> None:
    await redis.set("a string", "x")
    await redis.rpush("a list", "x")
    (folder / "lib" / "part.lua").write_text("\nlocal function part(key)\n  redis.call('GET', key)\nend\n")
    (folder / "one.lua").write_text("-- include: lib/part.lua\npart(KEYS[1])\nredis.call('LLEN', KEYS[1])\n")

    [reply] = await run(SharedPool(redis, key), scripts.load("one"), [((key,), ())])

    with pytest.raises(ResponseError, match=re.escape(position)):
        checked(reply)
