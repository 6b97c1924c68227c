"""The HTTP core, over a toy API and real connections."""

import asyncio
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from flow.test_http_core_toy import Asked, Toy, request_lines, toy
from millpond.domain.account import Identity
from millpond.producer.http.address import Trust
from millpond.producer.http.app import HttpSettings, build
from millpond.producer.http.listener import serve
from millpond.producer.http.pages import cursor_of
from millpond.producer.http.problems import Problem
from millpond.producer.http.rim import Meters
from millpond.producer.http.table import Route, Who

PROBLEM = "application/problem+json"
DUCK = {"kind": "duck", "name": "Donald"}


# ---- what comes in and goes out


async def test_a_body_becomes_the_model_and_the_reply_its_json() -> None:
    async with toy() as asked:
        answer = await asked.ask("POST", "/v1/birds", json=DUCK, headers={"Idempotency-Key": "a1"})
    assert answer.status == 201
    assert answer.json["key"] == "a1"
    assert answer.json["bird"]["name"] == "Donald"
    assert answer.headers["Location"] == f"{asked.base}/v1/birds/1"
    assert answer.headers["Content-Type"] == "application/json"


async def test_an_idempotency_key_may_be_quoted_and_must_be_readable() -> None:
    async with toy() as asked:
        quoted = await asked.ask(
            "POST", "/v1/birds", json=DUCK, headers={"Idempotency-Key": '"a1"'}
        )
        bad = await asked.ask("POST", "/v1/birds", json=DUCK, headers={"Idempotency-Key": "a b"})
        long = await asked.ask(
            "POST", "/v1/birds", json=DUCK, headers={"Idempotency-Key": "a" * 256}
        )
    assert quoted.json["key"] == "a1"
    assert (bad.status, bad.pointers, bad.json["errors"][0]["in"]) == (
        422,
        ["/Idempotency-Key"],
        "header",
    )
    assert long.status == 422


async def test_one_or_many_is_one_route() -> None:
    async with toy() as asked:
        one = await asked.ask("POST", "/v1/flocks", json=DUCK)
        many = await asked.ask("POST", "/v1/flocks", json=[DUCK] * 3)
        bad = await asked.ask("POST", "/v1/flocks", json=[DUCK, {"kind": "duck", "name": 5}])
    assert (one.json["many"], many.json["many"]) == (1, 3)
    assert bad.status == 422
    assert bad.pointers == ["/1/name"]


async def test_nul_is_kept_in_a_text_and_refused_in_a_name() -> None:
    async with toy() as asked:
        text = await asked.ask("POST", "/v1/birds", json=DUCK | {"note": "a\0b"})
        name = await asked.ask("POST", "/v1/birds", json=DUCK | {"name": "a\0b"})
    assert text.json["bird"]["note"] == "a\0b"
    assert (name.status, name.pointers) == (422, ["/name"])


@pytest.mark.parametrize(
    ("query", "status", "pointers"),
    [
        ("limit=2", 200, []),
        ("limit=0", 422, ["/limit"]),
        ("limit=x", 422, ["/limit"]),
        ("limit=", 422, ["/limit"]),
        ("limit=1&limit=2", 422, ["/limit"]),
        ("limit=%zz", 422, [""]),
        ("limit=%ff", 422, [""]),
        ("colour=red&tame=true&old=3", 200, []),
        ("colour=green", 422, ["/colour"]),
        ("tame=maybe", 422, ["/tame"]),
        ("unknown=1", 422, ["/unknown"]),
        ("cursor=!!", 422, ["/cursor"]),
        ("cursor=A", 422, ["/cursor"]),
        ("cursor=", 422, ["/cursor"]),
        ("&".join(f"a{n}=1" for n in range(200)), 422, [""]),
    ],
)
async def test_a_query_is_read_strictly(query: str, status: int, pointers: list[str]) -> None:
    async with toy() as asked:
        raw = await asked.raw(
            f"GET /v1/birds?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            "Authorization: Bearer member\r\n\r\n".encode()
        )
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert [error["pointer"] for error in json.loads(body).get("errors", [])] == pointers


async def test_pages_follow_one_another_by_cursor() -> None:
    async with toy() as asked:
        first = await asked.ask("GET", "/v1/birds?limit=2")
        next_page = await asked.ask("GET", f"/v1/birds?cursor={first.json['next_cursor']}&limit=1")
    assert [seen["id"] for seen in first.json["data"]] == ["0", "1"]
    assert first.json["next_cursor"] == cursor_of("at:5")
    assert [seen["id"] for seen in next_page.json["data"]] == ["5"]


