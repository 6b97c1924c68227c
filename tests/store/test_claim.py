"""claim: a worker takes ready calls."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed, ClaimedJob
from millpond.domain.job import State
from millpond.store.store import Store
from store.pond import Pond, everything, names


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_claimed_call_carries_all_that_the_worker_needs(pond: Pond) -> None:
    await pond.open(attempts=4)
    await pond.accept("j1", need=120)
    await pond.beat()
    await pond.release()
    [ready] = await pond.list_of("ready:acme")

    assert await pond.claim() == [
        Claimed(
            id=ready,
            lane="acme.generate",
            org="acme",
            flow="f",
            need=120,
            attempts=4,
            jobs=(ClaimedJob("j1", 0, b"payload of j1", 120, 4),),
        )
    ]


async def test_a_claimed_call_is_running_with_its_worker(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    assert await pond.state("j1") == "running"
    assert await pond.field(f"c:{call.id}", "state") == "running"
    assert await pond.field(f"c:{call.id}", "worker") == "w"
    assert await pond.members("wc:w") == [call.id]
    assert await pond.list_of("ready:acme") == []
    assert await pond.number("m", "free:acme") == 9
    assert await pond.number("w:w", "free") == 9


async def test_a_job_that_failed_before_tells_so(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, "retry", failed=True)
    await pond.store.promote(200)
    await pond.release()

    [again] = await pond.claim()

    assert again.jobs == (ClaimedJob("j1", 1, b"payload of j1", 100, 3),)


async def test_asked_again_with_the_same_number_the_same_calls_are_given_and_nothing_changes(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await pond.accept("j1", "j2", "j3")
    await pond.beat()
    await pond.release()
    first = await pond.store.claim("w", 1, 2)
    before = await everything(redis)

    assert await pond.store.claim("w", 1, 2) == first

    assert first is not None
    assert names(first) == ["j1", "j2"]
    assert await everything(redis) == before


async def test_asked_again_calls_that_have_ended_since_are_not_given(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one)

    assert await pond.store.claim("w", 1, 10) == [two]


async def test_an_empty_claim_asked_again_is_empty_even_if_calls_are_ready_now(pond: Pond) -> None:
    await pond.open()
    await pond.beat()
    assert await pond.store.claim("w", 1, 10) == []
    await pond.accept("j1")
    await pond.release()

    assert await pond.store.claim("w", 1, 10) == []
    assert len(await pond.store.claim("w", 2, 10) or []) == 1


async def test_no_more_calls_are_given_than_asked_for(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2", "j3")
    await pond.beat()
    await pond.release()

    assert names(await pond.claim(most=2)) == ["j1", "j2"]
    assert names(await pond.claim(most=2)) == ["j3"]


async def test_a_worker_takes_its_share_of_what_is_ready(pond: Pond) -> None:
    await pond.open()
    await pond.accept(*(f"j{i}" for i in range(10)))
    await pond.beat("w1", free=10)
    await pond.beat("w2", free=10)
    await pond.beat("w3", free=10)
    await pond.release()

    shares = [len(await pond.claim(w)) for w in ("w1", "w2", "w3", "w1", "w2", "w3")]

    assert shares == [4, 2, 2, 1, 1, 0]


async def test_calls_of_another_pool_are_not_given(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    await pond.beat("w2", pool="other")
    await pond.release()

    assert await pond.claim("w2") == []


async def test_an_unknown_worker_is_refused_and_nothing_changes(pond: Pond, redis: Redis) -> None:
    await pond.bring(State.RELEASED)
    before = await everything(redis)

    assert await pond.store.claim("stranger", 1, 10) is None

    assert await everything(redis) == before


@pytest.mark.parametrize("state", sorted(set(State) - {State.RELEASED}))
async def test_a_job_in_any_other_state_is_not_claimed_and_nothing_changes(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    await pond.beat("w2", free=0)
    before = await everything(redis, without=["w:w2"])

    assert await pond.claim("w2") == []

    assert await everything(redis, without=["w:w2"]) == before


@pytest.mark.parametrize("paused", ["flow", "lane"])
async def test_a_ready_call_that_was_paused_meanwhile_is_given_back(
    pond: Pond, paused: str
) -> None:
    await pond.open()
    [running] = await pond.run("j1")
    await pond.accept("j2")
    await pond.release()
    if paused == "flow":
        await pond.store.pause("f")
    await pond.settle(running, pause="key: refused" if paused == "lane" else "")

    assert await pond.claim() == []

    assert await pond.state("j2") == "queued"
    assert await pond.line() == ["j2"]
    assert await pond.flight() == 0
    assert await pond.books() == (0, 0, 70)
    assert await pond.number("m", "free:acme") == 10
    assert (await pond.rows())[-1].fields["outcome"] == "unsent"


async def test_ready_calls_that_are_given_back_keep_their_order(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2", "j3")
    await pond.beat()
    await pond.release(2)
    await pond.store.pause("f")

    assert await pond.claim() == []

    assert await pond.line() == ["j1", "j2", "j3"]


async def test_paused_calls_do_not_use_up_what_a_worker_may_claim(pond: Pond) -> None:
    await pond.open(flow="f")
    await pond.open(flow="g")
    await pond.accept("f1", "f2", "f3", flow="f")
    await pond.accept("g1", flow="g")
    await pond.beat()
    await pond.release()
    await pond.store.pause("f")

    assert names(await pond.claim(most=1)) == ["g1"]
