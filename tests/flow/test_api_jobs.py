"""The jobs API as its users meet it: `millpond up` in an empty folder, and HTTP."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from conftest import PARTITION
from millpond.domain.account import Role
from millpond.domain.call import Claimed
from millpond.domain.limit import LIMITED
from millpond.errors import StoreUnavailable, UnknownPart
from millpond.producer.api import look
from millpond.producer.api.lanes import Lanes
from millpond.producer.http.listener import serve
from millpond.producer.main import Service
from millpond.producer.waiting import Waiting
from millpond.providers.caller import Sent
from millpond.providers.outcome import Answered
from millpond.settings import Settings
from millpond.store import gateway, keys
from millpond.store.access import Access
from millpond.store.api_keys import ApiKeys
from millpond.store.bell import Bell
from millpond.store.directory import Directory
from millpond.store.gateway import Gateway, connect
from millpond.store.sealing import read_master_keys
from millpond.store.singles import Singles
from millpond.store.store import Store, WorkerState
from millpond.worker.pump import Pump

pytestmark = pytest.mark.slow

RIVER = {"endpoint": "generate", "prompt": "Name a river."}
EXAMPLES = [
    {"text": text, "label": label}
    for text, label in (("good", "yes"), ("fine", "yes"), ("bad", "no"), ("poor", "no"))
]


@dataclass(frozen=True)
class Up:
    """A process tree that serves."""

    url: str
    api_key: str
    admin_url: str
    admin_key: str
    org: str
    folder: Path

    @asynccontextmanager
    async def session(self, key: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        headers = {"Authorization": f"Bearer {key or self.api_key}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            yield session

    async def ask(
        self, method: str, path: str, body: Any = None, **more: Any
    ) -> tuple[int, Any, Any]:
        """Status, body and headers of a reply."""
        async with (
            self.session() as session,
            session.request(method, path, json=body, **more) as reply,
        ):
            text = await reply.read()
            return reply.status, json.loads(text) if text else None, reply.headers

    async def answered(self, body: Any, **more: Any) -> Any:
        """Submit a job and wait for its end."""
        status, told, _ = await self.ask("POST", "/v1/jobs", body, **more)
        assert status == 202, told
        _, job, _ = await self.ask("GET", f"/v1/jobs/{told['id']}?wait=30")
        return job


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with tempfile.TemporaryDirectory(prefix="millpond-api-") as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "millpond", "up", "--json", "--data-dir", folder),
                *("--port", "0", "--operator-port", "0"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MILLPOND_LOG_LEVEL": "DEBUG"},
        )
        try:
            assert process.stdout is not None
            yield Up(**json.loads(process.stdout.readline()), folder=Path(folder))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


async def test_a_job_is_answered(up: Up) -> None:
    status, told, headers = await up.ask("POST", "/v1/jobs", RIVER)
    assert status == 202
    assert set(told) == {"id", "state", "reason", "estimate"}
    assert headers["Location"].endswith(f"/v1/jobs/{told['id']}")

    _, job, _ = await up.ask("GET", f"/v1/jobs/{told['id']}?wait=30")

    assert job["state"] == "succeeded"
    assert job["result"]["text"]
    assert job["result"]["characters"]["input"] == len(RIVER["prompt"])
    assert job["ended_at"]
    assert job["simulated"]


async def test_every_endpoint_answers_one_text_or_several(up: Up) -> None:
    embed = await up.answered({"endpoint": "embed", "text": "a"})
    several = await up.answered({"endpoint": "embed", "inputs": ["a", "b", "c"]})
    label = await up.answered({"endpoint": "classify", "text": "good", "examples": EXAMPLES})
    labels = await up.answered(
        {"endpoint": "classify", "inputs": ["good", "bad"], "examples": EXAMPLES}
    )

    assert len(embed["result"]["embedding"]) > 1
    assert [len(one["embedding"]) > 1 for one in several["result"]["results"]] == [True] * 3
    assert label["result"]["label"] in {"yes", "no"}
    assert [one["label"] in {"yes", "no"} for one in labels["result"]["results"]] == [True] * 2


async def test_what_is_left_of_the_limits_is_told(up: Up) -> None:
    _, _, headers = await up.ask("POST", "/v1/jobs", RIVER)

    assert headers["RateLimit-Policy"] == '"minute";q=60;w=60, "day";q=50000;w=86400'
    assert headers["RateLimit"].startswith('"minute";r=')


async def test_a_list_is_taken_whole_or_not_at_all(up: Up) -> None:
    embed = {"endpoint": "embed", "text": "x", "metadata": {"list": "whole"}}
    status, told, _ = await up.ask("POST", "/v1/jobs", [embed] * 3)
    assert status == 202
    assert len({one["id"] for one in told["data"]}) == 3

    bad = {**embed, "metadata": {"list": "none"}}
    status, problem, _ = await up.ask("POST", "/v1/jobs", [bad, {**bad, "text": None}, bad])

    assert status == 422
    assert problem["errors"] == [
        {"pointer": "/1/text", "detail": "'text' is missing: there is nothing to ask"}
    ]
    _, page, _ = await up.ask("GET", "/v1/jobs?search=none")
    assert page["data"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"endpoint": "generate"}, "/prompt"),
        ({"endpoint": "generate", "text": "x"}, "/text"),
        ({"endpoint": "generate", "prompt": ""}, "/prompt"),
        ({"endpoint": "embed", "text": "x", "inputs": ["y"]}, "/inputs"),
        ({"endpoint": "embed", "inputs": []}, "/inputs"),
        ({"endpoint": "embed", "inputs": ["x"] * 97}, "/inputs"),
        ({"endpoint": "embed", "text": "x", "examples": EXAMPLES}, "/examples"),
        ({"endpoint": "classify", "text": "x"}, "/examples"),
        ({"endpoint": "classify", "text": "x", "examples": EXAMPLES[:3]}, "/examples"),
        ({"endpoint": "classify", "text": "x", "examples": EXAMPLES[:2]}, "/examples"),
        ({"endpoint": "translate", "text": "x"}, "/endpoint"),
        ({**RIVER, "model": "nobody's"}, "/model"),
        ({**RIVER, "model": "embed-english-v3.0"}, "/model"),
        ({**RIVER, "model": "command-nightly"}, "/model"),
        ({**RIVER, "params": {"temperature": 9}}, "/params/temperature"),
        ({**RIVER, "params": {"max_tokens": 0}}, "/params/max_tokens"),
        ({**RIVER, "params": {"prompt": "another"}}, "/params/prompt"),
        ({**RIVER, "class": "urgent"}, "/class"),
        ({**RIVER, "deadline": "2020-01-01T00:00:00Z"}, "/deadline"),
        ({**RIVER, "deadline": "tomorrow"}, "/deadline"),
        ({**RIVER, "deadline": 1795555555}, "/deadline"),
        ({**RIVER, "deadline": "1795555555"}, "/deadline"),
        ({**RIVER, "not_before": 1795555555}, "/not_before"),
        ({**RIVER, "not_before": "2026-11-24"}, "/not_before"),
        ({**RIVER, "metadata": {"a": 1}}, "/metadata/a"),
        ({**RIVER, "on_unknown": "guess"}, "/on_unknown"),
        ({**RIVER, "color": "blue"}, "/color"),
    ],
)
async def test_a_bad_job_is_refused_by_the_field(up: Up, body: Any, pointer: str) -> None:
    status, problem, headers = await up.ask("POST", "/v1/jobs", body)

    assert status == 422
    assert [one["pointer"] for one in problem["errors"]] == [pointer]
    assert headers["Content-Type"].startswith("application/problem+json")


async def test_the_same_key_is_the_same_job(up: Up) -> None:
    known = {"headers": {"Idempotency-Key": "one"}}
    _, first, _ = await up.ask("POST", "/v1/jobs", RIVER, **known)
    _, again, _ = await up.ask("POST", "/v1/jobs", RIVER, **known)
    _, own, _ = await up.ask("POST", "/v1/jobs", [{**RIVER, "idempotency": "two"}])
    _, own_again, _ = await up.ask("POST", "/v1/jobs", {**RIVER, "idempotency": "two"})
    status, problem, _ = await up.ask("POST", "/v1/jobs", {**RIVER, "prompt": "x"}, **known)

    assert first["id"] == again["id"]
    assert own["data"][0]["id"] == own_again["id"]
    assert (status, problem["code"]) == (422, "idempotency_key_reused")


async def test_a_job_waits_for_its_time_says_why_and_can_be_cancelled(up: Up) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _, told, _ = await up.ask("POST", "/v1/jobs", {**RIVER, "not_before": later})
    assert told["state"] == "queued"
    assert told["reason"]["why"] == "not_before"
    _, explained, _ = await up.ask("GET", f"/v1/jobs/{told['id']}/explain")
    assert explained["lane"]["limits"][0]["limit"] == "60/60s"

    began = time.monotonic()
    waiting = asyncio.create_task(up.ask("GET", f"/v1/jobs/{told['id']}?wait=30"))
    await asyncio.sleep(0.2)
    _, job, _ = await up.ask("POST", f"/v1/jobs/{told['id']}/cancel")
    _, waited, _ = await waiting

    assert job["state"] == waited["state"] == "cancelled"
    assert waited["error"]["code"] == "cancelled"
    assert time.monotonic() - began < 5  # seconds; the wait was for thirty


async def test_a_job_that_passed_its_deadline_has_expired(up: Up) -> None:
    one = {"endpoint": "classify", "text": "good", "examples": EXAMPLES}
    limits = {"limits": {"classify": "1/60s"}}
    assert (await up.ask("PUT", "/v1/limits/per-user", limits))[0] == 200
    await up.ask("POST", "/v1/jobs", one)

    job = await up.answered({**one, "deadline": in_(seconds=1)})

    await up.ask("PUT", "/v1/limits/per-user", {"limits": {"classify": None}})
    assert job["state"] == "expired"


async def test_what_ended_without_an_answer_is_asked_again(up: Up) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _, told, _ = await up.ask("POST", "/v1/jobs", {**RIVER, "not_before": later})
    await up.ask("POST", f"/v1/jobs/{told['id']}/cancel")

    status, new, _ = await up.ask("POST", f"/v1/jobs/{told['id']}/retry")
    _, job, _ = await up.ask("GET", f"/v1/jobs/{new['id']}?wait=30")

    assert status == 202
    assert (job["state"], job["again_of"]) == ("succeeded", told["id"])
    status, problem, _ = await up.ask("POST", f"/v1/jobs/{new['id']}/retry")
    assert (status, problem["code"]) == (409, "not_failed")


async def test_asked_again_twice_under_one_idempotency_key_it_is_one_job(up: Up) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _, told, _ = await up.ask("POST", "/v1/jobs", {**RIVER, "not_before": later})
    await up.ask("POST", f"/v1/jobs/{told['id']}/cancel")

    path = f"/v1/jobs/{told['id']}/retry"
    news = [
        await up.ask("POST", path, headers={"Idempotency-Key": key})
        for key in ("one", "one", "two")
    ]

    assert [status for status, _, _ in news] == [202] * 3
    first, same, other = (new["id"] for _, new, _ in news)
    assert first == same != other


async def test_of_a_deleted_job_nothing_is_told(up: Up) -> None:
    job = await up.answered(RIVER)

    assert (await up.ask("DELETE", f"/v1/jobs/{job['id']}"))[0] == 204

    for method, path in (("GET", ""), ("GET", "/explain"), ("POST", "/cancel"), ("DELETE", "")):
        status, problem, _ = await up.ask(method, f"/v1/jobs/{job['id']}{path}")
        assert (status, problem["code"]) == (404, "unknown_part")


async def test_jobs_are_listed_and_searched_page_by_page(up: Up) -> None:
    mark = {"metadata": {"mark": "paged"}, "endpoint": "embed"}
    for n in range(5):
        await up.ask("POST", "/v1/jobs", {**mark, "text": f"text {n}"})
    await up.answered({**mark, "text": "last"})

    ids: list[str] = []
    cursor = ""
    while True:
        _, page, _ = await up.ask("GET", f"/v1/jobs?search=paged&limit=2{cursor}")
        ids += [job["id"] for job in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert len(ids) == len(set(ids)) == 6
    assert ids == sorted(ids, reverse=True)
    _, page, _ = await up.ask("GET", "/v1/jobs?search=paged&state=succeeded")
    for job in page["data"]:
        assert job["simulated"] is True
        assert [job[name] for name in ("result", "error", "reason", "estimate")] == [None] * 4
    assert page["data"]
    _, page, _ = await up.ask("GET", "/v1/jobs?search=paged&endpoint=generate")
    assert page["data"] == []
    status, problem, _ = await up.ask("GET", "/v1/jobs?cursor=made-up")
    assert (status, problem["errors"][0]["pointer"]) == (422, "/cursor")


async def test_usage_and_limits_and_models_are_told(up: Up) -> None:
    await up.answered(RIVER)

    _, usage, _ = await up.ask("GET", "/v1/usage?endpoint=generate&days=1")
    _, limits, _ = await up.ask("GET", "/v1/limits")
    _, models, _ = await up.ask("GET", "/v1/models")

    assert usage["data"][0]["jobs"] >= 1
    assert sum(row["characters"] for row in usage["data"]) <= usage["used"]
    assert limits["endpoints"]["generate"]["limits"][0]["amount"] == 60
    assert limits["org"]["quota"] == 500_000
    assert "command" in {model["id"] for model in models["data"]}
    assert "command-nightly" not in {model["id"] for model in models["data"]}


#: All that there is, as docs/api.md lists it.
METRICS = {
    "millpond_build_info",
    "millpond_http_request_duration_seconds",
    "millpond_jobs_enqueued_total",
    "millpond_jobs_finished_total",
    "millpond_jobs_open",
    "millpond_orgs",
    "millpond_rejections_total",
    "millpond_scheduler_lag_seconds",
    "millpond_waiting_bytes",
}


async def test_metrics_tell_of_jobs_and_of_the_scheduler(up: Up) -> None:
    await up.answered(RIVER)
    assert (await up.ask("GET", "/v1/jobs/nobody"))[0] == 404
    told = ""
    async with asyncio.timeout(15), aiohttp.ClientSession(up.admin_url) as session:
        while 'outcome="succeeded"' not in told:
            await asyncio.sleep(0.5)
            async with session.get("/metrics") as reply:
                told = await reply.text()

    assert 'millpond_jobs_enqueued_total{endpoint="generate"}' in told
    assert "millpond_scheduler_lag_seconds" in told
    assert 'millpond_build_info{version="' in told
    assert "millpond_http_request_duration_seconds_bucket{" in told
    assert 'millpond_rejections_total{reason="unknown_part"}' in told
    names = {line.split()[2] for line in told.splitlines() if line.startswith("# TYPE ")}
    assert {name for name in names if not name.endswith("_created")} == METRICS
    documented = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    assert [name for name in METRICS if f"`{name}" not in documented] == []


async def test_events_are_followed_and_gone_on_with(up: Up) -> None:
    async with up.session() as session, session.get("/v1/events") as stream:
        job = await up.answered(RIVER)
        event = await _next_event(stream, job["id"])
    assert (event["event"], event["data"]["state"]) == ("job", "succeeded")

    missed = await up.answered(RIVER)
    headers = {"Last-Event-ID": event["id"]}
    async with up.session() as session, session.get("/v1/events", headers=headers) as stream:
        assert (await _next_event(stream, missed["id"]))["data"]["state"] == "succeeded"
    headers = {"Last-Event-ID": "1-1"}
    async with up.session() as session, session.get("/v1/events", headers=headers) as stream:
        assert (await _next_event(stream, None))["event"] == "reset"


async def _next_event(stream: aiohttp.ClientResponse, job: str | None) -> dict[str, Any]:
    event: dict[str, Any] = {}
    async with asyncio.timeout(10):
        async for raw in stream.content:
            line = raw.decode().rstrip("\r\n")
            if not line and "event" in event:
                if job is None or event["data"].get("job") == job:
                    return event
                event = {}
            name, _, value = line.partition(": ")
            if name in {"id", "event"}:
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
    raise AssertionError("the stream ended")


async def test_prompts_answers_and_keys_are_in_no_log(up: Up) -> None:
    """Nor in any other file, but for the store's own, which hold what is asked and answered, and
    the one that the keys are handed over in."""
    provider_key = "canary-of-the-provider-as-long-as-a-real-one"
    status, _, _ = await up.ask("PUT", "/v1/provider-key", {"key": provider_key})
    assert status == 200
    _, made, _ = await up.ask("POST", "/v1/keys", {"name": "of the canary"})
    job = await up.answered({**RIVER, "prompt": "the canary sings"})
    again = {"text": "good canary", "examples": EXAMPLES, "metadata": {"bird": "canary"}}
    await up.answered({"endpoint": "classify", **again})
    for body in ({"prompt": ["canary"]}, {"prompt": "canary", "params": {"canary": 1}}, "canary"):
        assert (await up.ask("POST", "/v1/jobs", body))[0] == 422
    await up.ask("PUT", "/v1/provider-key", {"key": f"{provider_key} and more"})
    for path in ("/v1/jobs/canary", "/v1/jobs?search=canary", "/canary", "/v1/jobs?canary=1"):
        await up.ask("GET", path)
    async with up.session(f"{up.api_key}canary") as session, session.get("/v1/jobs") as reply:
        assert reply.status == 401
    operator = {"Authorization": f"Bearer {up.admin_key}"}
    async with (
        aiohttp.ClientSession(up.admin_url, headers=operator) as session,
        session.get("/v1/orgs") as reply,
    ):
        assert reply.status == 200

    log = (up.folder / "log").read_text()
    assert '"event":"request_ended"' in log
    assert '"event":"call_ended"' in log
    assert log.count(job["id"]) >= 3  # submitted, answered, looked at

    keys_told = [up.api_key, up.admin_key, made["key"], provider_key]
    secrets = [one.rsplit("_", 1)[-1] for one in keys_told]
    secrets.append((up.folder / "master.key").read_text().strip())
    content = ["canary", job["result"]["text"][:20]]
    files = [file for file in up.folder.rglob("*") if file.is_file()]
    assert {"log", "server.log", "simulator.jsonl"} < {file.name for file in files}
    for file in files:
        held, told = file.read_bytes(), file.name
        if told in {"credentials.json", "master.key"}:
            continue
        kept = file.parent.name == "appendonlydir"
        for text in secrets if kept else secrets + content:
            assert text.encode() not in held, f"{told} holds {text!r}"


# ---- what is asked at the edges; in this process, without anybody who works


MASTERS = read_master_keys(Settings(master_key=SecretStr(base64.b64encode(b"m" * 32).decode())))


@dataclass(frozen=True)
class Alone:
    """The API in this process, of an org `acme` whose jobs nobody takes."""

    store: Store
    redis: Redis
    service: Service
    users: str
    operators: str
    key: str
    key_id: str

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, Any]:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        told["Authorization"] = f"Bearer {self.key}"
        async with (
            aiohttp.ClientSession(self.users, headers=told) as session,
            session.request(method, path, json=body) as reply,
        ):
            text = await reply.read()
            return reply.status, json.loads(text) if text else None, reply.headers


@asynccontextmanager
async def alone(redis: Redis, store: Store, **settings: Any) -> AsyncIterator[Alone]:
    directory, api_keys = Directory(store), ApiKeys(store.gateway, MASTERS)
    await directory.create_org(
        "acme", "Acme", limits=LIMITED, quota=10_000, pool="http", mode="full", by="t"
    )
    await directory.create_user("acme", "ann", "Ann", Role.ADMIN, by="t")
    made = await api_keys.make("acme", "ann", "of ann", by="t")
    waiting = Waiting(Singles(store.gateway))
    service = Service(Settings(**settings), store, waiting, MASTERS)
    async with (
        serve(service.users(), port=0) as users,
        serve(service.operators(), port=0) as operators,
    ):
        user_url, operator_url = (f"http://127.0.0.1:{one.port}" for one in (users, operators))
        yield Alone(store, redis, service, user_url, operator_url, made.text, made.id)


@pytest.fixture
async def api(redis: Redis, store: Store) -> AsyncIterator[Alone]:
    async with alone(redis, store) as one:
        yield one


def in_(**length: float) -> str:
    """A moment so far from now."""
    return (datetime.now(UTC) + timedelta(**length)).isoformat()


@pytest.mark.parametrize("field", ["deadline", "not_before"])
@pytest.mark.parametrize(
    "moment", [in_(days=31), "9999-12-31T23:59:59-12:00"], ids=["31 days", "the end of time"]
)
async def test_a_moment_that_is_too_far_is_refused_by_its_field(
    api: Alone, field: str, moment: str
) -> None:
    status, problem, _ = await api.ask("POST", "/v1/jobs", {**RIVER, field: moment})

    assert status == 422
    wrong = {"pointer": f"/{field}", "detail": "it is 30 days from now at most"}
    assert problem["errors"] == [wrong]
    assert (await api.ask("POST", "/v1/jobs", {**RIVER, field: in_(days=29)}))[0] == 202
    assert len((await api.ask("GET", "/v1/jobs"))[1]["data"]) == 1


@pytest.mark.parametrize(
    ("many", "detail"),
    [
        (0, "List should have at least 1 item, not 0"),
        (501, "List should have at most 500 items, not 501"),
    ],
)
async def test_a_list_that_is_too_short_or_too_long_is_refused_as_a_list(
    api: Alone, many: int, detail: str
) -> None:
    status, problem, _ = await api.ask("POST", "/v1/jobs", [RIVER] * many)

    assert status == 422
    assert problem["errors"] == [{"pointer": "", "detail": detail}]


async def test_a_deadline_is_after_the_moment_that_a_job_waits_for(api: Alone) -> None:
    moment = in_(hours=1)
    asked = {**RIVER, "not_before": moment}
    for deadline in (moment, in_(minutes=30)):
        status, problem, _ = await api.ask("POST", "/v1/jobs", {**asked, "deadline": deadline})

        assert status == 422
        detail = "the deadline is not after it: the job could never go"
        assert problem["errors"] == [{"pointer": "/not_before", "detail": detail}]
    assert (await api.ask("POST", "/v1/jobs", {**asked, "deadline": in_(hours=2)}))[0] == 202


async def fill(api: Alone) -> None:
    """The org has no room for anything more, as far as can be seen."""
    await api.redis.hset(keys.org(PARTITION, "acme"), "bytes", str(64 * 2**20))  # type: ignore[misc]
    await asyncio.sleep(0.25)  # seconds; that long a look is believed


@pytest.mark.parametrize("own", [False, True])
async def test_said_again_it_is_the_same_whatever_has_changed_meanwhile(
    api: Alone, own: bool
) -> None:
    asked = {**RIVER, "deadline": in_(seconds=0.8), **({"idempotency": "k"} if own else {})}
    header = {} if own else {"Idempotency_Key": "k"}
    _, first, _ = await api.ask("POST", "/v1/jobs", asked, **header)
    await asyncio.sleep(0.9)  # seconds; then the deadline has passed

    again = await api.ask("POST", "/v1/jobs", asked, **header)
    other = await api.ask("POST", "/v1/jobs", {**asked, "prompt": "x"}, **header)

    assert (again[0], again[1]["id"]) == (202, first["id"])
    assert (other[0], other[1]["code"]) == (422, "idempotency_key_reused")
    assert (await api.ask("POST", "/v1/jobs", asked, Idempotency_Key="j"))[0] == (
        202 if own else 422
    )


@pytest.mark.parametrize("stands", ["full", "suspended"])
async def test_said_again_it_is_the_same_although_nothing_new_is_taken(
    api: Alone, stands: str
) -> None:
    _, one, _ = await api.ask("POST", "/v1/jobs", RIVER, Idempotency_Key="one")
    _, some, _ = await api.ask("POST", "/v1/jobs", [RIVER, RIVER], Idempotency_Key="some")
    await api.ask("POST", f"/v1/jobs/{some['data'][0]['id']}/cancel")
    if stands == "full":
        await fill(api)
    else:
        await Access(api.store).suspend("acme", by="t", why="unpaid")
        await asyncio.sleep(1.1)  # seconds; that long an org's state is believed

    again = await api.ask("POST", "/v1/jobs", RIVER, Idempotency_Key="one")
    some_again = await api.ask("POST", "/v1/jobs", [RIVER, RIVER], Idempotency_Key="some")

    assert (again[0], again[1]["id"]) == (202, one["id"])
    ids = [job["id"] for job in some["data"]]
    assert some_again[0] == 202
    assert [job["id"] for job in some_again[1]["data"]] == ids
    assert [job["state"] for job in some_again[1]["data"]] == ["cancelled", "queued"]
    status, problem, _ = await api.ask("POST", "/v1/jobs", RIVER, Idempotency_Key="two")
    told = (429, "backlog") if stands == "full" else (403, "suspended")
    assert (status, problem["code"]) == told
    status, problem, _ = await api.ask(
        "POST", "/v1/jobs", {**RIVER, "prompt": "x"}, Idempotency_Key="one"
    )
    assert (status, problem["code"]) == (422, "idempotency_key_reused")


async def test_a_suspended_org_cancels_and_deletes_its_jobs(api: Alone) -> None:
    _, some, _ = await api.ask("POST", "/v1/jobs", [RIVER, RIVER, RIVER])
    one, other, third = (job["id"] for job in some["data"])
    await api.ask("POST", f"/v1/jobs/{other}/cancel")
    await Access(api.store).suspend("acme", by="t", why="unpaid")
    await asyncio.sleep(1.1)  # seconds; that long an org's state is believed
    assert (await api.ask("POST", f"/v1/jobs/{other}/retry"))[0] == 403

    status, cancelled, _ = await api.ask("POST", f"/v1/jobs/{one}/cancel")
    deleted = [(await api.ask("DELETE", f"/v1/jobs/{id}"))[0] for id in (other, third)]

    assert (status, cancelled["state"]) == (200, "cancelled")
    assert deleted == [204, 204]
    for id in (other, third):
        assert (await api.ask("GET", f"/v1/jobs/{id}"))[0] == 404
        assert not await api.redis.exists(keys.job(PARTITION, id), keys.asked(PARTITION, id))


class Slow:
    """A provider that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def send(self, call: Claimed, may_begin: Callable[[], bool]) -> Sent:
        assert may_begin()
        self.asked.set()
        await self.answers.wait()
        return Sent(Answered(({"text": "the Nile"},), used=(20,)), 0.0)


