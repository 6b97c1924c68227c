"""The Python client as its users meet it: `millpond up`, scripts, notebooks, and docs/client.md."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from millpond import AsyncClient, Client
from millpond.client import (
    BadRequest,
    Classification,
    ClientError,
    Conflict,
    Embedding,
    JobFailed,
    JobRequest,
    JobTimeout,
    NotFound,
    Unauthorized,
)

pytestmark = pytest.mark.slow

DEV = ("-X", "dev")  # tells of what was left open
PORTS = ("--port", "0", "--operator-port", "0")
GUIDE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = [("good", "yes"), ("fine", "yes"), ("bad", "no"), ("poor", "no")]


@pytest.fixture(scope="module")
def up() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="millpond-client-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "millpond", "up", "--json", "--data-dir", folder, *PORTS],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()) | {"pid": str(process.pid)}
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0


@pytest.fixture
def client(up: dict[str, str]) -> Iterator[Client]:
    with Client(up["url"], up["api_key"], timeout=30) as client:
        yield client


@pytest.fixture
async def async_client(up: dict[str, str]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(up["url"], up["api_key"], timeout=30) as client:
        yield client


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


# ------------------------------------------------------------------ one


async def test_each_endpoint_answers(async_client: AsyncClient) -> None:
    answer, vector, vectors, label, labels = await asyncio.gather(
        async_client.generate("Name a river.", params={"max_tokens": 4, "num_generations": 2}),
        async_client.embed("a"),
        async_client.embed([f"text {n}" for n in range(100)]),  # more than a job takes
        async_client.classify("good", EXAMPLES),
        async_client.classify(("good", "bad"), EXAMPLES),
    )

    assert answer.text == answer.texts[0]
    assert len(answer.texts) == 2
    assert answer.characters.input == len("Name a river.")
    assert answer.model == answer.job.model == "command"
    assert answer.job.class_ == "interactive"
    assert isinstance(vector, Embedding)
    assert len(vectors) == 100
    assert len({one.vector for one in vectors}) == 100
    assert isinstance(label, Classification)
    assert label.confidence == label.confidences[label.label]
    assert [one.label in {"yes", "no"} for one in labels] == [True, True]


async def test_nothing_to_embed_is_nothing(async_client: AsyncClient) -> None:
    assert await async_client.embed([]) == []
    assert await async_client.submit_many([]) == []
    none: list[str] = []
    assert [one async for one in async_client.map(none)] == []


def test_a_bad_request_names_the_field(client: Client) -> None:
    with pytest.raises(BadRequest) as error:
        client.generate("x", params={"temperature": 99})
    assert error.value.errors[0].pointer == "/params/temperature"
    assert error.value.request_id
    assert error.value.request_id in str(error.value)


def test_a_wrong_key_is_refused(up: dict[str, str]) -> None:
    with Client(up["url"], up["api_key"][:-4] + "AAAA") as client, pytest.raises(Unauthorized):
        client.limits()


def test_a_job_is_waited_for_cancelled_and_asked_again(client: Client) -> None:
    with pytest.raises(JobTimeout) as late:
        client.embed("x", not_before=later(), timeout=0.3)
    job_id = late.value.job_id
    assert client.jobs.explain(job_id).goes is not None
    with pytest.raises(Conflict):
        client.jobs.retry(job_id)

    with pytest.raises(JobTimeout, match="cancelled"):
        client.embed("x", not_before=later(), timeout=0.3, cancel_on_timeout=True)
    assert client.jobs.cancel(job_id).state == "cancelled"
    ended = client.wait(job_id)
    with pytest.raises(JobFailed, match="cancelled"):
        ended.answer()

    again = client.jobs.retry(job_id)
    assert again.again_of == job_id
    assert isinstance(client.wait(again).answer(), Embedding)
    client.jobs.delete(again)
    with pytest.raises(NotFound):
        client.jobs.get(again)


def test_a_key_of_ones_own_is_one_job(client: Client) -> None:
    jobs = [client.submit("embed", "x", idempotency_key="own-1") for _ in range(2)]
    assert jobs[0].id == jobs[1].id


# ------------------------------------------------------------------ many


async def test_results_come_as_jobs_end(async_client: AsyncClient) -> None:
    waits = await async_client.submit("embed", "x", not_before=later())
    jobs = await async_client.submit_many(
        JobRequest(endpoint="embed", text=f"t{n}", metadata={"for": "results"}) for n in range(40)
    )
    ended = async_client.results([waits, *jobs])
    found = [await anext(ended) for _ in jobs]

    assert {one.item.id for one in found} == {job.id for job in jobs}
    assert all(one.ok for one in found)
    await async_client.jobs.cancel(waits)
    last = await anext(ended)
    assert isinstance(last.error, JobFailed)
    with pytest.raises(StopAsyncIteration):
        await anext(ended)
    listed = [job.id async for job in async_client.jobs.list(search="results", page=15)]
    assert listed == [job.id for job in reversed(jobs)]


async def test_a_map_answers_each_item_once(async_client: AsyncClient) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(400):
            yield number

    seen = [
        one.item
        async for one in async_client.map(items(), endpoint="embed", text=str, concurrency=300)
        if one.ok
    ]

    assert sorted(seen) == list(range(400))


async def test_a_producer_that_dies_under_a_map_costs_no_item_and_makes_none_twice(
    up: dict[str, str], async_client: AsyncClient
) -> None:
    seen: list[int] = []
    mapped = async_client.map(
        range(300), endpoint="embed", text=str, concurrency=200, metadata={"for": "death"}
    )
    async for result in mapped:
        assert result.ok, result.error
        seen.append(result.item)
        if len(seen) == 100:
            os.kill(_producer(int(up["pid"])), signal.SIGKILL)

    assert sorted(seen) == list(range(300))
    listed = [job.id async for job in async_client.jobs.list(search="death", page=1_000)]
    assert len(listed) == len(set(listed)) == 300


def _producer(parent: int) -> int:
    """The process that serves HTTP, among the children of `millpond up`."""
    told = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True
    )
    [found] = [row.split()[0] for row in told.stdout.splitlines() if " producer" in row]
    return int(found)


def test_a_map_may_be_ordered_and_reads_items_in_the_thread_that_asks(client: Client) -> None:
    readers = set()

    def items() -> Iterator[str]:
        for number in range(200):
            readers.add(threading.current_thread())
            yield f"text {number}"

    found = list(client.map(items(), endpoint="embed", ordered=True, concurrency=100))

    assert [one.index for one in found] == list(range(200))
    assert all(one.ok for one in found)
    assert readers == {threading.current_thread()}


def test_a_map_may_be_left_and_the_client_used_on(client: Client) -> None:
    for result in client.map((f"t{n}" for n in range(10**9)), endpoint="embed", concurrency=50):
        assert result.ok
        break
    assert client.limits().org.id == "demo"


def test_an_iterable_that_breaks_is_told_where_it_is_mapped(client: Client) -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        list(client.map(items(), endpoint="embed"))


def test_how_things_stand_is_typed(client: Client) -> None:
    client.embed("a")
    limits = client.limits()

    assert limits.endpoints["generate"].limits[0].limit == "60/60s"
    assert limits.org.quota is not None
    assert "command" in [model.id for model in client.models()]
    assert client.usage(days=1, endpoint="embed").rows[0].characters > 0


async def test_events_tell_of_jobs(async_client: AsyncClient) -> None:
    async def submit() -> str:
        await asyncio.sleep(0.5)  # the stream begins with what happens after it was opened
        return (await async_client.submit("embed", "x")).id

    submitting = asyncio.create_task(submit())
    seen = []
    async with asyncio.timeout(20):
        async for event in async_client.events():
            seen.append(event)
            if submitting.done() and event.data.get("job") == submitting.result():
                break
    assert seen[-1].kind == "job"
    assert seen[-1].data["state"] == "succeeded"


# ------------------------------------------------------------------ loops, threads, ends


async def test_a_client_works_inside_a_running_loop_as_in_a_notebook(client: Client) -> None:
    assert asyncio.get_running_loop().is_running()

    assert isinstance(client.embed("a"), Embedding)
    assert len([one for one in client.map(["a", "b"], endpoint="embed") if one.ok]) == 2


def test_threads_may_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.embed, [f"thread {n}" for n in range(24)]))
    assert len(found) == 24


def test_a_closed_client_has_no_thread_and_says_so(up: dict[str, str]) -> None:
    before = set(threading.enumerate())
    client = Client(up["url"], up["api_key"])
    client.limits()
    assert set(threading.enumerate()) - before
    client.close()
    client.close()
    assert not set(threading.enumerate()) - before
    with pytest.raises(ClientError, match="closed"):
        client.limits()


def test_a_client_that_is_forgotten_ends_its_thread(up: dict[str, str]) -> None:
    before = set(threading.enumerate())
    client = Client(up["url"], up["api_key"])
    client.limits()
    del client
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "iterator = client.map(map(str, range(10**9)), endpoint='embed'); next(iterator)",
        "threading.Thread(target=wait, daemon=True).start()",
        "os.fork() or os._exit(client.limits().org.id != 'demo'); assert os.wait()[1] == 0",
    ],
)
def test_a_program_ends_cleanly_with_a_client_open(up: dict[str, str], ending: str) -> None:
    code = f"""
