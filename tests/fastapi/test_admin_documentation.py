"""The admin in OpenAPI: everything is documented, with examples that are valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rapids_fastapi.admin.problems import KINDS
from tests.fastapi.admin_paths import document

PROBLEM = "application/problem+json"
GUIDE = Path(__file__).parents[2] / "docs" / "http.md"


DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
class TestEveryOperation:
    def test_it_has_a_summary_and_a_description(self, operation: dict[str, Any]) -> None:
        assert operation["tags"] == ["rapids"]
        assert operation["description"]
        assert operation["summary"]
        assert operation["summary"] != operation["summary"].title(), "made from the function's name"

    def test_it_names_its_permission(self, operation: dict[str, Any], request: pytest.FixtureRequest) -> None:
        is_open = "/rapids/health/" in request.node.name
        assert operation.get("security", []) == ([] if is_open else [{"RapidsToken": []}, {"RapidsPassword": []}])
        assert ("x-rapids-permission" in operation) is not is_open
        assert is_open or {"401", "403", "503"} <= set(operation["responses"])

    def test_each_parameter_has_a_description_and_a_fitting_example(self, operation: dict[str, Any]) -> None:
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], parameter["name"]
            assert parameter["schema"]["examples"], parameter["name"]
            for example in parameter["schema"]["examples"]:
                validator(parameter["schema"]).validate(example)

    def test_its_body_and_its_answers_have_examples(self, operation: dict[str, Any]) -> None:
        contents = [answer.get("content", {}) for answer in operation["responses"].values()]
        contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
        for content in contents:
            for kind, described in content.items():
                assert kind == PROBLEM or list(examples_of(described)), described

    def test_its_errors_are_problems(self, operation: dict[str, Any]) -> None:
        assert "500" in operation["responses"]
        for status, answer in operation["responses"].items():
            assert answer["description"]
            if int(status) < 400:
                continue
            assert answer["content"] == {PROBLEM: {"schema": {"$ref": "#/components/schemas/RapidsProblem"}}}
            assert {KINDS[name].status for name in kinds_of(answer)} == {int(status)}

    def test_changes_document_the_answers_of_access_control(self, operation: dict[str, Any], request: Any) -> None:
        if "[GET " not in request.node.name:
            names = {name for answer in operation["responses"].values() for name in kinds_of(answer)}
            assert {"cross-origin", "not-json", "too-large"} <= names


def kinds_of(answer: dict[str, Any]) -> list[str]:
    """The kinds of problems that an answer can be."""
    return re.findall(r"`([a-z-]+)`", answer["description"]) if PROBLEM in answer.get("content", {}) else []


def examples_of(described: dict[str, Any]) -> Iterator[Any]:
    """The examples of a content: its own, or those of its schemas."""
    yield from (example["value"] for example in described.get("examples", {}).values())
    if "example" in described:
        yield described["example"]
    for schema in (described["schema"], *described["schema"].get("anyOf", ())):
        yield from own_examples(resolved(schema))


def own_examples(schema: dict[str, Any]) -> list[Any]:
    return [schema["example"]] if "example" in schema else schema.get("examples", [])


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def examples_by_schema() -> dict[str, list[Any]]:
    """All examples of a named schema: of the body of a request or an answer, or of a part of it."""
    found = {name: list(own_examples(schema)) for name, schema in SCHEMAS.items()}

    def walk(schema: dict[str, Any], example: Any) -> None:
        for one in schema.get("anyOf", ()):
            if validator(one).is_valid(example):
                walk(one, example)
        if "$ref" in schema:
            found[schema["$ref"].rpartition("/")[2]].append(example)
        schema = resolved(schema)
        for name, member in example.items() if isinstance(example, dict) else ():
            walk(schema.get("properties", {}).get(name, {}), member)
        for member in example if isinstance(example, list) else ():
            walk(schema.get("items", {}), member)

    for operation in OPERATIONS.values():
        for content in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, described in content.get("content", {}).items():
                for example in examples_of(described) if kind == "application/json" else ():
                    validator(described["schema"]).validate(example)
                    walk(described["schema"], example)
    return found


EXAMPLES = examples_by_schema()


@pytest.mark.parametrize("name", SCHEMAS)
class TestEverySchema:
    def test_it_has_a_description_and_fitting_examples(self, name: str) -> None:
        assert SCHEMAS[name]["description"]
        assert EXAMPLES[name]
        for example in EXAMPLES[name]:
            validator({"$ref": f"#/components/schemas/{name}"}).validate(example)

    def test_its_examples_show_every_field_that_can_be_shown(self, name: str) -> None:
        """Examples leave out only fields that are null."""
        may_be_null = {
            field
            for field, schema in SCHEMAS[name]["properties"].items()
            if {"type": "null"} in schema.get("anyOf", ()) or (not schema.get("type", "") and "anyOf" not in schema)
        }
        fields = set(SCHEMAS[name]["properties"])
        for example in EXAMPLES[name]:
            shown = set(SCHEMAS[name]["required"]) if name == "RapidsProblem" else fields - may_be_null
            assert shown <= set(example) <= fields or name.endswith(("Request", "Filter", "Selector"))


def test_every_operation_has_an_id_of_its_own() -> None:
    assert len({operation["operationId"] for operation in OPERATIONS.values()}) == len(OPERATIONS) > 12


@pytest.mark.parametrize(
    ("name", "field", "description"),
    [
        ("RapidsStreams", "missing", "Streams that do not exist yet, or that cannot be read."),
        ("RapidsCapabilities", "max_body", "Bytes of a request's body."),
        ("RapidsDiscardRequest", "reason", "Why; kept in the letter's history."),
        ("RapidsDeadLetterDetail", "fingerprint", "The same for all letters of one cause."),
        ("RapidsQueueStats", "length", "Letters in it."),  # a dataclass of the core
    ],
)
def test_an_attributes_docstring_is_its_description(name: str, field: str, description: str) -> None:
    assert SCHEMAS[name]["properties"][field]["description"] == description


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(DOCUMENT):
        node: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_credentials_are_documented() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert (schemes["RapidsToken"]["scheme"], schemes["RapidsPassword"]["scheme"]) == ("bearer", "basic")


def test_every_kind_of_problem_belongs_to_an_operation() -> None:
    answers = [answer for operation in OPERATIONS.values() for answer in operation["responses"].values()]
    assert {name for answer in answers for name in kinds_of(answer)} == set(KINDS)


def test_each_example_of_a_problem_is_of_its_kind() -> None:
    kinds = {kind.type: kind for kind in KINDS.values()}
    for example in SCHEMAS["RapidsProblem"]["examples"]:
        kind = kinds[example["type"]]
        assert (example["title"], example["status"]) == (kind.title, kind.status)


def test_the_guide_lists_every_kind_of_problem_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", GUIDE.read_text(), re.MULTILINE)
    assert {name: int(status) for name, status in rows} == {kind.name: kind.status for kind in KINDS.values()}
