"""Spans: a submission and its call in one trace, packs with links, and nothing that is secret."""

import asyncio
import subprocess
import sys
import time as clock
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio import Redis

from conftest import PARTITION, TestTime
from flow.test_simulator import Run, run
from millpond import tracing
from millpond.domain.account import Identity, Role
from millpond.domain.call import Claimed, ClaimedJob
from millpond.domain.job import Endpoint
from millpond.domain.limit import LIMITED
from millpond.domain.request import Ask, read_ask
from millpond.producer.api.shapes import JobAsked
from millpond.producer.http.app import build
from millpond.producer.http.listener import serve
from millpond.producer.http.table import Call, Reply, Route, Who
from millpond.producer.intake import Intake, Known
from millpond.providers.caller import Caller
from millpond.providers.cohere import Cohere
from millpond.providers.http import Http
from millpond.providers.profile import PROFILES, ProviderName
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.directory import Directory
from millpond.store.singles import Bounds, Singles
from millpond.store.store import Store
from millpond.worker.pump import Pump

__all__ = ["run"]

PROMPT, KEY = "a-prompt-that-nobody-may-see", "a-key-that-nobody-may-see"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ANN = Identity("k", Role.MEMBER, "acme", "ann")
#: What a job may cost without the SDK.
FREE_US = 2.0


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    found = Spans()
    monkeypatch.setattr(tracing, "provider", lambda: found.provider)
    yield found
    told = "".join(span.to_json() for span in found.all())
    assert PROMPT not in told
    assert KEY not in told


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


class Town:
    """An intake, and a worker whose provider is simulated."""

    def __init__(self, store: Store, redis: Redis, time: TestTime, url: str) -> None:
        self.store, self._redis, self._time, self._url = store, redis, time, url
        profile = PROFILES[ProviderName.COHERE]
        self.intake = Intake(store, Known(profile, Cohere(), None), Bounds(10**6, 10**6))

    async def found(self) -> None:
        await Directory(self.store).create_org(
            "acme", "Acme", limits=LIMITED, quota=None, pool="http", by="t"
        )

    async def submit(self, *asked: JobAsked) -> list[str]:
        return await self.intake.take(ANN, asked, alone=len(asked) == 1, idempotency=None)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        bell = Bell(self._redis, keys.worker_bell(PARTITION, "http"))
        stop, hurry = asyncio.Event(), asyncio.Event()
        async with (
            Http(self._url, KEY, timeout_ms=9_000, clock=lambda: clock.monotonic() * 1e3) as http,
            asyncio.timeout(20),
            asyncio.TaskGroup() as tasks,
        ):
            caller = Caller(Cohere(), http, self.store.common)
            pump = Pump(self.store, caller, bell, worker="w", pool="http", slots=5, lease_ms=30_000)
            tasks.create_task(pump.run_until(stop, hurry=hurry, grace_ms=5_000))
            yield
            stop.set()
            bell.ring()

    async def answered(self, *asked: JobAsked) -> None:
        """Submit jobs, each by itself if they are several, and see them end."""
        jobs = [id for one in asked for id in await self.submit(one)]
        self._time.advance(250)  # packs go when there is nothing more for them
        async with self.working():
            singles = Singles(self.store.gateway)
            while len(await singles.ended(jobs)) < len(jobs):
                await self.store.promote(200)
                await asyncio.sleep(0.01)


@pytest.fixture
async def town(store: Store, redis: Redis, time: TestTime, run: Run, spans: Spans) -> Town:
    town = Town(store, redis, time, run().url)
    await town.found()
    return town


def embed(text: str) -> JobAsked:
    return JobAsked.model_validate({"endpoint": Endpoint.EMBED, "text": text, "class": "bulk"})


async def test_a_submission_and_its_call_are_in_one_trace(town: Town, spans: Spans) -> None:
    await town.answered(JobAsked(endpoint=Endpoint.GENERATE, prompt=PROMPT))

    submit = spans.one(tracing.SUBMIT)
    call, settle = spans.one("text_completion command"), spans.one(tracing.SETTLE)
    assert (submit.kind, call.kind) == (SpanKind.PRODUCER, SpanKind.CLIENT)
    for span in (call, settle):
        assert trace_of(span) == trace_of(submit)
        assert parent_of(span) == id_of(submit)
        assert not span.links
    assert call.attributes is not None
    told = dict(call.attributes)
    assert told.pop("millpond.usage.characters")
    told.pop("millpond.usage.tokens", None)
    assert told.pop("millpond.call")
    assert told == {
        "millpond.jobs": 1,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "command",
        "gen_ai.provider.name": "cohere",
    }


async def test_a_pack_links_to_the_submission_of_each_job(town: Town, spans: Spans) -> None:
    await town.answered(embed(PROMPT), embed("b"), embed("c"))

    submits = spans.named(tracing.SUBMIT)
    [call] = [span for span in spans.all() if span.name.startswith("embeddings ")]
    assert call.attributes is not None
    assert call.attributes["millpond.jobs"] == 3
    assert linked(call) == {id_of(one) for one in submits}
    assert len(submits) == 3
    assert call.parent is None
    assert linked(spans.one(tracing.SETTLE)) == linked(call)