async def test_a_path_parameter_is_decoded_and_what_can_be_no_name_is_not_there() -> None:
    async with toy() as asked:
        slash = await asked.ask("GET", "/v1/birds/a%2Fb")
        assert slash.json["id"] == "a/b"
        for bad in ("%zz", "%ff", "%00", "%0a", "a%7f", "x" * 201, "%c2%85"):
            raw = await asked.raw(
                f"GET /v1/birds/{bad} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                "Authorization: Bearer member\r\n\r\n".encode()
            )
            assert raw.startswith(b"HTTP/1.1 404 "), bad
            assert PROBLEM.encode() in raw


async def test_methods_that_are_not_there_are_told() -> None:
    async with toy() as asked:
        wrong = await asked.ask("PATCH", "/v1/birds/1")
        options = await asked.ask("OPTIONS", "/v1/birds", key=None)
        head = await asked.ask("HEAD", "/v1/birds/1")
        nothing = await asked.ask("GET", "/v1/nothing")
    assert (wrong.status, wrong.json["code"]) == (405, "method-not-allowed")
    assert wrong.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert not any(name.startswith("Access-Control") for name in options.headers)
    assert (head.status, head.body) == (200, b"")
    assert (nothing.status, nothing.json["code"]) == (404, "not-found")


async def test_a_body_that_is_read_by_its_handler_is_bounded() -> None:
    jsonl = {"Content-Type": "application/jsonl"}
    async with toy() as asked:
        some = await asked.ask("POST", "/v1/upload", data=b"x" * 1_000, headers=jsonl)
        zipped = {**jsonl, "Content-Encoding": "gzip"}
        packed = await asked.ask("POST", "/v1/upload", data=b"\x1f\x8b", headers=zipped)
        brotli = await asked.ask(
            "POST", "/v1/upload", data=b"x", headers={**jsonl, "Content-Encoding": "br"}
        )

        async def endless() -> Any:
            while True:
                yield b"x" * 10_000

        many = await asked.ask("POST", "/v1/upload", data=endless(), headers=jsonl)
    assert some.json["many"] == 1_000
    assert packed.json["many"] == 2
    assert brotli.status == 415
    assert many.status == 413


# ---- who may


async def test_no_key_a_malformed_and_an_unknown_one_are_answered_alike() -> None:
    async with toy() as asked:
        shown = set()
        for told in (None, "Bearer", "Bearer nobody", "Basic bWVtYmVy", "member", "Bearer a b"):
            headers = {"X-Request-ID": "r1", **({"Authorization": told} if told else {})}
            answer = await asked.ask("GET", "/v1/birds/1", key=None, headers=headers)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            shown.add(answer.body)
        in_url = await asked.ask("GET", "/v1/birds?key=member", key=None)
        lower = await asked.ask(
            "GET", "/v1/birds/1", key=None, headers={"Authorization": "bEARER member"}
        )
        twice = await asked.raw(
            b"GET /v1/birds/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Authorization: Bearer member\r\nAuthorization: Bearer admin\r\n\r\n"
        )
    assert len(shown) == 1
    assert in_url.status == 401
    assert lower.status == 200
    assert twice.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/v1/birds/1", {"member", "admin"}),
        ("/v1/admin", {"admin"}),
        ("/v1/rule", {"operator"}),
        ("/healthz", {"member", "admin", "operator"}),
    ],
)
async def test_a_key_opens_the_routes_of_its_role_only(path: str, may: set[str]) -> None:
    async with toy() as asked:
        for key in ("member", "admin", "operator"):
            answer = await asked.ask("GET", path, key=key)
            assert answer.status == (200 if key in may else 403)
        without = await asked.ask("GET", path, key=None)
    assert without.status == (200 if path == "/healthz" else 401)


async def test_a_gate_refuses_before_the_body_is_read() -> None:
    async def gate(request: web.Request, route: Route, identity: Identity | None) -> None:
        if identity is not None and route.path == "/v1/birds":
            raise Problem("too-many-requests", f"enough of {identity.user}", retry_after_s=3)

    async with toy(gate=gate) as asked:
        raw = await asked.raw(
            b"POST /v1/birds HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer member\r\n"
            b"Connection: close\r\nContent-Length: 1000\r\n\r\n"
        )
        other = await asked.ask("GET", "/v1/birds/1")
    assert raw.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 3" in raw
    assert other.status == 200


