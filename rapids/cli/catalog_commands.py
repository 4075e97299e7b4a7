"""The commands `events` and `asyncapi`: what a service says of its events; and what `--app` loads for commands."""

import asyncio
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import typer

from rapids import EventRouter
from rapids.catalog import Catalog
from rapids.cli.display import Column, Json, note, print_json, print_table
from rapids.cli.root import app, errors_in_a_line, fail
from rapids.cli.shown_letters import redactor
from rapids.cli.targets import Found, find
from rapids.contracts import asyncapi_document
from rapids.redaction import without_hidden_defaults

__all__ = ["App", "catalog_of", "load"]

App: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--app",
        metavar="MODULE:NAME",
        help="A router, a list of routers, a Rapids or a FastAPI application, whose modules have the event classes. "
        "Repeatable.",
    ),
]


def load(targets: list[str] | None) -> tuple[EventRouter, ...]:
    """The routers of `--app`, which also registers the event classes of their modules."""
    return found_in(targets).routers if targets else ()


def found_in(targets: list[str]) -> Found:
    """What the targets name. A wrong one ends the command with one line."""
    if "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with errors_in_a_line():
        return asyncio.run(find(targets, with_applications=True))


def catalog_of(found: Found) -> Catalog:
    """The catalog of what was found. Endpoints of applications emit to the one stream of the emitters or routers."""
    streams = {one.stream for one in found.emitters} or {one.stream for one in found.routers}
    stream = streams.pop() if len(streams) == 1 else "events:all"
    endpoints: list[Any] = []
    for application in found.applications:
        # Imported by its name, since the command does not need FastAPI; the application does.
        plug_in = cast(Any, import_module("rapids_fastapi"))
        endpoints += plug_in.emitting_endpoints(application, stream)
    return Catalog.of(found.routers, endpoints=endpoints)


@app.command()
def events(targets: App = None, as_json: Json = False) -> None:
    """List event types, their versions, who emits them and who handles them.

    Only --app says where they are. No Redis is needed. Who emits a type is known of endpoints and handlers that declare
    it with Emits[...].
    """
    if not targets:
        fail("say where the events are: --app module:router")
    catalog = catalog_of(found_in(targets))
    if as_json:
        hiding = redactor()
        for one in catalog:
            print_json(replace(one, json_schema=without_hidden_defaults(one.json_schema, hiding)))
        return
    columns = [
        Column("EVENT TYPE"),
        Column("VERSION", is_number=True),
        Column("CLASS"),
        Column("EMITTED BY"),
        Column("HANDLED BY", is_below=True),
    ]
    rows = [
        (
            one.event_type,
            one.schema_version,
            one.event_class,
            ", ".join(": ".join(filter(None, (by.group, by.name))) for by in one.emitters),
            ", ".join(f"{handler.group}: {handler.handler}" for handler in one.handlers),
        )
        for one in catalog
    ]
    if rows:
        print_table(columns, rows)
    note(f"{len(rows):,} event types")


@app.command()
def asyncapi(
    targets: App = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML instead of JSON.")] = False,
    title: Annotated[str | None, typer.Option(help="The service's name; by default the application's.")] = None,
    version: Annotated[str | None, typer.Option("--api-version", help="By default the application's.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The address of Redis for the document.")] = None,
) -> None:
    """Print the AsyncAPI 3.1 document of routers and applications.

    It has their streams, event types with JSON Schemas, who emits and who handles. No Redis is needed. Of --url, the
    document has neither user nor password, and no defaults, examples and constants of hidden fields.
    """
    if not targets:
        fail("say where the events are: --app module:router")
    found = found_in(targets)
    service: Any = found.applications[0] if found.applications else None
    try:
        document = asyncapi_document(
            catalog_of(found),
            title=title or str(getattr(service, "title", "Events")),
            version=version or str(getattr(service, "version", "0.0.0")),
            url=url,
        )
    except ValueError as error:
        fail(str(error))
    document = without_hidden_defaults(document, redactor())
    if as_yaml:
        yaml = cast(Any, import_module("yaml"))
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=120))
    else:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
