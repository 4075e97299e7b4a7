"""Debian's packages, downloaded and unpacked without installing anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.builds import MissingBuildError


class DebianPackages:
    """Unpacks packages into a folder. The machine's own package lists are tried first, then fresh ones of our own."""

    def __init__(self, scratch: Path) -> None:
        for tool in ("apt-get", "dpkg", "ldd"):
            if shutil.which(tool) is None:
                raise MissingBuildError(f"`{tool}` is needed for it: run this on Debian 12 (bookworm)")
        self._scratch = scratch
        self._own_lists: list[str] | None = None

    def unpack(self, name: str, version: str = "") -> Path:
        """Where the package's files are, of a version that starts so. Raises `MissingBuildError`."""
        root = self._unpack_from([], name, version) or self._unpack_from(self._fresh_lists(), name, version)
        if root is None:
            raise MissingBuildError(f"the package index has no {name} {version}: run this on Debian 12 (bookworm)")
        return root

    def _unpack_from(self, lists: Sequence[str], name: str, version: str) -> Path | None:
        """None where these lists do not have it, or are so old that what they name is there no more."""
        offered = re.findall(rf"\|\s*({re.escape(version)}\S+)", _apt(["apt-cache", *lists, "madison", name]))
        for full in dict.fromkeys(offered):
            target = Path(tempfile.mkdtemp(dir=self._scratch))
            _apt(["apt-get", "-q", *lists, "-o", "APT::Sandbox::User=root", "download", f"{name}={full}"], target)
            for package in target.glob("*.deb"):
                run(["dpkg", "-x", str(package), str(target / "root")], f"dpkg cannot unpack {package.name}")
                return target / "root"
        return None

    def _fresh_lists(self) -> list[str]:
        """Options for apt to use lists in a folder of our own, fetched now: the machine's stay as they are."""
        if self._own_lists is None:
            for needed in ("lists/partial", "cache/archives/partial"):
                (self._scratch / needed).mkdir(parents=True)
            lists = ["-o", f"Dir::State::lists={self._scratch}/lists", "-o", f"Dir::Cache={self._scratch}/cache"]
            run(["apt-get", "-q", *lists, "update"], "apt-get cannot fetch its package lists")
            self._own_lists = lists
        return self._own_lists


def run(command: Sequence[str], problem: str) -> str:
    """What a command prints. Raises `MissingBuildError`, which says the problem and the command's own last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_english())
    except OSError as error:
        raise MissingBuildError(f"{problem}: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.split()[-60:]) or f"exit code {done.returncode}"
        raise MissingBuildError(f"{problem}: {said}")
    return done.stdout


def _apt(command: Sequence[str], cwd: Path | None = None) -> str:
    """What apt prints; whether it failed shows in what it left."""
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=_english()).stdout


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
