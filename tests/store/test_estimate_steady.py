"""Under steady load it is known when a job goes: the estimate is within 5 % of what comes."""

import random

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.domain.job import Class
from millpond.standing.standing import standing
from millpond.store.store import Store
from store.pond import Pond

STEP_MS = 20


class Load:
    """A worker with many slots whose calls take a while each, in logical time."""

    def __init__(self, pond: Pond, dice: random.Random, latency_ms: int) -> None:
        self.pond, self.dice, self.latency_ms = pond, dice, latency_ms
        self.running: list[tuple[int, Claimed]] = []
        self.gone_at: dict[str, int] = {}

    async def step(self) -> None:
        pond = self.pond
        ended = [call for at, call in self.running if at <= pond.now_ms]
        self.running = [one for one in self.running if one[0] > pond.now_ms]
        if ended:
            await pond.store.settle([pond.settlement(call) for call in ended])
        await pond.beat(free=100 - len(self.running), held=[call for _, call in self.running])
        await pond.store.promote(200)
        await pond.release()
        for call in await pond.claim(most=100):
            late_ms = self.latency_ms * self.dice.uniform(0.8, 1.2)
            self.running.append((pond.now_ms + round(late_ms), call))
            self.gone_at.update((job.id, pond.now_ms) for job in call.jobs)
        await pond.jump(STEP_MS)

    async def until(self, ms: int) -> None:
        end_ms = self.pond.now_ms + ms
        while self.pond.now_ms < end_ms:
            await self.step()

    async def until_gone(self, job: str) -> int:
        while job not in self.gone_at:
            await self.step()
        return self.gone_at[job]


@pytest.mark.parametrize(
    ("limits", "others"),
    [(("20/2s",), 0), (("20/2s",), 2), (("20/2s", "60/10s"), 1), (("8@once",), 1)],
    ids=["alone", "beside two users", "two windows", "so many at once"],
)
@pytest.mark.parametrize("seed", range(3))
async def test_an_estimate_made_under_steady_load_is_within_5_percent(
    store: Store, redis: Redis, time: TestTime, limits: tuple[str, ...], others: int, seed: int
) -> None:
    pond, dice = Pond(store, redis, time), random.Random(seed)
    load = Load(pond, dice, latency_ms=400)
    for user in ("ann", *(f"u{number}" for number in range(others))):
        await pond.open(*limits, flow=user, user=user, klass=Class.BULK)
        await pond.add(user, 400)
    await load.until(12_000)

    sent = sum(job.startswith("ann.") for job in load.gone_at)
    job = f"ann.{sent + 100}"
    seen = await pond.store.explain(job=job)
    told = standing(seen, await pond.store.holds("acme.generate"), wall_s=0)
    asked_ms = pond.now_ms
    went_s = (await load.until_gone(job) - asked_ms) / 1_000

    assert told["goes"]["in_s"] == pytest.approx(went_s, rel=0.05)
