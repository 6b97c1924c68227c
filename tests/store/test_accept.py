"""accept: jobs enter their flow."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import State
from millpond.errors import UnknownFlow
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_jobs_are_queued_in_the_order_they_came(pond: Pond) -> None:
    await pond.open()

    assert await pond.accept("j1", "j2") == 2
    assert await pond.accept("j3") == 3

    assert await pond.line() == ["j1", "j2", "j3"]
    assert await pond.number("f:f", "open") == 3
    assert await pond.number("f:f", "held") == 3


async def test_what_was_told_of_a_job_is_kept_with_it(pond: Pond, redis: Redis) -> None:
    await pond.open()
    await pond.accept("j1", need=120, tokens=7, base=20, pack="k")

    assert await pond.fields("j:j1") == {
        "state": "queued",
        "flow": "f",
        "entry": "120|j1|7|20|k",
        "note": "note of j1",
    }
    assert await redis.get(f"{PREFIX}y:j1") == b"payload of j1"


async def test_accepting_the_same_jobs_again_gives_the_same_answer_and_adds_nothing(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    assert await pond.accept("j1", "j2") == 2
    before = await everything(redis)

    assert await pond.accept("j1", "j2") == 2

    assert await everything(redis) == before


async def test_of_known_and_new_jobs_only_the_new_ones_are_added(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2")

    assert await pond.accept("j2", "j3") == 3

    assert await pond.line() == ["j1", "j2", "j3"]


async def test_a_job_named_twice_at_once_is_one_job(pond: Pond) -> None:
    await pond.open()

    assert await pond.accept("j1", "j1") == 1

    assert await pond.line() == ["j1"]


@pytest.mark.parametrize("state", list(State))
async def test_a_known_job_stays_as_it_is_in_every_state(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    before = await everything(redis)

    assert await pond.accept("j1") == 1

    assert await everything(redis) == before


async def test_a_job_that_has_left_may_come_again(pond: Pond) -> None:
    await pond.bring(State.SUCCEEDED)
    rows = await pond.rows()
    assert await pond.store.flushed("f", rows[-1].id) == 0

    assert await pond.accept("j1") == 1

    assert await pond.state("j1") == "queued"


async def test_an_unknown_flow_is_refused_and_nothing_changes(pond: Pond, redis: Redis) -> None:
    await pond.open()
    before = await everything(redis)

    with pytest.raises(UnknownFlow):
        await pond.accept("j1", flow="g")

    assert await everything(redis) == before


async def test_a_lane_where_nothing_waited_is_woken_once(pond: Pond, redis: Redis) -> None:
    await pond.open()
    await pond.beat()
    await pond.release()
    await redis.delete(f"{PREFIX}bell:s")
    assert await pond.scores("due") == {}

    await pond.accept("j1")
    await pond.accept("j2")

    assert await pond.scores("due") == {"acme.generate": pond.now_ms}
    assert await pond.list_of("bell:s") == ["1"]


async def test_a_paused_flow_takes_jobs_but_no_turn(pond: Pond) -> None:
    await pond.open()
    await pond.store.pause("f")

    assert await pond.accept("j1") == 1

    assert await pond.line() == ["j1"]
    assert await pond.scores("l:acme.generate:f:b:") == {}
