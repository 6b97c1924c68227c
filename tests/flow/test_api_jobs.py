"""The jobs API as its users meet it: `millpond up` in an empty folder, and HTTP."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

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
    assert told["reason"]["why"] == "retry"
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
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    job = await up.answered({**RIVER, "not_before": later, "deadline": soon})

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


async def test_metrics_tell_of_jobs_and_of_the_scheduler(up: Up) -> None:
    await up.answered(RIVER)
    told = ""
    async with asyncio.timeout(15), up.session() as session:
        while 'outcome="succeeded"' not in told:
            await asyncio.sleep(0.5)
            async with session.get("/metrics") as reply:
                told = await reply.text()

    assert 'millpond_jobs_enqueued_total{endpoint="generate"}' in told
    assert "millpond_scheduler_lag_seconds" in told
    assert 'millpond_build_info{version="' in told
    assert "millpond_http_request_duration_seconds_bucket{" in told


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
    job = await up.answered({**RIVER, "prompt": "the canary sings"})
    await up.ask("POST", "/v1/jobs", {**RIVER, "prompt": ["the canary sings"]})

    log = (up.folder / "log").read_text()

    assert "canary" not in log
    assert job["result"]["text"][:20] not in log
    assert up.api_key not in log
    assert up.api_key.split("_")[2] not in log