async def test_operators_have_a_listener_of_their_own(tmp_path: Path) -> None:
    made = Toy()
    meters = Meters()
    theirs = [route for route in made.routes() if route.who is Who.OPERATOR]
    rest = [route for route in made.routes() if route.who is not Who.OPERATOR]
    users = build(rest, made.authenticate, meters=meters, shows_metrics=False)
    operators = build(theirs, made.authenticate, meters=meters)
    path = str(tmp_path / "operators.sock")
    headers = {"Authorization": "Bearer operator"}
    async with serve(users) as listener, serve(operators, path=path):
        async with ClientSession(headers=headers) as client:
            base = f"http://127.0.0.1:{listener.port}"
            assert (await client.get(f"{base}/v1/rule")).status == 404
            assert (await client.get(f"{base}/metrics")).status == 404
        async with ClientSession(headers=headers, connector=UnixConnector(path)) as client:
            assert (await client.get("http://operators/v1/rule")).status == 200
            assert (
                'route="unmatched"' in await (await client.get("http://operators/metrics")).text()
            )


# ---- what goes wrong


@pytest.mark.parametrize(
    ("path", "status", "code", "retry_after"),
    [
        ("/v1/birds/none", 404, "unknown_part", None),
        ("/v1/birds/refused", 422, "refused", None),
        ("/v1/birds/away", 503, "store_unavailable", "5"),
        ("/v1/birds/limited", 429, "quota-exhausted", "2"),
        ("/v1/birds/broken", 500, "internal", None),
    ],
)
async def test_an_error_becomes_the_problem_of_its_class(
    path: str, status: int, code: str, retry_after: str | None
) -> None:
    async with toy() as asked:
        with capture_logs() as events:
            answer = await asked.ask("GET", path, headers={"X-Request-ID": "r-1"})
    assert answer.status == status
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.headers.get("Retry-After") == retry_after
    assert answer.json["code"] == code
    assert answer.json["request_id"] == "r-1"
    assert answer.json["type"].startswith("/docs/problems#")
    assert b"10.0.0.7" not in answer.body
    assert [event["event"] for event in events if event["log_level"] == "error"] == (
        ["request_failed"] if status == 500 else []
    )


async def test_a_limit_says_which_and_until_when() -> None:
    async with toy() as asked:
        answer = await asked.ask("GET", "/v1/birds/limited")
    assert answer.json["limit"] == {
        "name": "minute",
        "unit": "calls",
        "used": 60,
        "limit": 60,
        "resets_at": "2026-01-01T00:00:00Z",
    }
    assert answer.json["retry_after_s"] == 2


async def test_a_store_that_is_away_while_a_key_is_looked_up_is_503() -> None:
    async with toy() as asked:
        answer = await asked.ask("GET", "/v1/birds/1", key="away")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_faults_of_the_application_win() -> None:
    async with toy(faults={RuntimeError: "conflict"}) as asked:
        answer = await asked.ask("GET", "/v1/birds/broken")
    assert answer.status == 409


# ---- every reply and every request


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/v1/birds/1", "member"),
        ("GET", "/v1/birds/1", None),
        ("GET", "/nothing", None),
        ("PUT", "/v1/birds/1", None),
        ("GET", "/v1/birds/broken", "member"),
        ("OPTIONS", "/v1/birds", None),
        ("GET", "/docs", None),
        ("GET", "/metrics", None),
    ],
)
async def test_every_reply_has_its_id_and_the_headers_of_safety(
    method: str, path: str, key: str | None
) -> None:
    async with toy() as asked:
        told = await asked.ask(method, path, key=key, headers={"X-Request-ID": "my.id-1_x"})
        bad = await asked.ask(method, path, key=key, headers={"X-Request-ID": "a b"})
    assert told.headers["X-Request-ID"] == "my.id-1_x"
    assert bad.headers["X-Request-ID"] not in ("", "a b")
    assert told.headers["X-Content-Type-Options"] == "nosniff"
    assert told.headers["Referrer-Policy"] == "no-referrer"
    assert told.headers["Cache-Control"] == ("no-cache" if path == "/docs" else "no-store")
    assert "Server" not in told.headers
    assert ("Content-Security-Policy" in told.headers) == (path == "/docs")


