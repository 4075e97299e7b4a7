"""`rapids run`: the options of worker processes."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rapids.cli.log_lines import LogFormat, LogLevel
from rapids.cli.root import ENVIRONMENT, Url, app, fail
from rapids.clients import check_url
from rapids.exceptions import NotConfiguredError

__all__ = ["run"]

RELOAD_TIMEOUT = 5.0
"""Seconds that running handlers have with `--reload`, unless `--graceful-timeout` is given."""


@app.command()
def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:NAME",
            envvar="RAPIDS_ROUTERS",
            help="Routers, lists of routers, or functions that return them. An EventEmitter without a client gets one.",
        ),
    ],
    url: Url = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", envvar="RAPIDS_PROCESSES", help="How many processes run the routers.")
    ] = 1,
    lifespan: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            envvar="RAPIDS_LIFESPAN",
            help="An async context manager, called without arguments, that is entered in each process before its "
            "routers start, and left after they have stopped.",
        ),
    ] = None,
    dead_letters: Annotated[bool, typer.Option("--dead-letters", envvar="RAPIDS_DEAD_LETTERS", hidden=True)] = True,
    no_dead_letters: Annotated[
        bool,
        typer.Option(
            "--no-dead-letters",
            help="Park what fails for good, if its router names no dead-letter stream, instead of moving it to "
            "{STREAM}:dlq. As RAPIDS_DEAD_LETTERS=false does.",
        ),
    ] = False,
    redact: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            envvar="RAPIDS_REDACT",
            help="Names of fields, with commas between them, that are hidden in the errors of handlers as well.",
        ),
    ] = "",
    graceful_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            envvar="RAPIDS_GRACEFUL_TIMEOUT",
            help="How long running handlers may take after SIGTERM or SIGINT; then they are cancelled and their "
            "entries released. By default the shutdown_timeout of each router; 5 with --reload.",
        ),
    ] = None,
    uvloop: Annotated[
        bool, typer.Option("--uvloop", envvar="RAPIDS_UVLOOP", help="Run on uvloop instead of asyncio's own loop.")
    ] = False,
    reload: Annotated[
        bool,
        typer.Option("--reload", envvar="RAPIDS_RELOAD", help="Restart when a Python file changes. For development."),
    ] = False,
    reload_dir: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="DIR",
            envvar="RAPIDS_RELOAD_DIR",
            help="A folder to watch, instead of the current one. May be given several times.",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            metavar="PORT",
            envvar="RAPIDS_HEALTH_PORT",
            help="Answer GET /health/live and GET /health/ready on this port, for all processes together.",
        ),
    ] = None,
    health_host: Annotated[
        str, typer.Option(metavar="HOST", envvar="RAPIDS_HEALTH_HOST", help="The address for --health-port.")
    ] = "0.0.0.0",  # noqa: S104 - probes come from outside of the container
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            metavar="PORT",
            envvar="RAPIDS_METRICS_PORT",
            help="Answer GET /metrics for Prometheus on this port, for all processes together. It may be the "
            "--health-port.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="HOST", envvar="RAPIDS_METRICS_HOST", help="The address for --metrics-port.")
    ] = "0.0.0.0",  # noqa: S104 - Prometheus comes from outside of the container
    otel: Annotated[
        bool,
        typer.Option(
            "--otel",
            envvar="RAPIDS_OTEL",
            help="Send traces and metrics by OpenTelemetry, as the variables OTEL_... say: by default by OTLP to "
            "localhost.",
        ),
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            metavar="FORMAT", envvar="RAPIDS_LOG_FORMAT", help="text: lines for people; json: one object a line."
        ),
    ] = "text",
    log_level: Annotated[
        LogLevel,
        typer.Option(metavar="LEVEL", envvar="RAPIDS_LOG_LEVEL", help="debug, info, warning, error or critical."),
    ] = "info",
) -> None:
    """Run routers as worker processes.

    SIGTERM, SIGINT and SIGHUP stop gracefully: running handlers finish. A second signal ends at once.

    Exit codes: 0 stopped by a signal, 1 failed or not stopped in time, 2 could not start.
    """
    from rapids.cli.worker_process import RunOptions, run_worker

    if url is None:
        fail(f"no address of Redis: give --url, or set {ENVIRONMENT}")
    try:
        check_url("--url", url)
    except ValueError as error:
        fail(str(error))
    if uvloop and find_spec("uvloop") is None:
        fail("--uvloop needs uvloop, which is not installed: pip install uvloop")
    if otel:
        _check_otel()
    if metrics_port is not None:
        from rapids.metrics import check_installed

        try:
            check_installed("--metrics-port")
        except NotConfiguredError as error:
            fail(str(error))
    if reload_dir and not reload:
        fail("--reload-dir needs --reload")
    folders = tuple(map(str, reload_dir or [Path.cwd()])) if reload else None
    options = RunOptions(
        targets=tuple(targets),
        url=url,
        processes=processes,
        lifespan=lifespan,
        dead_letters=dead_letters and not no_dead_letters,
        redact=tuple(filter(None, map(str.strip, redact.split(",")))),
        graceful_timeout=RELOAD_TIMEOUT if reload and graceful_timeout is None else graceful_timeout,
        uvloop=uvloop,
        health=None if health_port is None else (health_host, health_port),
        metrics=None if metrics_port is None else (metrics_host, metrics_port),
        reload=folders,
        otel=otel,
        log_format=log_format,
        log_level=log_level,
    )
    if processes == 1 and not reload:
        sys.exit(run_worker(options))
    from rapids.cli.parent_process import run_parent

    sys.exit(run_parent(options))


def _check_otel() -> None:
    """End with a message if a package is missing, or a variable of OpenTelemetry is not valid."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        fail(
            "--otel needs the SDK of OpenTelemetry and an exporter, which are not installed: "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp"
        )
    from rapids.telemetry.sdk import find_exporters

    try:
        find_exporters()
    except NotConfiguredError as error:
        fail(f"--otel: {error}")
