"""The client and a server that misbehaves: what is repeated, what is not, and what exists after."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from millpond.client import (
    AsyncClient,
    Backlog,
    BadRequest,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    Event,
    JobFailed,
    JobTimeout,
    NotFound,
    Result,
    ServerError,
    TooManyRequests,
    Unauthorized,
)

KEY = "mpk_secret_0123456789"


@dataclass(frozen=True)
class Step:
    """How the server misbehaves, once. `taken`: not before it took the jobs in."""

    status: int = 0  # 0: the connection breaks
    taken: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)
    slow_s: float = 0.0


class Pond:
    """A server with jobs by idempotency key, and steps that it takes first."""

    def __init__(self) -> None:
        self.steps: dict[str, deque[Step]] = {"POST": deque(), "GET": deque(), "DELETE": deque()}
        self.url = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str, float]] = []
        self.sent_keys: list[str | None] = []
        self.endless = False
        self.bad = frozenset[str]()
        self.named = True
        self.streams: deque[bytes] = deque()
        self.last_ids: list[str | None] = []

    def plan(self, method: str, *steps: Step) -> None:
        self.steps[method] += steps

    async def misbehave(self, request: web.Request, *, taken: bool) -> web.Response | None:
        steps = self.steps[request.method]
        if not steps or steps[0].taken is not taken:
            return None
        step = steps.popleft()
        if step.slow_s:
            await asyncio.sleep(step.slow_s)
        if step.status == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(step.problem, status=step.status, headers=step.headers)

    async def submit(self, request: web.Request) -> web.Response:
        self.asked.append(("POST", request.path, time.monotonic()))
        key = request.headers.get("Idempotency-Key")
        self.sent_keys.append(key)
        body = json.loads(await request.read())
        if (wrong := await self.misbehave(request, taken=False)) is not None:
            return wrong
        asked = body if isinstance(body, list) else [body]
        bad = [n for n, one in enumerate(asked) if one.get("text", "") in self.bad]
        if bad:
            errors = [{"pointer": f"/{n}/text", "detail": "bad"} for n in bad[:2]]
            return web.json_response({"errors": errors if self.named else []}, status=422)
        assert key is not None
        if key not in self.keys:
            self.keys[key] = []
            for one in asked:
                job_id = f"job_{len(self.jobs)}"
                self.keys[key].append(job_id)
                self.jobs[job_id] = one
        if (wrong := await self.misbehave(request, taken=True)) is not None:
            return wrong
        told = [{"id": job_id, "state": "queued"} for job_id in self.keys[key]]
        data: Any = {"data": told} if isinstance(body, list) else told[0]
        return web.json_response(data, status=202)

    async def look(self, request: web.Request) -> web.Response:
        self.asked.append(("GET", request.path, time.monotonic()))
        if (wrong := await self.misbehave(request, taken=False)) is not None:
            return wrong
        return self._told(request.match_info["id"], wait=float(request.query.get("wait", 0)))

    async def cancel(self, request: web.Request) -> web.Response:
        self.asked.append(("POST", request.path, time.monotonic()))
        if (wrong := await self.misbehave(request, taken=False)) is not None:
            return wrong
        return web.json_response({"id": request.match_info["id"], "state": "cancelled"})

    async def retry(self, request: web.Request) -> web.Response:
        self.asked.append(("POST", request.path, time.monotonic()))
        if (wrong := await self.misbehave(request, taken=False)) is not None:
            return wrong
        return web.json_response({"id": "job_again", "state": "queued"}, status=202)

    async def delete(self, request: web.Request) -> web.Response:
        self.asked.append(("DELETE", request.path, time.monotonic()))
        found = self.jobs.pop(request.match_info["id"], None)
        if (wrong := await self.misbehave(request, taken=False)) is not None:
            return wrong
        return web.Response(status=204 if found else 404)

    async def events(self, request: web.Request) -> web.StreamResponse:
        self.last_ids.append(request.headers.get("Last-Event-ID"))
        if not self.streams:
            return web.Response(status=404)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(self.streams.popleft())
        assert request.transport is not None
        await asyncio.sleep(0.02)
        request.transport.abort()
        return response

    async def html(self, _: web.Request) -> web.Response:
        return web.Response(text="<p>", content_type="text/html")

    def _told(self, job_id: str, wait: float) -> web.Response:
        assert wait <= 60
        asked = self.jobs[job_id]
        told: dict[str, Any] = {"id": job_id, "endpoint": asked["endpoint"], "state": "succeeded"}
        if self.endless:
            told["state"] = "running"
        elif asked.get("prompt") == "fail":
            error = {"code": "provider_refused", "message": "it will not"}
            told |= {"state": "failed", "error": error}
        else:
            text = asked.get("prompt") or asked.get("text")
            told["result"] = {"text": text, "characters": {"input": 1, "output": 1}, "model": "m"}
        return web.json_response(told)


@pytest.fixture
async def pond() -> AsyncIterator[Pond]:
    pond = Pond()
    app = web.Application()
    app.router.add_post("/v1/jobs", pond.submit)
    app.router.add_get("/v1/jobs/{id}", pond.look)
    app.router.add_post("/v1/jobs/{id}/cancel", pond.cancel)
    app.router.add_post("/v1/jobs/{id}/retry", pond.retry)
    app.router.add_delete("/v1/jobs/{id}", pond.delete)
    app.router.add_get("/v1/events", pond.events)
    app.router.add_get("/v1/html", pond.html)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    pond.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield pond
    await runner.cleanup()


@pytest.fixture
async def client(pond: Pond) -> AsyncIterator[AsyncClient]:
    async with _client(pond) as client:
        yield client


def _client(pond: Pond, **options: Any) -> AsyncClient:
    return AsyncClient(pond.url, KEY, **({"timeout": 10.0} | options))


# ------------------------------------------------------------------ submissions


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Step()],
        [Step(taken=True)],
        [Step(taken=True), Step(taken=True)],
        [Step(503)],
        [Step(503, taken=True)],
        [Step(502, taken=True), Step(504, taken=True)],
        [Step(429, headers={"Retry-After": "0"})],
    ],
    ids=lambda steps: "+".join(f"{s.status}{'taken' if s.taken else ''}" for s in steps) or "well",
)
async def test_a_job_exists_once_whatever_became_of_the_replies(
    pond: Pond, client: AsyncClient, steps: list[Step]
) -> None:
    pond.plan("POST", *steps)

    answer = await client.generate("a")

    assert answer.text == "a"
    assert len(pond.jobs) == 1
    assert len(pond.sent_keys) == len(steps) + 1
    assert len(set(pond.sent_keys)) == 1


async def test_each_call_has_a_key_of_its_own_unless_it_is_given_one(
    pond: Pond, client: AsyncClient
) -> None:
    for _ in range(2):
        await client.submit("generate", "a")
        await client.submit("generate", "b", idempotency_key="mine")

    assert len(set(pond.sent_keys)) == 3
    assert len(pond.jobs) == 3


async def test_a_slow_reply_is_asked_for_again(pond: Pond) -> None:
    pond.plan("POST", Step(503, taken=True, slow_s=5.0))
    async with _client(pond, reply_timeout=0.2) as client:
        await client.submit("generate", "a")

    assert len(pond.jobs) == 1
    assert len(pond.sent_keys) == 2


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_obeyed(pond: Pond, client: AsyncClient, as_date: bool) -> None:
    now = int(time.time())
    headers = {"Retry-After": "1"}
    if as_date:
        headers = {"Retry-After": formatdate(now + 1, usegmt=True)}
        headers["Date"] = formatdate(now, usegmt=True)
    pond.plan("POST", Step(429, headers=headers))

    await client.submit("generate", "a")

    (_, _, first), (_, _, second) = pond.asked
    assert second - first >= 1.0


async def test_retry_after_past_the_timeout_is_raised_at_once(pond: Pond) -> None:
    problem = {"type": "/docs/problems#backlog", "detail": "full", "request_id": "r-7"}
    pond.plan("POST", Step(429, headers={"Retry-After": "60"}, problem=problem))
    began = time.monotonic()
    async with _client(pond, timeout=5.0) as client:
        with pytest.raises(Backlog, match="r-7") as error:
            await client.generate("a")

    assert error.value.retry_after_s == 60
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 501])
async def test_everything_else_is_raised_at_once(
    pond: Pond, client: AsyncClient, status: int
) -> None:
    pond.plan("POST", Step(status))

    with pytest.raises(ClientError) as error:
        await client.generate("a")

    assert f"[{status} " in str(error.value)
    assert len(pond.asked) == 1


async def test_retries_have_an_end(pond: Pond) -> None:
    pond.plan("POST", *[Step(503)] * 9)
    async with _client(pond, max_retries=2) as client:
        with pytest.raises(ServerError):
            await client.submit("generate", "a")
    assert len(pond.asked) == 3

    pond.steps["POST"].clear()
    pond.plan("POST", *[Step()] * 9)
    async with _client(pond, max_retries=1) as client:
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1") as error:
            await client.submit("generate", "a")
    assert error.value.idempotency_key == pond.sent_keys[-1]
    assert len(pond.asked) == 5


async def test_the_timeout_holds_for_repetitions(pond: Pond) -> None:
    pond.plan("POST", *[Step(503)] * 99)
    began = time.monotonic()
    async with _client(pond, timeout=1.0, max_retries=99) as client:
        with pytest.raises(ServerError):
            await client.submit("generate", "a")
    assert time.monotonic() - began < 1.5


async def test_nobody_there_is_told_as_such() -> None:
    async with AsyncClient("http://127.0.0.1:9", KEY, max_retries=1) as client:
        with pytest.raises(ConnectionFailed, match=r"http://127.0.0.1:9 cannot be reached"):
            await client.limits()


# ------------------------------------------------------------------ other requests


async def test_looking_is_repeated(pond: Pond, client: AsyncClient) -> None:
    job = await client.submit("generate", "a")
    pond.plan("GET", Step(), Step(503), Step(502), Step(429, headers={"Retry-After": "0"}))

    assert (await client.wait(job)).state == "succeeded"


async def test_a_deletion_that_was_done_the_first_time_is_done(
    pond: Pond, client: AsyncClient
) -> None:
    job = await client.submit("generate", "a")
    pond.plan("DELETE", Step(503))

    await client.jobs.delete(job)

    with pytest.raises(NotFound):
        await client.jobs.delete(job)


async def test_asking_again_makes_a_new_job_so_it_is_not_repeated(
    pond: Pond, client: AsyncClient
) -> None:
    for step, kind in ((Step(503), ServerError), (Step(), ConnectionFailed)):
        pond.plan("POST", step)
        with pytest.raises(kind):
            await client.jobs.retry("job_1")
    assert len(pond.asked) == 2


async def test_cancelling_twice_does_nothing_twice_so_it_is_repeated(
    pond: Pond, client: AsyncClient
) -> None:
    pond.plan("POST", Step(), Step(503))
    assert (await client.jobs.cancel("job_1")).state == "cancelled"


@pytest.mark.parametrize("job_id", ["", "../keys", "a/b", "a?b", "a b"])
async def test_an_id_stays_within_its_path(client: AsyncClient, job_id: str) -> None:
    with pytest.raises(ClientError, match="no id of a job"):
        await client.jobs.get(job_id)


async def test_what_is_no_millpond_is_told_as_such(client: AsyncClient) -> None:
    with pytest.raises(ClientError, match="text/html, not JSON"):
        await client._get("/v1/html")


async def test_the_key_is_in_no_message(pond: Pond, client: AsyncClient) -> None:
    problem = {"detail": f"the key {KEY} is bad", "errors": [{"pointer": "/", "detail": KEY}]}
    pond.plan("POST", Step(401, problem=problem), Step(422, problem=problem))

    for _ in range(2):
        with pytest.raises(ClientError) as error:
            await client.generate("a")
        assert "***" in str(error.value)
        assert KEY not in repr(error.value) + str(vars(error.value))


# ------------------------------------------------------------------ waiting


async def test_a_job_that_failed_says_why(client: AsyncClient) -> None:
    with pytest.raises(JobFailed, match="it will not") as error:
        await client.generate("fail")
    assert error.value.code == "provider_refused"


async def test_a_timeout_carries_the_job_and_one_can_go_on_waiting(
    pond: Pond, client: AsyncClient
) -> None:
    pond.endless = True
    began = time.monotonic()
    with pytest.raises(JobTimeout) as error:
        await client.generate("a", timeout=0.5)
    assert 0.4 < time.monotonic() - began < 1.5
    assert len(pond.asked) < 8  # it does not ask without end what answers at once

    pond.endless = False
    job = await client.wait(error.value.job_id)
    assert job.state == "succeeded"


async def test_who_wants_it_has_the_job_cancelled(pond: Pond, client: AsyncClient) -> None:
    pond.endless = True
    with pytest.raises(JobTimeout, match="it was cancelled") as error:
        await client.generate("a", timeout=0.3, cancel_on_timeout=True)

    assert error.value.cancelled
    assert pond.asked[-1][1] == "/v1/jobs/job_0/cancel"


async def test_a_server_that_goes_away_while_one_waits_leaves_the_id(pond: Pond) -> None:
    pond.plan("GET", *[Step()] * 20)
    async with _client(pond, max_retries=1) as client:
        with pytest.raises(ConnectionFailed) as error:
            await client.generate("a")
    assert error.value.job_id == "job_0"


# ------------------------------------------------------------------ map


async def _into(found: list[Any], iterator: AsyncIterator[Any]) -> None:
    async for one in iterator:
        found.append(one)


async def _all(pond: Pond, client: AsyncClient, items: Any, **options: Any) -> list[Result[Any]]:
    return [one async for one in client.map(items, endpoint="embed", **options)]


async def test_a_map_gives_each_item_once_and_makes_each_job_once(
    pond: Pond, client: AsyncClient
) -> None:
    items = [f"t{n}" for n in range(500)]
    pond.plan("POST", Step(taken=True), Step(503, taken=True), Step(), Step(503))
    pond.plan("GET", Step(), Step(503), Step(502))

    found = await _all(pond, client, items)

    assert sorted(one.index for one in found) == list(range(500))
    assert all(one.ok and one.item == items[one.index] for one in found)
    assert sorted(job["text"] for job in pond.jobs.values()) == sorted(items)
    assert {job["class"] for job in pond.jobs.values()} == {"bulk"}
    assert max(len(ids) for ids in pond.keys.values()) <= 200


async def test_an_ordered_map_keeps_the_order_and_the_bound(
    pond: Pond, client: AsyncClient
) -> None:
    read = 0

    async def items() -> AsyncIterator[str]:
        nonlocal read
        for n in range(100):
            read += 1
            yield f"t{n}"

    done = 0
    async for result in client.map(items(), endpoint="embed", concurrency=8, ordered=True):
        assert result.index == done
        done += 1
        assert read - done <= 8 + 1  # and one that the iterable is asked for ahead
    assert done == 100


async def test_a_full_server_slows_a_map_down_as_it_says(pond: Pond) -> None:
    backlog = {"type": "/docs/problems#backlog"}
    pond.plan("POST", *[Step(429, headers={"Retry-After": "1"}, problem=backlog)] * 2)
    async with _client(pond, timeout=1.5, max_retries=0) as client:
        found = await _all(pond, client, ["a", "b"])

    moments = [at for method, _, at in pond.asked if method == "POST"]
    gaps = [later - at for at, later in pairwise(moments)]
    assert [round(gap, 1) for gap in gaps] == [1.0, 1.0]
    assert len(found) == len(pond.jobs) == 2


@pytest.mark.parametrize("named", [True, False])
async def test_a_bad_item_befalls_only_itself(pond: Pond, client: AsyncClient, named: bool) -> None:
    pond.bad, pond.named = frozenset({"t3", "t50", "t51", "t199"}), named

    found = await _all(pond, client, [f"t{n}" for n in range(200)])

    bad = {one.item for one in found if isinstance(one.error, BadRequest)}
    assert bad == pond.bad
    assert len(found) == 200
    assert len(pond.jobs) == 196


async def test_an_item_that_nothing_can_be_made_of_has_its_error(
    pond: Pond, client: AsyncClient
) -> None:
    found = await _all(pond, client, ["a", 7, {"text": "b"}, {"text": object()}], ordered=True)

    assert [one.ok for one in found] == [True, False, True, False]
    assert "pass text=" in str(found[1].error)
    assert len(pond.jobs) == 2


async def test_what_cannot_be_overcome_ends_a_map_after_what_was_read_is_told(
    pond: Pond, client: AsyncClient
) -> None:
    pond.plan("POST", Step(401))
    found: list[Result[int]] = []

    with pytest.raises(Unauthorized):
        await _into(found, client.map(range(10**9), text=str, concurrency=40))

    assert found
    assert [one.index for one in found] == list(range(len(found)))
    assert all(isinstance(one.error, Unauthorized) for one in found)


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_a_look_that_is_refused_befalls_only_its_job(pond: Pond, status: int) -> None:
    again = {"Retry-After": "60"} if status == 429 else {}
    pond.plan("GET", Step(status, headers=again))
    async with _client(pond, timeout=1.0) as client:
        found = [one async for one in client.map(["a", "b", "c", "d"], concurrency=4, polls=1)]

    assert sorted(one.ok for one in found) == [False, True, True, True]


async def test_closing_the_client_ends_a_map(client: AsyncClient) -> None:
    found: list[Result[int]] = []
    mapped = client.map(range(10**9), text=str, concurrency=20)
    found.append(await anext(mapped))
    await client.close()

    with pytest.raises(ClientClosed):
        await _into(found, mapped)
    assert sorted(one.index for one in found) == list(range(len(found)))


async def test_an_iterable_that_breaks_ends_a_map_after_what_was_read_is_told(
    client: AsyncClient,
) -> None:
    async def breaking() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        raise RuntimeError("disk")

    found: list[Result[str]] = []
    with pytest.raises(RuntimeError, match="disk"):
        await _into(found, client.map(breaking()))
    assert sorted(one.item for one in found) == ["a", "b"]


async def test_who_leaves_a_map_leaves_nothing_running(client: AsyncClient) -> None:
    mapped = client.map(range(10**9), text=str, concurrency=20)
    async for one in mapped:
        assert one.ok
        break
    await mapped.aclose()
    assert not {t for t in asyncio.all_tasks() if t.get_name().startswith(("map", "watch"))}


async def test_results_are_told_as_they_end_each_once(pond: Pond, client: AsyncClient) -> None:
    jobs = await client.submit_many(
        [{"endpoint": "generate", "prompt": p} for p in ("a", "fail", "c")]
    )
    found = {one.item.id: one async for one in client.results([*jobs, *jobs[:1]])}

    assert len(found) == 3
    assert [found[job.id].ok for job in jobs] == [True, False, True]


async def test_more_than_a_list_is_refused_before_it_is_sent(
    pond: Pond, client: AsyncClient
) -> None:
    with pytest.raises(ClientError, match="map"):
        await client.submit_many([{"endpoint": "generate", "prompt": "a"}] * 501)
    assert pond.asked == []


# ------------------------------------------------------------------ events


async def test_a_stream_that_is_cut_goes_on_where_it_was(pond: Pond, client: AsyncClient) -> None:
    pond.streams += [
        b'retry: 50\r\n\r\nid: 1-0\r\nevent: job\r\ndata: {"job":"a"}\r\n\r\nid: 2-0\r\ndata: {',
        b"retry: 50\r\n\r\nevent: reset\r\ndata: {}\r\n\r\n"
        b'id: 3-0\r\nevent: job\r\ndata: {"job":"b"}\r\n\r\n',
    ]
    found: list[Event] = []
    began = time.monotonic()
    with pytest.raises(NotFound):  # what it says in the end
        await _into(found, client.events())

    assert [(event.kind, event.id, dict(event.data)) for event in found] == [
        ("job", "1-0", {"job": "a"}),
        ("reset", None, {}),
        ("job", "3-0", {"job": "b"}),
    ]
    assert pond.last_ids == [None, "1-0", "3-0"]
    assert time.monotonic() - began < 2


async def test_a_stream_that_is_cut_before_its_first_event_says_that_some_may_be_missed(
    pond: Pond, client: AsyncClient
) -> None:
    pond.streams += [b"retry: 10\r\n\r\n", b": ping\r\n\r\n"]
    kinds = []
    with suppress(NotFound):
        async for event in client.events():
            kinds.append(event.kind)
    assert kinds == ["reset"]


async def test_an_event_that_was_seen_is_where_a_stream_begins(
    pond: Pond, client: AsyncClient
) -> None:
    with suppress(NotFound):
        async for _ in client.events(last_event_id="9-1"):
            pass
    assert pond.last_ids == ["9-1"]


async def test_too_many_requests_is_raised_once_it_is_too_often(pond: Pond) -> None:
    pond.plan("POST", *[Step(429, headers={"Retry-After": "0"})] * 9)
    async with _client(pond, max_retries=3) as client:
        with pytest.raises(TooManyRequests):
            await client.submit("generate", "a")
    assert len(pond.asked) == 4
