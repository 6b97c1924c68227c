"""Problems: what is sent, and which error becomes which."""

import orjson
import pytest

from millpond.errors import (
    MillpondError,
    Refused,
    StoreUnavailable,
    Unavailable,
    UnknownFlow,
    UnknownPart,
    WrongLayout,
)
from millpond.producer.http.problems import (
    FAULTS,
    KINDS,
    LimitShown,
    Problem,
    Wrong,
    invalid,
    of_status,
    problem_of,
)


def test_a_problem_is_a_document_with_its_status() -> None:
    limit = LimitShown("day", "calls", 5_000, 5_000, "2026-11-25T00:00:00Z")
    problem = Problem("too-many-requests", "later", retry_after_s=1.01, limit=limit)
    reply = problem.response("r1")
    assert reply.status == 429
    assert reply.content_type == "application/problem+json"
    assert reply.headers["Retry-After"] == "2"
    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body) == {
        "type": "/docs/problems#too-many-requests",
        "title": "Too many requests",
        "status": 429,
        "detail": "later",
        "code": "too-many-requests",
        "request_id": "r1",
        "retry_after_s": 2,
        "limit": {
            "name": "day",
            "unit": "calls",
            "used": 5_000,
            "limit": 5_000,
            "resets_at": "2026-11-25T00:00:00Z",
        },
    }


def test_fields_are_named_by_pointer_and_by_where_they_are() -> None:
    body = invalid("/a/0", "no")
    query = invalid("/limit", "no", where="query")
    assert body.shown("r")["errors"] == [{"pointer": "/a/0", "detail": "no"}]
    assert query.shown("r")["errors"] == [{"pointer": "/limit", "detail": "no", "in": "query"}]


def test_a_hundred_errors_are_told_and_no_more() -> None:
    many = [Wrong(f"/{number}", "no") for number in range(1_000)]
    assert len(Problem("invalid", errors=many).shown("r")["errors"]) == 100


def test_an_unknown_code_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        Problem("no-such-code")


class _Own(Refused):
    code = "own"


class _Deeper(_Own):
    code = "deeper"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("no"), 422, "refused"),
        (_Own("no"), 422, "own"),
        (UnknownPart("org", "acme"), 404, "unknown_part"),
        (UnknownFlow("f"), 404, "unknown_flow"),
        (Unavailable("away"), 503, "unavailable"),
        (StoreUnavailable("redis://secret"), 503, "store_unavailable"),
        (WrongLayout("1", "2"), 503, "wrong_layout"),
    ],
)
def test_the_nearest_ancestor_wins(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error, FAULTS)
    assert problem is not None
    assert (problem.status, problem.error_code) == (status, code)
    assert (problem.retry_after_s is not None) == (status == 503)
    assert "secret" not in problem.detail


def test_an_application_adds_to_the_table() -> None:
    faults = {**FAULTS, _Own: "conflict", KeyError: lambda error: Problem("forbidden", "mine")}
    own = problem_of(_Deeper("no"), faults)
    made = problem_of(KeyError("x"), faults)
    assert own is not None
    assert (own.status, own.error_code) == (409, "deeper")
    assert made is not None
    assert made.status == 403


@pytest.mark.parametrize("error", [RuntimeError("x"), MillpondError("x"), ValueError("x")])
def test_what_nobody_expected_is_no_problem_of_the_table(error: Exception) -> None:
    assert problem_of(error, FAULTS) is None


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "bad-request"), (403, "forbidden"), (404, "not-found"), (413, "too-large"),
     (418, "bad-request"), (422, "invalid"), (429, "too-many-requests"), (500, "internal"),
     (503, "unavailable"), (504, "internal")],
)  # fmt: skip
def test_a_status_of_aiohttp_has_its_problem(status: int, code: str) -> None:
    assert of_status(status).code == code


def test_each_kind_says_what_it_means() -> None:
    for code, kind in KINDS.items():
        assert code == code.lower().replace("_", "-")
        assert 400 <= kind.status < 600
        assert kind.title
        assert kind.meaning.endswith((".", "KEY."))
