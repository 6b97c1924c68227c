"""flushed: rows that are safe elsewhere leave, with their jobs."""

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


async def test_rows_up_to_the_last_that_is_safe_leave_with_their_jobs(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one)
    await pond.settle(two)
    _call1, job1, call2, job2 = await pond.rows()

    assert await pond.store.flushed("f", job1.id) == 1

    assert [row.id for row in await pond.rows()] == [call2.id, job2.id]
    assert await pond.state("j1") is None
    assert await pond.state("j2") == "succeeded"


async def test_a_job_that_is_not_ended_keeps_its_place_though_its_calls_row_leaves(
    pond: Pond,
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, "retry", delay_ms=1_000)
    [row] = await pond.rows()

    assert await pond.store.flushed("f", row.id) == 1

    assert await pond.state("j1") == "queued"
    assert await pond.number("f:f", "open") == 1


async def test_said_again_it_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.bring(State.SUCCEEDED)
    last = (await pond.rows())[-1].id
    await pond.store.flushed("f", last)
    before = await everything(redis)

    assert await pond.store.flushed("f", last) == 0

    assert await everything(redis) == before


async def test_without_a_row_nothing_leaves(pond: Pond, redis: Redis) -> None:
    await pond.bring(State.SUCCEEDED)
    before = await everything(redis)

    assert await pond.store.flushed("f", None) == 1

    assert await everything(redis) == before


@pytest.mark.parametrize("state", sorted(set(State) - {State.SUCCEEDED, State.FAILED}))
async def test_done_is_not_heard_while_a_job_is_open(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    before = await everything(redis)

    assert await pond.store.flushed("f", None, done=True) == 1

    assert await everything(redis) == before


async def test_done_is_not_heard_while_a_row_is_not_safe(pond: Pond, redis: Redis) -> None:
    await pond.bring(State.SUCCEEDED)
    before = await everything(redis)

    assert await pond.store.flushed("f", None, done=True) == 1

    assert await everything(redis) == before


async def test_done_takes_everything_of_the_flow_away(pond: Pond, redis: Redis) -> None:
    await pond.open(flow="other", quota=250)
    lane = "l:acme.generate"
    nothing_of_it = set(await everything(redis)) | {f"{lane}:s", "ready:acme"}
    await pond.open(flow="flow-x", quota=250)
    one, two = await pond.run("j1", "j2", flow="flow-x")
    await pond.accept("j3", flow="flow-x")
    await pond.release()
    await pond.settle(one, "retry", delay_ms=1_000)
    await pond.settle(two, "failed")
    await pond.jump(1_000)
    await pond.store.promote(200)
    await pond.store.promote(200)
    await pond.release()
    for call in await pond.claim():
        await pond.settle(call, used=1)
    await pond.store.promote(200)
    await pond.release()
    for call in await pond.claim():
        await pond.settle(call, used=1)
    last = (await pond.rows("flow-x"))[-1].id

    assert await pond.store.flushed("flow-x", last, done=True) == 0

    # `soon` may still name it for a look that finds nothing.
    await pond.store.promote(200)
    await pond.release()
    left = await everything(redis, without=["o:acme:audit", "o:acme:led", "o:acme:ev"])
    assert [key for key in left if "flow-x" in key or "flow-x" in str(left[key])] == []
    assert [key for key in left if key[:2] in {"j:", "y:", "c:"}] == []
    tags = {f"{lane}:c:idle", f"{lane}:u:b:idle", f"{lane}:f:b::idle"}
    assert set(left) - nothing_of_it - tags <= {"w:w", "workers", "turn", "due", "bell:w:acme"}


async def test_after_that_the_flow_is_unknown_and_done_again_is_harmless(
    pond: Pond, redis: Redis
) -> None:
    await pond.bring(State.FAILED)
    await pond.store.flushed("f", (await pond.rows())[-1].id, done=True)
    before = await everything(redis)

    assert await pond.store.flushed("f", None, done=True) == 0

    assert await everything(redis) == before
    with pytest.raises(UnknownFlow):
        await pond.accept("j2")


async def test_many_rows_leave_in_several_steps(pond: Pond) -> None:
    await pond.open()
    for i in range(2_500):
        await pond.command("XADD", f"{PREFIX}f:f:out", f"1-{i + 1}", "call", i)

    assert await pond.store.flushed("f", "1-2400") == 0

    assert len(await pond.rows()) == 100
