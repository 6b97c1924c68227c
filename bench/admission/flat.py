"""What it costs the server to let a call go, however much waits: one user's million jobs, two
hundred thousand users, a hundred thousand accounts.

Only the server runs, and nothing but scripts of one kind while it is measured: its statistics do
not tell one script from another. Figures are medians of rounds, in microseconds of the server's own
count. The scripts of a round are sent at once, so that it is the server at work that is measured;
`woken` is what one takes when it has to wake the server first, as in a quiet night.

    alone    release lets one call go
    woken    the same, each sent when the one before it was answered
    tens     release lets ten go; a call's share
    whole    ten are released, claimed, settled and flushed; the server's CPU, a call's share
    pack     release lets one call of 96 jobs go; what each job but the first adds to `alone`
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.admission.figures import Figures, Place, median
from bench.admission.house import PARTITION, lane, server

from millpond.domain.call import Claimed, JobEnd, Settlement
from millpond.store import keys
from millpond.store.store import ACCEPT_MOST, Lane, NewJob, Store, WorkerState

SIZES = (1_000, 10_000, 100_000, 1_000_000)
JOBS_A_USER = 5
ACCOUNTS = (1, 100, 10_000, 100_000)
ACTIVE = 10
JOBS_AN_ACCOUNT = 1_000
#: Stamped one by one, as a limit of 60 a minute is, and never reached.
LIMIT = "1000/0.25s"
#: Beside it, as the profiles have it.
DAY = "1000000/1d"
PACK = 96

_ROUNDS = 15
_ALONE, _TENS, _WHOLE, _PACKS = 40, 8, 8, 4
_WORKER = "w"
_SLOTS = 10_000
_LEASE_MS = 600_000
_AT_ONCE = 50
_NEED = 300
#: Statistics of the server that are no command of a script.
_OUTSIDE = ("evalsha", "config|resetstat", "info")


def one_user(place: Place) -> Figures:
    """One flow with up to a million jobs."""
    return asyncio.run(_grown(place, SIZES, lambda pond, size: pond.fill({"f": size})))


def many_users(place: Place) -> Figures:
    """As many jobs, five of each user."""

    async def grow(pond: "Pond", size: int) -> None:
        users = [f"u{number}" for number in range(size // JOBS_A_USER)]
        await pond.open(users)
        await pond.fill(dict.fromkeys(users, JOBS_A_USER))

    return asyncio.run(_grown(place, SIZES, grow))


def many_accounts(place: Place) -> Figures:
    """Ten accounts have jobs; of the others it is only known that they are there."""

    async def grow(pond: "Pond", size: int) -> None:
        names = [f"a{number}" for number in range(size)]
        await pond.open(names, of_their_own=True)
        await pond.fill(dict.fromkeys(names[:ACTIVE], JOBS_AN_ACCOUNT))

    return asyncio.run(_grown(place, ACCOUNTS, grow))


def with_a_day(place: Place) -> Figures:
    """What another window costs: a day's, in counters."""

    async def measure() -> Figures:
        async with server(place.folder) as (store, _):
            pond = Pond(store, lane(LIMIT, DAY))
            await pond.open(["f"])
            await pond.fill({"f": SIZES[0]})
            return await pond.measure()

    return asyncio.run(measure())


def packed(place: Place) -> Figures:
    """Calls of 96 jobs."""

    async def call_us(pack: int, times: int) -> float:
        async with server(place.inside(str(pack)).folder) as (store, _):
            pond = Pond(store, lane(LIMIT), pack=pack)
            await pond.open(["f"])
            await pond.fill({"f": SIZES[2]})
            await pond.settle_down()
            return await pond.median_of(times, pond.alone)

    async def measure() -> Figures:
        call, alone = await call_us(PACK, _PACKS), await call_us(1, _ALONE)
        job = (call - alone) / (PACK - 1)
        return {"call_us": round(call, 1), "alone_us": round(alone, 1), "job_us": round(job, 2)}

    return asyncio.run(measure())


