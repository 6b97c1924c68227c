"""The store's scripts against books of our own, in logical time, whatever happens in any order.

Processes come and go, replies are lost, clocks are stepped, limits, weights and quota are changed,
what a lane counted is lost. After each step the server's data is read whole and compared with the
books (`books.py`), which know the true time and count, for each call, every moment at which the
provider may have counted it; what release lets go is judged by the sums of `domain/` (`replay.py`).
"""

import copy
import json
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conftest import START_MS
from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.domain.job import Class
from millpond.domain.limit import Limit, Unit
from millpond.domain.turns import Turns
from millpond.errors import Refused, UnknownPart
from millpond.store.store import Changes, Lane, NewJob, Store, WorkerState
from property.books import (
    GRACE_MS,
    LOST_WAIT_MOST_MS,
    TROUBLE_MOST,
    Books,
    CallBook,
    Cap,
    FlowBook,
    JobBook,
    LaneBook,
    OnUnknown,
    WorkerBook,
)
from property.checks import check_all, keep_turns, line
from property.direct import PREFIX, Direct, Dump, Server, at_once
from property.replay import Replay, need_of

#: How many steps are taken in all; `make model` asks for more.
STEPS = int(os.environ.get("MODEL_STEPS", "20000"))
STEPS_A_RUN = 80

DAY_MS = 86_400_000
LEASE_MS = 2_000
ATTEMPTS = 3
GENERATE, EMBED = "acme.generate", "acme.embed"
COUNTED = {GENERATE: True, EMBED: False}

#: Lane, user, class and size of packs of each flow.
FLOWS = {
    "f": (GENERATE, "ann", Class.BULK, 1),
    "g": (GENERATE, "ben", Class.BULK, 1),
    "h": (GENERATE, "ann", Class.INTERACTIVE, 1),
    "p": (GENERATE, "ann", Class.BULK, 3),
    "e": (EMBED, "ann", Class.BULK, 3),
    "k": (EMBED, "ben", Class.BULK, 2),
    "c": (EMBED, "cleo", Class.INTERACTIVE, 2),
}


def caps(*written: tuple[int, int] | tuple[int, int, str]) -> list[Cap]:
    return [Cap(*one) for one in written]


#: Limits of a lane: few and small, so that they are reached and changed often. Those of more than
#: 1,000 calls are counted in rings, and so are smaller ones that come in their place.
LIMITS: st.SearchStrategy[list[Cap]] = st.sampled_from(
    [
        caps((1, 1_000)),
        caps((3, 1_000)),
        caps((2, 1_000), (5, 10_000)),
        caps((4, 10_000)),
        caps((3, 10_000), (6, 60_000)),
        caps((6, 60_000)),
        caps((4, 10_000), (12, DAY_MS)),
        caps((1_200, 10_000)),
        caps((3, 1_000), (1_500, 60_000)),
        caps((3, 10_000), (60, 10_000, "tokens")),
        caps((6, 60_000), (120, 60_000, "tokens"), (300, DAY_MS, "tokens")),
        caps((6, 60_000), (30, 60_000, "tokens")),
        caps((20, 10_000), (100, 60_000, "tokens")),
        caps((4, 10_000), (5, 10_000, "inputs")),
        caps((5, 60_000), (400, 60_000, "characters")),
        caps((2, 0), (6, 10_000)),
        caps((4, 10_000), (100, 0, "tokens")),
        caps((4, 10_000), (2, 10_000, "bulk")),
        caps((6, 60_000), (3, 60_000, "bulk")),
        caps((1_200, 10_000), (2, 10_000, "bulk")),
    ]
)
QUOTAS = st.sampled_from([None, None, 0, 300, 1_000, 3_000])
NEEDS = st.sampled_from([1, 50, 100, 300])
TOKENS = st.sampled_from([0, 10, 40, 70])
PACKS = st.sampled_from(["", "one", "one", "two"])
#: Deadlines pass in line, on their way and while something is waited for.
WITHIN_MS = st.sampled_from([0, 0, 0, 0, 251, 3_000, 10_000, 60_000, 600_000])
ON_UNKNOWN: st.SearchStrategy[OnUnknown] = st.sampled_from(["retry", "retry", "end"])
#: Deaths that a job may see; one that is blamed for it counts for a third of them.
CRASHES = st.sampled_from([1, 1, 2, 3, 4, 7])
WEIGHTS = st.sampled_from([0.5, 1.0, 3.0])
SHORT_MS = st.sampled_from([0, 1, 100, 249, 250, 251, 999, 1_000, 1_001, 3_000, 9_999, 10_000])
LONG_MS = st.sampled_from([60_000, 600_000, 3_600_000, DAY_MS, 2 * DAY_MS])
STEPS_OF_TIME_MS = st.sampled_from(
    [step * sign for step in (300, 2_000, 60_000, 3_600_000, DAY_MS) for sign in (1, -1)]
)
FLOW = st.sampled_from(sorted(FLOWS))
LANE = st.sampled_from([GENERATE, EMBED])
USER = st.sampled_from(["ann", "ben", "cleo"])
WORKER = st.sampled_from([0, 1])
NUMBER = st.integers(0, 11)
End = Literal["succeeded", "failed", "retry"]
ENDS: st.SearchStrategy[list[End]] = st.lists(
    st.sampled_from(["succeeded", "succeeded", "failed", "retry"]), min_size=1, max_size=3
)

T = TypeVar("T")


class TrueTime:
    """What really passes, and what the server thinks."""

    def __init__(self) -> None:
        self.passed_ms = 0
        self.step_ms = 0

    def monotonic_ms(self) -> float:
        return float(self.passed_ms)

    def server_ms(self) -> int:
        return START_MS + self.passed_ms + self.step_ms


@dataclass(frozen=True)
class Ending:
    """How a call ends: `ends`, of its jobs in turn; `share`: of what they need they used so much,
    None: unknown. `counted_ago_ms`: when the headers came; `credit`: for so much of the time
    before it the provider says that it was at work. `unknown`: whether it was answered; `stopped`:
    it was cut, which is no failure."""

    ends: Sequence[End] = ("succeeded",)
    share: float | None = 0.1
    counted_ago_ms: float = 0
    credit: float = 0
    delay_ms: int = 0
    refused: int | None = None
    trouble: bool = False
    split: bool = False
    pause: str = ""
    unknown: bool = False
    stopped: bool = False


