"""The wheel and the sdist, built and installed as users get them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import rapids
from tests.house.source import ROOT

pytestmark = [pytest.mark.slow]

USED = """
import asyncio, sys
from importlib.metadata import entry_points, version
import rapids, rapids.cli, rapids.embedded, rapids.testing, rapids_fastapi, rapids_pytest
from redis.asyncio import Redis

for package in (rapids, rapids_fastapi, rapids_pytest):
    assert package.__file__.startswith(sys.prefix), package.__file__
assert version("rapids-fastapi") == rapids.__version__
assert [one.value for one in entry_points(group="pytest11", name="rapids_pytest")] == ["rapids_pytest"]

class OrderPlaced(rapids.BaseEvent):
    order_id: str

router = rapids.EventRouter(stream="orders", group="billing", dlq_stream="{orders}:dlq", max_deliveries=1)

@router.on(OrderPlaced)
async def charge(event: OrderPlaced) -> None:
    asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(router.stop()))
    raise ValueError("declined")

async def main() -> None:
    async with Redis.from_url(sys.argv[1]) as redis:
        await rapids.EventEmitter(redis, stream="orders").emit(OrderPlaced(order_id="o-1"))
        await router.start(redis)
        [letter] = (await rapids.DeadLetterQueue(redis, "{orders}:dlq").list()).items
        print(letter.error)

asyncio.run(main())
"""
"""What only a whole wheel can do: scripts are read from files, entry points from the metadata."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    hatchling = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run([*hatchling, "--target", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=300)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*hatchling, "--target", "wheel"], cwd=source, check=True, capture_output=True, timeout=300)
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def test_the_sdist_has_the_documentation_and_the_tests(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", "mkdocs.yml", "pyproject.toml", "tests/test_readme.py"} <= names
    assert not [name for name in names if name.startswith((".", "site/")) and name != ".gitignore"]
    assert not [name for name in names if name.endswith(".png")], "pictures are for the site"


def test_the_wheel_has_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        fields = HeaderParser().parsestr(archive.read(metadata).decode())
    code = ("rapids", "rapids_fastapi", "rapids_pytest")
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in code
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert {"rapids/py.typed", "rapids_fastapi/py.typed", "rapids/_storage/scripts/settle.lua"} <= ours
    assert {f"rapids_fastapi/dashboard/{name}" for name in ("index.html", "app.js", "vendor/preact.js")} <= ours
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fields["Version"] == rapids.__version__
    assert fields["Requires-Python"] == project["requires-python"]
    assert set(fields.get_all("Provides-Extra")) == set(project["optional-dependencies"])


@pytest.mark.smoke
def test_the_installed_wheel_works(built: tuple[Path, Path], redis_url: str, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=300)
    python = home / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        built[1],
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    [packages] = home.glob("lib/python*/site-packages")
    dependencies = next(path for path in map(Path, sys.path) if (path / "redis").is_dir())
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")  # its .pth files, such as ours, are not read there
    run = subprocess.run([python, "-c", USED, redis_url], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.stdout == "declined\n", run.stderr
    version = subprocess.run([home / "bin" / "rapids", "--version"], capture_output=True, text=True, timeout=300)
    assert version.stdout == f"rapids {rapids.__version__}\n"