def beside_a_million(place: Place) -> Figures:
    """One user has a million jobs in line, and another comes with one: how many calls of the first
    go before it."""

    async def come() -> Figures:
        async with server(place.folder) as (store, _):
            pond = Pond(store, lane(LIMIT))
            await pond.open(["many", "one"])
            await pond.fill({"many": SIZES[-1]})
            await pond.release(20, 1)
            before = []
            for _ in range(20):
                await pond.fill({"one": 1})
                waited = 0
                while (await pond.next_call()).flow != "one":
                    waited += 1
                before.append(waited)
                await pond.release(5, 1)
            return {"before": max(before), "times": len(before)}

    return asyncio.run(come())


async def _grown(
    place: Place, sizes: Sequence[int], grow: Callable[["Pond", int], Awaitable[None]]
) -> Figures:
    """The same measured at each size, on a server of its own; and how far the sizes are from their
    middle."""
    found: dict[int, Figures] = {}
    for size in sizes:
        async with server(place.inside(str(size)).folder) as (store, _):
            pond = Pond(store, lane(LIMIT))
            await pond.open(["f"])
            await grow(pond, size)
            found[size] = await pond.measure()
    figures: Figures = {}
    for name in found[sizes[0]]:
        figures |= {f"{name}_{size}": at[name] for size, at in found.items()}
        values = [at[name] or 0 for at in found.values()]
        figures[f"{name}_off"] = round((max(values) - min(values)) / (max(values) + min(values)), 3)
    for name in ("alone_us", "tens_us"):
        figures[f"{name}_most"] = max(at[name] or 0 for at in found.values())
    return figures


# ------------------------------------------------------------ the server, and what is asked of it


