"""promote: what waited for a time or for quota is first in line again."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.store.store import Store
from store.pond import Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def park(pond: Pond, **needs: int) -> None:
    """Jobs that do not fit into the quota."""
    for job, need in needs.items():
        await pond.accept(job, need=need)
    await pond.beat()
    await pond.release()
    assert await pond.scores("f:f:parked") == needs


async def test_nothing_is_brought_back_before_its_time_and_nothing_changes(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.promote(200)
    await pond.settle(call, "retry", delay_ms=2_000)
    before = await everything(redis)

    assert await pond.store.promote(200) == (0, 2_000)

    assert await everything(redis) == before


async def test_jobs_come_back_each_at_its_own_time(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one, "retry", delay_ms=3_000)
    await pond.settle(two, "retry", delay_ms=1_000)

    await pond.jump(1_000)
    assert await pond.store.promote(200) == (1, 2_000)
    assert await pond.line() == ["j2"]
    await pond.jump(2_000)
    assert await pond.store.promote(200) == (1, None)
    assert await pond.line() == ["j1", "j2"]


async def test_jobs_that_come_back_together_keep_their_order(pond: Pond) -> None:
    await pond.open()
    one, two, three = await pond.run("j1", "j2", "j3")
    await pond.settle(one, "retry", delay_ms=1_000)
    await pond.settle(two, "retry", delay_ms=2_000)
    await pond.settle(three, "retry", delay_ms=3_000)
    await pond.jump(3_000)

    assert await pond.store.promote(200) == (3, None)

    assert await pond.line() == ["j1", "j2", "j3"]


async def test_more_quota_brings_back_as_many_parked_jobs_as_fit_the_smallest_first(
    pond: Pond,
) -> None:
    await pond.open(quota=0)
    await park(pond, big=300, middle=200, small=100)

    await pond.open(quota=300)
    assert await pond.store.promote(200) == (2, None)

    assert await pond.line() == ["small", "middle"]
    assert await pond.scores("f:f:parked") == {"big": 300}
    assert sorted(await pond.scores("o:acme:parked")) == ["f"]


async def test_without_a_quota_all_parked_jobs_come_back(pond: Pond) -> None:
    await pond.open(quota=0)
    await park(pond, big=300, small=100)

    await pond.open(quota=None)
    assert await pond.store.promote(200) == (2, None)

    assert sorted(await pond.scores("o:acme:parked")) == []


async def test_no_more_jobs_come_back_than_were_asked_for_and_the_rest_is_due_at_once(
    pond: Pond,
) -> None:
    await pond.open(quota=0)
    await park(pond, a=1, b=2, c=3)
    await pond.open(quota=300)

    assert await pond.store.promote(2) == (2, 0)
    assert await pond.store.promote(2) == (1, None)

    assert await pond.scores("f:f:parked") == {}


async def test_jobs_of_a_paused_flow_come_back_but_take_no_turn(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.pause("f")
    await pond.settle(call, "retry", delay_ms=1_000)
    await pond.jump(1_000)

    assert await pond.store.promote(200) == (1, None)

    assert await pond.line() == ["j1"]
    assert await pond.scores("l:acme.generate:f:b:") == {}
