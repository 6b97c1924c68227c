"""The OpenAPI 3.1 document of a table of routes. Built once, when the application is."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from millpond.producer.http.asked import IDEMPOTENCY_KEY, PATH_PARAMETER_MOST
from millpond.producer.http.problems import PROBLEM_JSON
from millpond.producer.http.table import EVENT_STREAM, JSON, Model, Route, Who

_REF = "#/components/schemas/{model}"
_Key = tuple[str, JsonSchemaMode]


class WrongField(Model):
    """One field and what is wrong with it."""

    pointer: str = Field(description="JSON pointer to the field; empty: the whole.")
    detail: str
    where: str | None = Field(None, alias="in", description="query or header; none: the body.")


class LimitMet(Model):
    """The limit that was met."""

    name: str
    unit: str
    used: int
    limit: int
    resets_at: str | None = None


class ProblemDocument(Model):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[WrongField] | None = None
    retry_after_s: int | None = None
    limit: LimitMet | None = None


def document(routes: Iterable[Route], *, title: str, version: str) -> dict[str, Any]:
    """The document."""
    shown = [route for route in routes if route.described]
    names = [route.operation for route in shown]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"operations need names of their own: {sorted(twice)}")
    schemas, components = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, schemas, components
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(routes: list[Route]) -> tuple[dict[_Key, Any], dict[str, Any]]:
    """All schemas at once, so that a model has one name wherever it is used."""
    wanted: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        ("problem", "serialization", TypeAdapter(ProblemDocument))
    ]
    for route in routes:
        if route.body is not None:
            wanted.append((f"{route.operation} body", "validation", route.body_adapter))
        if route.query is not None:
            query = TypeAdapter[Any](route.query)
            wanted.append((f"{route.operation} query", "validation", query))
        for status, model in route.replies.items():
            if model is not None:
                reply = TypeAdapter[Any](model)
                wanted.append((f"{route.operation} {status}", "serialization", reply))
    schemas, rest = TypeAdapter.json_schemas(wanted, ref_template=_REF)
    return dict(schemas), dict(rest.get("$defs", {}))


def _operation(
    route: Route, schemas: dict[_Key, Any], components: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": list(route.tags),
        "security": [] if route.who is Who.ANYBODY else [{"key": []}],
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(schemas.get((f"{route.operation} query", "validation")), components),
            *([_IDEMPOTENCY_KEY] if route.idempotent else []),
        ],
        "responses": _responses(route, schemas),
    }
    if route.has_body:
        schema = schemas.get((f"{route.operation} body", "validation"), {})
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {taken: {"schema": schema} for taken in route.takes},
        }
    return operation


_IDEMPOTENCY_KEY = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!#-~]{1,255}$"},
}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1, "maxLength": PATH_PARAMETER_MOST}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(schema: Any, components: dict[str, Any]) -> list[dict[str, Any]]:
    if schema is None:
        return []
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    found = []
    for name, inner in schema.get("properties", {}).items():
        told = {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": _no_null(inner),
        }
        if "description" in inner:
            told["description"] = inner["description"]
        found.append(told)
    return found


def _no_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: a parameter is left out instead."""
    branches = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    if not branches:
        return schema
    return rest | branches[0] if len(branches) == 1 else rest | {"anyOf": branches}


def _responses(route: Route, schemas: dict[_Key, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in sorted(route.replies):
        told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        schema = schemas.get((f"{route.operation} {status}", "serialization"))
        if schema is not None:
            told["content"] = {route.reply_type: {"schema": schema}}
        elif route.reply_type == EVENT_STREAM:
            told["content"] = {EVENT_STREAM: {}}  # 3.1 has no words for events
        elif route.reply_type != JSON and status == 200:
            told["content"] = {route.reply_type: {"schema": {"type": "string"}}}
        found[str(status)] = told
    problem = {PROBLEM_JSON: {"schema": schemas["problem", "serialization"]}}
    for status in sorted(_problems(route) - set(route.replies)):
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return found


def _problems(route: Route) -> set[int]:
    """What can come by the row alone, and what it says may come besides."""
    found = {400, 404, 422, 429, 500, 503, *route.problems}
    if route.who is not Who.ANYBODY:
        found |= {401, 403}
    if route.has_body:
        found |= {408, 413, 415}
    return found | ({409} if route.idempotent else set())
