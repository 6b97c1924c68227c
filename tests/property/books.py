"""The model's own books: what a careful accountant would write down, without any of our code.

Times are the true ones (ms since the beginning), which no process and no server knows: the
server's clock is stepped, and logical time may lag behind.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from millpond.domain.limit import Unit
from millpond.domain.window import Windows

GRACE_MS = 1_000


@dataclass
class JobBook:
    """`place`: queue, parked, later, succeeded, failed, gone, or the id of its call; `call`: the
    last one, whose late answer is taken while the job waits after that was lost."""

    id: str
    flow: str
    need: int
    place: str = "queue"
    call: str = ""
    later_at: int = 0
    attempts: int = 0
    failures: int = 0
    crashed: int = 0

    @property
    def waits(self) -> bool:
        return self.place in {"queue", "parked", "later"}


@dataclass
class CallBook:
    """`latest_ms`: the last moment at which the provider can have counted it; inf: in flight."""

    id: str
    job: str
    flow: str
    lane: str
    need: int
    state: str = "ready"
    worker: str = ""
    claimed_ms: float = 0
    seq: int = 0
    latest_ms: float = math.inf


@dataclass
class WorkerBook:
    """`unseen`: calls of a claim whose reply was lost; `last`: what the server knows of the last
    claim, by its number."""

    name: str
    slots: int
    seq: int = 0
    life: int = -1
    lease_end: int = -1
    held: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    last: tuple[int, list[str]] | None = None


@dataclass
class LaneBook:
    """`sent`: all calls that the provider may have counted; `windows`: the package's reference,
    in logical time."""

    id: str
    counted: bool
    limits: list[tuple[int, int]]
    windows: Windows
    sent: dict[str, CallBook] = field(default_factory=dict)
    paused: bool = False
    shut_least: int = 0

    def most_inside(self, window_ms: int, now_ms: float) -> int:
        """So many calls may have been counted inside the window that ends now, at worst."""
        return sum(call.latest_ms > now_ms - window_ms for call in self.sent.values())

    def first_room(self, before: int, complete: int, now: int) -> int | None:
        """How long (logical ms) until one more call may go if no call ends; None: never.

        `before`: so many calls more were stamped at `complete` at the latest, known by number only.
        """
        flight = self.windows.flight[Unit.CALLS]
        stamps = [at for at, _ in self.windows.stamps]
        ends = [at + window for at in [*stamps, complete] for _, window in self.limits]
        for moment in [now, *sorted(end for end in ends if end > now)]:
            if all(
                flight
                + sum(at > moment - window for at in stamps)
                + before * (complete > moment - window)
                < amount
                for amount, window in self.limits
            ):
                return moment - now
        return None


@dataclass
class FlowBook:
    id: str
    lane: str
    attempts: int
    crashes: int
    paused: bool = False
    held: int = 0
    succeeded: int = 0
    failed: int = 0
    calls: int = 0
    refusals: int = 0
    used: int = 0
    estimated: int = 0
    rows: list[tuple[str, ...]] = field(default_factory=list)


@dataclass
class Books:
    lanes: dict[str, LaneBook]
    flows: dict[str, FlowBook]
    quota: int | None = None
    used: int = 0
    estimated: int = 0
    jobs: dict[str, JobBook] = field(default_factory=dict)
    calls: dict[str, CallBook] = field(default_factory=dict)
    workers: dict[str, WorkerBook] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------ what happens to a call

    def release(self, id: str, job: JobBook) -> CallBook:
        flow = self.flows[job.flow]
        call = CallBook(id, job.id, flow.id, flow.lane, job.need)
        self.calls[id] = call
        self.lanes[flow.lane].sent[id] = call
        self.lanes[flow.lane].windows.release()
        self.ready.append(id)
        job.place = job.call = id
        return call

    def unsend(self, call: CallBook) -> None:
        del self.calls[call.id]
        del self.lanes[call.lane].sent[call.id]
        self.lanes[call.lane].windows.give_back()
        self._drop(call)
        self.jobs[call.job].place, self.jobs[call.job].call = "queue", ""
        self.flows[call.flow].rows.append(("call", call.id, "unsent", "0"))

    def settle(self, call: CallBook, used: int | None, latest_ms: float, stamp: int) -> None:
        """`stamp`: the latest moment in logical time."""
        flow = self.flows[call.flow]
        del self.calls[call.id]
        if call.state == "lost":
            if used is not None:
                self._charge(call, estimated=-call.need)
        else:
            call.latest_ms = latest_ms
            self.lanes[call.lane].windows.end(stamp)
            self._drop(call)
            flow.calls += 1
            if used is None:
                self._charge(call, estimated=call.need)
        if used is not None:
            self._charge(call, used=used)
        how = ("unknown", str(call.need)) if used is None else ("known", str(used))
        flow.rows.append(("call", call.id, *how))

    def lose(self, call: CallBook, now_ms: float, stamp: int) -> None:
        flow, job = self.flows[call.flow], self.jobs[call.job]
        call.state = "lost"
        call.latest_ms = now_ms + GRACE_MS
        self.lanes[call.lane].windows.end(stamp)
        self._drop(call)
        self._charge(call, estimated=call.need)
        flow.calls += 1
        flow.rows.append(("call", call.id, "unknown", str(call.need)))
        job.attempts += 1
        job.crashed += 1
        if job.crashed >= flow.crashes:
            self.end_job(job, "failed")
        else:
            job.place = "queue"

    def end_job(self, job: JobBook, state: str) -> None:
        flow = self.flows[job.flow]
        job.place = state
        if state == "succeeded":
            flow.succeeded += 1
        else:
            flow.failed += 1
        flow.rows.append(("job", job.id, state, str(job.attempts)))

    def _drop(self, call: CallBook) -> None:
        if worker := self.workers.get(call.worker):
            for ids in (worker.held, worker.unseen):
                if call.id in ids and call.state != "lost":
                    ids.remove(call.id)
        if call.id in self.ready:
            self.ready.remove(call.id)

    def _charge(self, call: CallBook, *, used: int = 0, estimated: int = 0) -> None:
        flow = self.flows[call.flow]
        flow.used += used
        flow.estimated += estimated
        if self.lanes[call.lane].counted:
            self.used += used
            self.estimated += estimated

    # ------------------------------------------------------------------ what follows from it

    def live(self) -> Iterator[CallBook]:
        return (call for call in self.calls.values() if call.state != "lost")

    def running(self, worker: str) -> list[str]:
        """Calls that the server counts to a worker."""
        return [call.id for call in self.live() if call.worker == worker]

    def reserved(self) -> int:
        return sum(call.need for call in self.live() if self.lanes[call.lane].counted)

    def left(self) -> float:
        if self.quota is None:
            return math.inf
        return self.quota - self.used - self.estimated - self.reserved()

    def open(self, flow: str) -> int:
        ended = {"succeeded", "failed", "gone"}
        return sum(job.flow == flow and job.place not in ended for job in self.jobs.values())