#: What a worker does that is told to cut a call.
STOPPED = Ending(["retry"], None, unknown=True, stopped=True)


class Model(RuleBasedStateMachine):
    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.time = TrueTime()
        self.seen: Dump | None = None
        self.accepted = 0
        self.said = 0
        self.started = 0
        self.runs = 0
        self.life = 0
        self.heard = -1
        self.last_now = 0
        self.lease_now = 250
        self.told_wait_ms = 0
        self.unwell = False
        self.was_p99 = False
        self.ghosts: list[CallBook] = []
        self.settled: list[Settlement] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one script."""
        self.seen = None
        self._note_reports()
        try:
            return at_once(work)
        finally:
            if self.last_now:
                self.lease_now += min(250, self.now - self.last_now)
            self.last_now = max(self.now, self.last_now)

    def _note_reports(self) -> None:
        """Once in the server's life every worker has told what it holds."""
        workers = self.books.workers.values() if self.started else ()
        if all(w.life == self.life or self._is_dead(w) for w in workers):
            self.heard = self.life

    def _all_were_heard(self) -> bool:
        """Whether the script that just ran, and had to know it, took every worker to have told what
        it holds. It asks only when it must: who registered meanwhile under an earlier life may have
        come too late for what was so before."""
        told: bool = self.look()["m"].get("heard") == str(self.life)
        self._note_reports()
        assert self.heard == self.life or not told
        workers = self.books.workers.values()
        assert told or any(w.life != self.life and not self._is_dead(w) for w in workers)
        return told

    def look(self) -> Dump:
        """The server's data after the last script."""
        if self.seen is None:
            self.seen = self.server.dump()
        return self.seen

    @property
    def now(self) -> int:
        """Logical time after the last script."""
        return max(store.gateway.now_ms for store in self.stores)

    # ------------------------------------------------------------------ the beginning

    @initialize(generate=LIMITS, embed=LIMITS, quota=QUOTAS, crashes=CRASHES)
    def open(self, generate: list[Cap], embed: list[Cap], quota: int | None, crashes: int) -> None:
        self.begin(FLOWS, {GENERATE: generate, EMBED: embed}, quota, crashes, (100, 50, 300, 1))

    def begin(
        self,
        flows: dict[str, tuple[str, str, Class, int]],
        limits: dict[str, list[Cap]],
        quota: int | None,
        crashes: int,
        needs: Sequence[int],
        within_ms: int = 0,
    ) -> None:
        """Flows with a job for each of `needs`, the first of them with a deadline perhaps, and two
        workers that nobody has told anything."""
        #: Two schedulers, and two workers.
        self.stores = [Store(Direct(self.server, self.time)) for _ in range(4)]
        self.server.command("FLUSHALL")
        self.server.command("HSET", f"{PREFIX}m", "test", "1")
        for store in self.stores:
            self.run(store.hello())
        self.life = self.stores[0].gateway.life
        self.books = Books(
            lanes={lane: LaneBook(lane, COUNTED[lane], []) for lane in limits},
            flows={
                id: FlowBook(id, lane, user, klass, ATTEMPTS, crashes)
                for id, (lane, user, klass, _) in flows.items()
            },
        )
        self.slots: list[WorkerBook] = []
        for id, flow in self.books.flows.items():
            self._set(flow, limits[flow.lane], quota, pack=flows[id][3])
            jobs = [
                self._new_job(need, 10, "one", within_ms=0 if i else within_ms)
                for i, need in enumerate(needs)
            ]
            self._accept(id, jobs)
        for i in range(2):
            self.slots.append(self._new_worker())
            self.beat(i, moves_on=False)

    def _new_worker(self) -> WorkerBook:
        self.started += 1
        return WorkerBook(f"w{self.started}", slots=3 + self.started * 2 % 6)

    # ------------------------------------------------------------------ time

    @rule(ms=SHORT_MS, ticks=st.sampled_from([0, 0, 0, 1, 10]))
    def time_passes(self, ms: int, ticks: int) -> None:
        self.time.passed_ms += ms
        for _ in range(ticks):
            self.time.passed_ms += 250
            self._tick()

    @rule(
        place=NUMBER,
        number=NUMBER,
        more_ms=st.sampled_from([-1, 0, 0, 1]),
        seen=st.booleans(),
    )
    def a_deadline_comes(self, place: int, number: int, more_ms: int, seen: bool) -> None:
        """That of a job somewhere, to the millisecond; a scheduler perhaps sees it first."""
        jobs = self._somewhere(place, lambda job: job.deadline > self.now)
        if jobs:
            deadline = jobs[number % len(jobs)].deadline
            self.time.passed_ms += max(0, deadline - self.now + more_ms)
        if seen:
            self.a_scheduler_takes_a_step(0, None)

    def _tick(self) -> None:
        self.run(self.stores[0].gateway.run("look", "no flow"))

    @rule(data=st.data())
    def something_rare(self, data: st.DataObject) -> None:
        """What would leave little else to happen if it came as often."""
        match data.draw(st.sampled_from(RARE)):
            case "long pause":
                self.time.passed_ms += data.draw(LONG_MS)
            case "step":
                self._step(data.draw(STEPS_OF_TIME_MS), back=data.draw(st.booleans()))
            case "restart":
                self._restart(data.draw(WORKER))
            case "pause":
                self._pause(data.draw(FLOW))
            case "death":
                which = data.draw(WORKER)
                # (0: a call that it does not hold)
                calls = ["", "0", *self.slots[which].held, *self.slots[which].unseen]
                seen, number = data.draw(st.booleans()), data.draw(NUMBER)
                self._die(which, seen=seen, blamed=calls[number % len(calls)])
            case "lane lost":
                self._lose_lane(data.draw(LANE), told=data.draw(st.booleans()))
            case "weather":
                self.unwell = not self.unwell

    def _step(self, ms: int, *, back: bool) -> None:
        """The server's clock is stepped."""
        self.time.step_ms += ms
        self._tick()
        if back:
            self.time.step_ms -= ms
            self._tick()

    def _restart(self, which: int) -> None:
        """The server is started again. It has lost nothing, but nobody may be sure of that."""
        self.runs += 1
        self.life += 1
        self.run(self.stores[which].gateway.run("new_life", f"run {self.runs}"))

    # ------------------------------------------------------------------ jobs

    @rule(
        flow=FLOW,
        needs=st.lists(
            st.tuples(NEEDS, TOKENS, PACKS, WITHIN_MS, ON_UNKNOWN), min_size=1, max_size=6
        ),
        again=st.booleans(),
    )
    def accept(
        self, flow: str, needs: list[tuple[int, int, str, int, OnUnknown]], again: bool
    ) -> None:
        jobs = [self._new_job(*told) for told in needs]
        known = [
            NewJob(job.id, 7, "other", b"other", within_ms=5, on_unknown="end")
            for job in list(self.books.jobs.values())[:: max(1, self.accepted // 5)]
            if job.flow == flow and job.place != "gone"
        ]
        self._accept(flow, jobs, known if again else [])

    def _new_job(
        self,
        need: int,
        tokens: int,
        pack: str,
        within_ms: int = 0,
        on_unknown: OnUnknown = "retry",
    ) -> NewJob:
        self.accepted += 1
        id = f"j{self.accepted}"
        payload = f"payload of {id}".encode()
        return NewJob(id, need, "note", payload, tokens, need // 2, pack, within_ms, on_unknown)

    def _accept(self, id: str, jobs: list[NewJob], known: Sequence[NewJob] = ()) -> None:
        flow = self.books.flows[id]
        held = self.run(self.stores[0].accept(id, [*jobs, *known]))
        for new in jobs:
            deadline = self.now + new.within_ms if new.within_ms else 0
            asked = (new.need, new.tokens, new.base, new.pack, new.payload.decode())
            self.books.accept(JobBook(new.id, id, *asked, deadline, new.on_unknown))
        assert held == flow.held
        flow.fed_at = self.now
        self._lines_move()

    @rule(
        place=NUMBER,
        some=st.lists(NUMBER, min_size=1, max_size=3),
        with_its_call=st.booleans(),
        seen=st.booleans(),
    )
    def cancel(self, place: int, some: list[int], with_its_call: bool, seen: bool) -> None:
        """Jobs wherever they are, perhaps with all of their call; some nobody knows any more. A
        scheduler perhaps sees it first."""
        jobs = self._somewhere(place, lambda job: True)
        if not jobs:
            return
        ids = [jobs[number % len(jobs)].id for number in some]
        call = self.books.calls.get(self.books.jobs[ids[0]].place)
        if call and with_its_call:
            ids += call.needs
        self._cancel(ids)
        if seen:
            self.a_scheduler_takes_a_step(0, None)

    def _somewhere(self, place: int, suits: Callable[[JobBook], bool]) -> list[JobBook]:
        """Jobs that suit, of one of the places where there are any."""
        found: dict[str, list[JobBook]] = {}
        for job in self.books.jobs.values():
            if suits(job):
                found.setdefault(self._where(job), []).append(job)
        parked = {job.flow for job in self.books.jobs.values() if job.place == "parked"}
        heads = [self.books.jobs[flow.line[0]] for flow in self.books.flows.values() if flow.line]
        found["head"] = [job for job in heads if suits(job)]
        found["before parked"] = [job for job in found["head"] if job.flow in parked]
        found["next"] = [job for job in map(self._next, self.books.lanes) if job and suits(job)]
        places = [where for where in WHERE if found.get(where)]
        return found[places[place % len(places)]] if places else []

    def _next(self, lane: str) -> JobBook | None:
        """The job of a lane whose turn it is: the lane may be waiting until it fits."""
        turns = copy.deepcopy(self.books.lanes[lane].turns)
        while turn := turns.next(set(Class)):
            if waiting := self.books.flows[turn.flow].line:
                return self.books.jobs[waiting[0]]
            turns.leave(turn)
        return None

    def _where(self, job: JobBook) -> str:
        if job.waits:
            return "lost" if job.call in self.books.calls else job.place
        call = self.books.calls.get(job.place)
        if call:
            return call.state
        return "gone" if job.place == "gone" else "ended"

    def _cancel(self, ids: Sequence[str]) -> None:
        told = self.run(self.stores[0].cancel(ids))
        assert told == [self._book_cancel(id) for id in ids]
        self._lines_move()

    def _book_cancel(self, id: str) -> str:
        job = self.books.jobs[id]
        call = self.books.calls.get(job.place)
        if job.place == "gone":
            return "unknown"
        if job.waits:
            self.books.end_job(job, "cancelled", "cancelled")
            return "cancelled"
        if call is None:
            return "ended"
        job.cancelled = True
        if call.state == "running" or not self._all_were_heard():
            return "cancelling"
        self.books.unsend(call, self.now)
        return "cancelled"

    @precondition(lambda self: self.books.dead)
    @rule(number=NUMBER, how=st.sampled_from(["", "", "letter", "known"]))
    def a_dead_job_is_asked_again(self, number: int, how: str) -> None:
        """Under a new id; or one of which there is no letter, or under an id that is known."""
        letters = list(self.books.dead)
        held = [job.id for job in self.books.jobs.values() if job.place != "gone"]
        old = letters[number % len(letters)]
        if how == "letter":
            never = next(id for id in (*self.books.jobs, "stranger") if id not in letters)
            with pytest.raises(UnknownPart, match="letter"):
                self.run(self.stores[1].replay("acme", never, "new"))
        elif how == "known" and held:
            with pytest.raises(Refused, match="already"):
                self.run(self.stores[1].replay("acme", old, held[number % len(held)]))
        else:
            self._replay(old)

    def _replay(self, old: str) -> None:
        died = self.books.dead.pop(old).job
        self.accepted += 1
        new = JobBook(f"j{self.accepted}", died.flow, died.need, died.tokens, died.base)
        new.payload, new.replays = died.payload, old
        self.books.accept(new)
        self.run(self.stores[1].replay("acme", old, new.id))
        self._lines_move()

    def _lines_move(self) -> None:
        """What is in line again is at its head; all else is as it was."""
        dump = self.look()
        for flow in self.books.flows.values():
            told = line(dump, flow.id)
            waiting = {
                j.id for j in self.books.jobs.values() if j.flow == flow.id and j.place == "queue"
            }
            stay = [id for id in flow.line if id in waiting]
            new = len(waiting) - len(stay)
            assert len(told) == len(waiting)
            assert set(told[:new]) == waiting - set(stay)
            assert told[new:] == stay
            flow.line = told
        keep_turns(dump, self.books)

    # ------------------------------------------------------------------ schedulers

    @rule(which=WORKER, sleeps=st.sampled_from([None, None, -1, 0, 0, 1]))
    def a_scheduler_takes_a_step(self, which: int, sleeps: int | None) -> None:
        """`sleeps`: first, as the store told, until the very moment at which something may move,
        or a millisecond less or more."""
        if sleeps is not None:
            self.time.passed_ms += max(0, self.told_wait_ms + sleeps)
        self.told_wait_ms = 0
        self.reap(which)
        self.promote(which, 200)
        self.release(which, 200)

    @rule(which=WORKER, ends=st.integers(0, 3), ago_ms=st.sampled_from([0, 100, 5_000]))
    def a_worker_takes_a_turn(self, which: int, ends: int, ago_ms: int) -> None:
        """It settles what has ended, cuts what nobody wants, and fills its slots."""
        worker = self.slots[which]
        how = Ending(counted_ago_ms=ago_ms)
        if self.unwell:
            how = Ending(["retry"], None, counted_ago_ms=ago_ms, trouble=True, unknown=True)
        held = [id for id in worker.held if id in self.books.calls]
        ended = [(id, how) for id in held[:ends] if id not in worker.unwanted]
        ended += [(id, STOPPED) for id in held if id in worker.unwanted]
        if ended:
            self._settle(which, [(self.books.calls[id], how) for id, how in ended])
        most = max(1, worker.slots - len(worker.held))
        self.release(2 + which, most)
        self.claim(which, most, reply_is_lost=False)

    @rule(which=WORKER, ends=st.integers(0, 3), sleeps=st.sampled_from([None, None, -1, 0, 0, 1]))
    def all_take_a_turn(self, which: int, ends: int, sleeps: int | None) -> None:
        self.a_scheduler_takes_a_step(which, sleeps)
        self.a_worker_takes_a_turn(which, ends, 0)
        self.a_worker_takes_a_turn(1 - which, 0, 0)

    @rule(which=WORKER)
    def nothing_needs_mending(self, which: int) -> None:
        """But after data was lost."""
        dump = self.look()
        if all(f"l:{id}" in dump for id in self.books.lanes) and not any(
            flow.away for flow in self.books.flows.values()
        ):
            assert self.run(self.stores[which].mend("0", 1_000)) == (0, "0")

    @rule(
        which=WORKER,
        what=st.sampled_from(["promote", "release", "reap"]),
        most=st.sampled_from([1, 3]),
    )
    def one_script_runs_alone(self, which: int, what: str, most: int) -> None:
        match what:
            case "promote":
                self.promote(which, most)
            case "release":
                self.release(which, most)
            case "reap":
                self.reap(which)

    def promote(self, which: int, most: int) -> None:
        n, wait_ms = self.run(self.stores[which].promote(most))
        dump = self.look()
        expired = self._expire(most)
        left = self.books.left()  # with what those kept that were to go
        come = [
            job
            for job in self.books.jobs.values()
            if job.place in {"later", "parked"} and job.id in line(dump, job.flow)
        ]
        assert len(come) + expired == n
        brought = dict.fromkeys(self.books.flows, 0.0)
        for job in come:
            if job.place == "later":
                assert job.later_at <= self.now
            else:
                # What it needed when it was parked may be out of date: see fitting_jobs.
                lane = self.books.lanes[self.books.flows[job.flow].lane]
                brought[job.flow] += need_of(self.books, dump[f"l:{lane.id}"], lane, job)
            job.place = "queue"
        assert max(brought.values()) <= max(left, 0)
        self._lines_move()
        later = [job.later_at for job in self.books.jobs.values() if job.place == "later"]
        if most == 200:
            assert all(at > self.now for at in later)
            self._what_is_parked_does_not_fit(dump, left)
        for moment in (*later, *self.books.until.values()):
            assert wait_ms is not None
            assert wait_ms <= max(0, moment - self.now)
        self._sleep_at_most(wait_ms)

    def _expire(self, most: int) -> int:
        """Deadlines that have passed are looked at, the earliest first; how many jobs that wait,
        and calls that no worker has taken, end of it."""
        until = self.books.until
        passed = sorted((at, id) for id, at in until.items() if at <= self.now)[:most]
        ended = 0
        for _, id in passed:
            until.pop(id, None)
            job = self.books.jobs[id]
            call = self.books.calls.get(job.place)
            if job.waits:
                assert self.books.end_if_overtaken(job, self.now)
                ended += 1
            elif call and call.state == "ready" and self._all_were_heard():
                self.books.unsend(call, self.now)
                ended += 1
        return ended

    def _what_is_parked_does_not_fit(self, dump: Dump, left: float) -> None:
        if self.was_p99:
            return
        for flow in self.books.flows.values():
            lane = self.books.lanes[flow.lane]
            fields = dump[f"l:{lane.id}"]
            # What came back before and still waits for its turn will take some of it.
            in_line = sum(
                need_of(self.books, fields, lane, self.books.jobs[job]) for job in flow.line
            )
            for job in dump.get(f"f:{flow.id}:parked", {}):
                need = need_of(self.books, fields, lane, self.books.jobs[job])
                assert need > left - in_line, (flow.id, job, left, in_line)

    def release(self, which: int, most: int) -> None:
        before = self.look()
        left_before = self.books.left()
        n, wait_ms = self.run(self.stores[which].release(most))
        dump = self.look()
        ids = dump.get("ready:acme", [])[len(self.books.ready) :]
        assert len(ids) == n <= most
        replay = Replay(self.books, before, self.now)
        for id in ids:
            assert id not in self.books.calls
            replay.one_went(id, dump[f"c:{id}"])
        self._parked_by_release(before, dump)
        keep_turns(dump, self.books)
        for lane in {self.books.calls[id].lane for id in ids}:
            self._lane_was_free_to_go(lane, ids, before, dump)
        if ids and self.books.left() < left_before:
            assert self.books.left() >= 0
        if most == 200:
            assert wait_ms != 0, (self.now, dump.get("due"), dump.get("turn"))
            replay.nothing_more_could_go(dump, wait_ms, life=self.life)
        self._sleep_at_most(wait_ms)

    def _parked_by_release(self, before: Dump, dump: Dump) -> None:
        for flow in self.books.flows.values():
            told, lane = line(dump, flow.id), self.books.lanes[flow.lane]
            while len(flow.line) > len(told):
                job = self.books.jobs[flow.line.pop(0)]
                need = need_of(self.books, before[f"l:{lane.id}"], lane, job)
                assert dump[f"f:{flow.id}:parked"][job.id] == need
                assert lane.counted
                assert need > self.books.left()
                job.place = "parked"
            assert flow.line == told

    def _lane_was_free_to_go(self, id: str, ids: list[str], before: Dump, dump: Dump) -> None:
        """No window holds more than its amount, by all that the provider may have counted."""
        lane = self.books.lanes[id]
        for cap in lane.caps:
            inside = lane.most_inside(cap, self.time.passed_ms)
            calls = [self.books.calls[i] for i in ids if self.books.calls[i].lane == id]
            gone = [call.units[cap.unit] for call in calls]
            # What is larger than the limit goes alone; who takes nothing of it is not concerned.
            assert inside <= cap.amount or inside in gone or not any(gone), cap
        if before[f"l:{id}"]["life"] != str(self.life):
            self._note_reports()
            assert self.heard == self.life

    def _sleep_at_most(self, wait_ms: int | None) -> None:
        if wait_ms:
            self.told_wait_ms = min(wait_ms, self.told_wait_ms or wait_ms)

    # ------------------------------------------------------------------ workers

    @rule(which=WORKER, most=st.integers(1, 6))
    def a_claims_reply_is_lost(self, which: int, most: int) -> None:
        self.claim(which, most, reply_is_lost=True)

    def claim(self, which: int, most: int, reply_is_lost: bool) -> None:
        worker = self.slots[which]
        before = self.look()
        got = self.run(self.stores[2 + which].claim(worker.name, worker.seq + 1, most))
        expected = self._expected_claim(worker, worker.seq + 1, most, before)
        self._lines_move()
        if expected is None:
            assert got is None
            return
        assert got is not None
        assert got == [self._described(id) for id in expected]
        worker.unseen = list(expected)
        if not reply_is_lost:
            worker.held += worker.unseen
            worker.unseen = []
            worker.seq += 1

    def _expected_claim(
        self, worker: WorkerBook, seq: int, most: int, before: Dump
    ) -> list[str] | None:
        books = self.books
        if worker.name not in books.workers or worker.life != self.life:
            return None
        if worker.last is not None and worker.last[0] == seq:
            return [id for id in worker.last[1] if id in books.running(worker.name)]
        told_all = all(w.life == self.life or self._is_dead(w) for w in books.workers.values())
        if not told_all and before["m"].get("heard") != str(self.life):
            return []
        assert told_all or self.heard == self.life
        share = math.ceil(len(books.ready) / len(books.workers))
        claimed: list[str] = []
        while books.ready and len(claimed) < min(most, share):
            call = books.calls[books.ready[0]]
            if self._stopped(call, before) or self._overtaken(call):
                books.unsend(call, self.now)
                continue
            books.ready.pop(0)
            call.state, call.worker = "running", worker.name
            call.claimed_ms, call.seq = self.time.passed_ms, seq
            claimed.append(call.id)
        worker.last = (seq, claimed)
        return claimed

    def _stopped(self, call: CallBook, before: Dump) -> bool:
        shut = int(before[f"l:{call.lane}"].get("shut_until", 0)) > self.now
        flows = {call.lead, *(self.books.jobs[job].flow for job in call.needs)}
        paused = any(self.books.flows[flow].paused for flow in flows)
        return shut or paused or self.books.lanes[call.lane].paused or self.books.suspended

    def _overtaken(self, call: CallBook) -> bool:
        return any(self.books.jobs[job].overtaken(self.now) for job in call.needs)

    def _described(self, id: str) -> Claimed:
        call = self.books.calls[id]
        return Claimed(
            id=id,
            lane=call.lane,
            org="acme",
            flow=call.lead,
            need=call.need,
            attempts=ATTEMPTS,
            jobs=tuple(
                ClaimedJob(job.id, job.failures, job.payload.encode(), need, 3)
                for job, need in ((self.books.jobs[id], need) for id, need in call.needs.items())
            ),
            tokens=call.units["tokens"],
            inputs=call.units["inputs"],
            bulk=call.units["bulk"],
        )

    @rule(which=WORKER, moves_on=st.booleans())
    def beat(self, which: int, moves_on: bool) -> None:
        """`moves_on`: a claim whose reply was lost is given up instead of asked again. The worker
        is told which of its calls nobody wants answered any more."""
        worker, store = self.slots[which], self.stores[2 + which]
        if moves_on and worker.unseen:
            worker.seq += 1
            worker.unseen = []
        worker.life = store.gateway.life
        unheard = [
            call
            for call in map(self.books.calls.__getitem__, self.books.running(worker.name))
            if call.id not in worker.held and call.seq <= worker.seq
        ]
        told_all = worker.life == self.life
        held = [self._described(id) for id in worker.held if id in self.books.calls]
        told = WorkerState(
            worker=worker.name,
            pool="acme",
            free=max(0, worker.slots - len(worker.held)),
            seq=worker.seq,
            lease_ms=LEASE_MS,
            life=worker.life,
            held=held,
        )
        unwanted = self.run(store.heartbeat(told))
        worker.unwanted = self.books.unwanted(worker) if told_all else set()
        assert sorted(unwanted) == sorted(worker.unwanted)
        for call in unheard if told_all else ():
            self.books.unsend(call, self.now)
        worker.lease_end = self.lease_now + LEASE_MS
        if self.books.workers.setdefault(worker.name, worker) is not worker:
            raise AssertionError("two workers have one name")
        self._lines_move()

    def _settles(self) -> list[tuple[int, CallBook]]:
        """Calls that somebody holds and may end: those of workers, and of dead ones."""
        held = [
            (i, self.books.calls[id])
            for i, worker in enumerate(self.slots)
            for id in worker.held
            if id in self.books.calls
        ]
        return held + [(0, call) for call in self.ghosts if call.id in self.books.calls]

    def _held_somewhere(self) -> bool:
        return bool(self._settles())

    @precondition(_held_somewhere)
    @rule(
        number=NUMBER,
        ends=ENDS,
        share=st.sampled_from([None, 0.0, 0.5, 1.0, 1.0, 1.5]),
        counted_ago_ms=st.sampled_from([0, 0, 0, 0.4, 1, 700, 5_000, 70_000, -GRACE_MS, -0.7]),
        credit=st.sampled_from([0, 0, 0.5, 1.0]),
        delay_ms=st.sampled_from([0, 1, 500, 20_000]),
        how=st.sampled_from(["", "", "", "", "refused", "shut", "trouble", "split", "pause"]),
        unknown=st.booleans(),
    )
    def settle(
        self,
        number: int,
        ends: list[End],
        share: float | None,
        counted_ago_ms: float,
        credit: float,
        delay_ms: int,
        how: str,
        unknown: bool,
    ) -> None:
        choices = self._settles()
        which, call = choices[number % len(choices)]
        ending = Ending(
            ends,
            share,
            counted_ago_ms,
            credit,
            delay_ms,
            refused={"refused": 0, "shut": 1_500}.get(how),
            trouble=how == "trouble",
            split=how == "split",
            pause="key: refused" if how == "pause" and number == 7 else "",
            unknown=unknown,
        )
        self._settle(which, [(call, ending)])

    def _settle(self, which: int, ended: list[tuple[CallBook, Ending]]) -> None:
        told = [self._settlement(call, how) for call, how in ended]
        assert self.run(self.stores[2 + which].settle(told)) == ["settled"] * len(ended)
        for (call, how), one in zip(ended, told, strict=True):
            self._book(call, how, one)
        self.settled += told
        self._lines_move()

    def _let_go(self, id: str) -> None:
        """Whoever holds the call holds it no more."""
        for worker in self.slots:
            if id in worker.held:
                worker.held.remove(id)

    def _settlement(self, call: CallBook, how: Ending) -> Settlement:
        counted_by_ms = max(call.claimed_ms, self.time.passed_ms - how.counted_ago_ms)
        self.said += 1
        used = {}
        if how.share is not None:
            used = {job: int(need * how.share) for job, need in call.needs.items()}
        return Settlement(
            self._described(call.id),
            counted_by_ms=counted_by_ms,
            used=sum(used.values()) if used else None,
            tokens=int(call.units["tokens"] * how.share) if how.share in {0.5, 1.0} else None,
            credit_ms=int((counted_by_ms - call.claimed_ms) * how.credit),
            jobs=tuple(
                JobEnd(
                    job,
                    how.ends[i % len(how.ends)],
                    failed=how.share is None and not how.stopped,
                    delay_ms=how.delay_ms,
                    body=b'{"said":%d}' % self.said,
                    used=used.get(job),
                    unknown=how.unknown,
                )
                for i, job in enumerate(call.needs)
            ),
            refused=how.refused is not None,
            shut_ms=how.refused or 0,
            trouble=how.trouble,
            split=how.split,
            pause=how.pause,
        )

    def _book(self, call: CallBook, how: Ending, told: Settlement) -> None:
        lane = self.books.lanes[call.lane]
        was_lost = call.state == "lost"
        used = None if told.used is None else {job.id: job.used or 0 for job in told.jobs}
        # The provider's word on its service time is true, believed or not.
        self.books.settle(call, used, told.tokens, told.counted_by_ms - told.credit_ms)
        self._let_go(call.id)
        if how.refused is not None:
            self.books.flows[call.lead].refusals += 1
            lane.shut_least = max(lane.shut_least, self.now + (how.refused or 1_000))
        lane.paused = lane.paused or how.pause != ""
        self._watch_for_trouble(call, how)
        self._resize_packs(call, how)
        for end in told.jobs:
            self._end_job(call, end, was_lost, how.refused is not None)

    def _watch_for_trouble(self, call: CallBook, how: Ending) -> None:
        lane, job = self.books.lanes[call.lane], self.books.jobs[next(iter(call.needs))]
        if not how.trouble:
            if how.refused is None and not how.pause:
                lane.trouble = 0
        elif lane.trouble >= TROUBLE_MOST or job.failures == 0 or job.place == "gone":
            lane.trouble += 1

    def _resize_packs(self, call: CallBook, how: Ending) -> None:
        """Refused for its size: half of it at most. Else they stay, or grow back."""
        flow = self.books.flows[call.lead]
        told = int(self.look()[f"f:{flow.id}"]["pack"])
        if len(call.needs) > 1 and how.split and not how.trouble and how.refused is None:
            assert told <= max(1, min(flow.pack, len(call.needs) // 2))
        else:
            assert flow.pack <= told
            assert told == flow.pack or len(call.needs) > 1
        assert 1 <= told <= flow.pack_most
        flow.pack = told

    def _end_job(self, call: CallBook, told: JobEnd, was_lost: bool, refused: bool) -> None:
        job = self.books.jobs[told.id]
        if job.call != call.id or (was_lost and not job.waits):
            return
        unwell = self.books.lanes[call.lane].trouble >= TROUBLE_MOST
        again = told.end == "retry" or (told.end == "failed" and told.failed and unwell)
        if was_lost and again:
            return
        job.attempts += not was_lost
        job.refused += refused
        if told.failed:
            job.remember(told.body.decode())
        if not again:
            self.books.end_job(job, told.end, told.body.decode())
        elif self.books.end_if_overtaken(job, self.now):
            pass
        elif told.unknown and job.on_unknown == "end":
            self.books.end_job(job, "failed", "unknown_outcome")
        else:
            job.place, job.later_at = "later", self.now + told.delay_ms
            job.call = ""
            job.failures += told.failed and not unwell

    @precondition(lambda self: self.settled)
    @rule(number=NUMBER)
    def settle_again(self, number: int) -> None:
        before = without_clock(self.look())
        told = self.settled[-1 - number % len(self.settled)]
        assert self.run(self.stores[0].settle([told])) == ["late"]
        assert without_clock(self.look()) == before

    @precondition(_held_somewhere)
    @rule(number=NUMBER, unreachable=st.booleans())
    def give_back(self, number: int, unreachable: bool) -> None:
        choices = self._settles()
        self._give_back(*choices[number % len(choices)], unreachable=unreachable)

    def _give_back(self, which: int, call: CallBook, *, unreachable: bool) -> None:
        """A lost call stays as it is: nobody believes that it was not sent."""
        owner = call.worker
        self.run(self.stores[2 + which].give_back(owner, [call.id], unreachable=unreachable))
        self._let_go(call.id)
        if call.state == "running":
            for job in call.needs:
                self.books.jobs[job].unsent += 1
            self.books.unsend(call, self.now)
        self._lines_move()

    @precondition(_held_somewhere)
    @rule(
        number=NUMBER,
        how=st.sampled_from(["stopped", "no answer", "given back", "worker died"]),
    )
    def a_call_comes_to_nothing(self, number: int, how: str) -> None:
        """One, if there are any, with a job that goes on otherwise than most do."""
        choices = self._settles()
        odd = [(which, call) for which, call in choices if self._is_odd(call)]
        which, call = (odd or choices)[number % len(odd or choices)]
        match how:
            case "stopped":
                self._settle(which, [(call, STOPPED)])
            case "no answer":
                self._settle(which, [(call, Ending(["retry"], None, unknown=True))])
            case "given back":
                self._give_back(which, call, unreachable=False)
            case "worker died":
                if call.id in self.slots[which].held:
                    self._die(which, seen=True, blamed=call.id)
                self.reap(which)

    def _is_odd(self, call: CallBook) -> bool:
        jobs = [self.books.jobs[job] for job in call.needs]
        return any(j.overtaken(self.now) or j.on_unknown == "end" or j.crashed for j in jobs)

    def _die(self, which: int, *, seen: bool, blamed: str = "") -> None:
        """A worker dies, perhaps seen by its parent, who may know of which call, or is only cut
        off: what it sent may still be settled."""
        worker = self.slots[which]
        if seen:
            self.run(self.stores[0].leave(worker.name, blamed=blamed))
            worker.lease_end, worker.blamed = -1, blamed
        self.ghosts += [self.books.calls[id] for id in worker.held if id in self.books.calls]
        worker.held, worker.unseen = [], []
        self.slots[which] = self._new_worker()
        self.beat(which, moves_on=False)

    def reap(self, which: int) -> None:
        workers = self.look().get("workers", {})
        n, _ = self.run(self.stores[which].reap())
        dump = self.look()
        lost = [call for call in self.books.live() if dump[f"c:{call.id}"]["state"] == "lost"]
        assert len(lost) == n
        told = dump.get("o:acme:led", [])
        order = [row["call"] for _, row in told[len(self.books.ledger) :]]
        lost.sort(key=lambda one: (workers[one.worker], one.worker, -int(one.id, 16)))
        assert [call.id for call in lost if call.id in order] == order
        for call in lost:
            assert self._is_dead(self.books.workers[call.worker])
            self.books.lose(call, self.time.passed_ms, self.now, DEATH)
        for name, worker in list(self.books.workers.items()):
            if name not in dump.get("workers", {}):
                assert self._is_dead(worker)
                assert not self.books.running(name)
                worker.unseen, worker.last = [], None
                del self.books.workers[name]
            else:
                assert n == 20 or not self._is_dead(worker)
        self._lines_move()

    def _is_dead(self, worker: WorkerBook) -> bool:
        """A lease is counted in time that somebody kept: at most 250 ms between two scripts."""
        return worker.lease_end < self.lease_now

    # ------------------------------------------------------------------ people

    @rule(flow=FLOW, limits=LIMITS, quota=QUOTAS, pack=st.integers(1, 4))
    def set(self, flow: str, limits: list[Cap], quota: int | None, pack: int) -> None:
        self._set(self.books.flows[flow], limits, quota, pack=pack)

    @rule(flow=FLOW, user=USER, klass=st.sampled_from(list(Class)))
    def a_flow_moves(self, flow: str, user: str, klass: Class) -> None:
        """To another user or class."""
        of = self.books.flows[flow]
        before = of.turn
        of.user, of.klass = user, klass
        if of.turn != before:
            self.books.lanes[of.lane].turns.drop(before)
        self._set(of, self.books.lanes[of.lane].caps, self.books.quota)

    def _set(
        self,
        flow: FlowBook,
        limits: list[Cap],
        quota: int | None,
        *,
        pack: int | None = None,
        lost: bool = False,
    ) -> None:
        lane = self.books.lanes[flow.lane]
        if pack is not None and pack != flow.pack_most:
            flow.pack = flow.pack_most = pack
        counted, bulk = read_caps(limits)
        told = Lane(
            id=lane.id,
            org="acme",
            pool="acme",
            limits=counted,
            bulk=bulk,
            quota=quota,
            counted=lane.counted,
            credit=lane.credit,
            paced=lane.paced,
            reserve="p99" if self.books.reserve == "p99" else "strict",
        )
        work = self.stores[0].set_flow(
            flow.id,
            told,
            attempts=ATTEMPTS,
            crashes=flow.crashes,
            user=flow.user,
            klass=flow.klass,
            weight=flow.weight,
            pack=flow.pack_most,
            lost=lost,
        )
        fields = self.look().get(f"l:{lane.id}", {})
        refused = fields.get("shut_reason") == "refused" and fields["shut_until"]
        self.run(work)
        lane.caps = limits
        lane.paused = flow.paused = flow.away = False
        if not refused or int(refused) <= self.now:  # what the provider said stands
            lane.shut_least = lane.trouble = 0
        self.books.quota = quota
        self._lines_move()

    @rule(data=st.data())
    def an_operator_changes(self, data: st.DataObject) -> None:
        """One thing; all else stays."""
        books = self.books
        lane, flow = books.lanes[data.draw(LANE)], books.flows[data.draw(FLOW)]
        on = data.draw(st.booleans())
        match data.draw(st.sampled_from(CHANGES)):
            case "quota":
                books.quota = data.draw(QUOTAS)
                changes = Changes(quota="none" if books.quota is None else books.quota)
            case "status":
                books.suspended = on
                changes = Changes(status="suspended" if on else "active")
            case "reserve":
                books.reserve = "p99" if on else "strict"
                self.was_p99 = self.was_p99 or on
                changes = Changes(reserve="p99" if on else "strict")
            case "weights":
                user = data.draw(USER)
                books.weights[user] = data.draw(WEIGHTS)
                changes = Changes(weights={user: books.weights[user]})
            case "limits":
                lane.caps = data.draw(LIMITS)
                counted, bulk = read_caps(lane.caps)
                changes = Changes(lane=lane.id, limits=counted, bulk=bulk)
            case "credit":
                lane.credit = on
                changes = Changes(lane=lane.id, credit=on)
            case "paced":
                lane.paced = on
                changes = Changes(lane=lane.id, paced=on)
            case "lane paused":
                lane.paused = on
                changes = Changes(lane=lane.id, paused="by hand" if on else "")
            case "flow weight":
                flow.weight = data.draw(WEIGHTS)
                changes = Changes(flow=flow.id, flow_weight=flow.weight)
            case "flow paused":
                flow.paused = on
                changes = Changes(flow=flow.id, flow_paused=on)
        self.run(self.stores[1].change("acme", changes, by="a person"))
        self._lines_move()

    def _pause(self, flow: str) -> None:
        self.run(self.stores[0].pause(flow))
        self.books.flows[flow].paused = True
        self._lines_move()

    def _lose_lane(self, id: str, *, told: bool) -> None:
        """What the server counted of a lane is gone, and its flows are set again. `told`: by
        somebody who knows that calls were made."""
        lane = self.books.lanes[id]
        keys = [key for key in self.look() if key == f"l:{id}" or key.startswith(f"l:{id}:")]
        self.server.command("DEL", *(PREFIX + key for key in keys))
        lane.turns = Turns()
        for call in lane.sent.values():
            call.of_old = call.latest_ms < math.inf
            if call.of_old:  # the grace of one that was lost just now is lost too
                call.latest_ms = min(call.latest_ms, self.time.passed_ms)
        lane.full_for = {
            (cap.unit, cap.window_ms) for cap in lane.caps if cap.window_ms <= LOST_WAIT_MOST_MS
        }
        for flow in self.books.flows.values():
            flow.away = flow.lane == id
        for flow in self.books.flows.values():
            if flow.lane == id:
                self._set(flow, lane.caps, self.books.quota, lost=told)

    @rule(flow=FLOW)
    def flush(self, flow: str) -> None:
        """Rows are read, and leave with their jobs: each exactly once, as the books have them."""
        rows = self.server.rows(flow)
        of = self.books.flows[flow]
        told = sorted(row_of(row.fields) for row in rows)
        assert told == sorted(of.rows)
        ended = [row[1] for row in of.rows if row[0] == "job"]
        for job in ended:
            self.books.jobs[job].place = "gone"
        of.rows.clear()
        of.held -= len(ended)
        last = rows[-1].id if rows else None
        assert self.run(self.stores[0].flushed(flow, last)) == of.held

    @rule(age_ms=st.sampled_from([1_000, 60_000]))
    def lost_calls_are_forgotten(self, age_ms: int) -> None:
        lost = self.look().get("o:acme:lost", {})
        n = self.run(self.stores[0].forget("acme", age_ms=age_ms, most=200))
        old = [id for id, at in lost.items() if at <= self.now - age_ms]
        assert n == len(old)
        for id in old:
            del self.books.calls[id]
            self._let_go(id)

    # ------------------------------------------------------------------ what is always so

    @invariant()
    def the_data_agrees_with_the_books(self) -> None:
        clock = self.look()["m"]
        assert int(clock["now"]) == self.last_now <= START_MS + self.time.passed_ms
        assert int(clock["lease_now"]) == self.lease_now
        check_all(self.look(), self.books, self.last_now, self.time.passed_ms)


RARE = (
    *("long pause", "step", "restart", "pause", "lane lost", "weather"),
    *("death", "death"),
)
#: Where jobs are that are cancelled, or whose deadline comes.
WHERE = (
    *("next", "before parked", "running", "queue", "ready", "later", "head"),
    *("parked", "lost", "running", "ended", "gone"),
)
#: What is remembered of a job whose worker died.
DEATH = (
    '{"error":{"code":"worker_died","message":"the worker died while this job was running",'
    '"pointer":null,"provider_status":null}}'
)
CHANGES = (
    *("quota", "status", "status", "reserve", "weights", "limits", "credit", "paced"),
    *("lane paused", "flow weight", "flow paused"),
)


def read_caps(told: list[Cap]) -> tuple[list[Limit], list[Limit]]:
    """Those that hold for all, and those of bulk alone."""
    every = [Limit(c.amount, c.window_ms, "", Unit(c.unit)) for c in told if c.unit != "bulk"]
    return every, [Limit(c.amount, c.window_ms, "") for c in told if c.unit == "bulk"]


def row_of(fields: dict[str, str]) -> tuple[str, ...]:
    if "call" in fields:
        return tuple(fields[name] for name in ROW)
    error = json.loads(fields["body"]).get("error")
    said = error["code"] if error else fields["body"]
    assert fields["note"] == "note"
    return ("job", fields["job"], fields["state"], fields["attempts"], said)


ROW = ("call", "jobs", "outcome", "characters")


def without_clock(dump: Dump) -> Dump:
    clock = {"raw", "now", "lease_now"}
    return {**dump, "m": {name: dump["m"][name] for name in dump["m"] if name not in clock}}


@pytest.mark.slow
def test_the_scripts_keep_the_books_whatever_happens(server_url: str) -> None:
    Model.server = Server(server_url)
    try:
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=max(1, STEPS // STEPS_A_RUN),
                stateful_step_count=STEPS_A_RUN,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Model.server.close()
