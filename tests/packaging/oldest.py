"""Tests with the oldest libraries that the metadata admits: `python -m tests.packaging.oldest [ARGUMENTS OF PYTEST]`.

The environment is `.oldest/`. Each library that users install with Rapids has the version that its `>=` in
`pyproject.toml` names. The tools of the tests have any version, but those of OpenTelemetry: each release of them fits
one version of its API.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from tests.house.source import ROOT

__all__ = ["HOME", "floors", "prepare"]

HOME = ROOT / ".oldest"
PYTHON = HOME / "bin" / "python"


def floors() -> dict[str, str]:
    """The oldest version of each library that users install with Rapids, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in extras if name != "dev" for one in extras[name])]
    named = [re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", one) for one in wanted]
    return {found[1]: found[2] for found in named if found}


def of_opentelemetry(version: str) -> dict[str, str]:
    """The releases of OpenTelemetry's other packages that came out with a version of its API."""
    beta = f"0.{int(version.split('.')[1]) + 21}b0"
    betas = ("semantic-conventions", "instrumentation-fastapi", "instrumentation-redis")
    stable = dict.fromkeys(("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"), version)
    return stable | {f"opentelemetry-{name}": beta for name in betas}


def prepare() -> None:
    """Make the environment, unless it is there for these versions."""
    oldest = floors()
    oldest |= of_opentelemetry(oldest["opentelemetry-api"])
    wanted = "".join(f"{name}=={version}\n" for name, version in oldest.items())
    constraints = HOME / "constraints.txt"
    if constraints.exists() and constraints.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    (HOME / "wanted.txt").write_text(wanted)
    subprocess.run([*pip, "--constraint", HOME / "wanted.txt", "--editable", f"{ROOT}[dev]"], check=True)
    (HOME / "wanted.txt").rename(constraints)


if __name__ == "__main__":
    prepare()
    # Rapids follows newer conventions than the oldest SDK knows.
    arguments = sys.argv[1:] or ["-m", "not slow or smoke", "--ignore", "tests/telemetry/test_conventions.py"]
    pytest = [PYTHON, "-m", "pytest", "-W", "ignore::DeprecationWarning"]  # old libraries use what newer ones deprecate
    sys.exit(subprocess.run([*pytest, *arguments], cwd=ROOT).returncode)
