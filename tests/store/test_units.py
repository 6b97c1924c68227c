"""Limits that count something else than calls: inputs, characters, tokens, and calls at once."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.domain.call import Claimed, JobEnd, Settlement
from millpond.store import keys
from millpond.store.store import NewJob, Store, WorkerState

FLOW = "f"


async def begin(store: Store, *limits: str, tokens: Sequence[int], needs: int = 100) -> None:
    """A flow with a job for each number of tokens, and a worker for them."""
    await store.set_flow(FLOW, lane(*limits), attempts=3, crashes=3)
    jobs = [
        NewJob(f"{FLOW}.{number}", needs, "0,1", b"{}", tokens=of)
        for number, of in enumerate(tokens)
    ]
    await store.accept(FLOW, jobs)
    await store.heartbeat(WorkerState("w", "acme", 100, 0, 30_000, store.gateway.life, []))


async def claim(store: Store, seq: int = 1) -> list[Claimed]:
    claimed = await store.claim("w", seq, 100)
    assert claimed is not None
    return claimed


async def settle(store: Store, call: Claimed, *, used: int | None = 50, tokens: int | None) -> None:
    done = (JobEnd(call.jobs[0].id, "succeeded"),)
    ended = Settlement(call, store.gateway.monotonic_ms(), used, done, tokens)
    assert await store.settle([ended]) == ["settled"]


@pytest.mark.parametrize(
    ("limits", "tokens", "released"),
    [
        #  limits                          tokens of each job   how many go at once
        (["1000tokens/60s"], [400, 400, 400], 2),
        (["1000tokens/60s"], [600, 600], 1),
        (["1000tokens/60s"], [400, 700, 100], 1),   # the next in line waits
        (["1000tokens/60s", "1/60s"], [1, 1], 1),
        (["2inputs/60s"], [1, 1, 1], 2),
        (["250characters/60s"], [1, 1, 1], 2),
        (["2@once"], [1, 1, 1], 2),
        (["500tokens/60s"], [900, 1], 1),                      # larger than the limit: all of it
    ],
)  # fmt: skip
async def test_calls_go_while_every_limit_has_room_for_what_they_may_use(
    store: Store, limits: list[str], tokens: list[int], released: int
) -> None:
    await begin(store, *limits, tokens=tokens)

    assert (await store.release(100))[0] == released


async def test_what_a_call_did_not_use_is_free_as_soon_as_it_is_settled(store: Store) -> None:
    await begin(store, "1000tokens/60s", tokens=[600, 600])
    await store.release(100)
    [call] = await claim(store)

    await settle(store, call, tokens=300)

    assert (await store.release(100))[0] == 1


async def test_a_call_that_does_not_tell_its_tokens_counts_with_what_it_might_have_used(
    store: Store,
) -> None:
    await begin(store, "1000tokens/60s", tokens=[600, 600])
    await store.release(100)
    [call] = await claim(store)

    await settle(store, call, tokens=None)

    assert (await store.release(100))[0] == 0


async def test_units_come_back_when_the_window_has_passed_and_not_before(
    store: Store, time: TestTime
) -> None:
    await begin(store, "1000tokens/60s", tokens=[900, 900])
    await store.release(100)
    [call] = await claim(store)
    await settle(store, call, tokens=900)

    released, wait_ms = await store.release(100)
    assert released == 0
    assert wait_ms is not None
    assert (
        60_000 <= wait_ms <= 60_000 + 2 * 130
    )  # a counter is 130 ms long, and none is let go early

    time.advance(60_000)
    assert (await store.release(100))[0] == 0
    time.advance(wait_ms - 60_000)
    assert (await store.release(100))[0] == 1


async def test_a_place_at_once_is_free_when_its_call_has_ended(store: Store) -> None:
    await begin(store, "1@once", tokens=[1, 1])
    await store.release(100)
    [call] = await claim(store)
    assert (await store.release(100)) == (0, None)

    await settle(store, call, tokens=1)

    assert (await store.release(100))[0] == 1


async def test_a_call_that_was_not_sent_takes_nothing(store: Store) -> None:
    await begin(store, "1000tokens/60s", tokens=[900, 900])
    await store.release(100)
    [call] = await claim(store)

    await store.give_back("w", [call.id], unreachable=False)

    assert (await store.release(100))[0] == 1


async def test_a_limit_of_tokens_that_comes_later_starts_full(store: Store, time: TestTime) -> None:
    """Nobody knows what the calls before it used."""
    await begin(store, "10/60s", tokens=[100, 100])
    await store.release(1)
    [call] = await claim(store)
    await settle(store, call, tokens=100)

    await store.set_flow(FLOW, lane("10/60s", "1000tokens/60s"), attempts=3, crashes=3)

    assert (await store.release(100))[0] == 0
    time.advance(61_000)
    assert (await store.release(100))[0] == 1


async def test_the_counters_of_a_quiet_night_are_gone_in_one_step(
    store: Store, time: TestTime, redis: Redis
) -> None:
    await begin(store, "1000tokens/60s", tokens=[900, 900])
    await store.release(100)
    [call] = await claim(store)
    await settle(store, call, tokens=900)
    time.advance(12 * 3_600_000)

    assert (await store.release(100))[0] == 1
    ring = f"{keys.prefix(PARTITION)}l:acme.generate:d:tokens:60000"
    assert await redis.exists(ring) == 0


async def test_how_much_of_each_limit_is_used_is_told(store: Store) -> None:
    await begin(store, "1000tokens/60s", "5@once", "60/60s", tokens=[400, 400])
    await store.release(100)

    windows = (await store.look(FLOW)).lane.windows

    assert [(window.unit, window.used) for window in windows] == [
        ("tokens", 800),
        ("calls", 2),
        ("calls", 2),
    ]


async def test_a_limit_that_was_away_starts_full_when_it_comes_back(store: Store) -> None:
    """What was used while nobody counted it is not known."""
    await begin(store, "1000tokens/60s", tokens=[100, 100])
    await store.release(1)
    [call] = await claim(store)
    await settle(store, call, tokens=100)
    await store.set_flow(FLOW, lane("10/60s"), attempts=3, crashes=3)

    await store.set_flow(FLOW, lane("1000tokens/60s"), attempts=3, crashes=3)

    assert (await store.release(100))[0] == 0


async def test_a_limit_that_only_counts_until_the_real_one_is_told_holds_up_nothing(
    store: Store,
) -> None:
    await begin(store, "10/60s", tokens=[100, 100])
    await store.release(1)
    [call] = await claim(store)
    await settle(store, call, tokens=100)

    await store.set_flow(FLOW, lane("1@once", "1000000000tokens/60s"), attempts=3, crashes=3)

    assert (await store.release(100))[0] == 1
