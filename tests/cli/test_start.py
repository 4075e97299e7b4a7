"""How the command starts, and what `rapids run` refuses before it starts anything."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

import rapids.cli
from rapids.cli import worker_process
from rapids.cli.worker_process import RunOptions
from tests.cli.helpers import Command

ADDRESS = "redis://localhost:6379"


def start(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> str | int | None:
    """The exit code of `rapids --version`, or the line that Python prints instead, if an import fails like this."""

    def fail(name: str) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(rapids.cli, "import_module", fail)
    monkeypatch.setattr(sys, "argv", ["rapids", "--version"])
    with pytest.raises(SystemExit) as ended:
        rapids.cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run m:r --processes many", ("--processes", "a valid integer", "'many'", '; see "rapids run --help"')),
        ("run m:r --log-format xml", ("--log-format", "one of 'text', 'json'", "'xml'", "rapids run --help")),
        ("run m:r --health-port -1", ("--health-port", "0", "-1", "rapids run --help")),
        ("run m:r --reload-dir none", ("--reload-dir", "'none' does not exist")),
        ("run m:r --bogus", ('rapids: no such option: --bogus; see "rapids run --help"',)),
        ("run", ("rapids: missing argument 'MODULE:NAME'; see \"rapids run --help\"",)),
        ("dlq list --limit zero", ("--limit", "a valid integer", "'zero'", "rapids dlq list --help")),
        ("dlq show", ("rapids: missing argument 'ID'; see \"rapids dlq show --help\"",)),
        ("dlq nosuch", ("rapids: no such command 'nosuch'; see \"rapids dlq --help\"",)),
        ("nosuch", ("rapids: no such command 'nosuch'; see \"rapids --help\"",)),
        ("--bogus", ('rapids: no such option: --bogus; see "rapids --help"',)),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: str, said: tuple[str, ...]) -> None:
    ended = Command(ADDRESS)(*arguments.split(), code=2)
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("rapids: ")
    assert [part for part in said if part not in line] == []


def test_a_wrong_variable_is_named_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_PROCESSES", "many")
    [line] = Command(ADDRESS)("run", "m:r", code=2).stderr.splitlines()
    assert [part for part in ("RAPIDS_PROCESSES", "'many'", "rapids run --help") if part not in line] == []


def test_a_command_without_arguments_shows_its_help() -> None:
    assert "causes" in Command(ADDRESS)("dlq", code=2).output


@pytest.mark.parametrize("module", ["typer", "rich.text"])
def test_without_the_extra_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    code = start(monkeypatch, ModuleNotFoundError(f"No module named {module!r}", name=module))

    assert code == (
        f"the command rapids needs the extra 'cli': pip install 'rapids-fastapi[cli]' (No module named {module!r})"
    )


def test_another_failed_import_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match="orjson"):
        start(monkeypatch, ModuleNotFoundError("No module named 'orjson'", name="orjson"))


def test_the_command_starts_and_ctrl_c_ends_it_even_earlier(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")
    assert start(monkeypatch) == 0
    assert capsys.readouterr().out.startswith("rapids ")


def test_run_refuses_what_cannot_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = ("run", "tests.nothing:router")

    assert "no address of Redis: give --url, or set RAPIDS_REDIS_URL" in Command("")(*run, code=2).stderr
    assert "--url must " in Command("http://localhost")(*run, code=2).stderr
    assert "--reload-dir needs --reload" in Command(ADDRESS)(*run, "--reload-dir", str(tmp_path), code=2).stderr
    monkeypatch.setattr(import_module("rapids.cli.run"), "find_spec", lambda name: None)
    monkeypatch.setattr(import_module("rapids.metrics.exposition"), "find_spec", lambda name: None)
    says = Command(ADDRESS)(*run, "--metrics-port", "9464", code=2).stderr
    assert "--metrics-port needs prometheus-client, which is not installed: pip install 'rapids-fastapi[prom" in says
    refused = Command(ADDRESS)(*run, "--uvloop", code=2).stderr
    assert refused == "rapids: --uvloop needs uvloop, which is not installed: pip install uvloop\n"


def test_dead_letters_are_switched_off_by_an_option_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[RunOptions] = []

    def run_worker(options: RunOptions) -> int:
        ran.append(options)
        return 0

    monkeypatch.setattr(worker_process, "run_worker", run_worker)
    rapids = Command(ADDRESS)
    rapids("run", "shop:router")
    rapids("run", "shop:router", "--no-dead-letters")
    monkeypatch.setenv("RAPIDS_DEAD_LETTERS", "false")
    rapids("run", "shop:router")
    rapids("run", "shop:router", "--dead-letters")

    assert [options.dead_letters for options in ran] == [True, False, False, True]
    assert [options.targets for options in ran] == [("shop:router",)] * 4
