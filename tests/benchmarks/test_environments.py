"""The environment of an earlier commit: the package as it was, out of the repository itself."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from benchmarks.environments import archive_of
from benchmarks.processes import Failed


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, in which the package differs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for text in ("old", "new"):
        (folder / "package.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", text)
    return folder


async def test_a_commit_is_archived_as_it_was(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")

    archive = await archive_of("HEAD~1", repository, tmp_path)

    assert archive.name == f"rapids-{first}.tar.gz", "another commit must get another archive"
    with tarfile.open(archive) as opened:
        stored = opened.extractfile("package.py")
        assert stored is not None
        assert stored.read() == b"old"


async def test_a_commit_that_a_shallow_clone_lacks_is_named_with_the_way_to_get_it(
    repository: Path, tmp_path: Path
) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), str(shallow))

    with pytest.raises(Failed, match=rf"{first} is not in this repository.*shallow clone.*git fetch --unshallow"):
        await archive_of(first, shallow, tmp_path)


async def test_without_a_repository_the_commit_is_missing_too(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="is not in this repository"):
        await archive_of("0" * 40, tmp_path, tmp_path)
