"""The store: one method per script, each a change of state in one step.

Everything that Redis knows of jobs, calls, limits and quota is read and written here.
"""

import re
from collections.abc import Awaitable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from redis.exceptions import RedisError, ResponseError

from millpond.domain.account import Stage
from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.domain.job import Class
from millpond.domain.limit import Limit
from millpond.errors import Refused, StoreUnavailable, UnknownFlow, UnknownPart
from millpond.store import keys
from millpond.store.gateway import Argument, Gateway
from millpond.store.view import (
    Explanation,
    Holds,
    OrgView,
    View,
    read_explanation,
    read_org,
    read_view,
)

ACCEPT_MOST = 200
HOLDS_MOST = 2_000
_ROWS_MOST = 200

#: How long after we stopped watching a call the provider may still come to count it.
LOST_GRACE_MS = 1_000
_REAP_MOST = 20

_ID = re.compile(r"[^,|\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]{1,200}")

#: Answers that are larger are sent ahead of the script that ends their call.
AHEAD_FROM_BYTES = 8 * 1024
#: One whose call is never settled leaves by itself.
_AHEAD_KEPT_S = 86_400

#: Whether all of a job's bound is reserved, or what 99 of 100 answers have come to.
Reserve = Literal["strict", "p99"]


def _error(code: str, message: str) -> bytes:
    error = {"code": code, "message": message, "pointer": None, "provider_status": None}
    return orjson.dumps({"error": error})


_DIED = _error(
    "worker_died", "the worker died each time this job was running; it is not tried again"
)
_DEATH = _error("worker_died", "the worker died while this job was running")

#: What becomes of a job when nobody knows whether it was answered: it is asked again, or it ends.
OnUnknown = Literal["retry", "end"]


class BadId(Refused):
    """A text that cannot be a job's id."""

    code = "bad_id"


