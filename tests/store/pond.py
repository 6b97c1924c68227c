"""The rig of the store's tests: a flow on a lane, workers that say what a test wants, and a dump.

Everything goes through the real scripts on a real server, in logical time.
"""

from collections.abc import Sequence
from typing import Any, Literal

from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.domain.job import Class, State
from millpond.store import keys
from millpond.store.gateway import Gateway
from millpond.store.store import (
    ACCEPT_MOST,
    Changes,
    Lane,
    NewJob,
    OnUnknown,
    Reserve,
    Row,
    Store,
    WorkerState,
)

Dump = dict[str, Any]
End = Literal["succeeded", "failed", "retry"]

PREFIX = keys.prefix(PARTITION)
LEASE_MS = 30_000

#: Fields of `m` that every script may move: the clock, and that all workers were heard of.
_CLOCK = {"raw", "now", "lease_now", "heard"}

_DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'string' then value = redis.call('GET', key)
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  else value = redis.call('XRANGE', key, '-', '+') end
  all[#all + 1] = {key, kind, value}
end
return all
"""


async def everything(redis: Redis, *, without: Sequence[str] = ()) -> Dump:
    """All keys of the partition without its prefix, as plain values; `m` without the clock.

    `without`: keys to leave out.
    """
    dump = await whole_dump(redis)
    if "m" in dump:
        dump["m"] = {name: value for name, value in dump["m"].items() if name not in _CLOCK}
    return {key: dump[key] for key in sorted(dump) if key not in without}


async def whole_dump(redis: Redis) -> Dump:
    """All keys of the partition, the clock too."""
    found = await command(redis, "EVAL", _DUMP, 0, PREFIX)
    return {key.decode()[len(PREFIX) :]: _plain(kind, value) for key, kind, value in found}


async def command(redis: Redis, *args: str | int | bytes, **options: bool) -> Any:
    return await redis.execute_command(*args, **options)  # type: ignore[no-untyped-call]


def _plain(kind: bytes, value: Any) -> Any:
    if kind == b"string":
        return value.decode(errors="backslashreplace")  # a window's counters are no text
    if kind == b"stream":
        return [(id.decode(), _pairs(fields)) for id, fields in value]
    texts = [one.decode() for one in value]
    if kind == b"hash":
        return dict(zip(texts[::2], texts[1::2], strict=True))
    if kind == b"zset":
        return {member: float(at) for member, at in zip(texts[::2], texts[1::2], strict=True)}
    return sorted(texts) if kind == b"set" else texts


def _pairs(fields: list[bytes]) -> dict[str, str]:
    texts = [one.decode() for one in fields]
    return dict(zip(texts[::2], texts[1::2], strict=True))


class Pond:
    """One store under test. Flow `f` on lane `acme.generate`, worker `w`, unless a test says
    otherwise; a job's need is 100 characters."""

    def __init__(self, store: Store, redis: Redis, time: TestTime) -> None:
        self.store = store
        self.redis = redis
        self.time = time
        self.seqs: dict[str, int] = {}

    @property
    def now_ms(self) -> int:
        return self.store.gateway.now_ms

    def another_store(self) -> Store:
        """Another process on the same data."""
        return Store(Gateway(self.redis, PARTITION, time=self.time))

    async def command(self, *args: str | int | bytes, **options: bool) -> Any:
        """Any command, for what the store does not tell."""
        return await command(self.redis, *args, **options)

    async def open(
        self,
        *limits: str,
        flow: str = "f",
        org: str = "acme",
        endpoint: str = "generate",
        quota: int | None = None,
        attempts: int = 3,
        crashes: int = 3,
        user: str = "",
        klass: Class = Class.BULK,
        weight: float = 1.0,
        pack: int = 1,
        bulk: Sequence[str] = (),
        credit: bool = False,
        paced: bool = False,
        reserve: Reserve = "strict",
        lost: bool = False,
    ) -> Lane:
        opened = lane(
            *limits,
            quota=quota,
            org=org,
            endpoint=endpoint,
            bulk=bulk,
            credit=credit,
            paced=paced,
            reserve=reserve,
        )
        await self.store.set_flow(
            flow,
            opened,
            attempts=attempts,
            crashes=crashes,
            user=user,
            klass=klass,
            weight=weight,
            pack=pack,
            lost=lost,
        )
        return opened

    async def change(self, org: str = "acme", *, by: str = "ann", **what: Any) -> int:
        """Change what is known, as an operator does; the version of the org's record."""
        return await self.store.change(org, Changes(**what), by=by)

    async def accept(
        self,
        *ids: str,
        flow: str = "f",
        need: int = 100,
        tokens: int = 0,
        base: int = 0,
        pack: str = "",
        within_ms: int = 0,
        on_unknown: OnUnknown = "retry",
    ) -> int:
        jobs = [
            NewJob(
                id,
                need,
                f"note of {id}",
                f"payload of {id}".encode(),
                tokens,
                base,
                pack,
                within_ms,
                on_unknown,
            )
            for id in ids
        ]
        held = 0
        for first in range(0, len(jobs), ACCEPT_MOST):
            held = await self.store.accept(flow, jobs[first : first + ACCEPT_MOST])
        return held

    async def add(self, flow: str, jobs: int, *, pack: str = "", need: int = 100) -> None:
        """Accept so many jobs, `flow.0` and so on."""
        await self.accept(*(f"{flow}.{i}" for i in range(jobs)), flow=flow, pack=pack, need=need)

    async def beat(
        self,
        worker: str = "w",
        *,
        free: int = 10,
        seq: int | None = None,
        held: Sequence[Claimed] = (),
        pool: str = "acme",
        lease_ms: int = LEASE_MS,
        life: int | None = None,
    ) -> tuple[str, ...]:
        """A heartbeat; calls that nobody wants answered any more."""
        told = WorkerState(
            worker=worker,
            pool=pool,
            free=free,
            seq=self.seqs.get(worker, 0) if seq is None else seq,
            lease_ms=lease_ms,
            life=self.store.gateway.life if life is None else life,
            held=held,
        )
        return await self.store.heartbeat(told)

    async def release(self, most: int = 200) -> tuple[int, int | None]:
        return await self.store.release(most)

    async def claim(self, worker: str = "w", *, most: int = 10) -> list[Claimed]:
        """The worker's next claim; it is registered."""
        self.seqs[worker] = self.seqs.get(worker, 0) + 1
        claimed = await self.store.claim(worker, self.seqs[worker], most)
        assert claimed is not None
        return claimed

    async def run(self, *ids: str, flow: str = "f", need: int = 100) -> list[Claimed]:
        """Accept jobs and bring them to the worker `w`, one call each."""
        await self.accept(*ids, flow=flow, need=need)
        await self.beat(free=10, seq=0)
        await self.release()
        claimed = await self.claim()
        assert [call.jobs[0].id for call in claimed] == list(ids)
        return claimed

    async def pass_through(
        self, calls: int, *, at_once: int = 1, every_ms: int = 0
    ) -> list[Claimed]:
        """So many calls go, `at_once` of them in one decision, and end at once; fewer if no more
        may. There is always a worker, and a call takes `every_ms`."""
        through: list[Claimed] = []
        while len(through) < calls:
            most = min(at_once, calls - len(through))
            await self.beat("w", free=most)
            await self.release(most)
            gone = await self.claim("w", most=most)
            if not gone:
                break
            await self.store.settle([self.settlement(call) for call in gone])
            through += gone
            await self.jump(every_ms * len(gone))
        return through

    async def settle(self, call: Claimed | str, end: End = "succeeded", **how: Any) -> str:
        """Settle one call of one job, as `settlement` says; the store's word for it."""
        [word] = await self.store.settle([self.settlement(call, end, **how)])
        return word

    def settlement(
        self,
        call: Claimed | str,
        end: End = "succeeded",
        *,
        used: int | None = 70,
        since_ms: float = 0,
        failed: bool = False,
        delay_ms: int = 0,
        refused: bool = False,
        shut_ms: int = 0,
        pause: str = "",
        trouble: bool = False,
        split: bool = False,
        credit_ms: int = 0,
        tokens: int | None = None,
        unknown: bool = False,
    ) -> Settlement:
        if isinstance(call, str):
            job = ClaimedJob("j1", 0, b"{}")
            call = Claimed(call, "acme.generate", "acme", "f", 100, 3, (job,))
        jobs = job_ids(call)
        return Settlement(
            call,
            counted_by_ms=self.time.monotonic_ms() - since_ms,
            used=used,
            jobs=tuple(
                JobEnd(
                    job,
                    end,
                    failed=failed,
                    delay_ms=delay_ms,
                    body=b'{"text":"yes"}',
                    used=None if used is None else used // len(jobs) + (i < used % len(jobs)),
                    unknown=unknown,
                )
                for i, job in enumerate(jobs)
            ),
            tokens=tokens,
            credit_ms=credit_ms,
            refused=refused,
            shut_ms=shut_ms,
            trouble=trouble,
            split=split,
            pause=pause,
        )

    async def bring(self, state: State) -> str:
        """Open a flow, bring its job `j1` to a state by its usual way; the id of its last call, or
        of none."""
        await self.open()
        await self.accept("j1", within_ms=1 if state == State.EXPIRED else 0)
        await self.beat()
        if state == State.QUEUED:
            return "none"
        if state == State.CANCELLED:
            assert await self.store.cancel(["j1"]) == ["cancelled"]
            return "none"
        if state == State.EXPIRED:
            await self.jump(1)
            assert (await self.store.promote(200))[0] == 1
            return "none"
        await self.release()
        [ready] = await self.list_of("ready:acme")
        if state == State.RELEASED:
            return ready
        [call] = await self.claim()
        if state == State.SUCCEEDED:
            await self.settle(call, "succeeded")
        if state == State.FAILED:
            await self.settle(call, "failed")
        assert await self.state("j1") == state
        return call.id

    async def rows(self, flow: str = "f") -> list[Row]:
        """All rows of a flow's stream; ids of the server's own making are left as they are."""
        found: Any = await self.redis.xrange(f"{PREFIX}f:{flow}:out")
        return [
            Row(id.decode(), {k.decode(): v.decode() for k, v in fields.items()})
            for id, fields in found
        ]

    async def fields(self, key: str) -> dict[str, str]:
        found: dict[bytes, bytes] = await self.command("HGETALL", PREFIX + key)
        return {name.decode(): value.decode() for name, value in found.items()}

    async def field(self, key: str, name: str) -> str | None:
        return (await self.fields(key)).get(name)

    async def number(self, key: str, name: str) -> int:
        return int(await self.field(key, name) or 0)

    async def books(self) -> tuple[int, int, int]:
        """Characters of org acme: reserved, estimated, used."""
        org = await self.fields("o:acme")
        return (
            int(org.get("reserved", 0)),
            int(org.get("estimated", 0)),
            int(org.get("used", 0)),
        )

    async def flow_books(self, flow: str = "f") -> tuple[int, int, int]:
        """Characters of a flow: reserved, estimated, used."""
        of = await self.fields(f"f:{flow}")
        return int(of.get("reserved", 0)), int(of.get("estimated", 0)), int(of.get("used", 0))

    async def state(self, job: str) -> str | None:
        return await self.field(f"j:{job}", "state")

    async def line(self, flow: str = "f") -> list[str]:
        """Ids of the flow's queued jobs, the next one first."""
        return [entry.split("|")[1] for entry in await self.list_of(f"f:{flow}:q")]

    async def list_of(self, key: str) -> list[str]:
        found = await self.command("LRANGE", PREFIX + key, 0, -1)
        return [one.decode() for one in found]

    async def scores(self, key: str) -> dict[str, int]:
        found: list[tuple[bytes, float]] = await self.command(
            "ZRANGE", PREFIX + key, 0, -1, "WITHSCORES", withscores=True
        )
        return {member.decode(): int(at) for member, at in found}

    async def members(self, key: str) -> list[str]:
        found = await self.command("SMEMBERS", PREFIX + key)
        return sorted(one.decode() for one in found)

    async def stamps(self, endpoint: str = "generate") -> list[int]:
        """The lane's stamps, as times relative to logical now."""
        found = await self.scores(f"l:acme.{endpoint}:s")
        return sorted(at - self.now_ms for at in found.values())

    async def flight(self, endpoint: str = "generate") -> int:
        return len(await self.scores(f"l:acme.{endpoint}:flight"))

    async def put_stamps(self, *ages_ms: int, endpoint: str = "generate") -> None:
        """Write stamps that are so old, in the place of those that were written so before."""
        lane = f"{PREFIX}l:acme.{endpoint}"
        for i, age_ms in enumerate(ages_ms):
            new = await self.command("ZADD", f"{lane}:s", self.now_ms - age_ms, f"old{i}")
            await self.command("HINCRBY", lane, "ever", new)

    async def put_flight(self, calls: int, endpoint: str = "generate") -> None:
        """Write calls that are in flight and never end."""
        for i in range(calls):
            await self.command(
                "ZADD", f"{PREFIX}l:acme.{endpoint}:flight", self.now_ms, f"flying{i}"
            )

    async def keys_of(self, start: str) -> list[str]:
        """All keys that begin so, without the partition's prefix."""
        found: list[bytes] = await self.command("KEYS", f"{PREFIX}{start}*")
        return sorted(key.decode()[len(PREFIX) :] for key in found)

    async def snapshot(self) -> dict[bytes, bytes]:
        """What the server knows, to be put back with `forget_since`."""
        found: list[bytes] = await self.command("KEYS", f"{PREFIX}*")
        return {key: await self.command("DUMP", key) for key in found}

    async def forget_since(self, snapshot: dict[bytes, bytes]) -> None:
        """The server was started again, and what it learnt since the snapshot is lost."""
        await self.redis.flushall()
        for key, value in snapshot.items():
            await self.command("RESTORE", key, 0, value)
        await self.new_life()

    async def new_life(self) -> None:
        """The server was started again."""
        await self.store.gateway.run("new_life", f"run after life {self.store.gateway.life}")

    async def pass_time(self, ms: int) -> None:
        """Time passes while somebody ticks."""
        while ms > 0:
            step = min(ms, 250)
            self.time.advance(step)
            await self.tick()
            ms -= step

    async def jump(self, ms: int) -> None:
        """Time passes while only this store watches: it vouches for it with its next script."""
        self.time.advance(ms)
        await self.tick()

    async def tick(self) -> None:
        """A script that changes nothing but the clock."""
        await self.store.gateway.run("look", "no flow")


def job_ids(call: Claimed) -> list[str]:
    return [job.id for job in call.jobs]


def flows(calls: Sequence[Claimed]) -> list[str]:
    """Whose turn each call was."""
    return [call.flow for call in calls]


def names(calls: Sequence[Claimed]) -> list[str]:
    """The jobs of calls, in order."""
    return [job.id for call in calls for job in call.jobs]