async def test_a_request_is_one_line_without_what_it_said() -> None:
    async with toy() as asked:
        with capture_logs() as events:
            await asked.ask("GET", "/v1/birds?colour=red")
            await asked.ask("POST", "/v1/birds", json=DUCK | {"note": "secret"})
            await asked.ask("GET", "/v1/birds/secret-id")
            await asked.ask("GET", "/nothing/secret")
            await asked.ask("GET", "/healthz")
    lines = request_lines(events)
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/v1/birds", 200),
        ("POST", "/v1/birds", 201),
        ("GET", "/v1/birds/{id}", 200),
        ("GET", "unmatched", 404),
        ("GET", "/healthz", 200),
    ]
    assert all(line["duration_ms"] >= 0 and line["bytes"] > 0 for line in lines)
    assert not any(word in repr(events) for word in ("secret", "colour=red", "Bearer"))


async def test_requests_are_measured_by_route() -> None:
    registry = CollectorRegistry()
    async with toy(meters=Meters(registry)) as asked:
        await asked.ask("GET", "/v1/birds/1")
        await asked.ask("GET", "/v1/birds/2")
        await asked.ask("GET", "/nothing")
        metrics = await asked.ask("GET", "/metrics", key=None)
    labels = {"method": "GET", "route": "/v1/birds/{id}", "code": "200"}
    name = "millpond_http_request_duration_seconds_count"
    assert registry.get_sample_value(name, labels) == 2
    assert 'route="unmatched"' in metrics.body.decode()
    assert metrics.headers["Content-Type"].startswith("text/plain")


# ---- the server's own routes


async def test_readyz_names_the_check_that_failed() -> None:
    async with toy() as asked:
        good = await asked.ask("GET", "/readyz", key=None)
        asked.toy.ready = "no scheduler was seen lately"
        bad = await asked.ask("GET", "/readyz", key=None)
    assert (good.status, good.json["status"]) == (200, "ready")
    assert bad.status == 503
    assert bad.json["failed"] == {"pond": "no scheduler was seen lately"}


async def test_a_check_that_raises_has_failed_and_tells_no_secret() -> None:
    async def check() -> str | None:
        raise RuntimeError("redis://secret")

    made = Toy()
    app = build([], made.authenticate, checks={"pond": check})
    async with serve(app) as listener, ClientSession() as client:
        reply = await client.get(f"http://127.0.0.1:{listener.port}/readyz")
        told = await reply.json()
    assert reply.status == 503
    assert told["failed"] == {"pond": "it could not be checked: RuntimeError"}


async def test_the_documentation_asks_for_nothing_outside() -> None:
    async with toy(HttpSettings(path_prefix="/millpond")) as asked:
        docs = await asked.ask("GET", "/docs", key=None)
        spec = await asked.ask("GET", "/openapi.json", key=None)
        problems = await asked.ask("GET", "/docs/problems", key=None)
    page = docs.body.decode()
    assert "url: 'openapi.json'" in page
    assert "<script src" not in page
    assert 'rel="stylesheet"' not in page
    policy = docs.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("sha256-") == 3
    assert "http" not in policy
    assert spec.json["openapi"].startswith("3.1")
    assert b'id="suspended"' in problems.body


# ---- proxies


PROXY = Trust(networks=(ip_network("127.0.0.0/8"),))


async def test_a_trusted_proxy_says_how_links_look() -> None:
    told = {
        "X-Forwarded-For": "203.0.113.9, 127.0.0.3",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/pond",
        "Host": "api.example.com",
    }
    async with toy(HttpSettings(trust=PROXY)) as trusting, toy() as other:
        believed = await trusting.ask("POST", "/v1/birds", json=DUCK, headers=told)
        not_believed = await other.ask("POST", "/v1/birds", json=DUCK, headers=told)
    assert believed.headers["Location"] == "https://api.example.com/pond/v1/birds/1"
    assert not_believed.headers["Location"] == "http://api.example.com/v1/birds/1"


async def test_a_client_behind_a_proxy_has_a_bound_of_its_own() -> None:
    settings = HttpSettings(trust=PROXY, connections_per_address=2)
    async with toy(settings) as asked, asyncio.TaskGroup() as tasks:
        mine = {"X-Forwarded-For": "203.0.113.9"}
        for _ in range(2):
            tasks.create_task(asked.ask("GET", "/v1/wait", headers=mine))
            await asyncio.wait_for(asked.toy.began.get(), 5)
        third = await asked.ask("GET", "/v1/birds/1", headers=mine)
        other = await asked.ask("GET", "/v1/birds/1", headers={"X-Forwarded-For": "203.0.113.8"})
        asked.toy.go.set()
    assert (third.status, third.headers["Retry-After"]) == (429, "1")
    assert other.status == 200


