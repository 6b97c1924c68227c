"""forget: lost calls whose answer will not come any more."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.store.store import Store
from store.pond import Pond, everything

AGE_MS = 86_400_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def lose(pond: Pond, *ids: str) -> list[str]:
    """Calls of these jobs are lost; their ids."""
    calls = await pond.run(*ids)
    await pond.store.leave("w")
    await pond.store.reap()
    return [call.id for call in calls]


async def test_an_old_lost_call_leaves_and_its_reservation_stays_charged(pond: Pond) -> None:
    await pond.open()
    [call] = await lose(pond, "j1")
    await pond.jump(AGE_MS)

    assert await pond.store.forget("acme", age_ms=AGE_MS, most=200) == 1

    assert await pond.scores("o:acme:lost") == {}
    assert await pond.fields(f"c:{call}") == {}
    assert await pond.books() == (0, 100, 0)


async def test_a_younger_one_is_still_expected_and_nothing_changes(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await lose(pond, "j1")
    await pond.jump(AGE_MS - 1)
    before = await everything(redis)

    assert await pond.store.forget("acme", age_ms=AGE_MS, most=200) == 0

    assert await everything(redis) == before


async def test_an_answer_that_comes_after_that_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await lose(pond, "j1")
    await pond.jump(AGE_MS)
    await pond.store.forget("acme", age_ms=AGE_MS, most=200)
    before = await everything(redis)

    assert await pond.settle(call) == "late"

    assert await everything(redis) == before


async def test_no_more_are_forgotten_than_were_asked_for(pond: Pond) -> None:
    await pond.open()
    await lose(pond, "j1", "j2", "j3")
    await pond.jump(AGE_MS)

    assert await pond.store.forget("acme", age_ms=AGE_MS, most=2) == 2
    assert await pond.store.forget("acme", age_ms=AGE_MS, most=2) == 1


async def test_an_unknown_org_has_nothing_to_forget(pond: Pond, redis: Redis) -> None:
    await pond.open()
    before = await everything(redis)

    assert await pond.store.forget("nobody", age_ms=0, most=200) == 0

    assert await everything(redis) == before
