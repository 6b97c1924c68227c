"""The logical clock that every script runs, and hello, which a new process begins with."""

import asyncio

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, START_MS, TestTime
from millpond.store.gateway import Gateway
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

#: Steps of the server's TIME, forward and back.
STEPS_MS = [
    step * sign for step in (300, 1_000, 30_000, 60_000, HOUR_MS, DAY_MS) for sign in (1, -1)
]


class SteppedTime(TestTime):
    """The server's clock can be stepped; the caller's own only runs."""

    def __init__(self) -> None:
        super().__init__()
        self.step_ms = 0

    def server_ms(self) -> int:
        return self.now_ms + self.step_ms


class Process:
    """One process among several: its gateway and what it thinks of time."""

    def __init__(self, redis: Redis, time: SteppedTime) -> None:
        self.gateway = Gateway(redis, PARTITION, time=time)

    async def tick(self) -> int:
        """Run a script that changes nothing else; logical time since the test's beginning."""
        await self.gateway.run("look", "no flow")
        return self.gateway.now_ms - START_MS

    async def hello(self, token: str = "") -> list[bytes]:
        reply: list[bytes] = await self.gateway.run("hello", token, quiet="hello")
        return reply


@pytest.fixture
def time() -> SteppedTime:
    return SteppedTime()


@pytest.fixture
async def one(store: Store, redis: Redis, time: SteppedTime) -> Process:
    """A process that has seen the time."""
    process = Process(redis, time)
    await process.tick()
    return process


@pytest.fixture
async def two(one: Process, redis: Redis, time: SteppedTime) -> Process:
    process = Process(redis, time)
    await process.tick()
    return process


async def test_time_begins_with_the_servers(one: Process) -> None:
    assert one.gateway.now_ms == START_MS


@pytest.mark.parametrize("passed_ms", [0, 1, 100, 250])
async def test_a_small_step_is_believed_whoever_comes(
    one: Process, redis: Redis, time: SteppedTime, passed_ms: int
) -> None:
    time.advance(passed_ms)
    newcomer = Process(redis, time)

    assert await newcomer.tick() == passed_ms


@pytest.mark.parametrize("step_ms", STEPS_MS)
async def test_a_stepped_clock_moves_time_by_what_the_caller_saw_pass(
    one: Process, time: SteppedTime, step_ms: int
) -> None:
    time.step_ms = step_ms
    time.advance(40)
    assert await one.tick() == 40

    time.advance(40)
    assert await one.tick() == 80


@pytest.mark.parametrize("step_ms", STEPS_MS)
async def test_a_newcomer_vouches_for_no_time(
    one: Process, redis: Redis, time: SteppedTime, step_ms: int
) -> None:
    time.advance(100)
    await one.tick()
    time.step_ms = step_ms

    assert await Process(redis, time).tick() == 100


@pytest.mark.parametrize("step_ms", STEPS_MS)
async def test_time_never_goes_ahead_of_what_has_passed_nor_back(
    one: Process, two: Process, time: SteppedTime, step_ms: int
) -> None:
    seen = [0]
    passed_ms = 0
    for i in range(40):
        if i % 10 == 5:
            time.step_ms = step_ms if time.step_ms == 0 else 0
        time.advance(70 * (i % 4))
        passed_ms += 70 * (i % 4)
        seen.append(await (one if i % 3 else two).tick())
        assert seen[-2] <= seen[-1] <= passed_ms


