"""After the provider refused what our books allow, a lane uses less of its limits for a while."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.store.store import Store
from store.pond import Pond


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def refuse(pond: Pond, *jobs: str) -> None:
    for call in [await pond.run(job) for job in jobs]:
        [claimed] = call
        await pond.settle(claimed, "retry", used=0, refused=True, shut_ms=1)


async def test_each_refusal_takes_away_what_one_call_is_of_the_limit(pond: Pond) -> None:
    await pond.open("10/60s")

    await refuse(pond, "j1")

    assert round((await pond.store.look("f")).lane.share, 3) == 0.9


async def test_calls_are_evenly_spaced_meanwhile(pond: Pond, time: TestTime) -> None:
    await pond.open("10/60s")
    await refuse(pond, "j1")
    await pond.accept("j2", "j3")
    await pond.beat()
    time.advance(1)

    assert (await pond.release())[0] == 1
    released, wait_ms = await pond.release()
    assert released == 0
    assert wait_ms is not None
    assert 6_600 <= wait_ms <= 6_667  # a window, by nine tenths of ten calls


async def test_it_climbs_back_a_twentieth_with_every_window(pond: Pond, time: TestTime) -> None:
    await pond.open("10/60s")
    await refuse(pond, "j1")

    time.advance(60_000)
    assert round((await pond.store.look("f")).lane.share, 3) == 0.95
    time.advance(60_000)
    assert (await pond.store.look("f")).lane.share == 1


async def test_only_the_shortest_window_is_used_less(pond: Pond, time: TestTime) -> None:
    """Of a day's limit a refusal takes nothing: who refuses counts minutes."""
    await pond.open("10/60s", "3/1d")
    await refuse(pond, "j1")
    time.advance(1)
    [call] = await pond.run("j2")
    await pond.settle(call)
    time.advance(61_000)
    await pond.accept("j3")
    await pond.beat()

    assert (await pond.release())[0] == 1


async def test_what_waits_for_a_token_goes_once_the_whole_limit_is_used_again(
    pond: Pond, time: TestTime
) -> None:
    await pond.open("10/60s")
    await refuse(pond, "j1")
    time.advance(120_000 - 1_000)  # a second before its share has climbed back
    await pond.accept("j2", "j3")
    await pond.beat()

    assert (await pond.release())[0] == 1
    released, wait_ms = await pond.release()
    assert released == 0
    assert wait_ms is not None
    assert wait_ms <= 1_001  # its token would take six seconds


async def test_a_careful_lane_is_looked_at_again_after_a_window_at_the_latest(
    pond: Pond, time: TestTime
) -> None:
    await pond.open("1/60s")
    await refuse(pond, "j1")
    await pond.accept("j2")
    await pond.beat()
    time.advance(1)

    released, wait_ms = await pond.release()

    assert released == 0
    assert wait_ms is not None
    assert wait_ms <= 60_000
