"""heartbeat: a worker lives."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import State
from millpond.store.store import Store
from store.pond import LEASE_MS, Pond, everything, names


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def lease_ms(pond: Pond, worker: str = "w") -> int:
    """How long the worker's lease still lasts."""
    await pond.tick()
    lease_now = await pond.number("m", "lease_now")
    return (await pond.scores("workers"))[worker] - lease_now


async def test_the_first_heartbeat_registers_a_worker_with_its_slots_and_a_lease(
    pond: Pond,
) -> None:
    await pond.beat(free=10)

    assert await pond.fields("w:w") == {
        "pool": "acme",
        "free": "10",
        "life": str(pond.store.gateway.life),
    }
    assert await pond.number("m", "free:acme") == 10
    assert await lease_ms(pond) == LEASE_MS


async def test_each_heartbeat_renews_the_lease(pond: Pond) -> None:
    await pond.beat()
    await pond.pass_time(20_000)
    assert await lease_ms(pond) == LEASE_MS - 20_000

    await pond.beat()

    assert await lease_ms(pond) == LEASE_MS


async def test_slots_of_all_workers_of_a_pool_add_up_and_each_puts_its_own_right(
    pond: Pond,
) -> None:
    await pond.beat("w1", free=10)
    await pond.beat("w2", free=5)
    assert await pond.number("m", "free:acme") == 15

    await pond.beat("w1", free=3)

    assert await pond.number("m", "free:acme") == 8
    assert await pond.number("w:w1", "free") == 3


async def test_slots_that_a_claim_took_are_not_taken_twice(pond: Pond) -> None:
    await pond.open()
    calls = await pond.run("j1", "j2")
    assert await pond.number("m", "free:acme") == 8

    await pond.beat(free=8, seq=1, held=calls)

    assert await pond.number("m", "free:acme") == 8
    assert names(calls) == ["j1", "j2"]


