"""The model's own books: what a careful accountant would write down, without any of our code.

Times are the true ones (ms since the beginning), which no process and no server knows: the
server's clock is stepped, and logical time may lag behind.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from millpond.domain.job import Class
from millpond.domain.turns import Turn, Turns

GRACE_MS = 1_000
#: Windows up to so long count as full when what a lane counted was lost; longer ones start anew.
LOST_WAIT_MOST_MS = 3_600_000
#: Troubles in a row that open a lane's breaker.
TROUBLE_MOST = 10

#: Errors that are remembered of a job.
ERRORS_MOST = 5

OnUnknown = Literal["retry", "end"]
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class Cap:
    """At most `amount` of a unit in any window, or at once (0). `bulk` is calls of bulk jobs."""

    amount: int
    window_ms: int
    unit: str = "calls"


@dataclass
class JobBook:
    """`place`: queue, parked, later, one of ENDED, gone, or the id of its call; `call`: the last
    one, whose late answer is taken while the job waits after that was lost. `payload` is what it
    asks, `deadline` in logical time (0: none), `replays` the dead job that it asks again.
    `cancelled`: since it ran."""

    id: str
    flow: str
    need: int
    tokens: int = 0
    base: int = 0
    pack: str = ""
    payload: str = ""
    deadline: int = 0
    on_unknown: OnUnknown = "retry"
    replays: str = ""
    place: str = "queue"
    call: str = ""
    later_at: int = 0
    cancelled: bool = False
    attempts: int = 0
    failures: int = 0
    crashed: int = 0
    refused: int = 0
    unsent: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return self.place in {"queue", "parked", "later"}

    @property
    def entry(self) -> str:
        """As it stands in line."""
        return f"{self.need}|{self.id}|{self.tokens}|{self.base}|{self.pack}"

    def overtaken(self, now: int) -> str:
        """Why it is not asked, or asked again, though it could be."""
        if self.cancelled:
            return "cancelled"
        return "expired" if self.deadline and self.deadline <= now else ""

    def remember(self, error: str) -> None:
        self.errors = [*self.errors, error][-ERRORS_MOST:]


@dataclass(frozen=True)
class Letter:
    """What is kept of a job that saw too many workers die."""

    job: JobBook
    fields: dict[str, str]
    at: int


@dataclass
class CallBook:
    """`lead`: the flow whose turn it was; `needs`: what is reserved for each of its jobs.
    `latest_ms`: the last moment at which the provider can have counted it; inf: in flight.
    `of_old`: the lane's state was lost after it, so long windows do not know of it."""

    id: str
    lane: str
    lead: str
    needs: dict[str, int]
    units: dict[str, int]
    state: str = "ready"
    worker: str = ""
    claimed_ms: float = 0
    seq: int = 0
    latest_ms: float = math.inf
    of_old: bool = False

    @property
    def need(self) -> int:
        return sum(self.needs.values())


@dataclass
class WorkerBook:
    """`unseen`: calls of a claim whose reply was lost; `last`: what the server knows of the last
    claim, by its number. `unwanted`: calls that it was told to cut; `blamed`: the call that it is
    said to have died of."""

    name: str
    slots: int
    seq: int = 0
    life: int = -1
    lease_end: int = -1
    held: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    last: tuple[int, list[str]] | None = None
    unwanted: set[str] = field(default_factory=set)
    blamed: str = ""


@dataclass
class LaneBook:
    """`sent`: all calls that the provider may have counted. `full_for`: windows that counted as
    full when what the lane counted was lost; calls from before are in no others."""

    id: str
    counted: bool
    caps: list[Cap]
    credit: bool = False
    paced: bool = False
    turns: Turns = field(default_factory=Turns)
    sent: dict[str, CallBook] = field(default_factory=dict)
    paused: bool = False
    shut_least: int = 0
    trouble: int = 0
    full_for: set[tuple[str, int]] = field(default_factory=set)

    def most_inside(self, cap: Cap, now_ms: float) -> int:
        """So much may have been counted inside the window that ends now, at worst."""
        if cap.window_ms == 0:
            return sum(c.units[cap.unit] for c in self.sent.values() if c.latest_ms == math.inf)
        unknown = (cap.unit, cap.window_ms) not in self.full_for
        return sum(
            call.units[cap.unit]
            for call in self.sent.values()
            if call.latest_ms > now_ms - cap.window_ms and not (unknown and call.of_old)
        )


