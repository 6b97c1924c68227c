"""give_back: calls that were never sent end as if they had not been."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import State
from millpond.store.store import Store
from store.pond import Pond, everything, names

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_call_that_was_never_sent_costs_nothing_and_its_job_is_first_in_line(
    pond: Pond,
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.accept("j2")

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await pond.state("j1") == "queued"
    assert await pond.field("j:j1", "call") is None
    assert await pond.field("j:j1", "attempts") is None
    assert await pond.line() == ["j1", "j2"]
    assert await pond.flight() == 0
    assert await pond.stamps() == []
    assert await pond.books() == (0, 0, 0)
    assert await pond.flow_books() == (0, 0, 0)
    assert await pond.fields(f"c:{call.id}") == {}
    assert await pond.number("m", "free:acme") == 10
    assert await pond.number("f:f", "calls") == 0
    assert [row.fields for row in await pond.rows()] == [
        {"call": call.id, "jobs": "j1", "outcome": "unsent", "characters": "0"}
    ]


async def test_the_next_call_of_the_job_is_another_one(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.give_back("w", [call.id], unreachable=False)

    await pond.release()
    [again] = await pond.claim()

    assert again.id != call.id
    assert names([again]) == ["j1"]


@pytest.mark.parametrize("state", sorted(set(State) - {State.RUNNING}))
async def test_a_call_in_any_other_state_is_left_alone(
    pond: Pond, redis: Redis, state: State
) -> None:
    """A released call belongs to no worker: `claim` gives it back if its flow or lane is paused."""
    call = await pond.bring(state)
    before = await everything(redis)

    await pond.store.give_back("w", [call], unreachable=True)

    assert await everything(redis) == before


async def test_another_workers_call_is_left_alone(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.beat("w2")
    before = await everything(redis)

    await pond.store.give_back("w2", [call.id], unreachable=True)

    assert await everything(redis) == before


async def test_a_lost_call_is_left_alone_since_it_may_have_been_sent(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.leave("w")
    await pond.store.reap()
    before = await everything(redis)

    await pond.store.give_back("w", [call.id], unreachable=True)

    assert await everything(redis) == before


async def test_giving_back_twice_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.give_back("w", [call.id], unreachable=False)
    before = await everything(redis)

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await everything(redis) == before


async def test_an_unreachable_provider_shuts_the_lane_for_a_while_that_doubles(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    began_ms = pond.now_ms

    shut_for: list[int] = []
    for _ in range(7):
        await pond.release()
        [call] = await pond.claim()
        await pond.store.give_back("w", [call.id], unreachable=True)
        shut_for.append(await pond.number(LANE, "shut_until") - pond.now_ms)
        assert await pond.release() == (0, shut_for[-1])
        await pond.jump(shut_for[-1])

    assert shut_for == [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]
    assert await pond.field(LANE, "shut_reason") == "unreachable"
    assert await pond.number(LANE, "unreachable_since") == began_ms


async def test_calls_that_fail_together_shut_the_lane_once(pond: Pond) -> None:
    await pond.open()
    calls = await pond.run("j1", "j2", "j3")

    await pond.store.give_back("w", [call.id for call in calls[:2]], unreachable=True)
    await pond.store.give_back("w", [calls[2].id], unreachable=True)

    assert await pond.number(LANE, "unreachable") == 1
    assert await pond.number(LANE, "shut_until") == pond.now_ms + 500


async def test_the_place_that_was_held_is_free_at_once(pond: Pond) -> None:
    await pond.open("2/10s")
    await pond.put_stamps(1_000)
    [call] = await pond.run("j1")
    await pond.accept("j2")
    assert await pond.release() == (0, 9_000)

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await pond.release() == (1, 9_000)


async def test_calls_that_are_given_back_together_keep_their_order(pond: Pond) -> None:
    await pond.open()
    calls = await pond.run("j1", "j2", "j3")

    await pond.store.give_back("w", [call.id for call in calls], unreachable=False)

    assert await pond.line() == ["j1", "j2", "j3"]


async def test_the_quota_that_was_reserved_brings_back_a_parked_job(pond: Pond) -> None:
    await pond.open(quota=100)
    [call] = await pond.run("j1")
    await pond.accept("j2", need=50)
    await pond.release()
    assert await pond.scores("f:f:parked") == {"j2": 50}

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await pond.store.promote(200) == (1, None)