async def test_a_call_that_never_reached_its_worker_is_given_back(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")

    await pond.beat(free=9, seq=1, held=[one])

    assert await pond.state("j1") == "running"
    assert await pond.state("j2") == "queued"
    assert await pond.line() == ["j2"]
    assert await pond.fields(f"c:{two.id}") == {}
    assert await pond.members("wc:w") == [one.id]
    assert await pond.flight() == 1
    assert await pond.stamps() == []
    assert await pond.books() == (100, 0, 0)
    assert await pond.number("m", "free:acme") == 9


async def test_a_call_of_a_claim_whose_answer_is_still_on_its_way_is_kept(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await pond.run("j1")
    before = await everything(redis)

    await pond.beat(free=9, seq=0, held=[])

    assert await everything(redis) == before


async def test_calls_that_are_named_are_kept_and_a_heartbeat_said_twice_changes_nothing(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    calls = await pond.run("j1", "j2")
    await pond.beat(free=8, seq=1, held=calls)
    before = await everything(redis)

    await pond.beat(free=8, seq=1, held=calls)

    assert await everything(redis) == before


async def test_a_call_that_was_ended_is_not_held_again_because_its_worker_still_names_it(
    pond: Pond,
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call)

    await pond.beat(free=10, seq=1, held=[call])

    assert await pond.flight() == 0
    assert await pond.books() == (0, 0, 70)
    assert await pond.fields(f"c:{call.id}") == {}


async def test_a_call_of_another_worker_is_left_alone(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    await pond.beat("w2", seq=5, held=[call])
    await pond.beat("w2", seq=5, held=[])

    assert await pond.field(f"c:{call.id}", "worker") == "w"
    assert await pond.state("j1") == "running"


async def test_after_a_restart_nothing_goes_until_every_worker_has_told_what_it_holds(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.beat("w1")
    await pond.beat("w2")
    await pond.release()
    await pond.new_life()
    await pond.accept("j1")

    assert await pond.release() == (0, 100)
    await pond.jump(100)
    await pond.beat("w1")
    assert await pond.release() == (0, 100)
    await pond.jump(100)
    await pond.beat("w2")
    assert await pond.release() == (1, None)


async def test_after_a_restart_a_worker_that_is_gone_is_waited_for_until_its_lease_ends(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.beat("w1", lease_ms=1_000)
    await pond.beat("w2", lease_ms=LEASE_MS)
    await pond.release()
    await pond.new_life()
    await pond.accept("j1")
    await pond.beat("w2")

    await pond.pass_time(1_000)
    assert await pond.release() == (0, 100)
    await pond.pass_time(100)
    assert await pond.release() == (1, None)


async def test_a_call_that_the_server_has_forgotten_is_held_again(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    known = await pond.snapshot()
    await pond.release()
    [call] = await pond.claim()
    await pond.forget_since(known)
    assert await pond.flight() == 0

    await pond.beat(free=9, seq=1, held=[call])

    assert await pond.fields(f"c:{call.id}") == {
        "lane": "acme.generate",
        "org": "acme",
        "flow": "f",
        "jobs": "",
        "need": "100",
        "tokens": "0",
        "inputs": "1",
        "bulk": "1",
        "state": "running",
        "pool": "acme",
        "counted": "1",
        "worker": "w",
        "seq": "1",
    }
    assert await pond.flight() == 1
    assert await pond.members("wc:w") == [call.id]
    assert await pond.books() == (100, 0, 0)
    assert await pond.number("m", "free:acme") == 9


async def test_a_call_held_again_counts_when_it_ends_and_its_job_waits_for_another(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    known = await pond.snapshot()
    await pond.release()
    [call] = await pond.claim()
    await pond.forget_since(known)
    await pond.beat(free=9, seq=1, held=[call])

    assert await pond.settle(call) == "settled"

    assert await pond.stamps() == [1]
    assert await pond.books() == (0, 0, 70)
    assert await pond.state("j1") == "queued"
    assert await pond.release() == (1, None)
    [again] = await pond.claim()
    assert again.id != call.id
    assert names([again]) == ["j1"]


async def test_a_call_that_is_told_twice_after_a_restart_is_held_once(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    known = await pond.snapshot()
    await pond.release()
    [call] = await pond.claim()
    await pond.forget_since(known)
    await pond.beat(free=9, seq=1, held=[call])
    before = await everything(redis)

    await pond.beat(free=9, seq=1, held=[call])

    assert await everything(redis) == before


async def test_a_call_whose_claim_the_server_has_forgotten_runs_again(pond: Pond) -> None:
    """It is ready again, but its worker has it: nobody else may claim it."""
    await pond.open()
    await pond.accept("j1")
    await pond.beat(free=10)
    await pond.release()
    known = await pond.snapshot()
    [call] = await pond.claim()
    await pond.forget_since(known)
    assert await pond.list_of("ready:acme") == [call.id]

    await pond.beat(free=9, seq=1, held=[call])

    assert await pond.list_of("ready:acme") == []
    assert await pond.field(f"c:{call.id}", "state") == "running"
    assert await pond.field(f"c:{call.id}", "worker") == "w"
    assert await pond.members("wc:w") == [call.id]
    assert await pond.state("j1") == "running"
    assert await pond.flight() == 1
    assert await pond.books() == (100, 0, 0)
    assert await pond.number("m", "free:acme") == 9


async def test_a_worker_that_the_server_has_forgotten_tells_what_it_holds_all_the_same(
    pond: Pond,
) -> None:
    await pond.open()
    await pond.accept("j1")
    known = await pond.snapshot()
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    await pond.forget_since(known)

    await pond.beat(free=9, seq=1, held=[call])

    assert await pond.flight() == 1
    assert await pond.books() == (100, 0, 0)


async def test_a_call_that_was_ended_before_the_restart_is_not_held_again(pond: Pond) -> None:
    """Its worker had no answer to the settle, and names the call until it has one."""
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, used=70)
    await pond.new_life()

    await pond.beat(free=9, seq=1, held=[call])

    assert await pond.flight() == 0
    assert await pond.settle(call, used=70) == "late"
    assert await pond.books() == (0, 0, 70)


async def test_a_worker_that_does_not_know_of_the_restart_loses_none_of_its_calls(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await pond.run("j1")
    life = pond.store.gateway.life
    await pond.new_life()
    before = await everything(redis)

    await pond.beat(free=9, seq=1, held=[], life=life)

    assert await everything(redis) == before


async def test_a_worker_that_has_not_told_what_it_holds_claims_nothing(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    await pond.release()
    await pond.new_life()

    assert await pond.store.claim("w", 1, 10) is None

    await pond.beat()
    assert names(await pond.claim()) == ["j1"]


@pytest.mark.parametrize("state", [State.QUEUED, State.SUCCEEDED, State.FAILED])
async def test_a_heartbeat_leaves_jobs_that_its_worker_does_not_run_alone(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    await pond.beat(free=10, seq=1)
    before = await everything(redis)

    await pond.beat(free=10, seq=1)

    assert await everything(redis) == before
