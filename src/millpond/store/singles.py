"""Single jobs: each is asked for by itself, and kept with its answer until it has been kept long
enough. (The jobs of a run leave as soon as their answers are on its disk.)
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.exceptions import RedisError

from millpond.domain.job import Class, State
from millpond.errors import Refused, StoreUnavailable, Unavailable, UnknownPart
from millpond.store import keys
from millpond.store.gateway import Argument, Gateway
from millpond.store.store import OnUnknown, Row, check_id, read_row

#: Jobs that are submitted in one step.
SUBMIT_MOST = 500
PURGE_MOST = 200
_DONE_MOST = 1_000


class Suspended(Refused):
    """Nothing is taken in for the org until an operator lifts its suspension."""

    code = "suspended"

    def __init__(self, org: str) -> None:
        super().__init__(f"org {org} is suspended: nothing is taken in until that is lifted")


class FlowClosed(Refused):
    """The flow that a job is to enter is not open: open it, and submit again."""

    code = "flow_closed"

    def __init__(self, flow: str) -> None:
        super().__init__(f"flow {flow} is not open")
        self.flow = flow


class KeyReused(Refused):
    """Something else was submitted under the same idempotency key."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used for another request in the last day: a key is for one "
            "request and its repetitions"
        )


class Full(Unavailable):
    """So much is there already that nothing more is taken in. `whose`: org or server, which has so
    much that waits; org_kept or server_kept, that is kept after its end."""

    code = "full"

    def __init__(self, whose: str, waiting: int, most: int) -> None:
        of = "the org" if whose.startswith("org") else "all orgs"
        does, until = "wait", "some have ended"
        if whose.endswith("_kept"):
            does, until = "are kept", "some have been kept long enough, or are deleted"
        super().__init__(
            f"{waiting:,} bytes of jobs of {of} {does} already, of {most:,}: nothing more is taken "
            f"in until {until}"
        )
        self.whose = whose
        self.waiting = waiting
        self.most = most


class NotEnded(Refused):
    """A job that waits or runs, or has its answer, is not asked again."""

    code = "not_failed"

    def __init__(self, job: str, state: str) -> None:
        super().__init__(
            f"job {job} is {state}: only failed, cancelled and expired jobs are asked again"
        )


class Forgotten(Refused):
    """What the job asked is kept no more."""

    code = "forgotten"

    def __init__(self, job: str) -> None:
        super().__init__(f"what job {job} asked is kept no more: submit it anew")