async def test_what_was_asked_before_a_suspension_is_read_when_it_is_answered(api: Alone) -> None:
    provider, stop = Slow(), asyncio.Event()
    bell = Bell(api.redis, keys.worker_bell(PARTITION, "http"))
    pump = Pump(api.store, provider, bell, worker="w", pool="http", slots=1, lease_ms=30_000)
    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        tasks.create_task(pump.run_until(stop, hurry=stop, grace_ms=1_000))
        _, told, _ = await api.ask("POST", "/v1/jobs", RIVER)
        await provider.asked.wait()
        await Access(api.store).suspend("acme", by="t", why="unpaid")
        provider.answers.set()
        while (await api.ask("GET", f"/v1/jobs/{told['id']}"))[1]["ended_at"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.1)  # seconds; that long an org's state is believed

        assert (await api.ask("POST", "/v1/jobs", RIVER))[0] == 403
        _, job, _ = await api.ask("GET", f"/v1/jobs/{told['id']}")
        assert (job["state"], job["result"]) == ("succeeded", {"text": "the Nile"})
        stop.set()


@pytest.mark.parametrize(
    "error", [UnknownPart("job", "x"), StoreUnavailable("gone")], ids=["erased", "store"]
)
async def test_what_was_taken_in_is_told_although_nothing_more_is_known_of_it(
    api: Alone, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _, old, _ = await api.ask("POST", "/v1/jobs", RIVER)
    await api.ask("POST", f"/v1/jobs/{old['id']}/cancel")

    real, good = Singles.find, 0

    async def fails(singles: Singles, *args: Any) -> Any:
        nonlocal good
        if not good:
            raise error
        good -= 1
        return await real(singles, *args)

    monkeypatch.setattr(Singles, "find", fails)
    status, told, _ = await api.ask("POST", "/v1/jobs", RIVER)
    status_of_list, some, _ = await api.ask("POST", "/v1/jobs", [RIVER, RIVER])
    good = 1  # it is looked at before it is asked again
    status_of_retry, new, _ = await api.ask("POST", f"/v1/jobs/{old['id']}/retry")

    assert (status, status_of_list, status_of_retry) == (202, 202, 202)
    for one in (told, *some["data"], new):
        assert (one["state"], one["reason"], one["estimate"]) == ("queued", None, None)
    assert len((await api.ask("GET", "/v1/jobs"))[1]["data"]) == 5


async def test_where_the_store_finds_no_room_it_is_a_backlog(
    api: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old, _ = await api.ask("POST", "/v1/jobs", RIVER)
    await api.ask("POST", f"/v1/jobs/{old['id']}/cancel")

    async def no_look(*_: Any) -> None:
        """As if it had filled up since."""

    monkeypatch.setattr(Lanes, "room_for", no_look)
    await fill(api)
    for path, body in (("/v1/jobs", RIVER), (f"/v1/jobs/{old['id']}/retry", None)):
        status, problem, headers = await api.ask("POST", path, body)

        assert (status, problem["code"]) == (429, "backlog")
        assert problem["limit"]["limit"] == 64 * 2**20
        # Nothing is in line, so nobody knows when there will be room.
        assert int(headers["Retry-After"]) >= 60
        assert "no promise" in problem["detail"]


# ---- the log


async def test_a_request_is_logged_with_the_jobs_that_it_is_about(api: Alone) -> None:
    with capture_logs(processors=[merge_contextvars]) as events:
        _, told, _ = await api.ask("POST", "/v1/jobs", RIVER)
        _, some, _ = await api.ask("POST", "/v1/jobs", [RIVER] * 21)
        id = told["id"]
        for method, path in (("GET", ""), ("GET", "/explain"), ("POST", "/cancel")):
            await api.ask(method, f"/v1/jobs/{id}{path}")
        _, new, _ = await api.ask("POST", f"/v1/jobs/{id}/retry")
        await api.ask("DELETE", f"/v1/jobs/{id}")
        await api.ask("GET", "/v1/jobs/what-nobody-should-log")
        async with asyncio.timeout(5):
            while [one["event"] for one in events].count("request_ended") < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    ended = [event for event in events if event["event"] == "request_ended"]
    one, many, *others, retried, deleted, unknown = ended
    assert one["job"] == deleted["job"] == id
    assert [event["job"] for event in others] == [id] * 3
    assert (retried["job"], retried["new_job"]) == (id, new["id"])
    assert many["jobs"] == [job["id"] for job in some["data"][:20]]
    assert many["job_count"] == 21
    assert (unknown["status"], unknown["org"]) == (404, "acme")
    assert "what-nobody" not in str(unknown)


# ---- where there is no room


async def works(api: Alone, *, slots: int = 100) -> None:
    """A worker is there, so that it can be told when jobs will go."""
    life = api.store.gateway.life
    await api.store.heartbeat(WorkerState("w", "http", slots, 0, 600_000, life, []))


async def test_what_is_larger_than_the_bound_alone_is_too_large_for_good(
    redis: Redis, store: Store
) -> None:
    async with alone(redis, store, waiting_bytes_per_org=2**20) as api:
        by_length = [{**RIVER, "prompt": "x" * 400_000}] * 3
        # Of this the body is smaller than the bound, and what is kept of it is not.
        by_weight = [{**RIVER, "prompt": "x" * 1_900}] * 500
        for body in (by_length, by_weight):
            status, problem, headers = await api.ask("POST", "/v1/jobs", body)

            assert (status, problem["code"]) == (413, "too-large")
            assert "1,048,576 bytes" in problem["detail"]
            assert (problem["limit"]["name"], problem["limit"]["limit"]) == ("waiting", 2**20)
            assert "Retry-After" not in headers
        assert (await api.ask("POST", "/v1/jobs", RIVER))[0] == 202
        status, problem, _ = await api.ask("POST", "/v1/jobs", by_length)
        assert (status, problem["code"]) == (413, "too-large")


async def test_a_list_that_takes_too_long_by_itself_is_refused_for_good(
    redis: Redis, store: Store
) -> None:
    async with alone(redis, store, drain_most_s=120) as api:
        await works(api)
        status, problem, headers = await api.ask("POST", "/v1/jobs", [RIVER] * 200)

        assert (status, problem["code"]) == (422, "takes_too_long")
        assert "200 jobs take 3m" in problem["detail"]
        assert "longer than 2m00s" in problem["detail"]
        assert "Retry-After" not in headers
        assert (await api.ask("POST", "/v1/jobs", [RIVER] * 100))[0] == 202


async def test_what_waits_too_long_is_told_in_seconds_and_in_words(
    redis: Redis, store: Store
) -> None:
    async with alone(redis, store, drain_most_s=120) as api:
        await works(api)
        await api.ask("POST", "/v1/jobs", [RIVER] * 100)
        assert (await api.ask("POST", "/v1/jobs", [RIVER] * 20))[0] == 202
        # A look that is a moment old knows of none of them: what was taken in since counts.
        status, problem, headers = await api.ask("POST", "/v1/jobs", [RIVER] * 60)

        assert (status, problem["code"]) == (429, "backlog")
        assert "longer than 2m00s" in problem["detail"]
        limit = problem["limit"]
        assert (limit["name"], limit["unit"], limit["limit"]) == ("drain", "seconds", 120)
        assert limit["used"] > 120
        assert abs(int(headers["Retry-After"]) - (limit["used"] - 120)) <= 1


async def test_what_an_old_look_says_is_no_reason_to_refuse(api: Alone) -> None:
    await works(api)
    await api.ask("POST", "/v1/jobs", [RIVER] * 200)
    await api.redis.hset(keys.org(PARTITION, "acme"), "bytes", str(64 * 2**20))  # type: ignore[misc]
    await asyncio.sleep(0.25)  # seconds; that long a look is believed
    status, _, headers = await api.ask("POST", "/v1/jobs", RIVER)
    assert status == 429
    assert int(headers["Retry-After"]) < 60

    await api.redis.hset(keys.org(PARTITION, "acme"), "bytes", "0")  # type: ignore[misc]
    await asyncio.sleep(0.03)  # seconds; a look that is a reason to refuse is younger

    assert (await api.ask("POST", "/v1/jobs", RIVER))[0] == 202


# ---- lists


@pytest.mark.parametrize(
    "place", ["abc", "x|y", "nan|z", "inf|y", "1e5|y", "-1|y", "1" * 17 + "|y", "|"]
)
async def test_a_cursor_that_was_never_told_is_refused(api: Alone, place: str) -> None:
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    status, problem, _ = await api.ask("GET", f"/v1/jobs?cursor={cursor}")

    assert (status, problem["errors"][0]["pointer"]) == (422, "/cursor")


async def test_what_is_measured_is_told_to_operators_alone(api: Alone) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{api.users}/metrics") as reply:
            assert reply.status == 404
        async with session.get(f"{api.operators}/metrics") as reply:
            assert (reply.status, "millpond_build_info" in await reply.text()) == (200, True)


# ---- streams of events


async def events_of(api: Alone, count: int) -> None:
    """So many things happen to the org."""
    pipe = api.redis.pipeline(transaction=False)
    for number in range(count):
        fields = {"at": 1_700_000_000_000, "event": "job", "job": f"j{number}", "state": "failed"}
        pipe.xadd(keys.records(PARTITION, "acme", "events"), fields)  # type: ignore[arg-type]
    await pipe.execute()


@asynccontextmanager
async def following(api: Alone, last: str | None) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Authorization": f"Bearer {api.key}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    async with (
        aiohttp.ClientSession(api.users, headers=headers) as session,
        session.get("/v1/events") as stream,
    ):
        yield stream


@pytest.mark.parametrize("last", ["x", "1-2-3", "-1", "1-", "1" * 17, "0x1", "1 2"])
async def test_an_id_that_no_event_has_is_refused(api: Alone, last: str) -> None:
    async with following(api, last) as stream:
        problem = await stream.json()

    assert stream.status == 422
    assert problem["errors"][0]["pointer"] == "/Last-Event-ID"


@pytest.mark.parametrize("last", ["9999999999999", "9999999999999-5"])
async def test_after_an_event_of_the_future_it_goes_on_from_the_latest(
    api: Alone, last: str
) -> None:
    await events_of(api, 2)
    async with following(api, last) as stream:
        assert (await _next_event(stream, None))["event"] == "reset"
        await events_of(api, 3)

        jobs = [(await _next_event(stream, None))["data"]["job"] for _ in range(3)]
    assert jobs == ["j0", "j1", "j2"]


async def test_who_fell_behind_what_is_forgotten_is_told(
    api: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.records(PARTITION, "acme", "events")
    await events_of(api, 1)
    monkeypatch.setattr(look, "_LOOK_S", 0.5)
    async with following(api, None) as stream:
        await asyncio.sleep(0.1)  # seconds; it has begun, and looks again later
        await events_of(api, 500)
        await api.redis.xtrim(key, maxlen=300, approximate=False)

        assert (await _next_event(stream, None))["event"] == "reset"
        assert (await _next_event(stream, None))["data"]["job"] == "j200"


@pytest.mark.parametrize("how", ["revoked", "suspended"])
async def test_a_stream_and_a_long_poll_end_soon_after_the_key(api: Alone, how: str) -> None:
    _, told, _ = await api.ask("POST", "/v1/jobs", RIVER)
    async with following(api, None) as stream:
        polling = asyncio.create_task(api.ask("GET", f"/v1/jobs/{told['id']}?wait=30"))
        await asyncio.sleep(0.1)  # seconds; both have begun
        began = time.monotonic()
        if how == "revoked":
            await ApiKeys(api.store.gateway, MASTERS).revoke(api.key_id, org="acme", by="t")
        else:
            await Directory(api.store).suspend_user("acme", "ann", by="t")
        async with asyncio.timeout(8):
            status, problem, _ = await polling
            await stream.content.read()

    assert (status, problem["code"]) == (401, "unauthorized")
    assert time.monotonic() - began < 7


async def test_an_org_has_so_many_streams_and_no_more(
    api: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "STREAMS_MOST", 2)
    async with following(api, None), following(api, None) as second:
        async with following(api, None) as third:
            assert third.status == 429
            assert third.headers["Retry-After"] == "5"
        assert second.status == 200
    async with asyncio.timeout(5):
        while True:
            async with following(api, None) as again:
                if again.status == 200:
                    break


async def test_many_requests_share_a_few_connections(server_url: str, redis: Redis) -> None:
    async with connect(server_url, connections_most=3) as bounded:
        before = len(await redis.client_list())
        # Each has its connection for a moment.
        waits = (bounded.xread({"nothing": "0"}, block=20) for _ in range(30))
        await asyncio.gather(*waits)
        assert len(await redis.client_list()) - before == 3


async def test_without_a_free_connection_the_store_is_unavailable(
    server_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "FREE_TIMEOUT_S", 0.2)
    # Its client has the one connection.
    async with connect(server_url, connections_most=1) as bounded, bounded.client():
        with pytest.raises(StoreUnavailable):
            await Singles(Gateway(bounded, PARTITION)).waiting("acme")
