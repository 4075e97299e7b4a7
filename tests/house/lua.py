"""Run luacheck over the Lua scripts as servers get them: each with what it includes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rapids._storage import scripts

__all__ = ["main"]

FOLDER = Path(scripts.__file__).parent
MISSING = "luacheck is missing: install it with `apt-get install lua-check` or `luarocks install luacheck`"
OPTIONS = (
    "--no-color",
    "--codes",
    "--std",
    "lua51",
    "--read-globals",
    "redis",
    "KEYS",
    "ARGV",
    "cjson",
    "struct",
    "--no-max-line-length",
)


def main() -> int:
    """What luacheck ends with; positions are those of the files on disk."""
    if (luacheck := shutil.which("luacheck")) is None:
        print(MISSING, file=sys.stderr)
        return 1
    shared = "\n".join(path.read_text() for path in (FOLDER / "lib").glob("*.lua"))
    names = {
        name
        for found in re.findall(r"^local (?:function )?([\w, ]+)", shared, re.MULTILINE)
        for name in found.split(", ")
    }
    unused = [f"211/{name.strip()}" for name in sorted(names)]  # of what is included, a script may use a part
    loaded = {path.name: scripts.load(path.stem) for path in FOLDER.glob("*.lua")}
    with TemporaryDirectory() as folder:
        for name, script in loaded.items():
            (Path(folder) / name).write_bytes(script.source)
        command = [luacheck, *OPTIONS, "--ignore", *unused, "--formatter", "plain", "--", *sorted(loaded)]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = re.sub(
        r"^(\w+\.lua):(\d+):", lambda at: f"{loaded[at[1]].lines[int(at[2]) - 1]}:", ended.stdout, flags=re.MULTILINE
    )
    print("\n".join(sorted(set(found.splitlines()))) or ended.stderr or "luacheck found nothing")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
