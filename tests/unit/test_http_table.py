"""Routes, strict values, pages and addresses, without a connection."""

import ipaddress
import math
from typing import Annotated, Any

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
)

from millpond.domain.account import Identity
from millpond.producer.http.address import Trust, origin_of
from millpond.producer.http.app import HttpSettings, build
from millpond.producer.http.pages import Page, PageQuery, cursor_of, text_of
from millpond.producer.http.problems import Problem
from millpond.producer.http.strict_json import JsonObject, JsonValue, read, scan
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who


async def handler(_: Call) -> Reply:
    return Reply()


def must_be_even(number: int) -> int:
    if number % 2:
        raise ValueError("it is odd")
    return number


# ---- routes


def test_a_model_that_is_not_strict_is_no_body() -> None:
    class Loose(BaseModel):
        a: int

    with pytest.raises(TypeError, match="Loose"):
        Route("POST", "/a", handler, who=Who.USER, summary="", body=Loose)
    with pytest.raises(TypeError, match="Loose"):
        Route("GET", "/a", handler, who=Who.USER, summary="", query=Loose)


@pytest.mark.parametrize("prefix", ["millpond", "/", "/a/", "/a b", "//a", "/a?b"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    async def nobody(_: str) -> Identity | None:
        return None

    with pytest.raises(ValueError, match="path_prefix"):
        build([], nobody, HttpSettings(path_prefix=prefix))


# ---- strict values


class Free(Model):
    data: JsonObject
    name: Name = "n"


FREE = TypeAdapter[Any](Free)


@pytest.mark.parametrize(
    "value",
    [
        {"a": math.nan},
        {"a": [math.inf]},
        {"a": {"b": -math.inf}},
        {"a": 2**64},
        {"a": -(2**63) - 1},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": object()},
    ],
)
def test_a_free_form_value_that_is_no_json_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(JsonObject).validate_python(value)


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), "\0", "", [], {}, None, True, 1.5, "😀"])
def test_a_free_form_value_is_kept_as_it_is(value: object) -> None:
    assert TypeAdapter(JsonValue).validate_python(value) == value


def test_a_free_form_value_is_as_deep_as_a_body_may_be() -> None:
    value: Any = 1
    for _ in range(32):
        value = [value]
    assert TypeAdapter(JsonValue).validate_python(value) == value
    with pytest.raises(ValidationError, match="deeper than 32"):
        TypeAdapter(JsonValue).validate_python([value])


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_a_body_may_be_32_deep(depth: int) -> None:
    scan(b"[" * depth + b"]" * depth)


def test_what_is_read_is_what_was_said() -> None:
    body = '{"data":{"a":[1,2.5,null,true,"é😀\\u0000"],"b":{}},"name":"é"}'.encode()
    free: Free = read(body, FREE)
    assert free.data == {"a": [1, 2.5, None, True, "é😀\0"], "b": {}}
    assert free.name == "é"


def test_all_errors_are_told_at_once_with_their_places() -> None:
    with pytest.raises(Problem) as refused:
        read(b'{"data":{"a":NaN,"b":[1e999,{"c":1,"c":2}]},"data":{}}', FREE)
    assert [wrong.pointer for wrong in refused.value.errors] == [
        "/data/a",
        "/data/b/0",
        "/data/b/1/c",
        "/data",
    ]


