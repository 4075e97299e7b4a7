"""Tests, style and types on every supported Python: `.venv/bin/nox`, or `.venv/bin/nox -s tests-3.13`."""

import shutil

import nox

PYTHONS = ("3.11", "3.12", "3.13", *(["3.14"] if shutil.which("python3.14") else []))

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session) -> None:
    session.install("--editable", ".[dev]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests but the slow ones, or what is named after `--`."""
    install(session)
    session.run("python", "-m", "tests.servers.unpack", success_codes=[0, 1])
    session.run(
        "python", "-m", "pytest", "-n", "auto", "--dist", "loadgroup", *(session.posargs or ["-m", "not slow or smoke"])
    )


@nox.session(python=PYTHONS)
def workers(session: nox.Session) -> None:
    """Run the tests of worker processes, each on asyncio and on uvloop: signals, children, reloads."""
    install(session)
    session.run("python", "-m", "tests.servers.unpack", success_codes=[0, 1])
    session.run("python", "-m", "pytest", "-n", "auto", "tests/cli/test_worker_processes.py", *session.posargs)


@nox.session(python=PYTHONS)
def lint(session: nox.Session) -> None:
    """Check style, imports between layers, and the rules of the house."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("python", "-m", "pytest", "-q", "tests/test_house.py")


@nox.session(python=PYTHONS)
def typecheck(session: nox.Session) -> None:
    """Check types strictly, as this Python sees them."""
    install(session)
    python = f"{session.bin}/python"
    for project in (".", "tests/typing"):
        session.run("pyright", "-p", project, "--pythonpath", python, "--pythonversion", str(session.python))
