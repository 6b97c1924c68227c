"""The provider's word on its service time: a call counts from when it began to work on it."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.store.store import Store
from store.pond import Pond

HOUR_MS = 3_600_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def answered(pond: Pond, *, after_ms: int, credit: bool = True) -> Claimed:
    """A call was released so long ago, and is answered now."""
    await pond.open("60/60s", credit=credit)
    [call] = await pond.run(f"j{pond.now_ms}")
    await pond.jump(after_ms)
    return call


@pytest.mark.parametrize(
    ("credit_ms", "since_ms", "stamp"),
    [
        # credit  headers came so long ago   stamp, from now
        (0,       0,                         1),
        (500,     0,                         -499),
        (500,     300,                       -799),
        (2_000,   0,                         -1_999),
        (2_001,   0,                         -2_000),   # that is when it was released
        (9_000,   0,                         -2_000),
        (1_000,   1_500,                     -2_000),
        (-500,    0,                         1),        # a provider may say anything
    ],
)  # fmt: skip
async def test_a_call_is_stamped_when_the_provider_began_but_never_before_its_release(
    pond: Pond, credit_ms: int, since_ms: int, stamp: int
) -> None:
    call = await answered(pond, after_ms=2_000)

    await pond.settle(call, credit_ms=credit_ms, since_ms=since_ms)

    assert await pond.stamps() == [stamp]


async def test_a_lane_that_does_not_believe_it_stamps_when_the_headers_came(pond: Pond) -> None:
    call = await answered(pond, after_ms=2_000, credit=False)

    await pond.settle(call, credit_ms=1_000)

    assert await pond.stamps() == [1]


async def test_a_place_is_free_so_much_earlier(pond: Pond) -> None:
    await pond.open("1/10s", credit=True)
    [call] = await pond.run("j1")
    await pond.jump(2_000)
    await pond.settle(call, credit_ms=1_500)
    await pond.accept("j2")

    assert await pond.release() == (0, 8_501)
    await pond.jump(8_501)
    assert await pond.release() == (1, None)


async def test_a_ring_is_given_it_too(pond: Pond) -> None:
    await pond.open("5000/10s", credit=True)
    [call] = await pond.run("j1")
    await pond.jump(2_000)
    await pond.settle(call, credit_ms=2_000)

    [window] = (await pond.store.look("f")).lane.windows

    assert window.frees_at_ms is None or window.frees_at_ms <= pond.now_ms + 8_000 + 2 * 26


async def test_it_is_believed_from_the_next_call_on_when_that_is_set(pond: Pond) -> None:
    call = await answered(pond, after_ms=2_000, credit=False)
    await pond.change(lane="acme.generate", credit=True)

    await pond.settle(call, credit_ms=1_000)

    assert await pond.stamps() == [-999]


async def test_after_a_refusal_it_is_not_believed_for_an_hour(pond: Pond) -> None:
    call = await answered(pond, after_ms=2_000)
    await pond.settle(call, "retry", used=0, refused=True, shut_ms=1, credit_ms=1_000)
    assert await pond.stamps() == [-999]

    await pond.jump(HOUR_MS - 2_001)
    call = await answered(pond, after_ms=2_000)
    await pond.settle(call, credit_ms=1_000)
    assert (await pond.stamps())[-1] == 1

    await pond.jump(1)
    call = await answered(pond, after_ms=2_000)
    await pond.settle(call, credit_ms=1_000)
    assert (await pond.stamps())[-1] == -999


async def test_opening_the_lane_again_does_not_make_it_believed(pond: Pond) -> None:
    call = await answered(pond, after_ms=2_000)
    await pond.settle(call, "retry", used=0, refused=True, shut_ms=1)

    await pond.jump(2_000)
    call = await answered(pond, after_ms=2_000)
    await pond.settle(call, credit_ms=1_000)

    assert (await pond.stamps())[-1] == 1


async def test_of_a_lost_call_nothing_is_taken_off(pond: Pond) -> None:
    """It is stamped when it was lost; what comes late changes nothing of that."""
    call = await answered(pond, after_ms=2_000)
    await pond.store.leave("w")
    await pond.store.reap()
    assert await pond.stamps() == [1_000]

    await pond.settle(call, credit_ms=2_000)

    assert await pond.stamps() == [1_000]


async def test_the_time_that_a_call_takes_is_learned_without_it(pond: Pond) -> None:
    call = await answered(pond, after_ms=2_000)

    await pond.settle(call, credit_ms=1_500)

    assert (await pond.store.look("f")).lane.latency_ms == 2_000