@dataclass
class FlowBook:
    """`line`: ids of its queued jobs, the next one first; `fed_at`: when the last new ones came;
    `away`: its place in the turn was lost with its lane, until it is set again."""

    id: str
    lane: str
    user: str
    klass: Class
    attempts: int
    crashes: int
    weight: float = 1.0
    pack: int = 1
    pack_most: int = 1
    paused: bool = False
    away: bool = False
    fed_at: int = 0
    line: list[str] = field(default_factory=list)
    held: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    calls: int = 0
    refusals: int = 0
    used: int = 0
    estimated: int = 0
    rows: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def turn(self) -> Turn:
        return Turn(self.klass, self.user, self.id)


@dataclass
class Books:
    """`until`: the deadlines of jobs that have not ended and were not looked at since; `dead`: the
    dead letters by job."""

    lanes: dict[str, LaneBook]
    flows: dict[str, FlowBook]
    quota: int | None = None
    suspended: bool = False
    reserve: str = "strict"
    weights: dict[str, float] = field(default_factory=dict)
    used: int = 0
    estimated: int = 0
    jobs: dict[str, JobBook] = field(default_factory=dict)
    calls: dict[str, CallBook] = field(default_factory=dict)
    workers: dict[str, WorkerBook] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)
    until: dict[str, int] = field(default_factory=dict)
    dead: dict[str, Letter] = field(default_factory=dict)
    ledger: list[tuple[str, str, int, int, int]] = field(default_factory=list)

    # ------------------------------------------------------------------ what happens to a call

    def release(self, id: str, lead: FlowBook, needs: dict[str, int], tokens: int) -> CallBook:
        units = {
            "calls": 1,
            "inputs": len(needs),
            "characters": sum(needs.values()),
            "tokens": tokens,
            "bulk": int(lead.klass is Class.BULK),
        }
        call = CallBook(id, lead.lane, lead.id, needs, units)
        self.calls[id] = call
        self.lanes[lead.lane].sent[id] = call
        self.ready.append(id)
        for job in needs:
            self.jobs[job].place = self.jobs[job].call = id
        return call

    def accept(self, job: JobBook) -> None:
        flow = self.flows[job.flow]
        self.jobs[job.id] = job
        flow.line.append(job.id)
        flow.held += 1
        if job.deadline:
            self.until[job.id] = job.deadline

    def unsend(self, call: CallBook, now: int) -> None:
        del self.calls[call.id]
        del self.lanes[call.lane].sent[call.id]
        self._drop(call)
        for job in self.jobs_under(call):
            job.place, job.call = "queue", ""
            self.end_if_overtaken(job, now)
        self._book(call, "unsent", dict.fromkeys(call.needs, 0))

    def settle(
        self, call: CallBook, used: dict[str, int] | None, tokens: int | None, latest_ms: float
    ) -> None:
        del self.calls[call.id]
        if call.state == "lost":
            if used is not None:
                self._count(call, "estimated", {job: -need for job, need in call.needs.items()})
        else:
            call.latest_ms = latest_ms
            if used is not None:
                call.units["characters"] = sum(used.values())
            if tokens is not None:
                call.units["tokens"] = tokens
            self._drop(call)
            self.flows[call.lead].calls += 1
            if used is None:
                self._count(call, "estimated", call.needs)
        if used is not None:
            self._count(call, "used", used)
        if used is not None or call.state != "lost":
            self._book(call, "unknown" if used is None else "known", used or call.needs)

    def lose(self, call: CallBook, now_ms: float, now: int, died: str) -> None:
        """`died`: what is remembered of a job whose worker died."""
        call.state = "lost"
        call.latest_ms = now_ms + GRACE_MS
        self._drop(call)
        self._count(call, "estimated", call.needs)
        self.flows[call.lead].calls += 1
        self._book(call, "unknown", call.needs)
        blamed = self.workers[call.worker].blamed
        for job in reversed(self.jobs_under(call)):
            guilt = self._guilt(call, job, blamed)
            job.attempts += 1
            job.crashed += guilt
            job.remember(died)
            job.place = "queue"
            if self.end_if_overtaken(job, now):
                continue
            if job.on_unknown == "end":
                self.end_job(job, "failed", "unknown_outcome")
            elif guilt and job.crashed >= self.flows[job.flow].crashes:
                self._bury(job, now)
                self.end_job(job, "failed", "worker_died")

    def _guilt(self, call: CallBook, job: JobBook, blamed: str) -> int:
        """One, if nobody knows which call it was; else that one's jobs are set apart, and three
        such deaths are enough."""
        if not blamed:
            return 1
        if blamed != call.id:
            return 0
        job.pack = ""
        return math.ceil(self.flows[job.flow].crashes / 3)

    def _bury(self, job: JobBook, now: int) -> None:
        fields = {
            "flow": job.flow,
            "entry": job.entry,
            "note": "note",
            "payload": job.payload,
            "errors": "\n".join(job.errors),
            "attempts": str(job.attempts),
            "failures": str(job.failures),
            "crashed": str(job.crashed),
            "call": job.call,
            "at": str(now),
        }
        self.dead[job.id] = Letter(job, fields, now)

    def end_if_overtaken(self, job: JobBook, now: int) -> bool:
        why = job.overtaken(now)
        if why:
            self.end_job(job, why, why)
        return bool(why)

    def end_job(self, job: JobBook, state: str, said: str) -> None:
        """`said`: the code of its error, or the answer."""
        flow = self.flows[job.flow]
        job.place = state
        self.until.pop(job.id, None)
        setattr(flow, state, getattr(flow, state) + 1)
        flow.rows.append(("job", job.id, state, str(job.attempts), said))

    def _drop(self, call: CallBook) -> None:
        if worker := self.workers.get(call.worker):
            for ids in (worker.held, worker.unseen):
                if call.id in ids and call.state != "lost":
                    ids.remove(call.id)
        if call.id in self.ready:
            self.ready.remove(call.id)

    def _count(self, call: CallBook, what: str, by: dict[str, int]) -> None:
        for job, n in by.items():
            flow = self.flows[self.jobs[job].flow]
            setattr(flow, what, getattr(flow, what) + n)
            if self.lanes[call.lane].counted:
                setattr(self, what, getattr(self, what) + n)

    def _book(self, call: CallBook, outcome: str, characters: dict[str, int]) -> None:
        """A row in the books of each flow of the call, and in the org's ledger."""
        for id in dict.fromkeys(self.jobs[job].flow for job in call.needs):
            own = {job: n for job, n in characters.items() if self.jobs[job].flow == id}
            row = (call.id, ",".join(own), outcome, str(sum(own.values())))
            self.flows[id].rows.append(row)
        if self.lanes[call.lane].counted and outcome != "unsent":
            total = sum(characters.values())
            self.ledger.append((call.id, outcome, total, self.used, self.estimated))

    # ------------------------------------------------------------------ what follows from it

    def unwanted(self, worker: WorkerBook) -> set[str]:
        """Calls that a worker holds, all of whose jobs were cancelled."""
        return {
            id
            for id in self.running(worker.name)
            if id in worker.held and all(self.jobs[job].cancelled for job in self.calls[id].needs)
        }

    def live(self) -> Iterator[CallBook]:
        return (call for call in self.calls.values() if call.state != "lost")

    def flight(self, lane: str) -> list[CallBook]:
        return [call for call in self.live() if call.lane == lane]

    def jobs_under(self, call: CallBook) -> list[JobBook]:
        """Jobs that name the call as theirs."""
        return [self.jobs[job] for job in call.needs if self.jobs[job].call == call.id]

    def running(self, worker: str) -> list[str]:
        """Calls that the server counts to a worker."""
        return [call.id for call in self.live() if call.worker == worker]

    def reserved(self) -> int:
        return sum(call.need for call in self.live() if self.lanes[call.lane].counted)

    def reserved_of(self, flow: str) -> int:
        return sum(
            need
            for call in self.live()
            for job, need in call.needs.items()
            if self.jobs[job].flow == flow
        )

    def left(self) -> float:
        if self.quota is None:
            return math.inf
        return self.quota - self.used - self.estimated - self.reserved()

    def open(self, flow: str) -> int:
        ended = {*ENDED, "gone"}
        return sum(job.flow == flow and job.place not in ended for job in self.jobs.values())