import datetime, os, threading
from millpond import Client
from millpond.client import ClientError
client = Client()
client.limits()
soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
waits = client.submit("embed", "x", not_before=soon).id
def wait():
    try:
        client.wait(waits)
    except ClientError as closed:
        assert "closed" in str(closed)
{ending}
print("done")
"""
    began = time.monotonic()
    told = _run(up, code, *DEV)
    assert told.stdout == "done\n"
    assert told.stderr == ""
    assert time.monotonic() - began < 10


def test_an_interrupt_ends_what_one_waits_for(up: dict[str, str]) -> None:
    code = """
import datetime, os, signal, threading
from millpond import Client
with Client() as client:
    client.limits()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    try:
        client.embed("x", not_before=soon)
    except KeyboardInterrupt:
        print("interrupted", client.limits().org.id)
"""
    told = _run(up, code, *DEV)
    assert (told.stdout, told.stderr) == ("interrupted demo\n", "")


# ------------------------------------------------------------------ the guide


def _snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(_snippets())))
def test_the_guide_is_true(up: dict[str, str], number: int) -> None:
    told = _run(up, _snippets()[number])
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""


def _run(up: dict[str, str], code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    known = {"MILLPOND_URL": up["url"], "MILLPOND_API_KEY": up["api_key"]}
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        timeout=60,
    )
