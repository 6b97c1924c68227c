"""The OpenAPI document is valid, and what it says is what the server does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flow.test_http_core_toy import Toy, toy
from millpond.producer.http.app import build
from millpond.producer.http.table import Call, Reply, Route, Who


@asynccontextmanager
async def document() -> AsyncIterator[Any]:
    async with toy() as asked:
        yield (await asked.ask("GET", "/openapi.json", key=None)).json


async def test_the_document_is_valid() -> None:
    async with document() as told:
        assert list(OpenAPIV31SpecValidator(told).iter_errors()) == []


async def test_the_document_says_what_the_table_says() -> None:
    async with document() as told:
        make = told["paths"]["/v1/birds"]["post"]
        find = told["paths"]["/v1/birds"]["get"]
        show = told["paths"]["/v1/birds/{id}"]["get"]
        health = told["paths"]["/healthz"]["get"]
    assert make["operationId"] == "make"
    assert make["security"] == [{"key": []}]
    assert make["requestBody"]["required"] is True
    assert [parameter["name"] for parameter in make["parameters"]] == ["Idempotency-Key"]
    assert {"201", "401", "403", "409", "413", "415", "422", "500"} <= set(make["responses"])
    assert list(make["responses"]["422"]["content"]) == ["application/problem+json"]
    assert {parameter["name"]: parameter["in"] for parameter in find["parameters"]} == {
        "limit": "query",
        "cursor": "query",
        "colour": "query",
        "tame": "query",
        "old": "query",
    }
    assert not any(parameter["required"] for parameter in find["parameters"])
    assert show["parameters"][0] == {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }
    assert health["security"] == []


def test_two_operations_of_one_name_are_refused() -> None:
    async def show(_: Call) -> Reply:
        return Reply()

    async def authenticate(_: str) -> None:
        return None

    routes = [Route("GET", path, show, who=Who.USER, summary="") for path in ("/a", "/b")]
    with pytest.raises(ValueError, match="show"):
        build(routes, authenticate)


#: What a schema cannot say: 1.0 is an integer to it, and any letters are a cursor.
MEANT = {
    "Input should be a valid integer",
    "it is no next_cursor of this API",
    "an integer of more than 64 bits",  # in a field that takes any JSON
}


async def test_what_schemathesis_makes_up_is_answered_as_the_document_says() -> None:
    """Every operation, valid and invalid requests; no 5xx, and replies of the shapes described."""
    async with toy() as asked:
        asked.toy.go.set()
        await asyncio.to_thread(_drive, asked.base)


def _drive(base: str) -> None:
    import hypothesis
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks
    from schemathesis.core.failures import FailureGroup
    from schemathesis.core.result import Ok
    from schemathesis.generation import GenerationMode

    load_all_checks()

    @schemathesis.serializer("application/jsonl", "application/x-ndjson")
    def _(_: Any, value: Any) -> bytes:
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    positive_data_acceptance = CHECKS.get_one("positive_data_acceptance")
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    assert len(operations) == len(Toy().routes()) + 3  # health, readiness, metrics

    for operation in operations:

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def one(case: Any) -> None:
            key = "operator" if "/rule" in case.path else "admin"
            reply = case.call(base_url=base, headers={"Authorization": f"Bearer {key}"})
            try:
                case.validate_response(reply, excluded_checks=[positive_data_acceptance])
            except FailureGroup as failures:
                told = [str(each) for each in failures.exceptions]
                raise AssertionError(told, case.as_curl_command(), reply.text) from None
            if case.meta.generation.mode is GenerationMode.POSITIVE and reply.status_code == 422:
                told = [error["detail"] for error in reply.json()["errors"]]
                assert set(told) <= MEANT, (case.as_curl_command(), told)

        one()