class Timed(Model):
    at: AwareDatetime | None = None
    few: list[int] = Field([], max_length=2)
    even: Annotated[int, AfterValidator(must_be_even)] = 0


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"at":"2026-02-30T00:00:00Z"}',
         "there is no such moment: write it as 2026-11-24T15:55:36Z"),
        (b'{"few":[1,2,3]}', "List should have at most 2 items, not 3"),
        (b'{"even":3}', "it is odd"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_words_for_whoever_sent_it(body: bytes, detail: str) -> None:
    with pytest.raises(Problem) as refused:
        read(body, TypeAdapter(Timed))
    assert [wrong.detail for wrong in refused.value.errors] == [detail]


def test_the_value_that_was_refused_is_not_told() -> None:
    with pytest.raises(Problem) as refused:
        read(b'{"data":"secret","name":["secret"]}', FREE)
    assert "secret" not in repr([wrong.shown() for wrong in refused.value.errors])


# ---- pages


@pytest.mark.parametrize("text", ["a", "01a20e1b-06f4-7187", "é/+?", "x" * 300])
def test_a_cursor_comes_back_as_the_text_that_it_was(text: str) -> None:
    cursor = cursor_of(text)
    assert "=" not in cursor
    assert text_of(cursor) == text
    assert PageQuery.model_validate_strings({"cursor": cursor, "limit": "3"}).cursor == text


@pytest.mark.parametrize("cursor", ["", "a", "!!", "_w", "YQ==", "YR", "Y Q", "é"])
def test_a_cursor_of_somebody_else_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        text_of(cursor)


def test_the_last_page_has_no_cursor() -> None:
    page = Page[Free](data=[])
    assert page.model_dump_json() == '{"data":[],"next_cursor":null}'


# ---- addresses


def _origin(headers: dict[str, str], trust: Trust, peer: str = "10.0.0.1") -> tuple[str, str]:
    class Transport:
        def get_extra_info(self, name: str, default: object = None) -> object:
            return (peer, 1) if name == "peername" else default

        def is_closing(self) -> bool:
            return False

    request = make_mocked_request("GET", "/", headers=headers, transport=Transport())
    origin = origin_of(request, trust, "/own")
    return origin.address, f"{origin.scheme}://{origin.host}{origin.prefix}"


INNER = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
BOTH = {"Host": "h", "X-Forwarded-For": "203.0.113.1", "Forwarded": "for=203.0.113.2;proto=https"}


@pytest.mark.parametrize(
    ("headers", "trust", "address", "base"),
    [
        ({"Host": "h"}, Trust(INNER), "10.0.0.1", "http://h/own"),
        (BOTH, Trust(), "10.0.0.1", "http://h/own"),
        (BOTH, Trust(INNER), "203.0.113.1", "http://h/own"),
        (BOTH, Trust(INNER, kind="forwarded"), "203.0.113.2", "https://h/own"),
        ({"X-Forwarded-For": "1.1.1.1, 2.2.2.2, 10.0.0.9", "Host": "h"}, Trust(INNER), "2.2.2.2",
         "http://h/own"),
        ({"X-Forwarded-For": "evil, 10.0.0.9", "Host": "h"}, Trust(INNER), "10.0.0.9",
         "http://h/own"),
        ({"X-Forwarded-For": "[2001:db8::1]:80", "Host": "h"}, Trust(INNER), "2001:db8::1",
         "http://h/own"),
        ({"X-Forwarded-For": "1.2.3.4:5", "Host": "h"}, Trust(INNER), "1.2.3.4", "http://h/own"),
        ({"X-Forwarded-Proto": "javascript", "Host": "h"}, Trust(INNER), "10.0.0.1",
         "http://h/own"),
        ({"X-Forwarded-Prefix": "/p/", "Host": "h"}, Trust(INNER), "10.0.0.1", "http://h/p"),
        ({"X-Forwarded-Prefix": "//evil.example", "Host": "h"}, Trust(INNER), "10.0.0.1",
         "http://h/own"),
        ({"X-Forwarded-Proto": "http, https", "Host": "h"}, Trust(INNER), "10.0.0.1",
         "https://h/own"),
    ],
)  # fmt: skip
def test_only_a_trusted_proxy_is_believed(
    headers: dict[str, str], trust: Trust, address: str, base: str
) -> None:
    assert _origin(headers, trust) == (address, base)


def test_an_address_mapped_into_ipv6_is_the_address() -> None:
    assert _origin(BOTH, Trust(INNER), peer="::ffff:10.0.0.1")[0] == "203.0.113.1"