async def test_a_step_back_that_looks_like_a_small_step_loses_no_time_that_the_caller_saw(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.advance(400)
    time.step_ms = -300

    assert await Process(redis, time).tick() == 100
    assert await one.tick() == 400


async def test_after_a_pause_the_caller_vouches_for_all_that_it_saw_pass(
    one: Process, time: SteppedTime
) -> None:
    time.advance(HOUR_MS)

    assert await one.tick() == HOUR_MS


async def test_the_caller_that_saw_least_does_not_hold_time_back(
    one: Process, two: Process, time: SteppedTime
) -> None:
    time.advance(HOUR_MS)
    await one.tick()
    time.step_ms = DAY_MS

    assert await two.tick() == HOUR_MS


async def test_a_fraction_of_a_millisecond_is_not_made_up(one: Process, time: SteppedTime) -> None:
    class Finer(SteppedTime):
        def monotonic_ms(self) -> float:
            return super().monotonic_ms() + 0.9 * (self.now_ms > START_MS)

    fine = Finer()
    process = Process(one.gateway.redis, fine)
    await process.tick()
    fine.advance(1_000)

    assert await process.tick() == 1_000


async def test_where_the_data_does_not_allow_a_test_the_servers_own_time_counts(
    redis: Redis, time: SteppedTime
) -> None:
    process = Process(redis, time)
    seconds, micros = await redis.time()

    await process.tick()

    assert 0 <= process.gateway.now_ms - (seconds * 1_000 + micros // 1_000) < 60_000


async def test_the_first_hello_where_time_stood_still_waits_and_moves_nothing(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.advance(HOUR_MS)
    before = await redis.hgetall(f"{PREFIX}m")  # type: ignore[misc]

    assert await Process(redis, time).hello() == [b"wait", str(START_MS).encode()]

    assert await redis.hgetall(f"{PREFIX}m") == before  # type: ignore[misc]


async def test_the_second_hello_with_nobody_in_between_brings_time_up_to_date(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.advance(HOUR_MS)
    newcomer = Process(redis, time)
    _, token = await newcomer.hello()
    time.advance(1_000)

    assert await newcomer.hello(token.decode()) == [b"hello"]

    assert newcomer.gateway.now_ms == START_MS + HOUR_MS + 1_000


async def test_the_second_hello_with_somebody_in_between_does_not_move_time(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    """The clock was stepped by an hour, and somebody ticks."""
    time.step_ms = HOUR_MS
    newcomer = Process(redis, time)
    _, token = await newcomer.hello()
    time.advance(900)
    assert await one.tick() == 900
    time.advance(100)

    assert await newcomer.hello(token.decode()) == [b"hello"]

    assert newcomer.gateway.now_ms == START_MS + 1_000


async def test_a_hello_is_told_to_wait_again_if_the_clock_was_stepped_after_somebody_ticked(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.step_ms = HOUR_MS
    newcomer = Process(redis, time)
    _, token = await newcomer.hello()
    time.advance(1_000)
    await one.tick()
    time.step_ms = DAY_MS

    reply = await newcomer.hello(token.decode())

    assert reply == [b"wait", str(START_MS + 1_000 + HOUR_MS).encode()]
    assert newcomer.gateway.now_ms == START_MS + 1_000


async def test_a_clock_that_was_set_back_while_nobody_ran_does_not_set_time_back(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.advance(HOUR_MS)
    await one.tick()
    time.step_ms = -DAY_MS
    newcomer = Process(redis, time)
    _, token = await newcomer.hello()

    assert await newcomer.hello(token.decode()) == [b"hello"]

    assert newcomer.gateway.now_ms == START_MS + HOUR_MS
    time.advance(100)
    assert await newcomer.tick() == HOUR_MS + 100


async def test_a_hello_where_time_is_kept_is_answered_at_once(
    one: Process, redis: Redis, time: SteppedTime
) -> None:
    time.advance(200)
    newcomer = Process(redis, time)

    assert await newcomer.hello() == [b"hello"]

    assert newcomer.gateway.now_ms == START_MS + 200


async def test_a_new_process_says_hello_until_it_is_answered(
    one: Process, redis: Redis, time: SteppedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.advance(int(seconds * 1_000))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    time.advance(HOUR_MS)
    newcomer = Process(redis, time)

    await newcomer.gateway.hello()

    assert slept == [1]
    assert newcomer.gateway.now_ms == START_MS + HOUR_MS + 1_000


async def test_saying_hello_twice_changes_nothing_but_the_clock(
    store: Store, redis: Redis, time: SteppedTime
) -> None:
    pond = Pond(store, redis, time)
    await pond.open()
    before = await everything(redis)

    await store.hello()

    assert await everything(redis) == before