@dataclass
class Pond:
    """Flows on a server, each with a user of its own, and one worker that says what we want."""

    store: Store
    lane: Lane
    pack: int = 1
    claims: int = 0
    #: Jobs fed so far, by flow, and those that have gone since.
    fed: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)

    async def open(self, names: Sequence[str], *, of_their_own: bool = False) -> None:
        """Flows, all in one lane, or each in one of an account of its own."""
        for start in range(0, len(names), _AT_ONCE):
            portion = names[start : start + _AT_ONCE]
            await asyncio.gather(*(self._open(name, of_their_own) for name in portion))
        await self._beat()

    async def _open(self, name: str, of_their_own: bool) -> None:
        of = replace(self.lane, id=f"{name}.generate", org=name) if of_their_own else self.lane
        await self.store.set_flow(
            name, of, attempts=5, crashes=20, common=b"{}", user=name, pack=self.pack
        )

    async def fill(self, wanted: dict[str, int]) -> None:
        """So many more jobs for each flow."""
        portions = [
            (name, min(ACCEPT_MOST, jobs - start))
            for name, jobs in wanted.items()
            for start in range(0, jobs, ACCEPT_MOST)
        ]
        for start in range(0, len(portions), _AT_ONCE):
            await asyncio.gather(
                *(
                    self.store.accept(name, [self._job(name) for _ in range(jobs)])
                    for name, jobs in portions[start : start + _AT_ONCE]
                )
            )

    def _job(self, name: str) -> NewJob:
        self.fed[name] += 1
        pack = "p" if self.pack > 1 else ""
        text = f'{{"text": "{"x" * 100}"}}'.encode()
        return NewJob(f"{name}.{self.fed[name]}", _NEED, "", text, base=100, pack=pack)

    async def measure(self) -> Figures:
        await self.settle_down()
        alone = await self.median_of(_ALONE, self.alone)
        commands = await self.median_of(_ALONE, self.commands)
        tens = await self.median_of(_TENS, self.tens)
        whole = await self.median_of(_WHOLE, self.whole)
        woken = await self.median_of(_ALONE, self.woken)
        return {
            "alone_us": round(alone, 1),
            "woken_us": round(woken, 1),
            "tens_us": round(tens, 1),
            "commands": round(commands, 2),
            "whole_cpu_us": round(whole, 1),
        }

    async def median_of(self, times: int, measure: Callable[[int], Awaitable[float]]) -> float:
        found = []
        for _ in range(_ROUNDS):
            found.append(await measure(times))
            await self.clear()
        return median(found)

    async def alone(self, times: int) -> float:
        await self._forget_statistics()
        await self.release(times, 1)
        return (await self._statistics())["evalsha"][1] / times

    async def woken(self, times: int) -> float:
        await self._forget_statistics()
        for _ in range(times):
            await self.release(1, 1)
        return (await self._statistics())["evalsha"][1] / times

    async def tens(self, times: int) -> float:
        await self._forget_statistics()
        await self.release(times, 10)
        return (await self._statistics())["evalsha"][1] / (times * 10)

    async def commands(self, times: int) -> float:
        """That release says to the server from inside, a call."""
        await self._forget_statistics()
        await self.release(times, 1)
        said = await self._statistics()
        return sum(calls for name, (calls, _) in said.items() if name not in _OUTSIDE) / times

    async def whole(self, times: int) -> float:
        before_s = await self._cpu_s()
        for _ in range(times):
            await self.release(1, 10)
            await self._end(await self._claim(10))
        return (await self._cpu_s() - before_s) * 1_000_000 / (times * 10)

    async def release(self, times: int, most: int) -> None:
        for _, released, _ in await self.store.gateway.run_all([("release", (most,))] * times):
            assert released == most, f"{released} of {most} went: the limit holds them back"

    async def next_call(self) -> Claimed:
        """The one call that goes next."""
        await self.clear()
        await self.release(1, 1)
        [call] = await self._claim(1)
        await self._end([call])
        return call

    async def clear(self) -> None:
        """What has been released is answered, and as many jobs come as have gone."""
        while calls := await self._claim(200):
            await self._end(calls)
        gone, self.gone = self.gone, Counter()
        await self.fill(dict(gone))

    async def _claim(self, most: int) -> list[Claimed]:
        self.claims += 1
        claimed = await self.store.claim(self._worker, self.claims, most)
        assert claimed is not None, "the worker is not registered"
        return claimed

    async def _end(self, calls: Sequence[Claimed]) -> None:
        now_ms = self.store.gateway.monotonic_ms()
        for call in calls:
            ends = tuple(JobEnd(job.id, "succeeded", used=job.need) for job in call.jobs)
            used = sum(job.need for job in call.jobs)
            await self.store.settle([Settlement(call, now_ms, used, ends)])
            self.gone[call.flow] += len(call.jobs)
        for flow in {call.flow for call in calls}:
            await self.store.flushed(flow, "+")

    @property
    def _worker(self) -> str:
        return f"{_WORKER}-{self.lane.pool}"

    async def _beat(self) -> None:
        life = self.store.gateway.life
        state = WorkerState(self._worker, self.lane.pool, _SLOTS, 0, _LEASE_MS, life, ())
        await self.store.heartbeat(state)

    async def settle_down(self) -> None:
        """The server has written what it has to, and every lane that was opened has been looked at
        once: nothing else is done while we measure."""
        redis = self.store.gateway.redis
        await redis.config_set("auto-aof-rewrite-percentage", 0)
        while await self._busy():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        while await self._lanes_to_look_at() > ACTIVE:
            await self.store.release(1)
            await self.clear()

    async def _busy(self) -> bool:
        """Whether it rewrites its file, or moves its keys into a larger table."""
        redis = self.store.gateway.redis
        persistence, memory = await redis.info("persistence"), await redis.info("memory")
        rehashing = memory.get("mem_overhead_db_hashtable_rehashing", 0)
        return bool(persistence["aof_rewrite_in_progress"] or rehashing)

    async def _lanes_to_look_at(self) -> int:
        prefix, redis = keys.prefix(PARTITION), self.store.gateway.redis
        return int(await redis.zcard(f"{prefix}turn")) + int(await redis.zcard(f"{prefix}due"))

    async def _forget_statistics(self) -> None:
        await self.store.gateway.redis.config_resetstat()

    async def _statistics(self) -> dict[str, tuple[int, int]]:
        """Of each command: how often, and how many microseconds."""
        told = await self.store.gateway.redis.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): (one["calls"], one["usec"]) for name, one in told.items()
        }

    async def _cpu_s(self) -> float:
        told = await self.store.gateway.redis.info("cpu")
        used: float = told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"]
        return used