class BelowZero(Refused):
    """More characters would be taken back than were ever used."""

    code = "below_zero"

    def __init__(self, used: int, characters: int) -> None:
        super().__init__(f"{characters:,} characters would leave less than none: {used:,} are used")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to accept. `need` characters and `tokens` are the most it may use, `base` characters of
    it are known beforehand; jobs with the same `pack` may share a call (`""`: with nobody). `note`
    comes back with the answer's row. If it waits when its deadline passes, `within_ms` from now (0:
    it has none), it ends as expired."""

    id: str
    need: int
    note: str
    payload: bytes
    tokens: int = 0
    base: int = 0
    pack: str = ""
    within_ms: int = 0
    on_unknown: OnUnknown = "retry"


@dataclass(frozen=True, slots=True)
class Lane:
    """An account and an endpoint, with the limits that hold for them.

    `bulk`: limits that only bulk has to keep, so that something is left for interactive jobs.
    `credit`: the provider's word on its service time is believed. `paced`: bulk always goes evenly.
    `if_new`: if the lane has limits already, those stay.
    """

    id: str
    org: str
    pool: str
    limits: Sequence[Limit]
    quota: int | None
    counted: bool
    bulk: Sequence[Limit] = ()
    credit: bool = False
    paced: bool = False
    reserve: Reserve = "strict"
    if_new: bool = False


class OrgKnown(Refused):
    """An org is to be created that is there."""

    code = "org_known"

    def __init__(self, org: str) -> None:
        super().__init__(f"there is an org {org!r} already; choose another id")
        self.org = org


class OrgPurging(Refused):
    """An org that is being erased changes no more."""

    code = "purging"

    def __init__(self, org: str) -> None:
        super().__init__(f"org {org} is being purged, and that cannot be taken back")
        self.org = org


class WrongStage(Refused):
    """An application for full access is not where such a step is taken from."""

    code = "wrong_stage"

    def __init__(self, org: str, number: int, stage: Stage) -> None:
        super().__init__(f"application {number} of org {org} is {stage}")
        self.stage = stage


@dataclass(frozen=True, slots=True)
class LaneTerms:
    """What changes of one of several lanes that change together; None stays as it is. A lane that
    is new has limits and a `pool`."""

    lane: str
    limits: Sequence[Limit] | None = None
    bulk: Sequence[Limit] = ()
    pool: str | None = None
    counted: bool | None = None
    caps: Sequence[Limit] | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """By this an application for full access is approved."""

    number: int
    checklist: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an operator changes; None stays as it is. `paused` of a lane: a reason, `""` goes on.
    `caps` of a lane: limits of calls that hold for each user by itself; `()`: there are none.

    `new`: the org must not be there yet. `lanes`: more lanes of the org than `lane`. `why` stands
    in the audit.
    """

    quota: int | Literal["none"] | None = None
    status: Literal["active", "suspended"] | None = None
    mode: str | None = None
    reserve: Reserve | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    lane: str | None = None
    limits: Sequence[Limit] | None = None
    bulk: Sequence[Limit] = ()
    credit: bool | None = None
    paced: bool | None = None
    caps: Sequence[Limit] | None = None
    paused: str | None = None
    flow: str | None = None
    flow_weight: float | None = None
    flow_paused: bool | None = None
    name: str | None = None
    new: bool = False
    lanes: Sequence[LaneTerms] = ()
    approval: Approval | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of a flow's stream: a job's last word, or a call's line in the books."""

    id: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker tells of itself in a heartbeat."""

    worker: str
    pool: str
    free: int
    seq: int
    lease_ms: int
    life: int
    held: Sequence[Claimed]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker's turn brought: new calls, and of those it holds the ones that nobody wants
    answered any more. A worker that is not `registered` must send a heartbeat first."""

    claimed: Sequence[Claimed] = ()
    unwanted: Sequence[str] = ()
    registered: bool = True


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that saw too many workers die. `errors`: its last ones; `call`: the last that carried
    it; `at_ms` is logical time."""

    job: str
    flow: str
    note: str
    payload: bytes
    errors: tuple[str, ...]
    attempts: int
    failures: int
    call: str
    at_ms: int


class Store:
    """The scripts of one partition, typed."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def hello(self) -> None:
        await self.gateway.hello()

    async def set_flow(
        self,
        flow: str,
        lane: Lane,
        *,
        attempts: int,
        crashes: int,
        common: bytes = b"",
        user: str = "",
        klass: Class = Class.BULK,
        weight: float = 1.0,
        pack: int = 1,
        lost: bool = False,
        by: str = "run",
    ) -> None:
        """Open a flow, its lane and org, or change them; used limits and quota are kept.

        `common` is what all of the flow's jobs share, for the workers. `lost`: calls were made in
        the lane; if the server does not know it, its windows count as full.
        """
        await self._set(
            by,
            {
                "org": {
                    "id": lane.org,
                    "quota": "none" if lane.quota is None else lane.quota,
                    "reserve": lane.reserve,
                },
                "lane": {
                    "id": lane.id,
                    "pool": lane.pool,
                    "counted": lane.counted,
                    "limits": _limits(lane.limits, lane.bulk),
                    "credit": lane.credit,
                    "paced": lane.paced,
                    "if_new": lane.if_new,
                    "again": True,
                    "lost": lost,
                },
                "flow": {
                    "id": flow,
                    "user": user,
                    "class": klass,
                    "weight": weight,
                    "attempts": attempts,
                    "crashes": crashes,
                    "pack": pack,
                    "paused": False,
                },
            },
            common,
        )

    async def change(self, org: str, changes: Changes, *, by: str) -> int:
        """Change what is known, for every decision from now on; the version of the org's record.

        Raises UnknownPart for an org, lane, flow or application that is not there, OrgKnown for a
        new org that is, OrgPurging, and WrongStage for an application that cannot be approved now.
        """
        told: dict[str, Any] = {
            "org": {
                "id": org,
                "quota": changes.quota,
                "status": changes.status,
                "mode": changes.mode,
                "reserve": changes.reserve,
                "weights": dict(changes.weights) or None,
                "name": changes.name,
                "new": changes.new or None,
            },
            "lanes": [_of_lane(one) for one in changes.lanes] or None,
            "why": changes.why or None,
        }
        if changes.lane is not None:
            told["lane"] = {
                "id": changes.lane,
                "limits": changes.limits and _limits(changes.limits, changes.bulk),
                "credit": changes.credit,
                "paced": changes.paced,
                "caps": None if changes.caps is None else _caps(changes.caps),
                "paused": changes.paused,
            }
        if changes.flow is not None:
            told["flow"] = {
                "id": changes.flow,
                "weight": changes.flow_weight,
                "paused": changes.flow_paused,
            }
        if changes.approval is not None:
            told["application"] = {
                "number": str(changes.approval.number),
                "checklist": orjson.dumps(dict(changes.approval.checklist)).decode(),
            }
        return await self._set(by, told, b"")

    async def _set(self, by: str, told: dict[str, Any], common: bytes) -> int:
        named = _without_none(told)
        match await self.gateway.run("set", by, orjson.dumps(named), common):
            case [b"set", version]:
                return int(version)
            case [b"unknown", part, id]:
                raise UnknownPart(part.decode(), id.decode())
            case [b"known"]:
                raise OrgKnown(named["org"]["id"])
            case [b"purging"]:
                raise OrgPurging(named["org"]["id"])
            case [b"stage", stage]:
                number = int(named["application"]["number"])
                raise WrongStage(named["org"]["id"], number, Stage(stage.decode()))
            case other:
                raise AssertionError(f"set.lua replied {other}")

    async def common(self, flow: str) -> bytes | None:
        """What all jobs of a flow share; None: there is no such flow."""
        key = keys.flow(self.gateway.partition, flow)
        found: bytes | None = await self._read(self.gateway.redis.hget(key, "common"))
        return found

    async def accept(self, flow: str, jobs: Sequence[NewJob]) -> int:
        """Queue jobs, at most ACCEPT_MOST; known ones stay. How many the flow holds now."""
        args: list[Argument] = [flow]
        for job in jobs:
            check_id(job.id)
            args += [job.id, job.need, job.tokens, job.base, job.pack, job.note, job.within_ms]
            args += ["end" if job.on_unknown == "end" else "", job.payload]
        match await self.gateway.run("accept", *args):
            case [b"accepted", _, held]:
                return int(held)
            case [b"unknown"]:
                raise UnknownFlow(flow)
            case other:
                raise AssertionError(f"accept.lua replied {other}")

    async def release(self, most: int) -> tuple[int, int | None]:
        """Let calls go: how many went, and ms until a lane may move (None: after an event)."""
        return _count_and_wait(await self.gateway.run("release", most))

    async def scheduler_lives(self) -> None:
        """A scheduler is at work."""
        gateway = self.gateway
        key = keys.partition(gateway.partition)
        await self._read(gateway.redis.hset(key, "scheduled", str(gateway.now_ms)))

    async def scheduler_silent_ms(self) -> int | None:
        """Logical time since a scheduler last said that it is at work; None: none ever did."""
        key = keys.partition(self.gateway.partition)
        at, now = await self._read(self.gateway.redis.hmget(key, ["scheduled", "now"]))
        return None if at is None else max(0, int(now) - int(at))

    async def slots(self, pool: str) -> int:
        """Calls that the pool's workers, those that are registered, could take now."""
        key = keys.partition(self.gateway.partition)
        return int(await self._read(self.gateway.redis.hget(key, f"free:{pool}")) or 0)

    async def promote(self, most: int) -> tuple[int, int | None]:
        """Bring back jobs whose time or room has come: how many, and ms until the next."""
        return _count_and_wait(await self.gateway.run("promote", most))

    async def mend(self, cursor: str, most: int) -> tuple[int, str]:
        """Look at about so many flows from where the last look ended, `"0"` at first, and put back
        what fell out of its place: how much did, and where this look ended."""
        match await self.gateway.run("mend", cursor, most):
            case [b"mended", int(n), next]:
                return n, next.decode()
            case other:
                raise AssertionError(f"mend.lua replied {other}")

    async def reap(self) -> tuple[int, int | None]:
        """Take back calls of dead workers: how many, and ms until the next lease ends."""
        return _count_and_wait(
            await self.gateway.run("reap", _REAP_MOST, LOST_GRACE_MS, _DIED, _DEATH)
        )

    async def turn(
        self,
        worker: WorkerState,
        *,
        settlements: Sequence[Settlement],
        heartbeat: bool,
        claim: int,
    ) -> Turn:
        """A worker's whole turn in one round trip: settle, heartbeat, release, claim."""
        calls: list[tuple[str, Sequence[Argument]]] = []
        if settlements:
            calls.append(("settle", await self._settle_arguments(settlements)))
        if heartbeat:
            calls.append(("heartbeat", _heartbeat_arguments(worker)))
        if claim:
            calls.append(("release", [claim]))
            calls.append(("claim", [worker.worker, worker.seq + 1, claim]))
        replies = await self.gateway.run_all(calls)
        unwanted = _unwanted(replies[1 if settlements else 0]) if heartbeat else ()
        if not claim:
            return Turn(unwanted=unwanted)
        match replies[-1]:
            case [b"claimed", *told]:
                return Turn([_claimed(one) for one in told], unwanted)
            case [b"unknown"]:
                return Turn(unwanted=unwanted, registered=False)
            case other:
                raise AssertionError(f"claim.lua replied {other}")

    async def settle(self, settlements: Sequence[Settlement]) -> list[str]:
        """End calls that were sent; a word for each: settled, or late."""
        reply = await self.gateway.run("settle", *await self._settle_arguments(settlements))
        return [word.decode() for word in reply[1:]]

    async def heartbeat(self, worker: WorkerState) -> tuple[str, ...]:
        """A worker lives; of the calls that it holds, those that nobody wants answered any more."""
        return _unwanted(await self.gateway.run("heartbeat", *_heartbeat_arguments(worker)))

    async def claim(self, worker: str, seq: int, most: int) -> list[Claimed] | None:
        """Take released calls for a worker; None: the worker is not registered."""
        match await self.gateway.run("claim", worker, seq, most):
            case [b"claimed", *told]:
                return [_claimed(one) for one in told]
            case _:
                return None

    async def give_back(self, worker: str, calls: Iterable[str], *, unreachable: bool) -> None:
        """End calls that were never sent; their jobs are first in line again."""
        await self.gateway.run("give_back", worker, int(unreachable), *calls)

    async def cancel(self, jobs: Sequence[str]) -> list[str]:
        """Nobody wants these jobs (at most 200) answered any more; a word for each: cancelled,
        cancelling (it runs; its call is cut at the next heartbeat if it has no other job), ended
        (it had before), or unknown."""
        return [word.decode() for word in (await self.gateway.run("cancel", *jobs))[1:]]

    async def leave(self, worker: str, *, blamed: str = "") -> None:
        """A worker is gone: what it held may be taken back at once. `blamed`: the call that it was
        at work on when it died, if that is known."""
        await self.gateway.run("leave", worker, blamed)

    async def leave_all(self) -> None:
        """All workers of the partition are gone."""
        await self.gateway.run("leave", "", "")

    async def dead(self, org: str, *, most: int = 1_000) -> list[DeadLetter]:
        """Jobs that saw too many workers die, the latest first."""
        partition = self.gateway.partition
        found = await self._read(
            self.gateway.redis.zrevrange(keys.dead(partition, org), 0, most - 1)
        )
        letters = []
        for job in found:
            told = await self._read(
                self.gateway.redis.hgetall(keys.letter(partition, job.decode()))
            )
            if told:
                letters.append(_letter(job.decode(), told))
        return letters

    async def replay(self, org: str, job: str, new: str) -> None:
        """Ask what a dead job asked once more, as a new job. Raises UnknownPart if it is no dead
        letter, Refused if its flow has gone or there is a job of that id."""
        check_id(new)
        match await self.gateway.run("replay", org, job, new):
            case [b"replayed"]:
                return
            case [b"unknown", b"flow"]:
                raise Refused(f"nobody waits any more for answers of what {job!r} belonged to")
            case [b"unknown", part]:
                raise UnknownPart(part.decode(), job)
            case [b"known"]:
                raise Refused(f"there is a job {new!r} already; choose another id")
            case other:
                raise AssertionError(f"replay.lua replied {other}")

    async def pause(self, flow: str) -> None:
        """The flow takes no more turns until it is set again."""
        await self.gateway.run("pause", flow, 0)

    async def pause_others(self, flow: str) -> None:
        """All other flows of the partition take no more turns until they are set again."""
        await self.gateway.run("pause", flow, 1)

    async def forget(self, org: str, *, age_ms: int, most: int) -> int:
        """Stop expecting an answer of calls that were lost long ago; how many."""
        return int((await self.gateway.run("forget", org, age_ms, most))[1])

    async def org(self, org: str) -> OrgView:
        """How an org stands. Raises UnknownPart."""
        key = keys.org(self.gateway.partition, org)
        found = await self._read(self.gateway.redis.hgetall(key))
        if not found:
            raise UnknownPart("org", org)
        return read_org({name.decode(): value.decode() for name, value in found.items()})

    async def used(self, org: str) -> int:
        """Characters that an org has used, those of calls of unknown outcome included."""
        key = keys.org(self.gateway.partition, org)
        found = await self._read(self.gateway.redis.hmget(key, ["used", "estimated"]))
        return sum(int(one or 0) for one in found)

    async def orgs(self) -> list[str]:
        """All orgs of the partition."""
        found = await self._read(self.gateway.redis.smembers(keys.orgs(self.gateway.partition)))
        return sorted(org.decode() for org in found)

    async def flushed(self, flow: str, last: str | None, *, done: bool = False) -> int:
        """Rows up to `last` are safe elsewhere and leave. How many jobs the flow still holds.

        `done`: nothing more will come; the flow's own record leaves too if nothing is open.
        """
        while True:
            match await self.gateway.run("flushed", flow, last or "", int(done)):
                case [b"flushed", held]:
                    return int(held)
                case [b"more"]:
                    continue
                case other:
                    raise AssertionError(f"flushed.lua replied {other}")

    async def look(self, flow: str) -> View:
        """How things stand: org, flow, lane. Raises UnknownFlow."""
        match await self.gateway.run("look", flow):
            case [b"seen", told]:
                return read_view(told, now_ms=self.gateway.now_ms)
            case _:
                raise UnknownFlow(flow)

    async def explain(
        self, *, lane: str = "", flow: str = "", job: str = "", user: str = ""
    ) -> Explanation:
        """How a lane stands: the one that is named, or that of a flow or a job. `user`: whose caps
        are told, if not those of the flow's."""
        match await self.gateway.run("explain", lane, flow, job, user):
            case [b"explained", told]:
                return read_explanation(told, now_ms=self.gateway.now_ms)
            case [b"unknown", part]:
                raise UnknownPart(part.decode(), job or flow or lane)
            case other:
                raise AssertionError(f"explain.lua replied {other}")

    async def holds(self, lane: str) -> Holds:
        """Which calls count in a lane's windows now, at most HOLDS_MOST of each kind."""
        partition = self.gateway.partition
        flight, stamps = keys.flight(partition, lane), keys.stamps(partition, lane)
        redis, last = self.gateway.redis, HOLDS_MOST - 1
        released = await self._read(redis.zrevrange(flight, 0, last, withscores=True))
        counted = await self._read(redis.zrevrange(stamps, 0, last, withscores=True))
        return Holds(_moments(released), _moments(counted))

    async def weights(self, org: str) -> dict[str, float]:
        """Of the users that have a weight other than 1."""
        key = f"{keys.org(self.gateway.partition, org)}:weights"
        found = await self._read(self.gateway.redis.hgetall(key))
        return {user.decode(): float(weight) for user, weight in found.items()}

    async def adjust(
        self,
        org: str,
        how: Literal["add", "call", "total"],
        characters: int,
        *,
        by: str,
        why: str,
        call: str = "",
    ) -> tuple[int, int]:
        """Put an org's used characters right by hand: used and estimated ones afterwards.

        `add`: usage before us. `call`: what a call of unknown outcome has used. `total`: what the
        provider says has been used in all; no outcome is unknown after that.
        """
        match await self.gateway.run("adjust", org, by, why, how, characters, call):
            case [b"adjusted", used, estimated]:
                return int(used or 0), int(estimated or 0)
            case [b"unknown", part]:
                raise UnknownPart(part.decode(), call if part == b"call" else org)
            case [b"below", used]:
                raise BelowZero(int(used), characters)
            case other:
                raise AssertionError(f"adjust.lua replied {other}")

    async def unknown(self, org: str) -> dict[str, int]:
        """Calls of unknown outcome, each with the characters that are kept for it."""
        key = keys.unknown(self.gateway.partition, org)
        found = await self._read(self.gateway.redis.hgetall(key))
        return {call.decode(): int(kept) for call, kept in found.items()}

    async def records(
        self, org: str, what: Literal["ledger", "audit", "events"], *, most: int, before: str = "+"
    ) -> list[Row]:
        """An org's records, the newest first; those older than the row `before`."""
        key = keys.records(self.gateway.partition, org, what)
        last = before if before == "+" else f"({before}"
        found = await self._read(self.gateway.redis.xrevrange(key, last, "-", count=most))
        return [read_row(*one) for one in found]

    async def ledger_after(self, org: str, after: str, *, most: int) -> list[Row]:
        """Rows of an org's ledger, the oldest first, from the one after the row `after`."""
        key = keys.records(self.gateway.partition, org, "ledger")
        first = f"({after}" if after else "-"
        found = await self._read(self.gateway.redis.xrange(key, first, "+", count=most))
        return [read_row(*one) for one in found]

    async def trim(self, org: str, *, ledger_ms: int, audit_ms: int) -> None:
        """What is older leaves the org's ledger and usage, its audit, and that of what belongs to
        no org."""
        partition, redis = self.gateway.partition, self.gateway.redis
        seconds, _ = await self._read(redis.time())  # a row's id begins with the server's time
        ledger = keys.records(partition, org, "ledger")
        pipe = redis.pipeline(transaction=False)
        pipe.xtrim(ledger, minid=max(0, seconds * 1_000 - ledger_ms), approximate=False)
        for audit in (keys.records(partition, org, "audit"), keys.audit(partition)):
            pipe.xtrim(audit, minid=max(0, seconds * 1_000 - audit_ms), approximate=False)
        oldest = (self.gateway.now_ms - ledger_ms) // 86_400_000
        for day in range(oldest - 7, oldest):  # (it is said each hour, if all is well)
            pipe.unlink(keys.usage(partition, org, day))
        await self._read(pipe.execute())

    async def lanes(self, org: str) -> list[str]:
        """The lanes of an org."""
        found = await self._read(
            self.gateway.redis.smembers(keys.lanes(self.gateway.partition, org))
        )
        return sorted(lane.decode() for lane in found)

    async def _read(self, command: Awaitable[Any] | Any) -> Any:
        try:
            return await command
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error

    async def rows(self, flow: str, *, block_ms: int) -> list[Row]:
        """The oldest rows that are not flushed; waits up to `block_ms` for one."""
        key = keys.rows(self.gateway.partition, flow)
        found = await self._read(
            self.gateway.redis.xread({key: "0"}, count=_ROWS_MOST, block=block_ms or None)
        )
        entries = found[0][1] if found else []
        return [read_row(*one) for one in entries]

    async def _settle_arguments(self, settlements: Sequence[Settlement]) -> list[Argument]:
        """Large answers go one by one before the script that ends their calls: it must be short for
        all others. A server that has no room takes them within the script all the same."""
        ahead: set[tuple[str, str]] = set()
        for one in settlements:
            for job in one.jobs:
                if len(job.body) > AHEAD_FROM_BYTES and await self._sent_ahead(one.id, job):
                    ahead.add((one.id, job.id))
        return [self._settle_argument(one, ahead) for one in settlements]

    async def _sent_ahead(self, call: str, job: JobEnd) -> bool:
        key = keys.result(self.gateway.partition, call, job.id)
        try:
            await self.gateway.redis.set(key, job.body, ex=_AHEAD_KEPT_S)
        except ResponseError:
            return False
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error
        return True

    def _settle_argument(self, one: Settlement, ahead: Container[tuple[str, str]]) -> bytes:
        since = self.gateway.monotonic_ms() - one.counted_by_ms
        return orjson.dumps(
            {
                "id": one.id,
                "lane": one.call.lane,
                "flow": one.call.flow,
                "need": one.call.need,
                "job_ids": ",".join(job.id for job in one.call.jobs),
                "since_ms": int(since) if since >= 0 else -int(-since) - 1,
                "need_tokens": one.call.tokens,
                "inputs": one.call.inputs,
                "bulk": one.call.bulk,
                "credit_ms": one.credit_ms,
                "trouble": one.trouble,
                "cut": one.cut,
                "split": one.split,
                "said": one.said,
                "used": one.used,
                "tokens": one.tokens,
                "told": one.told,
                "refused": one.refused,
                "shut_ms": one.shut_ms,
                "pause": one.pause,
                "jobs": [
                    {
                        "id": job.id,
                        "end": job.end,
                        "failed": job.failed,
                        "unknown": job.unknown,
                        "delay_ms": job.delay_ms,
                        "used": job.used,
                        "body": None if (one.id, job.id) in ahead else job.body.decode(),
                    }
                    for job in one.jobs
                ],
            }
        )


