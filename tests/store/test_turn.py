"""A worker's whole turn in one round trip, and the reading of rows."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.store.store import Store, Turn, WorkerState
from store.pond import LEASE_MS, Pond, names


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


def worker(pond: Pond, *, free: int = 10, seq: int = 0) -> WorkerState:
    return WorkerState(
        worker="w",
        pool="acme",
        free=free,
        seq=seq,
        lease_ms=LEASE_MS,
        life=pond.store.gateway.life,
        held=(),
    )


async def test_a_turn_settles_beats_releases_and_claims(pond: Pond) -> None:
    await pond.open("2/60s")
    [one] = await pond.run("j1")
    await pond.accept("j2", "j3")

    turn = await pond.store.turn(
        worker(pond, free=10, seq=1),
        settlements=[pond.settlement(one, used=70)],
        heartbeat=True,
        claim=10,
    )

    assert turn.registered
    assert names(turn.claimed) == ["j2"]
    assert await pond.state("j1") == "succeeded"
    assert await pond.books() == (100, 0, 70)
    assert await pond.number("m", "free:acme") == 9


async def test_a_turn_without_a_claim_releases_nothing(pond: Pond) -> None:
    await pond.open()
    [one] = await pond.run("j1")
    await pond.accept("j2")

    turn = await pond.store.turn(
        worker(pond), settlements=[pond.settlement(one)], heartbeat=False, claim=0
    )

    assert turn == Turn()
    assert await pond.state("j1") == "succeeded"
    assert await pond.state("j2") == "queued"


async def test_a_worker_that_is_not_registered_is_told_so(pond: Pond) -> None:
    turn = await pond.store.turn(worker(pond), settlements=[], heartbeat=False, claim=10)

    assert turn == Turn(registered=False)


async def test_a_turn_said_again_with_the_same_number_gives_the_same_calls(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    state = worker(pond)
    first = await pond.store.turn(state, settlements=[], heartbeat=False, claim=1)
    await pond.accept("j2")

    assert await pond.store.turn(state, settlements=[], heartbeat=False, claim=1) == first

    assert names(first.claimed) == ["j1"]
    assert await pond.state("j2") == "released"
    assert await pond.number("m", "free:acme") == 9


async def test_rows_are_read_oldest_first_and_stay_until_they_are_flushed(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one)
    await pond.settle(two)

    rows = await pond.store.rows("f", block_ms=1)

    assert [row.fields.get("call") or row.fields["job"] for row in rows] == [
        one.id, "j1", two.id, "j2",
    ]  # fmt: skip
    assert await pond.store.rows("f", block_ms=1) == rows
    await pond.store.flushed("f", rows[1].id)
    assert await pond.store.rows("f", block_ms=1) == rows[2:]


async def test_where_there_is_no_row_none_is_read(pond: Pond) -> None:
    await pond.open()

    assert await pond.store.rows("f", block_ms=1) == []
