"""arq beside the pump: what its own command is told, and that its end is not ours."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from arq.worker import Worker, get_kwargs
from redis.asyncio import Redis

from conftest import lane
from millpond.errors import Refused
from millpond.store.gateway import BadAddress, Gateway, connect
from millpond.store.singles import PURGE_MOST, Singles
from millpond.store.store import Store
from millpond.worker import background

Patch = pytest.MonkeyPatch
DAY_MS = 86_400_000
KEEP = background.Keep(answers_ms=1_000, ledger_ms=DAY_MS, audit_ms=DAY_MS)
LEDGER, USAGE = "mp:t:o:acme:led", "mp:t:o:acme:use:"


def told(patch: Patch, **settings: str) -> dict[str, Any]:
    """What `arq millpond.worker.background.WorkerSettings` is told under some settings."""
    for name, value in settings.items():
        patch.setenv(f"MILLPOND_{name}", value)
    found: dict[str, Any] = get_kwargs(background.WorkerSettings)
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://there", {"host": "there", "port": 6379, "database": 0, "ssl": False}),
        ("rediss://a:p%40ss@there:1/2", {"username": "a", "password": "p@ss", "ssl": True}),
        ("rediss://there:1/2", {"host": "there", "port": 1, "database": 2}),
        ("unix:///tmp/s?db=3", {"unix_socket_path": "/tmp/s", "database": 3, "ssl": False}),
    ],
)
def test_arqs_command_finds_the_server_as_we_do(
    monkeypatch: Patch, url: str, expected: dict[str, Any]
) -> None:
    server = told(monkeypatch, REDIS_URL=url)["redis_settings"]

    assert {name: getattr(server, name) for name in expected} == expected


def test_it_is_told_the_queue_of_the_partition_and_where_the_queue_is(monkeypatch: Patch) -> None:
    here = told(monkeypatch, REDIS_URL="redis://x", QUEUE_URL="redis://y", PARTITION="7")

    assert here["queue_name"] == "mp:7:arq"
    assert here["redis_settings"].host == "y"


def test_it_is_told_of_no_function_so_it_can_run_no_worker(monkeypatch: Patch) -> None:
    here = told(monkeypatch, REDIS_URL="redis://x")

    assert set(here) == {"redis_settings", "queue_name"}
    with pytest.raises(RuntimeError, match="at least one function"):
        Worker(**here)


def test_without_an_address_it_is_refused(monkeypatch: Patch) -> None:
    with pytest.raises(Refused, match="MILLPOND_QUEUE_URL"):
        told(monkeypatch)


@pytest.mark.parametrize("name", ["REDIS_URL", "QUEUE_URL"])
def test_an_address_that_is_none_is_refused_under_its_own_name(
    monkeypatch: Patch, name: str
) -> None:
    monkeypatch.setenv("MILLPOND_REDIS_URL", "redis://there")

    with pytest.raises(BadAddress, match=f"^MILLPOND_{name} is no address: write redis://"):
        told(monkeypatch, **{name: "redis://there:port"})


def test_an_attribute_that_is_not_there_is_not_there() -> None:
    with pytest.raises(AttributeError, match="Workers"):
        _ = background.Workers


@asynccontextmanager
async def running(redis: Redis, *, partition: str = "t") -> AsyncIterator[list[str]]:
    """arq runs as long as the block; what it has logged. It has ended with the block."""
    events: list[str] = []

    def note(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        events.append(event["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[note])
    task = asyncio.create_task(background.run(redis, Store(Gateway(redis, partition)), KEEP))
    try:
        async with asyncio.timeout(20):
            yield events
    finally:
        while not task.done():  # arq may lose a cancellation as it starts
            task.cancel()
            await asyncio.wait([task], timeout=0.5)
    assert task.cancelled()


async def test_arq_is_begun_again_as_long_as_its_server_is_away(monkeypatch: Patch) -> None:
    monkeypatch.setattr(background, "_AGAIN_S", 0.01)
    async with connect("unix:///nowhere/s") as redis, running(redis) as events:
        while len(events) < 3:  # noqa: ASYNC110 (it is the log that is looked at)
            await asyncio.sleep(0.01)

    assert set(events) == {"background_ended"}


async def test_what_arq_cannot_live_with_in_its_queue_is_thrown_away(
    monkeypatch: Patch, redis: Redis
) -> None:
    monkeypatch.setattr(background, "_AGAIN_S", 0.01)
    await redis.set("mp:t:arq", "no queue")

    async with running(redis) as events:
        while not await redis.exists("mp:t:arq:health-check"):  # noqa: ASYNC110 (so is the server)
            await asyncio.sleep(0.01)

    assert events == ["background_broke"]
    assert await redis.get("mp:t:arq") is None


async def test_one_that_ends_leaves_the_sign_that_others_of_the_queue_are_well(
    redis: Redis,
) -> None:
    async with running(redis):
        while not await redis.exists("mp:t:arq:health-check"):  # noqa: ASYNC110 (so is the server)
            await asyncio.sleep(0.01)

    assert await redis.exists("mp:t:arq:health-check")


async def test_old_jobs_are_purged_step_by_step(
    monkeypatch: Patch, redis: Redis, store: Store
) -> None:
    left = [PURGE_MOST, PURGE_MOST, 3]
    asked: list[int] = []

    async def purge(_: Singles, *, kept_ms: int) -> int:
        asked.append(kept_ms)
        return left.pop(0)

    monkeypatch.setattr(Singles, "purge", purge)
    await background.purge_old_jobs({"store": store, "keep": KEEP})

    assert asked == [KEEP.answers_ms] * 3


async def test_old_rows_leave_ledger_audit_and_usage(redis: Redis, store: Store) -> None:
    await store.set_flow("f", lane(), attempts=1, crashes=1)
    seconds, _ = await redis.time()
    today = store.gateway.now_ms // DAY_MS
    for age_days in (6, 2, 0):
        await redis.xadd(LEDGER, {"n": 1}, id=f"{(seconds - age_days * 86_400) * 1_000}-1")
        await redis.set(f"{USAGE}{today - age_days}", 1)
    await background.trim_old_records({"store": store, "keep": KEEP})

    assert await redis.xlen(LEDGER) == await redis.xlen("mp:t:o:acme:audit") == 1
    assert await redis.keys(f"{USAGE}*") == [f"{USAGE}{today}".encode()]


async def test_two_partitions_of_a_server_run_what_is_due_each(
    monkeypatch: Patch, redis: Redis
) -> None:
    ran: dict[str, set[str]] = {"t": set(), "u": set()}

    async def note(ctx: dict[str, Any]) -> None:
        due = ctx["job_id"].rpartition(":")[2]
        ran[ctx["store"].gateway.partition].add(due)

    monkeypatch.setattr(background, "_AT_SECONDS", set(range(60)))
    monkeypatch.setattr(background, "forget_lost_calls", note)
    async with running(redis), running(redis, partition="u"):
        while not ran["t"] & ran["u"]:  # noqa: ASYNC110 (so is what ran)
            await asyncio.sleep(0.01)


async def test_a_job_in_progress_is_ended_with_arq(monkeypatch: Patch, redis: Redis) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(ctx: dict[str, Any]) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(background, "_AT_SECONDS", set(range(60)))
    monkeypatch.setattr(background, "forget_lost_calls", endless)
    async with running(redis):
        await begun.wait()

    assert ended.is_set()