def check_id(job: str) -> None:
    """Raises BadId for what cannot be a job's id: it stands in lists."""
    if not _ID.fullmatch(job):
        raise BadId(
            f"{job!r} cannot be a job's id: 1 to 200 characters, without commas, '|' and control "
            "characters"
        )


def _unwanted(reply: list[Any]) -> tuple[str, ...]:
    return tuple(call.decode() for call in reply[1:])


def _letter(job: str, told: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        job=job,
        flow=told[b"flow"].decode(),
        note=told[b"note"].decode(),
        payload=told[b"payload"],
        errors=tuple(error for error in told[b"errors"].decode().split("\n") if error),
        attempts=int(told[b"attempts"]),
        failures=int(told[b"failures"]),
        call=told[b"call"].decode(),
        at_ms=int(told[b"at"]),
    )


def _heartbeat_arguments(worker: WorkerState) -> list[Argument]:
    args: list[Argument] = [
        worker.worker,
        worker.pool,
        worker.free,
        worker.seq,
        worker.lease_ms,
        worker.life,
    ]
    for call in worker.held:
        args += [call.id, call.lane, call.flow, call.need, call.tokens, call.inputs, call.bulk]
    return args


def read_row(id: bytes, fields: dict[bytes, bytes]) -> Row:
    return Row(id.decode(), {name.decode(): value.decode() for name, value in fields.items()})