async def test_a_path_prefix_holds_for_all_paths() -> None:
    async with toy(HttpSettings(path_prefix="/millpond")) as asked:
        inside = await asked.ask("GET", "/v1/birds/1")
        made = await asked.ask("POST", "/v1/birds", json=DUCK)
        health = await asked.ask("GET", "/healthz", key=None)
        async with asked.client.get(f"http://127.0.0.1:{asked.listener.port}/healthz") as reply:
            assert reply.status == 404
    assert (inside.status, health.status) == (200, 200)
    assert made.headers["Location"] == f"{asked.base}/v1/birds/1"


async def test_the_type_of_a_problem_is_where_it_is_described() -> None:
    """Also of what no route has, and of what is no HTTP."""
    async with toy(HttpSettings(path_prefix="/millpond")) as asked:
        limited = await asked.ask("GET", "/v1/birds/limited")
        nowhere = await asked.ask("GET", "/v1/nowhere")
        unread = await asked.raw(b"GET / HTTP/9\r\n\r\n")
        page = await asked.ask("GET", "/docs/problems", key=None)
        described = f"http://127.0.0.1:{asked.listener.port}{limited.json['type']}"
        async with asked.client.get(described) as reply:
            assert (reply.status, await reply.read()) == (200, page.body)
    assert limited.json["type"] == "/millpond/docs/problems#quota-exhausted"
    assert nowhere.json["type"] == "/millpond/docs/problems#not-found"
    assert b'"type":"/millpond/docs/problems#bad-request"' in unread


async def test_the_type_of_a_problem_has_the_prefix_that_a_proxy_told() -> None:
    trust = Trust((ip_network("127.0.0.0/8"),))
    async with toy(HttpSettings(trust=trust)) as asked:
        answer = await asked.ask(
            "GET", "/v1/birds/limited", headers={"X-Forwarded-Prefix": "/outside"}
        )
    assert answer.json["type"] == "/outside/docs/problems#quota-exhausted"


# ---- leaving and stopping


async def _until(asked: Asked, what: "asyncio.Queue[str]") -> str:
    return await asyncio.wait_for(what.get(), 5)


async def test_a_client_that_leaves_leaves_no_task_behind() -> None:
    async with toy() as asked:
        with capture_logs() as events:
            before = asyncio.all_tasks()
            _, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port)
            writer.write(
                b"GET /v1/wait HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer member\r\n\r\n"
            )
            await _until(asked, asked.toy.began)
            writer.close()
            await _until(asked, asked.toy.ended)
            async with asyncio.timeout(5):
                while asyncio.all_tasks() - before:  # noqa: ASYNC110
                    await asyncio.sleep(0)
    assert [line["status"] for line in request_lines(events)] == [499]


async def test_stopping_lets_what_runs_end_and_takes_nothing_new() -> None:
    async with toy() as asked:
        running = asyncio.create_task(asked.ask("GET", "/v1/wait"))
        await _until(asked, asked.toy.began)
        stopping = asyncio.create_task(asked.listener.stop())
        await asyncio.sleep(0.05)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", asked.listener.port)
        asked.toy.go.set()
        answer = await asyncio.wait_for(running, 5)
        await asyncio.wait_for(stopping, 5)
    assert answer.status == 200


async def test_stopping_lets_a_reply_on_its_way_arrive() -> None:
    async with toy() as asked:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port, limit=1)
        writer.write(b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n" * 4)
        head = await asyncio.wait_for(reader.read(100), 5)
        stopping = asyncio.create_task(asked.listener.stop())
        await asyncio.sleep(1)
        assert not stopping.done()
        said = head
        async with asyncio.timeout(5):
            while part := await reader.read(2**20):
                said += part
        await stopping
        writer.close()
    length = int(said.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    assert len(said.partition(b"\r\n\r\n")[2]) >= length > 1_000_000


async def test_readyz_turns_before_the_door_is_shut() -> None:
    async with toy(HttpSettings(drain_s=0.5)) as asked:
        stopping = asyncio.create_task(asked.listener.stop())
        await asyncio.sleep(0)
        answer = await asked.ask("GET", "/readyz", key=None)
        await stopping
    assert answer.status == 503
    assert "draining" in answer.json["failed"]


async def test_stopping_waits_no_longer_than_its_grace() -> None:
    async with toy(HttpSettings(grace_s=0.1)) as asked:
        running = asyncio.create_task(asked.ask("GET", "/v1/wait"))
        await _until(asked, asked.toy.began)
        await asyncio.wait_for(asked.listener.stop(), 3)
        with pytest.raises(Exception):  # noqa: B017
            await running
        assert await _until(asked, asked.toy.ended)
