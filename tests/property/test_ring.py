"""The counters of a window never tell less than what is in it, and hardly more."""

import asyncio
import math
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.store import keys
from millpond.store.gateway import Gateway, connect
from millpond.store.store import NewJob, Store, WorkerState

WINDOW_MS = 6_000
#: (window + 2 s ahead) / 478, rounded up: how long one counter is.
COUNTER_MS = math.ceil((WINDOW_MS + 2_000) / 478)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


steps = st.lists(
    st.tuples(
        st.integers(0, 3 * WINDOW_MS),      # ms that pass before
        st.integers(0, 1_000),              # tokens that the call used
        st.integers(-1_000, 2 * WINDOW_MS), # ms since it was counted; negative: may still be
    ),
    min_size=1,
    max_size=30,
)  # fmt: skip


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_a_window_is_told_as_full_as_it_is_and_at_most_a_counter_longer(
    server_url: str, runner: asyncio.Runner, steps: list[tuple[int, int, int]]
) -> None:
    runner.run(play(server_url, steps))


async def play(url: str, steps: list[tuple[int, int, int]]) -> None:
    async with connect(url) as redis:
        time = TestTime()
        store = await opened(redis, time)
        stamped: list[tuple[int, int]] = []
        for number, (passes_ms, tokens, since_ms) in enumerate(steps):
            time.advance(passes_ms)
            call = await one_call(store, number)
            ended = Settlement(
                call,
                store.gateway.monotonic_ms() - since_ms,
                0,
                (JobEnd(call.jobs[0].id, "succeeded"),),
                tokens,
            )
            assert await store.settle([ended]) == ["settled"]
            stamped.append((time.now_ms + 1 - since_ms, tokens))
            await check(store, time, stamped)
        for _ in range(10):
            time.advance(WINDOW_MS // 7)
            await check(store, time, stamped)


async def opened(redis: Redis, time: TestTime) -> Store:
    await redis.flushall()
    await redis.hset(f"{keys.prefix(PARTITION)}m", "test", "1")  # type: ignore[misc]
    store = Store(Gateway(redis, PARTITION, time=time))
    await store.hello()
    await store.set_flow("f", lane("1000000tokens/6s"), attempts=3, crashes=3)
    return store


async def one_call(store: Store, number: int) -> Claimed:
    job = NewJob(f"f.{number}", 0, "0,1", b"{}", tokens=1_000)
    await store.accept("f", [job])
    await store.heartbeat(WorkerState("w", "acme", 10, number, 30_000, store.gateway.life, []))
    await store.release(1)
    claimed = await store.claim("w", number + 1, 1)
    assert claimed
    assert claimed[0].jobs == (ClaimedJob(f"f.{number}", 0, b"{}", attempts=3),)
    return claimed[0]


async def check(store: Store, time: TestTime, stamped: list[tuple[int, int]]) -> None:
    [window] = (await store.look("f")).lane.windows
    inside = sum(of for at, of in stamped if at > time.now_ms - WINDOW_MS)
    nearly = sum(of for at, of in stamped if at > time.now_ms - WINDOW_MS - COUNTER_MS)
    assert inside <= window.used <= nearly
