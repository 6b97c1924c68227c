"""reap and leave: what dead workers held is taken back."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import State
from millpond.store.store import _DEATH, Store
from store.pond import LEASE_MS, Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_call_of_a_dead_worker_may_have_been_sent_so_it_stays_on_the_books(
    pond: Pond,
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.accept("j2")
    await pond.store.leave("w")

    assert await pond.store.reap() == (1, None)

    assert await pond.flight() == 0
    assert await pond.stamps() == [1_000]
    assert await pond.books() == (0, 100, 0)
    assert await pond.flow_books() == (0, 100, 0)
    assert await pond.field(f"c:{call.id}", "state") == "lost"
    assert await pond.scores("o:acme:lost") == {call.id: pond.now_ms}
    assert await pond.number("f:f", "calls") == 1
    assert [row.fields for row in await pond.rows()] == [
        {"call": call.id, "jobs": "j1", "outcome": "unknown", "characters": "100"}
    ]


async def test_its_job_is_first_in_line_again(pond: Pond) -> None:
    await pond.open()
    [lost] = await pond.run("j1")
    await pond.accept("j2")
    await pond.store.leave("w")

    await pond.store.reap()

    assert await pond.line() == ["j1", "j2"]
    assert await pond.fields("j:j1") == {
        "state": "queued",
        "flow": "f",
        "entry": "100|j1|0|0|",
        "note": "note of j1",
        "call": lost.id,
        "attempts": "1",
        "crashed": "1",
        "errors": _DEATH.decode(),
    }


async def test_a_lane_full_of_a_dead_workers_calls_is_looked_at_again(pond: Pond) -> None:
    await pond.open("1/10s")
    await pond.run("j1")
    assert await pond.release() == (0, None)
    await pond.store.leave("w")

    await pond.store.reap()

    await pond.beat()
    assert await pond.release() == (0, 11_000)


async def test_a_job_that_has_seen_too_many_workers_die_fails(pond: Pond) -> None:
    await pond.open(crashes=2)
    await pond.run("j1")
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.beat()
    await pond.release()
    await pond.claim()
    await pond.store.leave("w")

    assert await pond.store.reap() == (1, None)

    assert await pond.state("j1") == "failed"
    assert await pond.line() == []
    row = (await pond.rows())[-1].fields
    assert row["job"] == "j1"
    assert row["state"] == "failed"
    assert row["attempts"] == "2"
    assert '"code":"worker_died"' in row["body"]
    assert await pond.number("f:f", "open") == 0
    assert await pond.number("f:f", "failed") == 1


async def test_only_workers_whose_lease_has_ended_are_reaped(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2")
    await pond.beat("w1", free=1, lease_ms=1_000)
    await pond.beat("w2", free=1, lease_ms=2_000)
    await pond.release()
    [one] = await pond.claim("w1")
    [two] = await pond.claim("w2")

    await pond.pass_time(1_000)
    assert await pond.store.reap() == (0, 0)
    await pond.pass_time(1)
    assert await pond.store.reap() == (1, 999)

    assert await pond.field(f"c:{one.id}", "state") == "lost"
    assert await pond.field(f"c:{two.id}", "state") == "running"
    assert list(await pond.scores("workers")) == ["w2"]


async def test_a_reaped_workers_slots_are_gone_and_it_must_register_again(pond: Pond) -> None:
    await pond.open()
    await pond.run("j1")
    await pond.beat("w2", free=5)
    await pond.store.leave("w")

    await pond.store.reap()

    assert await pond.number("m", "free:acme") == 5
    assert await pond.fields("w:w") == {}
    assert await pond.members("wc:w") == []
    assert await pond.store.claim("w", 2, 1) is None


async def test_a_worker_that_was_taken_for_dead_may_live_on(pond: Pond) -> None:
    await pond.open()
    [lost] = await pond.run("j1")
    await pond.store.leave("w")
    await pond.store.reap()

    await pond.beat(free=9, held=[lost])

    assert await pond.members("wc:w") == []
    assert await pond.flight() == 0
    assert await pond.settle(lost, used=70) == "settled"
    assert await pond.books() == (0, 0, 70)
    assert await pond.number("m", "free:acme") == 9


@pytest.mark.parametrize("state", sorted(set(State) - {State.RUNNING}))
async def test_a_job_in_any_other_state_is_left_alone_when_its_worker_dies(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    await pond.store.leave("w")
    without = ["m", "w:w", "workers"]
    before = await everything(redis, without=without)

    assert await pond.store.reap() == (0, None)

    assert await everything(redis, without=without) == before


async def test_reaping_again_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    await pond.run("j1")
    await pond.store.leave("w")
    await pond.store.reap()
    before = await everything(redis)

    assert await pond.store.reap() == (0, None)

    assert await everything(redis) == before


async def test_at_most_twenty_calls_are_reaped_at_once(pond: Pond) -> None:
    await pond.open()
    await pond.accept(*(f"j{i}" for i in range(30)))
    await pond.beat(free=30)
    await pond.release()
    await pond.claim(most=30)
    await pond.store.leave("w")

    assert await pond.store.reap() == (20, 0)
    assert await pond.store.reap() == (10, None)

    assert await pond.flight() == 0


async def test_a_worker_that_leaves_is_reaped_at_once(pond: Pond) -> None:
    await pond.beat("w1")
    await pond.beat("w2")
    await pond.store.leave("w1")

    assert (await pond.store.reap())[0] == 0

    assert list(await pond.scores("workers")) == ["w2"]


async def test_all_workers_may_leave_together(pond: Pond) -> None:
    await pond.beat("w1", pool="acme")
    await pond.beat("w2", pool="beta")
    await pond.store.leave_all()

    assert await pond.store.reap() == (0, None)

    assert await pond.scores("workers") == {}


async def test_an_unknown_worker_that_leaves_changes_nothing_but_the_bell(
    pond: Pond, redis: Redis
) -> None:
    await pond.beat("w1")
    before = await everything(redis, without=["bell:s"])

    await pond.store.leave("stranger")

    assert await everything(redis, without=["bell:s"]) == before


async def test_an_outage_ends_no_lease(pond: Pond, time: TestTime) -> None:
    """Nobody ticked for an hour: the worker could not reach the server either."""
    await pond.open()
    await pond.run("j1")
    began_ms = pond.now_ms

    time.advance(3_600_000)
    assert await pond.store.reap() == (0, LEASE_MS - 250)

    assert pond.now_ms == began_ms + 3_600_000
    assert await pond.state("j1") == "running"


async def test_each_gap_shortens_a_lease_by_a_quarter_of_a_second_at_most(pond: Pond) -> None:
    await pond.beat(lease_ms=1_000)

    for left in (750, 500, 250, 0):
        await pond.jump(60_000)
        assert await pond.store.reap() == (0, left)
    await pond.jump(60_000)
    assert await pond.store.reap() == (0, None)
