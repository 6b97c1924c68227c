"""pause: a flow takes no more turns until it is set again."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.store.store import Store
from store.pond import Pond, everything, names


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_paused_flow_takes_no_turn_and_keeps_its_jobs(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()

    await pond.store.pause("f")

    assert await pond.release() == (0, None)
    assert await pond.line() == ["j1"]


async def test_what_it_has_in_flight_ends_as_usual(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.store.pause("f")

    await pond.settle(one, "succeeded")
    await pond.store.give_back("w", [two.id], unreachable=False)

    assert await pond.state("j1") == "succeeded"
    assert await pond.line() == ["j2"]
    assert await pond.release() == (0, None)


async def test_others_go_on(pond: Pond) -> None:
    await pond.open(flow="f")
    await pond.open(flow="g")
    await pond.accept("f1", flow="f")
    await pond.accept("g1", flow="g")
    await pond.beat()

    await pond.store.pause("f")
    await pond.release()

    assert names(await pond.claim()) == ["g1"]


async def test_all_others_can_be_paused_instead(pond: Pond) -> None:
    await pond.open(flow="f")
    await pond.open(flow="g")
    await pond.open(flow="h", org="beta")
    await pond.accept("f1", flow="f")
    await pond.accept("g1", flow="g")
    await pond.accept("h1", flow="h")
    await pond.beat()
    await pond.beat("b", pool="beta")

    await pond.store.pause_others("f")

    assert await pond.release() == (1, None)
    assert names(await pond.claim()) == ["f1"]


async def test_pausing_twice_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    await pond.store.pause("f")
    before = await everything(redis)

    await pond.store.pause("f")

    assert await everything(redis) == before


async def test_an_unknown_flow_is_left_unknown(pond: Pond, redis: Redis) -> None:
    await pond.open()
    before = await everything(redis)

    await pond.store.pause("g")

    assert await everything(redis) == before


async def test_a_lane_that_waited_for_a_paused_flow_goes_on_with_others(pond: Pond) -> None:
    """The head of `f` needs what only the end of a call would free; the other flow's job fits."""
    await pond.open("6/60s", "300characters/60s", endpoint="embed")
    await pond.open("6/60s", "300characters/60s", endpoint="embed", flow="g")
    await pond.jump(61_000)
    await pond.accept("j1", need=200)
    await pond.beat()
    await pond.release()
    assert names(await pond.claim()) == ["j1"]
    await pond.accept("j2", need=200)
    await pond.release()
    await pond.accept("j3", flow="g", need=50)
    assert (await pond.release())[0] == 0

    await pond.store.pause("f")
    await pond.release()

    assert names(await pond.claim()) == ["j3"]
