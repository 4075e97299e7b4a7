"""The dashboard's files: who gets them, how they are kept, and what they may do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids_fastapi import rapids_admin
from tests.fastapi.helpers import client_for, rapids_with
from tests.house.vendored import FOLDER as VENDORED
from tests.house.vendored import MANIFEST, hash_of

DASHBOARD = VENDORED.parent
OURS = sorted(path for path in DASHBOARD.rglob("*.js") if path.parent != VENDORED)
MAX_LINES = 400


def assets_of(page: str) -> list[str]:
    """The addresses of the files that a page names, relative to it."""
    return re.findall(r'(?:href|src)="(assets/[^"]+)"', page)


def imported_by(path: Path) -> list[str]:
    return re.findall(r'(?:from|import)\s*"([^"]+)"', path.read_text())


def test_the_page_and_its_files_need_no_login_and_are_kept_for_ever(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        page = client.get("/rapids/")
        files = {name: client.get(f"/rapids/{name}") for name in assets_of(page.text)}
        head = client.head("/rapids/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-store"
    assert head.status_code == 200
    assert {path.relative_to(DASHBOARD).as_posix() for path in OURS} <= {name.split("/", 2)[2] for name in files}
    for name, answer in files.items():
        assert answer.status_code == 200, name
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.content == (DASHBOARD / name.split("/", 2)[2]).read_bytes()
    assert {answer.headers["content-type"].partition(";")[0] for answer in files.values()} == {
        "text/javascript",
        "text/css",
        "image/svg+xml",
    }


def test_it_may_run_and_ask_only_what_comes_from_its_own_origin(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        page = client.get("/rapids/")
    rules = page.headers["content-security-policy"].split("; ")
    assert rules[0] == "default-src 'self'"
    assert not any(word in rule for rule in rules for word in ("unsafe", "*", "http", "data:"))
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", page.text)


@pytest.mark.parametrize("path", ["", "/deeper"])
def test_all_addresses_are_relative(redis_url: str, path: str) -> None:
    """A proxy may remove a prefix, and the application may include the router under another one."""
    app = FastAPI(lifespan=rapids_with(redis_url).lifespan)
    app.include_router(rapids_admin, prefix=path)
    with TestClient(app) as client:
        moved = client.get(f"{path}/rapids", follow_redirects=False)
        page = client.get(f"{path}/rapids/")
        assert (moved.status_code, moved.headers["location"]) == (307, "rapids/")
        assert client.get(f"{path}/rapids/{assets_of(page.text)[0]}").status_code == 200
    assert not re.search(r'(?:href|src)="(?!assets/)', page.text)


def test_only_listed_files_are_served(redis_url: str) -> None:
    with client_for(redis_url, headers={}) as client:
        version = assets_of(client.get("/rapids/").text)[0].split("/")[1]
        refused = {
            name: client.get(f"/rapids/assets/{name}").status_code
            for name in (
                f"{version}/index.html",
                f"{version}/vendor/manifest.json",
                f"{version}/../admin/auth.py",
                f"{version}/%2e%2e/plugin.py",
                f"{version}//etc/passwd",
                f"{version}/",
                "0000000000000000/app.js",
            )
        }
    assert set(refused.values()) == {404}


def test_it_is_closed_until_the_admin_is_open(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPIDS_ADMIN_TOKEN")
    with client_for(redis_url, headers={}) as client:
        for path in ("/rapids", "/rapids/", "/rapids/assets/x/app.js"):
            answer = client.get(path, follow_redirects=False)
            assert answer.status_code == 403
            assert "RAPIDS_ADMIN_TOKEN" in answer.json()["detail"]


def test_it_can_be_left_out(redis_url: str) -> None:
    with client_for(redis_url, dashboard=False) as client:
        assert {client.get(path).status_code for path in ("/rapids", "/rapids/", "/rapids/assets/x/app.js")} == {404}
        assert client.get("/rapids/api/capabilities").status_code == 200


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_option_is_checked(value: Any) -> None:
    with pytest.raises(TypeError, match="dashboard must be True or False"):
        rapids_with("redis://localhost", dashboard=value)


# --- the files themselves ---------------------------------------------------------------------------------------------


def test_each_module_of_others_is_the_one_in_the_manifest() -> None:
    manifest = json.loads(MANIFEST.read_text())
    described = {one["file"]: one for one in manifest}
    code = {path.name for path in VENDORED.iterdir() if path.suffix in (".js", ".css")}
    assert set(described) == code
    assert {name: hash_of(VENDORED / name) for name in code} == {name: one["sha256"] for name, one in described.items()}
    licences = (VENDORED / "LICENSES.txt").read_text()
    assert all(one["version"] and one["licence"] and one["package"] in licences for one in manifest)


@pytest.mark.parametrize("path", sorted(DASHBOARD.rglob("*.js")), ids=lambda path: path.name)
def test_every_module_imports_only_files_beside_it_and_evaluates_no_text(path: Path) -> None:
    assert all((path.parent / name).is_file() for name in imported_by(path))
    code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)  # types in comments import, too
    assert not re.search(r"\beval\s*\(|new Function|\bFunction\s*\(|import\s*\(", code)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_modules_are_short_and_never_make_markup_of_text(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|dangerously|document\.write|srcdoc", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