async def test_jobs_that_were_submitted_together_have_one_span_for_that(
    town: Town, spans: Spans
) -> None:
    ids = await town.submit(embed(PROMPT), embed("b"))

    submit = spans.one(tracing.SUBMIT)
    assert dict(submit.attributes or {}) == {"millpond.jobs": 2}
    payloads = [await town.store.gateway.redis.get(keys.asked(PARTITION, id)) for id in ids]
    assert all(f"-{id_of(submit):016x}-".encode() in payload for payload in payloads)
    assert [read_ask(payload).text for payload in payloads] == [PROMPT, "b"]


async def test_a_call_that_fails_says_what_sort_of_failure_it_was(spans: Spans, run: Run) -> None:
    call = Claimed("1", "a.x", "a", "f", 9, 5, (ClaimedJob("j", 0, Ask("").write()),))

    async def common_of(_: str) -> bytes:
        return b'{"endpoint":"embed","model":"m","max_tokens":9,"params":{},"examples":[]}'

    async with Http(
        run().url, KEY, timeout_ms=9_000, clock=lambda: clock.monotonic() * 1e3
    ) as http:
        await Caller(Cohere(), http, common_of).send(call)

    span = spans.one("embeddings m")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert (span.attributes or {})["error.type"] == "Rejected"
    assert not span.events


async def test_a_request_is_a_part_of_its_clients_trace(spans: Spans) -> None:
    async def greet(call: Call) -> Reply:
        if call.path["name"] == "nobody":
            raise RuntimeError(PROMPT)
        return Reply({"hello": call.path["name"]})

    async def nobody(_: str) -> None:
        return None

    route = Route("GET", "/v1/greet/{name}", greet, who=Who.ANYBODY, summary="Greet")
    app: web.Application = build([route], nobody)
    async with serve(app, port=0) as listener, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{listener.port}/v1"
        for path in ("greet/ann", "greet/nobody", "nowhere"):
            async with session.get(f"{url}/{path}", headers={"traceparent": TRACEPARENT}):
                pass

    good, bad = spans.named("GET /v1/greet/{name}")
    for span in (good, bad):
        assert f"{trace_of(span):032x}" == TRACE
        assert f"{parent_of(span):016x}" == PARENT
        assert span.kind is SpanKind.SERVER
    assert dict(good.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/greet/{name}",
        "http.response.status_code": 200,
    }
    assert (bad.attributes or {})["http.response.status_code"] == 500
    assert bad.status.status_code is StatusCode.ERROR
    assert not bad.events
    assert spans.one("GET unmatched")


def test_a_submission_is_a_part_of_its_request(spans: Spans) -> None:
    tracer = tracing.begin()
    assert tracer is not None
    with (
        tracing.requested(tracer, "POST", "/v1/jobs", {"traceparent": TRACEPARENT}),
        tracing.submitting(tracer, 1) as traceparent,
    ):
        pass

    assert traceparent.startswith(f"00-{TRACE}-")
    assert parent_of(spans.one(tracing.SUBMIT)) == id_of(spans.one("POST /v1/jobs"))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"traceparent":"00-broken"}', Ask("x").write()])
def test_a_job_that_was_submitted_without_a_span_begins_a_trace(
    spans: Spans, payload: bytes
) -> None:
    call = Claimed("1", "a.x", "a", "f", 9, 5, (ClaimedJob("j", 0, payload),))

    with tracing.calling(tracing.begin(), call):
        pass

    span = spans.one(tracing.CALL)
    assert span.parent is None
    assert not span.links


def test_without_anybody_who_wants_spans_a_job_costs_next_to_nothing() -> None:
    assert tracing.begin() is None
    call = Claimed("1", "a.x", "a", "f", 9, 5, (ClaimedJob("j", 0, b"{}"),))

    def one_job() -> None:
        with tracing.calling(None, call):
            pass
        with tracing.settling(None, [call]):
            pass

    rounds, took_us = 2_000, []
    for _ in range(20):
        began = clock.perf_counter()
        for _ in range(rounds):
            one_job()
        took_us.append((clock.perf_counter() - began) / rounds * 1e6)

    assert min(took_us) < FREE_US


async def test_what_a_job_asks_is_kept_as_it_was_without_spans(
    store: Store, redis: Redis, time: TestTime
) -> None:
    town = Town(store, redis, time, "http://nowhere")
    await town.found()

    [id] = await town.submit(embed("a"))

    assert b"traceparent" not in await redis.get(keys.asked(PARTITION, id))


@pytest.mark.parametrize(
    ("exporter", "before", "says"),
    [
        ("none", "", ["None"]),
        ("console", "", ['"name": "submit jobs"', '"service.name": "millpond"']),
        ("nosuch", "", ["tracing_unavailable", "None"]),
        ("console", "sys.modules['opentelemetry.sdk'] = None", ["tracing_unavailable", "None"]),
    ],
)
def test_an_exporter_is_named_as_everywhere(exporter: str, before: str, says: list[str]) -> None:
    text = (
        f"import sys\n{before}\n"
        "from millpond import tracing\n"
        "tracer = tracing.begin()\n"
        "if tracer is None: print('None')\n"
        "else:\n"
        "    with tracing.submitting(tracer, 1): pass\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", text],
        env={"OTEL_TRACES_EXPORTER": exporter},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for one in says:
        assert one in told
