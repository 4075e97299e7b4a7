"""The AsyncAPI 3.1 document of a service: its streams, its event types, who emits them, and who handles them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

from rapids import BaseEvent
from rapids.catalog import Catalog, CatalogEntry, EmittedBy, HandledBy
from rapids.clients import check_url
from rapids.event_schemas import event_schema
from rapids.events import get_event_class

__all__ = ["ASYNCAPI_VERSION", "asyncapi_document"]

ASYNCAPI_VERSION = "3.1.0"
"""The version of the specification: https://www.asyncapi.com/docs/reference/specification/v3.1.0"""

EXTENSION = "x-rapids"
"""The member that has what is particular to Rapids and Redis."""

ENTRY_FIELDS = "RapidsEntryFields"

Document: TypeAlias = dict[str, Any]

_host = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_unfit = re.compile(r"[^A-Za-z0-9._-]+")

_TEXT = {"type": "string"}
_FIELDS: Document = {
    "type": "object",
    "description": "The fields of a stream entry beside `data`, which is the payload. All are text.",
    "properties": {
        "event_type": {**_TEXT, "description": "The name of the message."},
        "schema_version": {**_TEXT, "pattern": r"^\d+$"},
        "id": {**_TEXT, "minLength": 1},
        "timestamp": {**_TEXT, "format": "date-time"},
        "correlation_id": {**_TEXT, "description": "Empty for none."},
        "causation_id": {**_TEXT, "description": "Empty for none."},
        "metadata": {**_TEXT, "contentMediaType": "application/json"},
    },
    "required": ["event_type", "schema_version", "id", "timestamp", "correlation_id", "causation_id", "metadata"],
}


def asyncapi_document(
    catalog: Catalog, *, title: str = "Events", version: str = "0.0.0", description: str = "", url: str | None = None
) -> Document:
    """The document, as JSON values.

    `send` operations are those of endpoints and handlers that declare what they emit by `Emits[...]`, and `receive`
    operations are those of handlers. `title` and `version` are the service's own. `url`: the address of Redis, in the
    document without user, password and options. An embedded server or a socket has no address that others could use.

    Raises `ValueError` for an address that is not valid.
    """
    return _Builder(catalog).document(title, version, description, servers_of(url))


class _Names:
    """Names that are unique, and that AsyncAPI allows."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, wanted: str) -> str:
        fit = _unfit.sub("-", wanted).strip("-") or "unnamed"
        number, name = 2, fit
        while name in self._taken:
            number, name = number + 1, f"{fit}-{number}"
        self._taken.add(name)
        return name


class _Builder:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._schemas: Document = {ENTRY_FIELDS: _FIELDS}
        self._schema_names = _Names()
        self._schema_names.of(ENTRY_FIELDS)
        self._defined: dict[tuple[str, str], str] = {}
        """The names of components by the names of definitions, and what these are."""
        names = _Names()
        self._messages = {one.event_type: names.of(one.event_type) for one in catalog}
        self._channels: dict[str, str] = {}
        """The names of channels by their streams."""
        self._channel_names, self._operation_names = _Names(), _Names()

    def document(self, title: str, version: str, description: str, servers: Document) -> Document:
        operations: Document = {}
        sends: dict[EmittedBy, list[str]] = {}
        receives: dict[tuple[str, str, str], tuple[HandledBy, list[str]]] = {}
        for entry in self._catalog:
            for by in entry.emitters:
                sends.setdefault(by, []).append(entry.event_type)
            for one in entry.handlers:
                place = (one.stream, one.group, one.handler)
                receives.setdefault(place, (one, []))[1].append(entry.event_type)
        for by, event_types in sends.items():
            if by.kind == "seen":  # by whom is not known
                self._channel(by.stream)
                continue
            name = self._operation_names.of(f"send-{by.group}-{by.name}" if by.group else f"send-{by.name}")
            facts = {"endpoint": by.name} if by.kind == "endpoint" else {"group": by.group, "handler": by.name}
            operations[name] = self._operation("send", by.stream, event_types, facts)
        for one, event_types in receives.values():
            name = self._operation_names.of(f"receive-{one.group}-{one.handler}")
            operations[name] = self._operation("receive", one.stream, event_types, _policy(one))
        messages = {self._messages[one.event_type]: self._message(one) for one in self._catalog}
        info: Document = {"title": title, "version": version}
        return {
            "asyncapi": ASYNCAPI_VERSION,
            "info": {**info, "description": description} if description else info,
            **({"servers": servers} if servers else {}),
            "defaultContentType": "application/json",
            "channels": {name: self._described(stream) for stream, name in self._channels.items()},
            "operations": operations,
            "components": {
                "messages": messages,
                "schemas": self._schemas,
                "correlationIds": {"correlationId": {"location": "$message.header#/correlation_id"}},
            },
        }

    def _channel(self, stream: str) -> str:
        if stream not in self._channels:
            self._channels[stream] = self._channel_names.of(stream)
        return self._channels[stream]

    def _described(self, stream: str) -> Document:
        """The channel of a stream, with all event types that are emitted to it or handled from it."""
        groups: dict[str, str | None] = {}
        messages: Document = {}
        for entry in self._catalog:
            handlers = [one for one in entry.handlers if one.stream == stream]
            groups.update({one.group: one.dlq_stream for one in handlers})
            if handlers or any(by.stream == stream for by in entry.emitters):
                name = self._messages[entry.event_type]
                messages[name] = {"$ref": f"#/components/messages/{name}"}
        return {
            "address": stream,
            "messages": messages,
            EXTENSION: {
                "transport": "redis-streams",
                "groups": [{"group": group, "dead_letter_stream": dlq} for group, dlq in sorted(groups.items())],
            },
        }

    def _operation(self, action: str, stream: str, event_types: Sequence[str], facts: Document) -> Document:
        channel = f"#/channels/{self._channel(stream)}"
        return {
            "action": action,
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{self._messages[one]}"} for one in event_types],
            EXTENSION: facts,
        }

    def _message(self, entry: CatalogEntry) -> Document:
        cls = get_event_class(entry.event_type)
        short = entry.event_class.rpartition(".")[2]
        message: Document = {"name": entry.event_type, "title": short}
        if entry.description:
            message["description"] = entry.description
        return {
            **message,
            "contentType": "application/json",
            "headers": {"$ref": f"#/components/schemas/{ENTRY_FIELDS}"},
            "payload": {"$ref": f"#/components/schemas/{self._payload(short, cls)}"},
            "correlationId": {"$ref": "#/components/correlationIds/correlationId"},
            EXTENSION: {"schema_version": entry.schema_version, "event_class": entry.event_class},
        }

    def _payload(self, wanted: str, cls: type[BaseEvent] | None) -> str:
        """The name of the schema of an event's data. What it refers to becomes a component, too."""
        schema: Document = event_schema(cls, "written") if cls is not None else {}
        definitions: Document = schema.pop("$defs", {})
        name = self._schema_names.of(wanted)
        names: dict[str, str] = {}
        for definition in definitions:
            whole = definition, json.dumps(_reachable(definition, definitions), sort_keys=True, default=str)
            if whole not in self._defined:  # several events may have a model in common
                self._defined[whole] = self._schema_names.of(definition)
            names[definition] = self._defined[whole]
        for definition, inner in definitions.items():
            self._schemas[names[definition]] = _moved(inner, names.__getitem__)
        self._schemas[name] = _moved(schema, names.__getitem__)
        return name


