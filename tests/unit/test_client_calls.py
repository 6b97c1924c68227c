"""The client's parts: what it reads, what it says, what it keeps to itself."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

import pytest

from millpond.client import (
    AsyncClient,
    Backlog,
    BadRequest,
    Client,
    ClientError,
    Conflict,
    Embedding,
    Forbidden,
    Generation,
    Job,
    JobFailed,
    JobRequest,
    JobTimeout,
    NotFound,
    Result,
    ServerError,
    Suspended,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from millpond.client.errors import ApiError, api_error
from millpond.client.source import source_of
from millpond.client.sse import Message, messages
from millpond.client.waits import Patience, backoff_s, retry_after_s

KEY = "mpk_abcdefghijkl_0123456789012345678901234567890123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLPOND_URL", raising=False)
    monkeypatch.delenv("MILLPOND_API_KEY", raising=False)


# ------------------------------------------------------------------ import and access


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    code = "import sys; from millpond import AsyncClient, Client; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(told.stdout.split())
    ours = {name.split(".")[1] for name in loaded if name.startswith("millpond.")}
    assert ours == {"client", "errors"}
    assert not loaded & {"redis", "arq", "structlog", "rich", "typer", "pydantic"}


def test_importing_millpond_does_not_load_the_client() -> None:
    code = "import sys, millpond; print('aiohttp' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "False"


def test_url_and_key_are_of_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_URL", "http://example.org:1/pond/")
    monkeypatch.setenv("MILLPOND_API_KEY", KEY)

    assert AsyncClient().url == "http://example.org:1/pond"
    assert Client(url="https://other.example").url == "https://other.example"


def test_what_is_missing_is_said_with_the_way_out() -> None:
    with pytest.raises(ClientError, match=r"url=, or set MILLPOND_URL.*millpond up"):
        Client()
    with pytest.raises(ClientError, match=r"api_key=, or set MILLPOND_API_KEY"):
        AsyncClient("http://127.0.0.1:1")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:80", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a/?b=c"],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ClientError) as refused:
        AsyncClient(url, KEY)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é", f"{KEY}\r\nX: y"])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ClientError) as refused:
        Client("http://127.0.0.1:1", key)
    assert KEY not in str(refused.value)


def test_no_repr_shows_the_key() -> None:
    client = AsyncClient("http://127.0.0.1:1", KEY)

    shown = [repr(one) for one in (client, Client("http://127.0.0.1:1", KEY))]
    shown += [repr(value) for value in vars(client).values()]
    shown += [repr(value) for value in vars(client._transport).values()]
    assert not [text for text in shown if KEY in text]


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("status", "problem", "kind"),
    [
        (400, "bad-request", BadRequest),
        (401, "unauthorized", Unauthorized),
        (403, "forbidden", Forbidden),
        (403, "limited-mode", Forbidden),
        (403, "suspended", Suspended),
        (404, "not-found", NotFound),
        (409, "conflict", Conflict),
        (413, "too-large", TooLarge),
        (415, "unsupported-media", BadRequest),
        (418, "teapot", ApiError),
        (422, "invalid", BadRequest),
        (429, "too-many-requests", TooManyRequests),
        (429, "quota-exhausted", TooManyRequests),
        (429, "backlog", Backlog),
        (500, "internal", ServerError),
        (503, "draining", ServerError),
        (599, "odd", ServerError),
    ],
)
def test_a_problem_becomes_the_error_of_its_status(
    status: int, problem: str, kind: type[ApiError]
) -> None:
    told = {"type": f"/docs/problems#{problem}", "title": "T", "detail": "D", "code": "own_code"}

    error = _error(status, told)

    assert type(error) is kind
    assert (error.status, error.code, error.title, error.detail) == (status, "own_code", "T", "D")


def test_a_message_names_fields_request_and_when_to_come_again() -> None:
    told = {
        "type": "/docs/problems#invalid",
        "title": "Invalid request",
        "detail": "`errors` names each field and what is wrong.",
        "code": "invalid",
        "request_id": "r-1",
        "retry_after_s": 7,
        "errors": [
            {"pointer": "/prompt", "detail": "it is empty"},
            {"pointer": "/a", "in": "query"},
        ],
        "limit": {"name": "waiting", "unit": "bytes", "used": 9, "limit": 8, "new": 1},
    }

    error = _error(422, told)

    assert str(error) == (
        "Invalid request: /prompt: it is empty; /a:  (again in 7 s) [422 invalid, request r-1]"
    )
    assert error.errors[1].where == "query"
    assert error.limit is not None
    assert (error.limit.unit, error.limit.used, error.limit.limit) == ("bytes", 9, 8)


@pytest.mark.parametrize(
    "told", [{}, {"errors": "x", "limit": 3}, {"errors": [1], "retry_after_s": "x"}]
)
def test_a_reply_that_is_no_problem_is_an_error_all_the_same(told: dict[str, object]) -> None:
    error = _error(502, told)

    assert isinstance(error, ServerError)
    assert str(error) == "Bad Gateway [502 http_502, request x-9]"


def test_a_timeout_tells_how_to_go_on() -> None:
    error = JobTimeout(["job_1", "job_2"], 3)

    assert error.job_id == "job_1"
    assert "job_1 and 1 more has not ended in 3 s" in str(error)


def _error(status: int, told: Mapping[str, object]) -> ApiError:
    return api_error(status, told, reason="Bad Gateway", request_id="x-9", retry_after_s=None)


# ------------------------------------------------------------------ waits


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 30}, None),
        (
            {
                "Retry-After": "Tue, 24 Nov 2026 15:00:30 GMT",
                "Date": "Tue, 24 Nov 2026 15:00:00 GMT",
            },
            30,
        ),
        (
            {
                "Retry-After": "Tue, 24 Nov 2026 15:00:00 GMT",
                "Date": "Tue, 24 Nov 2026 15:00:30 GMT",
            },
            0,
        ),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_pauses_grow_and_differ_and_have_an_end() -> None:
    for tries, most in ((1, 0.2), (2, 0.4), (3, 0.8), (6, 6.4), (7, 10.0), (5_000, 10.0)):
        found = [backoff_s(tries) for _ in range(200)]
        assert most / 2 <= min(found) < max(found) <= most


def test_patience_ends_with_its_retries_or_its_time() -> None:
    few = Patience(deadline=100.0, retries=2)
    assert few.pause(0.0, None) is not None
    assert few.pause(0.0, 5.0) == 5.0
    assert few.pause(0.0, None) is None

    short = Patience(deadline=10.0, retries=9)
    assert short.pause(0.0, 11.0) is None
    assert short.pause(0.0, 9.0) == 9.0


def test_who_is_unhurried_waits_for_room_however_long() -> None:
    patience = Patience(deadline=10.0, retries=0, unhurried=True)

    assert [patience.pause(0.0, 3_600.0, limited=True) for _ in range(5)] == [3_600.0] * 5
    assert patience.deadline == 10.0 + 5 * 3_600.0
    assert patience.pause(0.0, None, limited=True) is None


# ------------------------------------------------------------------ server-sent events


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
async def test_events_are_read_however_they_are_cut(ends: str, size: int) -> None:
    lines = [
        "\ufeffretry: 250",
        "",
        ": ping",
        "",
        "id: 1-0",
        "event: job",
        'data: {"a":',
        "data:1}",
    ]
    lines += [
        "",
        "data",
        "",
        "nonsense: x",
        "data: é",
        "id: 2\0",
        "retry: -1",
        "",
        "data: cut off",
        "",
    ]
    text = ends.join(lines[:-1]).encode() + ends.encode()

    found = [one async for one in messages(_chunks(text, size))]

    assert found == [
        Message(retry_ms=250),
        Message('{"a":\n1}', "job", "1-0"),
        Message(""),
        Message("é"),
    ]


async def test_an_event_without_end_is_not_kept() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"data: " + b"x" * 1_000_000 + b"\n"

    with pytest.raises(ValueError, match="more than"):
        [one async for one in messages(endless())]


async def _chunks(text: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


# ------------------------------------------------------------------ items


async def test_items_are_taken_from_any_iterable() -> None:
    async def slowly() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    for source in (source_of(range(5)), source_of(iter([0, 1, 2, 3, 4])), source_of(slowly())):
        assert await source.take(2) == [0, 1]
        assert await source.take(9) == [2, 3, 4]
        assert await source.take(9) == []
        assert await source.take(9) == []
        await source.close()


async def test_what_is_there_is_not_held_back_for_what_is_not() -> None:
    more = asyncio.Event()

    async def slowly() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    source = source_of(slowly())
    assert await source.take(200) == [1]
    more.set()
    assert await source.take(200) == [2]
    await source.close()


async def test_what_came_before_an_error_of_the_iterable_is_not_lost() -> None:
    async def breaking() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("disk")

    source = source_of(breaking())
    assert await source.take(200) == [1]
    with pytest.raises(RuntimeError, match="disk"):
        await source.take(200)


# ------------------------------------------------------------------ what is asked and told


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        (
            JobRequest(endpoint="generate", text="x", params={"k": 1}, class_="bulk"),
            {"endpoint": "generate", "prompt": "x", "params": {"k": 1}, "class": "bulk"},
        ),
        (JobRequest(endpoint="embed", text="x"), {"endpoint": "embed", "text": "x"}),
        (
            JobRequest(endpoint="embed", text=("x", "y"), on_unknown="end", idempotency="i"),
            {"endpoint": "embed", "inputs": ["x", "y"], "on_unknown": "end", "idempotency": "i"},
        ),
        (
            JobRequest(
                endpoint="classify", text="x", examples=[("a", "A"), {"text": "b", "label": "B"}]
            ),
            {
                "endpoint": "classify",
                "text": "x",
                "examples": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}],
            },
        ),
    ],
)
def test_a_request_is_written_as_the_api_takes_it(asked: JobRequest, body: object) -> None:
    assert asked.body() == body


def test_fields_that_are_new_are_no_mistake() -> None:
    told = {
        "id": "job_1",
        "state": "succeeded",
        "endpoint": "generate",
        "submitted_at": "2026-11-24T15:00:00Z",
        "reason": {"why": "limit", "limit": "60/60s", "next_release": {"at": "?", "in_s": 1}},
        "result": {"text": "a", "model": "m", "characters": {"input": 1, "output": 2}, "new": 1},
        "brand_new": {"a": 1},
    }

    job = Job.of(told)

    assert job.submitted_at == datetime(2026, 11, 24, 15, tzinfo=UTC)
    answer = job.answer()
    assert isinstance(answer, Generation)
    assert (answer.text, answer.texts, answer.characters.output) == ("a", ("a",), 2)


def test_an_answer_is_typed_or_an_error() -> None:
    embed = {"id": "j", "state": "succeeded", "endpoint": "embed", "result": {}}
    one = Job.of(embed | {"result": {"embedding": [1, 2]}}).answer()
    several = Job.of(embed | {"result": {"results": [{"embedding": [1]}, {"embedding": [2]}]}})
    failed = Job.of(embed | {"state": "failed", "error": {"code": "c", "message": "m"}})

    assert isinstance(one, Embedding)
    assert one.vector == (1.0, 2.0)
    assert [each.vector for each in several.answer()] == [(1.0,), (2.0,)]  # type: ignore[union-attr]
    with pytest.raises(JobFailed, match=r"job j failed: m \[c\]") as error:
        failed.answer()
    assert (error.value.code, error.value.message, error.value.job_id) == ("c", "m", "j")
    with pytest.raises(ValueError, match="queued: wait"):
        Job.of({"id": "j", "state": "queued"}).answer()
    assert not Result.of("item", 0, Job.of(embed)).ok  # an answer that cannot be read
