"""A provider that answers 500 to everything for an hour, and a batch that waits it out."""

import random

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed, Settlement
from millpond.providers.outcome import Answered, Outcome, Unwell
from millpond.store.store import Store
from millpond.worker.verdict import settlement
from store.pond import Pond

HOUR_MS = 3_600_000
JOBS = 10_000
SLOTS = 50
#: A call takes so long, and so does a step of this test while anything goes.
CALL_MS = 2_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


class Provider:
    def __init__(self, pond: Pond) -> None:
        self._pond = pond
        self._chance = random.Random(7)
        self.calls = {"answered": 0, "failed": 0}

    def settled(self, call: Claimed) -> Settlement:
        at_ms = self._pond.time.monotonic_ms()
        outcome: Outcome = Unwell("overloaded", 500, charged=True)
        if self._pond.now_ms - START_MS >= HOUR_MS:
            outcome = Answered(({"text": "yes"},), (3,))
        self.calls["failed" if isinstance(outcome, Unwell) else "answered"] += 1
        told = settlement(
            call, outcome, headers_ms=at_ms, ended_ms=at_ms, chance=self._chance.random
        )
        assert told is not None
        return told


START_MS = 1_700_000_000_000


@pytest.mark.slow
async def test_an_hour_of_500s_fails_no_job_for_good(pond: Pond) -> None:
    await pond.open("500/10s", attempts=5)
    for start in range(0, JOBS, 200):
        await pond.accept(*(f"j{n}" for n in range(start, start + 200)))
    provider = Provider(pond)
    assert abs(pond.now_ms - START_MS) < 1_000

    while await pond.number("f:f", "open"):
        assert pond.now_ms - START_MS < 2 * HOUR_MS
        await pond.beat(free=SLOTS)
        _, later_ms = await pond.store.promote(200)
        _, lane_ms = await pond.release()
        calls = await pond.claim(most=SLOTS)
        await pond.jump(CALL_MS if calls else min(later_ms or 1_000, lane_ms or 1_000, 1_000) or 1)
        if calls:
            await pond.store.settle([provider.settled(call) for call in calls])
        await pond.store.flushed("f", "+")

    assert await pond.number("f:f", "succeeded") == JOBS
    assert await pond.number("f:f", "failed") == 0
    assert provider.calls["answered"] == JOBS
    assert provider.calls["failed"] < 300  # the breaker lets one through now and then