def _reachable(definition: str, definitions: Document) -> Document:
    """The definition, and those that it refers to."""
    found: Document = {}
    left = [definition]
    while left:
        name = left.pop()
        if name not in found:
            found[name] = definitions[name]
            left += [one for one in definitions if f'"#/$defs/{one}"' in json.dumps(definitions[name], default=str)]
    return found


def _moved(schema: Any, name_of: Callable[[str], str]) -> Any:
    """A schema whose references are to components, in the dialect of AsyncAPI, where a reference stands alone, and a
    discriminator is the name of a property."""
    match schema:
        case dict():
            members = cast(Document, schema)
            moved: Document = {}
            reference: str | None = None
            for name, value in members.items():
                if name == "$ref" and isinstance(value, str):
                    reference = value
                elif name == "discriminator" and isinstance(value, Mapping) and "propertyName" in value:
                    moved[name] = cast(Document, value)["propertyName"]
                else:  # also a property with such a name
                    moved[name] = _moved(value, name_of)
            if reference is None:
                return moved
            target = {"$ref": f"#/components/schemas/{name_of(reference.rpartition('/')[2])}"}
            return {"allOf": [target], **moved} if moved else target
        case list():
            return [_moved(one, name_of) for one in cast("list[Any]", schema)]
        case _:
            return schema


def _policy(one: HandledBy) -> Document:
    return {
        "group": one.group,
        "handler": one.handler,
        "timeout_seconds": one.timeout,
        "quick_retries": one.retries,
        "retryable_exceptions": list(one.retryable_exceptions),
        "max_deliveries": one.max_deliveries,
        "dead_letter_stream": one.dlq_stream,
    }


def servers_of(url: str | None) -> Document:
    """The servers at an address, without user, password and options. Raises `ValueError` if it is not valid."""
    if url is None:
        return {}
    parts = urlsplit(check_url("url", url))
    scheme, _, kind = parts.scheme.lower().partition("+")
    if scheme not in ("redis", "rediss") or not parts.netloc:
        return {}
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not all(_host.fullmatch(host) for host in hosts):
        raise ValueError("url: its hosts are not valid")  # without the text, of which the password may be a part
    path = {"pathname": parts.path} if parts.path.strip("/") else {}
    facts = {EXTENSION: {"topology": kind or "standalone"}}
    names = ["redis", *(f"redis-{number}" for number in range(2, len(hosts) + 1))]
    return {name: {"host": host, **path, "protocol": scheme, **facts} for name, host in zip(names, hosts, strict=True)}