def _moments(found: list[tuple[bytes, float]]) -> tuple[int, ...]:
    return tuple(int(at) for _, at in reversed(found))


def _of_lane(terms: LaneTerms) -> dict[str, Any]:
    return {
        "id": terms.lane,
        "limits": None if terms.limits is None else _limits(terms.limits, terms.bulk),
        "pool": terms.pool,
        "counted": terms.counted,
        "caps": None if terms.caps is None else _caps(terms.caps),
    }


def _without_none(told: Any) -> Any:
    """What is not told stays as it is, so it is not sent."""
    if isinstance(told, dict):
        return {name: _without_none(one) for name, one in told.items() if one is not None}
    return [_without_none(one) for one in told] if isinstance(told, list) else told


def _caps(caps: Sequence[Limit]) -> list[tuple[int, int]]:
    return [(one.amount, one.window_ms) for one in caps]


def _limits(limits: Sequence[Limit], bulk: Sequence[Limit]) -> list[tuple[int, int, str]]:
    every: list[tuple[int, int, str]] = [(one.amount, one.window_ms, one.unit) for one in limits]
    return every + [(one.amount, one.window_ms, "bulk") for one in bulk]


def _claimed(told: list[Any]) -> Claimed:
    call, lane, org, flow, need, tokens, inputs, bulk, attempts, *jobs = told
    return Claimed(
        id=call.decode(),
        lane=lane.decode(),
        org=org.decode(),
        flow=flow.decode(),
        need=int(need),
        tokens=int(tokens),
        inputs=int(inputs),
        bulk=int(bulk),
        attempts=int(attempts),
        jobs=tuple(
            ClaimedJob(job.decode(), int(failures), body, int(reserved), int(allowed))
            for job, failures, body, reserved, allowed in jobs
        ),
    )


def _count_and_wait(reply: list[Any]) -> tuple[int, int | None]:
    _, count, wait = reply
    return int(count), None if int(wait) < 0 else int(wait)