@dataclass(frozen=True, slots=True)
class Single:
    """A job to submit: as NewJob, and the flow that it enters. `wait_ms`: it is not asked before
    so long from now. `note`: what its record says of it, for whoever reads it. `tag`:
    endpoint|user|model, which its usage is told by. `idempotency`: digest of a key of its own."""

    id: str
    flow: str
    need: int
    payload: bytes
    note: str = ""
    tokens: int = 0
    base: int = 0
    pack: str = ""
    within_ms: int = 0
    wait_ms: int = 0
    on_unknown: OnUnknown = "retry"
    tag: str = ""
    idempotency: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """A user's single jobs of one endpoint and class: they take turns as one."""

    id: str
    org: str
    lane: str
    user: str
    klass: Class
    attempts: int
    crashes: int
    pack: int
    common: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes of jobs that may wait, of an org and of all; and of those that are kept after their
    end, with their answers."""

    org: int
    server: int
    org_kept: int = 2**30
    server_kept: int = 2**32

    def most(self, whose: str) -> int:
        """The bound that Full tells of."""
        bound: int = getattr(self, whose)
        return bound

    def each(self) -> tuple[int, int, int, int]:
        return self.org, self.server, self.org_kept, self.server_kept


@dataclass(frozen=True, slots=True)
class Kept:
    """A single job as it is kept. Moments are logical ms. `answer`: what came of it, or the error;
    None: it has not ended. `errors`: its last ones, the oldest first."""

    id: str
    org: str
    flow: str
    state: State
    note: str
    submitted_ms: int
    ended_ms: int | None
    attempts: int
    failures: int
    deadline_ms: int | None
    cancelling: bool
    again_of: str | None
    errors: tuple[str, ...]
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """`jobs`: by state, or "submitted", and endpoint. `waiting_bytes`: of those not ended."""

    jobs: Mapping[tuple[str, str], int]
    waiting_bytes: int
    orgs: int


class Singles:
    """The single jobs of one partition."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def open(self, flow: Flow, *, by: str) -> None:
        """Open a flow in a lane that is there. Raises UnknownPart."""
        told = {
            "org": {"id": flow.org},
            "lane": {"id": flow.lane},
            "flow": {
                "id": flow.id,
                "user": flow.user,
                "class": flow.klass,
                "weight": 1.0,
                "attempts": flow.attempts,
                "crashes": flow.crashes,
                "pack": flow.pack,
                "single": True,
            },
        }
        match await self.gateway.run("set", by, orjson.dumps(told), flow.common):
            case [b"set", _]:
                return
            case [b"unknown", part, id]:
                raise UnknownPart(part.decode(), id.decode())
            case [b"purging"]:  # which begins with its suspension
                raise Suspended(flow.org)
            case other:
                raise AssertionError(f"set.lua replied {other}")

    async def submit(
        self,
        org: str,
        jobs: Sequence[Single],
        bounds: Bounds,
        *,
        idempotency: str = "",
        fingerprint: str = "",
        remembered_s: int = 86_400,
    ) -> list[str]:
        """Queue jobs, all or none, at most SUBMIT_MOST; their ids. Under an idempotency key (its
        digest) that was used before, with the same fingerprint, the ids are those of then.

        Raises Suspended, FlowClosed, KeyReused and Full.
        """
        args: list[Argument] = [org, idempotency, fingerprint, remembered_s]
        args += bounds.each()
        for job in jobs:
            check_id(job.id)
            args += [job.id, job.flow, job.need, job.tokens, job.base, job.pack, job.note]
            args += [job.tag, job.within_ms, job.wait_ms]
            args += ["end" if job.on_unknown == "end" else "", job.payload]
            args += [job.idempotency, job.fingerprint]
        match await self.gateway.run("submit", *args):
            case [b"submitted", ids]:
                return str(ids.decode()).split(",")
            case [b"differs"]:
                raise KeyReused
            case [b"suspended"]:
                raise Suspended(org)
            case [b"unknown", flow]:
                raise FlowClosed(flow.decode())
            case [b"full", whose, waiting]:
                raise Full(whose.decode(), int(waiting), bounds.most(whose.decode()))
            case other:
                raise AssertionError(f"submit.lua replied {other}")

    async def again(self, org: str, job: str, new: str, bounds: Bounds) -> None:
        """Ask what a job asked that ended without an answer, as a new job.

        Raises UnknownPart, NotEnded, Forgotten, Suspended and Full.
        """
        match await self.gateway.run("again", org, job, new, *bounds.each()):
            case [b"again"] | [b"known"]:
                return
            case [b"unknown"]:
                raise UnknownPart("job", job)
            case [b"open", state]:
                raise NotEnded(job, state.decode())
            case [b"gone"]:
                raise Forgotten(job)
            case [b"suspended"]:
                raise Suspended(org)
            case [b"full", whose, waiting]:
                raise Full(whose.decode(), int(waiting), bounds.most(whose.decode()))
            case other:
                raise AssertionError(f"again.lua replied {other}")

    async def erase(self, org: str, job: str) -> None:
        """Keep nothing of a job: at once if it has ended, else as soon as it does, which is soon
        since nobody wants it answered any more. Raises UnknownPart."""
        match await self.gateway.run("erase", org, job):
            case [b"erased"]:
                return
            case [b"ending"]:
                await self.gateway.run("cancel", job)
            case [b"unknown"]:
                raise UnknownPart("job", job)
            case other:
                raise AssertionError(f"erase.lua replied {other}")

    async def purge(self, *, kept_ms: int) -> int:
        """Some of the jobs that ended longer ago leave; how many (PURGE_MOST: perhaps not all)."""
        return int((await self.gateway.run("purge", kept_ms, PURGE_MOST))[1])

    async def find(self, org: str, job: str) -> Kept:
        """A job of the org, with its answer. Raises UnknownPart: another org's is as unknown as one
        that was never there."""
        [found] = await self._find(org, [job], answers=True)
        if found is None:
            raise UnknownPart("job", job)
        return found

    async def page(self, org: str, *, before: str, most: int) -> tuple[list[Kept], str | None]:
        """Jobs of an org without their answers, the latest first, from behind the place `before`
        (`""`: the beginning); and the place behind the last, None: there is no more."""
        key = keys.singles(self.gateway.partition, org)
        at, _, last = before.partition("|")
        redis = self.gateway.redis
        found: list[tuple[bytes, float]] = await self._read(
            redis.zrevrangebyscore(
                key, at or "+inf", "-inf", start=0, num=most + 1, withscores=True
            )
        )
        if last:
            # Of one moment there may be more than a page: those are passed by name.
            found = await self._behind(key, int(at), last, most)
        page = found[:most]
        kept = await self._find(org, [job.decode() for job, _ in page])
        more = f"{int(page[-1][1])}|{page[-1][0].decode()}" if len(found) > most else None
        return [one for one in kept if one is not None], more

    async def _behind(self, key: str, at: int, last: str, most: int) -> list[tuple[bytes, float]]:
        redis = self.gateway.redis
        rank = await self._read(redis.zrevrank(key, last))
        if rank is None:  # it has left: from its moment on
            return list(
                await self._read(
                    redis.zrevrangebyscore(
                        key, f"({at}", "-inf", start=0, num=most + 1, withscores=True
                    )
                )
            )
        first = rank + 1
        return list(await self._read(redis.zrevrange(key, first, first + most, withscores=True)))

    async def waiting(self, org: str) -> tuple[int, int]:
        """Bytes of jobs that wait: of the org, and of all."""
        partition = self.gateway.partition
        pipe = self.gateway.redis.pipeline(transaction=False)
        pipe.hget(keys.org(partition, org), "bytes")
        pipe.hget(keys.partition(partition), "bytes")
        of_org, of_all = await self._read(pipe.execute())
        return int(of_org or 0), int(of_all or 0)

    async def usage(self, org: str, day: int) -> dict[tuple[str, str, str, str], int]:
        """What single jobs of the org used on a day (days since 1970): by user, endpoint, model and
        what is counted, `jobs` or `characters`."""
        key = keys.usage(self.gateway.partition, org, day)
        found = await self._read(self.gateway.redis.hgetall(key))
        told = {}
        for name, count in found.items():
            parts = name.decode().split("|", 3)
            if len(parts) == 4:  # else it came from a job that says nothing of itself
                what, endpoint, user, model = parts
                told[user, endpoint, model, what] = int(count)
        return told

    async def events(self, org: str, after: str, *, most: int) -> list[Row]:
        """What happened to the org since the event `after`, the oldest first."""
        key = keys.records(self.gateway.partition, org, "events")
        found = await self._read(self.gateway.redis.xrange(key, f"({after}", "+", count=most))
        return [read_row(*one) for one in found]

    async def event_is_kept(self, org: str, event: str) -> bool:
        """Whether everything since that event is still there."""
        key = keys.records(self.gateway.partition, org, "events")
        found = await self._read(self.gateway.redis.xrange(key, event, event, count=1))
        return bool(found)

    async def counts(self) -> Counts:
        """How many single jobs of all orgs came and ended, and what waits."""
        partition = self.gateway.partition
        pipe = self.gateway.redis.pipeline(transaction=False)
        pipe.hgetall(keys.counts(partition))
        pipe.hget(keys.partition(partition), "bytes")
        pipe.scard(keys.orgs(partition))
        found, waiting, orgs = await self._read(pipe.execute())
        jobs = {}
        for name, count in found.items():
            state, endpoint = name.decode().split("|", 1)
            jobs[state, endpoint] = int(count)
        return Counts(jobs, int(waiting or 0), int(orgs))

    async def last_done(self) -> str:
        """The place in the stream of jobs that have ended, as it is now."""
        found = await self._read(
            self.gateway.redis.xrevrange(keys.done(self.gateway.partition), "+", "-", count=1)
        )
        return found[0][0].decode() if found else "0-0"

    async def done(self, after: str, *, block_ms: int) -> tuple[list[str], str]:
        """Jobs that have ended since, and the place behind them; waits up to `block_ms` for one."""
        found = await self._read(
            self.gateway.redis.xread(
                {keys.done(self.gateway.partition): after}, count=_DONE_MOST, block=block_ms
            )
        )
        entries = found[0][1] if found else []
        if not entries:
            return [], after
        return [fields[b"job"].decode() for _, fields in entries], entries[-1][0].decode()

    async def ended(self, jobs: Sequence[str]) -> list[str]:
        """Which of these jobs have ended, or are not there."""
        pipe = self.gateway.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hmget(keys.job(self.gateway.partition, job), ["state", "ended"])
        found = await self._read(pipe.execute())
        return [job for job, (state, at) in zip(jobs, found, strict=True) if at or not state]

    async def is_known(self, org: str, digest: str) -> bool:
        """Whether something was submitted under an idempotency key."""
        key = keys.idempotency(self.gateway.partition, org, digest)
        return bool(await self._read(self.gateway.redis.exists(key)))

    async def said_before(self, org: str, digest: str, fingerprint: str) -> list[str] | None:
        """Ids of what was submitted under an idempotency key; None: nothing was. Raises KeyReused
        if that was something else."""
        key = keys.idempotency(self.gateway.partition, org, digest)
        known, ids = await self._read(self.gateway.redis.hmget(key, ["print", "ids"]))
        if ids is None:
            return None
        if known != fingerprint.encode():
            raise KeyReused
        return str(ids.decode()).split(",")

    async def states(self, jobs: Sequence[str]) -> list[State | None]:
        """In which state these jobs are; None: it is there no more."""
        pipe = self.gateway.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hget(keys.job(self.gateway.partition, job), "state")
        found = await self._read(pipe.execute())
        return [None if state is None else State(state.decode()) for state in found]

    async def _find(
        self, org: str, jobs: Sequence[str], *, answers: bool = False
    ) -> list[Kept | None]:
        partition = self.gateway.partition
        pipe = self.gateway.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hgetall(keys.job(partition, job))
            if answers:
                pipe.get(keys.answer(partition, job))
        found = await self._read(pipe.execute())
        records = found[::2] if answers else found
        bodies = found[1::2] if answers else [None] * len(jobs)
        return [_kept(org, *one) for one in zip(jobs, records, bodies, strict=True)]

    async def _read(self, command: Awaitable[Any] | Any) -> Any:
        try:
            return await command
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error


def _kept(org: str, job: str, told: Mapping[bytes, bytes], answer: bytes | None) -> Kept | None:
    fields = {name.decode(): value.decode() for name, value in told.items()}
    if fields.get("org") != org or "erase" in fields:
        return None
    return Kept(
        id=job,
        org=org,
        flow=fields["flow"],
        state=State(fields["state"]),
        note=fields["note"],
        submitted_ms=int(fields["at"]),
        ended_ms=int(fields["ended"]) if "ended" in fields else None,
        attempts=int(fields.get("attempts", 0)),
        failures=int(fields.get("failures", 0)),
        deadline_ms=int(fields["deadline"]) if "deadline" in fields else None,
        cancelling="cancel" in fields,
        again_of=fields.get("again_of"),
        errors=tuple(error for error in fields.get("errors", "").split("\n") if error),
        answer=answer,
    )
