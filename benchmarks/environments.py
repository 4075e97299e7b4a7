"""An environment for each contender, under `.bench/`: the same Python, and the same version of all they share."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Failed, output_of
from benchmarks.scenario import BEFORE

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".bench"
IMPORTABLE = HOME / "importable"
"""The working directory of contenders. It has this package in it, and not ours: `rapids` is what they installed."""

COMMON = ("redis[hiredis]", "pydantic", "orjson", "fastapi", "uvicorn", "uvloop", "httptools")
OWN: Mapping[str, tuple[str, ...]] = {
    "ours": ("--editable", f"{ROOT}[embedded,otel]", "opentelemetry-sdk"),
    "floor": (),
    "peer": ("rapids-streams==0.3.0",),
    "faststream": ("faststream[redis]",),
}
BEFORE_COMMIT = "245e81ed1044893e2133d7901bab0a1b6050bb66"
"""The commit `before` is built from unless another is asked for: the last one with the tree of 0.1."""
PEER_NEEDS = (3, 12)
WANTED = ("python3.13", "python3.12")


@dataclass(frozen=True, slots=True)
class Python:
    path: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def runs_the_peer(self) -> bool:
        return self.version[:2] >= PEER_NEEDS


@dataclass(frozen=True, slots=True)
class Environment:
    contender: str
    python: str
    """The path of its interpreter."""
    packages: Mapping[str, str]
    """Versions by name."""


async def find_python(wanted: str | None) -> Python:
    """The one to measure with: as asked for, else the newest known to run the peer, else the one that runs this."""
    if wanted is not None:
        if (python := await _python_at(wanted)) is None:
            raise Failed(f"{wanted} is not a Python that runs")
        return python
    for candidate in _candidates():
        python = await _python_at(candidate)
        if python is not None and python.runs_the_peer:
            return python
    return Python(sys.executable, sys.version_info[:3])


def _candidates() -> Iterable[str]:
    installed = Path.home() / ".pyenv" / "versions"
    for name in WANTED:
        if found := shutil.which(name):
            yield found
        yield from sorted(map(str, installed.glob(f"*/bin/{name}")), reverse=True)


async def _python_at(path: str) -> Python | None:
    """None for what does not run: a shim of pyenv's is on the PATH whether or not its version is chosen."""
    code = "import sys, json, venv, ensurepip; print(json.dumps([sys.executable, sys.version_info[:3]]))"
    try:
        executable, version = json.loads(await output_of(path, "-c", code, cwd=ROOT, timeout=60))
    except (Failed, OSError, ValueError):
        return None
    return Python(executable, (version[0], version[1], version[2]))


async def prepare(contenders: Iterable[str], python: Python, before: str) -> dict[str, Environment]:
    """Build what is missing or out of date, ours first: the versions it gets are those of all.

    `before` is the commit that the contender of that name is built from. Raises `Failed`.
    """
    _make_importable()
    ours = await _environment("ours", OWN["ours"], python, constraints=None)
    shared = HOME / "constraints.txt"
    shared.write_text("".join(f"{name}=={version}\n" for name, version in ours.packages.items()))
    others = [
        await _environment(name, await _own(name, before), python, shared) for name in contenders if name != "ours"
    ]
    return {environment.contender: environment for environment in [ours, *others]}


async def _own(contender: str, before: str) -> tuple[str, ...]:
    return (str(await archive_of(before)),) if contender == BEFORE else OWN[contender]


async def archive_of(commit: str, repository: Path = ROOT, folder: Path = HOME) -> Path:
    """The package as it was at a commit, taken out of the repository itself. Raises `Failed` where it is not there."""
    try:
        found = await output_of("git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", cwd=repository)
    except (Failed, FileNotFoundError):
        raise Failed(
            f"the commit {commit} is not in this repository, so `{BEFORE}` cannot be built. A shallow clone has only "
            f"the newest commits: run `git fetch --unshallow`, or leave `{BEFORE}` out of --contenders"
        ) from None
    archive = folder / f"rapids-{found.strip()}.tar.gz"
    if not archive.exists():
        partial = archive.with_suffix(".partial")
        await output_of("git", "archive", "--format=tar.gz", f"--output={partial}", found.strip(), cwd=repository)
        partial.rename(archive)
    return archive


async def _environment(contender: str, own: Iterable[str], python: Python, constraints: Path | None) -> Environment:
    folder = HOME / contender
    interpreter = str(folder / "bin" / "python")
    requirements = [*own, *COMMON, *(["--constraint", str(constraints)] if constraints else [])]
    stamp = _stamp(python, requirements, constraints)
    built = folder / ".built"
    if not built.exists() or built.read_text() != stamp:
        print(f"building .bench/{contender} with Python {python}", flush=True)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await output_of(python.path, "-m", "venv", str(folder), cwd=HOME)
        await _install(contender, interpreter, requirements)
        built.write_text(stamp)
    return Environment(contender, interpreter, await _packages(interpreter))


async def _install(contender: str, interpreter: str, requirements: list[str]) -> None:
    pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        await output_of(*pip, *requirements, cwd=HOME, timeout=1_200)
    except Failed as error:
        raise Failed(f"pip could not install {' '.join(requirements)} for {contender!r}: {error}") from None


def _stamp(python: Python, requirements: list[str], constraints: Path | None) -> str:
    """Ours depends on what the project asks for, the others on the versions that ours got."""
    given = (constraints or ROOT / "pyproject.toml").read_text()
    return hashlib.sha256(json.dumps([str(python), python.path, requirements, given]).encode()).hexdigest()


async def _packages(interpreter: str) -> dict[str, str]:
    """What is installed, but for ours: a constraint cannot say where that comes from."""
    code = (
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower(): d.version for d in distributions()}))"
    )
    found = json.loads(await output_of(interpreter, "-c", code, cwd=HOME))
    return {name: found[name] for name in sorted(found) if name not in ("rapids-fastapi", "pip")}


def _make_importable() -> None:
    IMPORTABLE.mkdir(parents=True, exist_ok=True)
    link = IMPORTABLE / "benchmarks"
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / "benchmarks", target_is_directory=True)
