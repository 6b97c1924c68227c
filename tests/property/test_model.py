"""The store's scripts against books of our own, in logical time, whatever happens in any order.

Processes come and go, replies are lost, clocks are stepped, limits are changed. After each step
the server's data is read whole and compared with the books (`books.py`), which know the true
time and count, for each call, every moment at which the provider may have counted it.
"""

import asyncio
import math
import os
from collections.abc import Coroutine
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
from redis.asyncio import Redis

from conftest import PARTITION, START_MS
from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.domain.limit import Limit
from millpond.domain.window import Windows
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Lane, NewJob, Store, WorkerState
from property.books import GRACE_MS, Books, CallBook, FlowBook, JobBook, LaneBook, WorkerBook
from store.pond import PREFIX, Dump, whole_dump

#: How many steps are taken in all; `make model` asks for more.
STEPS = int(os.environ.get("MODEL_STEPS", "20000"))
STEPS_A_RUN = 80

DAY_MS = 86_400_000
LEASE_MS = 2_000
GENERATE, EMBED = "acme.generate", "acme.embed"
COUNTED = {GENERATE: True, EMBED: False}
LANES = {"f": GENERATE, "g": GENERATE, "e": EMBED}

#: Amount and window of the limits of a lane: few, so that they are reached and changed often.
LIMITS: st.SearchStrategy[list[tuple[int, int]]] = st.sampled_from(
    [
        [(1, 1_000)],
        [(3, 1_000)],
        [(2, 1_000), (5, 10_000)],
        [(4, 10_000)],
        [(3, 10_000), (6, 60_000)],
        [(6, 60_000)],
        [(4, 10_000), (12, DAY_MS)],
    ]
)
QUOTAS = st.sampled_from([None, None, 0, 300, 1_000, 3_000])
NEEDS = st.sampled_from([1, 50, 100, 300])
SHORT_MS = st.sampled_from([0, 1, 100, 249, 250, 251, 999, 1_000, 1_001, 3_000, 9_999, 10_000])
LONG_MS = st.sampled_from([60_000, 600_000, 3_600_000, DAY_MS, 2 * DAY_MS])
STEPS_OF_TIME_MS = st.sampled_from(
    [step * sign for step in (300, 2_000, 60_000, 3_600_000, DAY_MS) for sign in (1, -1)]
)
FLOW = st.sampled_from(sorted(LANES))
WORKER = st.sampled_from([0, 1])
NUMBER = st.integers(0, 7)

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


class Model(RuleBasedStateMachine):
    redis: ClassVar[Redis]
    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.time = TrueTime()
        self.seen: Dump | None = None
        self.accepted = 0
        self.started = 0
        self.runs = 0
        self.life = 0
        self.last_now = 0
        self.lease_now = 250
        self.told_wait_ms = 0
        self.ghosts: list[CallBook] = []
        self.settled: list[Settlement] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one script."""
        self.seen = None
        result = self.loop.run_until_complete(work)
        if self.last_now:
            self.lease_now += min(250, self.now - self.last_now)
        self.last_now = max(self.now, self.last_now)
        return result

    def look(self) -> Dump:
        """The server's data after the last script."""
        if self.seen is None:
            self.seen = self.loop.run_until_complete(whole_dump(self.redis))
        return self.seen

    @property
    def now(self) -> int:
        """Logical time after the last script."""
        return max(store.gateway.now_ms for store in self.stores)

    # ------------------------------------------------------------------ the beginning

    @initialize(generate=LIMITS, embed=LIMITS, quota=QUOTAS, crashes=st.integers(1, 3))
    def open(
        self,
        generate: list[tuple[int, int]],
        embed: list[tuple[int, int]],
        quota: int | None,
        crashes: int,
    ) -> None:
        self.stores = [Store(Gateway(self.redis, PARTITION, time=self.time)) for _ in range(3)]
        self.run(self._empty())
        for store in self.stores:
            self.run(store.hello())
        self.life = self.stores[0].gateway.life
        self.books = Books(
            lanes={
                GENERATE: LaneBook(GENERATE, True, generate, Windows([])),
                EMBED: LaneBook(EMBED, False, embed, Windows([])),
            },
            flows={flow: FlowBook(flow, lane, 3, crashes) for flow, lane in LANES.items()},
        )
        self.slots: list[WorkerBook] = []
        for flow, lane in LANES.items():
            self.set(flow, generate if lane == GENERATE else embed, quota)
            self.accept(flow, [100, 50, 300, 1], again=False)
        for i in range(2):
            self.slots.append(self._new_worker())
            self.beat(i, moves_on=False)

    async def _empty(self) -> None:
        await self.redis.flushall()
        await self.redis.hset(f"{PREFIX}m", "test", "1")  # type: ignore[misc]

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

    def _tick(self) -> None:
        self.run(self.stores[0].gateway.run("look", "no flow"))

    @rule(data=st.data())
    def something_rare(self, data: st.DataObject) -> None:
        """What would leave little else to happen if it came as often."""
        match data.draw(st.sampled_from(["long pause", "step", "restart", "pause", "death"])):
            case "long pause":
                self.time.passed_ms += data.draw(LONG_MS)
            case "step":
                self._step(data.draw(STEPS_OF_TIME_MS), back=data.draw(st.booleans()))
            case "restart":
                self._restart(data.draw(WORKER))
            case "pause":
                self._pause(data.draw(FLOW))
            case "death":
                self._die(data.draw(WORKER), seen=data.draw(st.booleans()))

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

    @rule(flow=FLOW, needs=st.lists(NEEDS, min_size=1, max_size=6), again=st.booleans())
    def accept(self, flow: str, needs: list[int], again: bool) -> None:
        jobs = []
        for need in needs:
            self.accepted += 1
            job = JobBook(f"j{self.accepted}", flow, need)
            self.books.jobs[job.id] = job
            jobs.append(NewJob(job.id, need, "note", b"payload"))
        if again:
            jobs += [
                NewJob(job.id, 7, "other", b"other")
                for job in list(self.books.jobs.values())[:: max(1, self.accepted // 5)]
                if job.flow == flow and job.place != "gone"
            ]
        self.books.flows[flow].held += len(needs)
        held = self.run(self.stores[0].accept(flow, jobs))
        assert held == self.books.flows[flow].held

    @rule(sleeps=st.sampled_from([None, None, -1, 0, 0, 1]))
    def the_scheduler_takes_a_step(self, sleeps: int | None) -> None:
        """`sleeps`: first, as the store told, until the very moment at which something may move,
        or a millisecond less or more."""
        if sleeps is not None:
            self.time.passed_ms += max(0, self.told_wait_ms + sleeps)
        self.told_wait_ms = 0
        self.reap()
        self.promote(200)
        self.release(0, 200)

    @rule(which=WORKER, ends=st.integers(0, 3), ago_ms=st.sampled_from([0, 100, 5_000]))
    def a_worker_takes_a_turn(self, which: int, ends: int, ago_ms: int) -> None:
        """It settles what has ended and fills its slots."""
        worker = self.slots[which]
        for id in worker.held[:ends]:
            call = self.books.calls[id]
            self._settle(which, call, "succeeded", call.need // 10, ago_ms)
        most = max(1, worker.slots - len(worker.held))
        self.release(1 + which, most)
        self.claim(which, most, reply_is_lost=False)

    @rule(which=WORKER, ends=st.integers(0, 3), sleeps=st.sampled_from([None, None, -1, 0, 0, 1]))
    def all_take_a_turn(self, which: int, ends: int, sleeps: int | None) -> None:
        self.the_scheduler_takes_a_step(sleeps)
        self.a_worker_takes_a_turn(which, ends, 0)
        self.a_worker_takes_a_turn(1 - which, 0, 0)

    @rule(what=st.sampled_from(["promote", "release", "reap"]), most=st.sampled_from([1, 3]))
    def one_script_runs_alone(self, what: str, most: int) -> None:
        match what:
            case "promote":
                self.promote(most)
            case "release":
                self.release(0, most)
            case "reap":
                self.reap()

    def promote(self, most: int) -> None:
        left = self.books.left()
        n, wait_ms = self.run(self.stores[0].promote(most))
        dump = self.look()
        come = [
            job
            for job in self.books.jobs.values()
            if job.place in {"later", "parked"} and job.id in line(dump, job.flow)
        ]
        assert len(come) == n
        brought = dict.fromkeys(LANES, 0)
        for job in come:
            if job.place == "later":
                assert job.later_at <= self.now
            else:
                brought[job.flow] += job.need
            job.place = "queue"
        assert max(brought.values()) <= max(left, 0)
        later = [job.later_at for job in self.books.jobs.values() if job.place == "later"]
        if most == 200:
            assert all(at > self.now for at in later)
            parked = [job for job in self.books.jobs.values() if job.place == "parked"]
            # What came back before and still waits for its turn will take some of it.
            in_line = dict.fromkeys(LANES, 0)
            for job in self.books.jobs.values():
                in_line[job.flow] += job.need * (job.place == "queue")
            assert all(job.need > left - in_line[job.flow] for job in parked)
        if later:
            assert wait_ms is not None
            assert wait_ms <= max(0, min(later) - self.now)
        self._sleep_at_most(wait_ms)

    def release(self, which: int, most: int) -> None:
        before = self.look()
        left_before = self.books.left()
        n, wait_ms = self.run(self.stores[which].release(most))
        dump = self.look()
        ids = dump.get("ready:acme", [])[len(self.books.ready) :]
        assert len(ids) == n <= most
        for id in ids:
            self._one_went(id, before, dump)
        for job in self.books.jobs.values():
            if job.place == "queue" and job.id in dump.get(f"f:{job.flow}:parked", {}):
                job.place = "parked"
                assert COUNTED[LANES[job.flow]]
                assert job.need > self.books.left()
        for lane in self.books.lanes.values():
            if any(LANES[self.books.calls[id].flow] == lane.id for id in ids):
                for amount, window_ms in lane.limits:
                    assert lane.most_inside(window_ms, self.time.passed_ms) <= amount
        if ids and self.books.left() < left_before:
            assert self.books.left() >= 0
        if most == 200:
            assert wait_ms != 0
            self._nothing_more_could_go(dump, wait_ms)
        self._sleep_at_most(wait_ms)

    def _sleep_at_most(self, wait_ms: int | None) -> None:
        if wait_ms:
            self.told_wait_ms = min(wait_ms, self.told_wait_ms or wait_ms)

    def _one_went(self, id: str, before: Dump, dump: Dump) -> None:
        told = dump[f"c:{id}"]
        job = self.books.jobs[told["jobs"]]
        flow, lane = self.books.flows[job.flow], self.books.lanes[LANES[job.flow]]
        assert job.place == "queue"
        assert told["need"] == str(job.need)
        assert not flow.paused
        assert not lane.paused
        assert self.now >= lane.shut_least
        assert lane.windows.wait_ms(self.now) == 0
        if before[f"l:{lane.id}"]["life"] != dump["m"].get("life", "0"):
            life = int(dump["m"]["life"])
            assert all(w.life == life or self._is_dead(w) for w in self.books.workers.values())
        assert id not in self.books.calls
        self.books.release(id, job)

    def _nothing_more_could_go(self, dump: Dump, wait_ms: int | None) -> None:
        """Every call that could have gone has, and the wait that was told is not too long."""
        slots = int(dump["m"].get("free:acme", 0)) - len(dump.get("ready:acme", []))
        for lane in self.books.lanes.values():
            fields = dump[f"l:{lane.id}"]
            waiting = any(
                job.place == "queue" and not self.books.flows[job.flow].paused
                for job in self.books.jobs.values()
                if LANES[job.flow] == lane.id
            )
            if lane.paused or not waiting or slots <= 0:
                continue
            if "share" in fields:  # after a refusal it goes slower than it might (test_share)
                continue
            windows_wait = lane.first_room(int(fields["before"]), int(fields["complete"]), self.now)
            if windows_wait is None:
                continue
            told_all = fields["life"] == dump["m"].get("life", "0")
            shut_ms = int(fields.get("shut_until", 0)) - self.now
            wait = max(windows_wait, shut_ms, 0 if told_all else 100)
            assert wait > 0
            assert wait_ms is not None
            assert wait_ms <= wait

    # ------------------------------------------------------------------ workers

    @rule(which=WORKER, most=st.integers(1, 6))
    def a_claims_reply_is_lost(self, which: int, most: int) -> None:
        self.claim(which, most, reply_is_lost=True)

    def claim(self, which: int, most: int, reply_is_lost: bool) -> None:
        worker = self.slots[which]
        before = self.look()
        got = self.run(self.stores[1 + which].claim(worker.name, worker.seq + 1, most))
        expected = self._expected_claim(worker, worker.seq + 1, most, before)
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
        share = math.ceil(len(books.ready) / len(books.workers))
        claimed: list[str] = []
        while books.ready and len(claimed) < min(most, share):
            call = books.calls[books.ready[0]]
            shut = int(before[f"l:{call.lane}"].get("shut_until", 0)) > self.now
            if shut or books.flows[call.flow].paused or books.lanes[call.lane].paused:
                books.unsend(call)
                continue
            books.ready.pop(0)
            call.state, call.worker = "running", worker.name
            call.claimed_ms, call.seq = self.time.passed_ms, seq
            claimed.append(call.id)
        worker.last = (seq, claimed)
        return claimed

    def _described(self, id: str) -> Claimed:
        call = self.books.calls[id]
        job = self.books.jobs[call.job]
        return Claimed(
            id=id,
            lane=call.lane,
            org="acme",
            flow=call.flow,
            need=call.need,
            attempts=3,
            jobs=(ClaimedJob(job.id, job.failures, b"payload"),),
        )

    @rule(which=WORKER, moves_on=st.booleans())
    def beat(self, which: int, moves_on: bool) -> None:
        """`moves_on`: a claim whose reply was lost is given up instead of asked again."""
        worker, store = self.slots[which], self.stores[1 + which]
        if moves_on and worker.unseen:
            worker.seq += 1
            worker.unseen = []
        worker.life = store.gateway.life
        if worker.life == self.life:
            for id in self.books.running(worker.name):
                call = self.books.calls[id]
                if id not in worker.held and call.seq <= worker.seq:
                    self.books.unsend(call)
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
        self.run(store.heartbeat(told))
        worker.lease_end = self.lease_now + LEASE_MS
        if self.books.workers.setdefault(worker.name, worker) is not worker:
            raise AssertionError("two workers have one name")

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
        end=st.sampled_from(["succeeded", "succeeded", "failed", "retry"]),
        share_used=st.sampled_from([None, 0.0, 0.5, 1.0]),
        counted_ms_ago=st.sampled_from([0, 0, 0, 0.4, 1, 700, 5_000, 70_000, -GRACE_MS, -0.7]),
        delay_ms=st.sampled_from([0, 1, 500, 20_000]),
        refused=st.sampled_from([None, None, None, None, 0, 1_500]),
        pause=st.sampled_from([""] * 14 + ["key: refused"]),
    )
    def settle(
        self,
        number: int,
        end: Literal["succeeded", "failed", "retry"],
        share_used: float | None,
        counted_ms_ago: float,
        delay_ms: int,
        refused: int | None,
        pause: str,
    ) -> None:
        choices = self._settles()
        which, call = choices[number % len(choices)]
        used = None if share_used is None else int(call.need * share_used)
        self._settle(which, call, end, used, counted_ms_ago, delay_ms, refused, pause)

    def _settle(
        self,
        which: int,
        call: CallBook,
        end: Literal["succeeded", "failed", "retry"],
        used: int | None,
        counted_ms_ago: float,
        delay_ms: int = 0,
        refused: int | None = None,
        pause: str = "",
    ) -> None:
        job, lane = self.books.jobs[call.job], self.books.lanes[call.lane]
        counted_by_ms = max(call.claimed_ms, self.time.passed_ms - counted_ms_ago)
        told = Settlement(
            self._described(call.id),
            counted_by_ms=counted_by_ms,
            used=used,
            jobs=(JobEnd(job.id, end, failed=used is None, delay_ms=delay_ms),),
            refused=refused is not None,
            shut_ms=refused or 0,
            pause=pause,
        )
        was_lost = call.state == "lost"
        assert self.run(self.stores[1 + which].settle([told])) == ["settled"]
        stamp = int(self.look().get(f"l:{lane.id}:s", {}).get(call.id, 0))
        if not was_lost:
            assert 0 < stamp - (self.now - self.time.passed_ms + counted_by_ms) <= 2
        self.books.settle(call, used, counted_by_ms, stamp)
        self._forget_held(call.id)
        if was_lost:
            if job.waits and job.call == call.id and end != "retry":
                self.books.end_job(job, end)
        else:
            job.attempts += 1
            if end == "retry":
                job.place, job.later_at = "later", self.now + delay_ms
                job.failures += used is None
            else:
                self.books.end_job(job, end)
        if refused is not None:
            self.books.flows[call.flow].refusals += 1
            lane.shut_least = max(lane.shut_least, self.now + (refused or 1_000))
        lane.paused = lane.paused or pause != ""
        self.settled.append(told)

    def _forget_held(self, id: str) -> None:
        for worker in self.slots:
            if id in worker.held:
                worker.held.remove(id)

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
        """A lost call stays as it is: nobody believes that it was not sent."""
        choices = self._settles()
        which, call = choices[number % len(choices)]
        owner = call.worker
        self.run(self.stores[1 + which].give_back(owner, [call.id], unreachable=unreachable))
        self._forget_held(call.id)
        if call.state == "running":
            self.books.unsend(call)

    def _die(self, which: int, *, seen: bool) -> None:
        """A worker dies, perhaps seen by its parent, or is only cut off: what it sent may still be
        settled."""
        worker = self.slots[which]
        if seen:
            self.run(self.stores[0].leave(worker.name))
            worker.lease_end = -1
        self.ghosts += [self.books.calls[id] for id in worker.held if id in self.books.calls]
        worker.held, worker.unseen = [], []
        self.slots[which] = self._new_worker()
        self.beat(which, moves_on=False)

    def reap(self) -> None:
        n, _ = self.run(self.stores[0].reap())
        dump = self.look()
        lost = [call for call in self.books.live() if dump[f"c:{call.id}"]["state"] == "lost"]
        assert len(lost) == n
        for call in lost:
            assert self._is_dead(self.books.workers[call.worker])
            self.books.lose(call, self.time.passed_ms, self.now + GRACE_MS)
        for name, worker in list(self.books.workers.items()):
            if name not in dump.get("workers", {}):
                assert self._is_dead(worker)
                assert not self.books.running(name)
                worker.unseen, worker.last = [], None
                del self.books.workers[name]
            else:
                assert n == 20 or not self._is_dead(worker)

    def _is_dead(self, worker: WorkerBook) -> bool:
        """A lease is counted in time that somebody kept: at most 250 ms between two scripts."""
        return worker.lease_end < self.lease_now

    # ------------------------------------------------------------------ people

    @rule(flow=FLOW, limits=LIMITS, quota=QUOTAS)
    def set(self, flow: str, limits: list[tuple[int, int]], quota: int | None) -> None:
        of = self.books.flows[flow]
        lane = self.books.lanes[of.lane]
        read = [Limit(amount, window_ms, "") for amount, window_ms in limits]
        told = Lane(
            id=lane.id, org="acme", pool="acme", limits=read, quota=quota, counted=lane.counted
        )
        self.run(self.stores[0].set_flow(flow, told, attempts=3, crashes=of.crashes))
        lane.limits, lane.windows.limits = limits, read
        lane.paused = of.paused = False
        lane.shut_least = 0
        self.books.quota = quota

    def _pause(self, flow: str) -> None:
        self.run(self.stores[0].pause(flow))
        self.books.flows[flow].paused = True

    @rule(flow=FLOW)
    def flush(self, flow: str) -> None:
        """Rows are read, and leave with their jobs: each exactly once, as the books have them."""
        rows = self.run(self.stores[0].rows(flow, block_ms=1))
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

    # ------------------------------------------------------------------ what is always so

    @invariant()
    def the_data_agrees_with_the_books(self) -> None:
        self._time_goes_on_and_never_ahead()
        self._characters_add_up()
        self._a_call_is_ready_or_with_a_worker_and_in_flight_or_lost()
        self._every_accepted_job_is_in_exactly_one_place()
        self._counts_are_right()

    def _time_goes_on_and_never_ahead(self) -> None:
        clock = self.look()["m"]
        assert int(clock["now"]) == self.last_now <= START_MS + self.time.passed_ms
        assert int(clock["lease_now"]) == self.lease_now

    def _characters_add_up(self) -> None:
        dump, books = self.look(), self.books
        org = dump["o:acme"]
        assert number(org, "reserved") == books.reserved()
        assert number(org, "used") == books.used
        assert number(org, "estimated") == books.estimated
        for id, flow in books.flows.items():
            of = dump[f"f:{id}"]
            reserved = sum(call.need for call in books.live() if call.flow == id)
            assert number(of, "reserved") == reserved
            assert number(of, "used") == flow.used
            assert number(of, "estimated") == flow.estimated

    def _a_call_is_ready_or_with_a_worker_and_in_flight_or_lost(self) -> None:
        dump, books = self.look(), self.books
        assert dump.get("ready:acme", []) == books.ready
        assert {key[2:] for key in dump if key.startswith("c:")} == set(books.calls)
        for id, call in books.calls.items():
            assert dump[f"c:{id}"]["state"] == call.state
        for key, members in dump.items():
            if key.startswith("wc:"):
                assert members == sorted(books.running(key[3:]))
        with_workers = sum(len(dump.get(f"wc:{name}", [])) for name in books.workers)
        flight = [id for lane in books.lanes for id in dump.get(f"l:{lane}:flight", {})]
        assert sorted(flight) == sorted(call.id for call in books.live())
        assert len(flight) == len(books.ready) + with_workers
        lost = {call.id for call in books.calls.values() if call.state == "lost"}
        assert set(dump.get("o:acme:lost", {})) == lost

    def _every_accepted_job_is_in_exactly_one_place(self) -> None:
        dump, books = self.look(), self.books
        places: dict[str, list[str]] = {id: [] for id in books.jobs}
        for flow in books.flows:
            for id in line(dump, flow):
                places[id].append("queue")
            for id in dump.get(f"f:{flow}:later", {}):
                places[id].append("later")
            for id in dump.get(f"f:{flow}:parked", {}):
                places[id].append("parked")
            for _, row in dump.get(f"f:{flow}:out", []):
                if "job" in row:
                    places[row["job"]].append(row["state"])
        for call in books.live():
            places[call.job].append(call.id)
        for id, job in books.jobs.items():
            assert places[id] == ([] if job.place == "gone" else [job.place])
            self._job_is_as_booked(job, dump)

    def _job_is_as_booked(self, job: JobBook, dump: Dump) -> None:
        if job.place == "gone":
            assert f"j:{job.id}" not in dump
            assert f"y:{job.id}" not in dump
            return
        fields = dump[f"j:{job.id}"]
        ended = job.place in {"succeeded", "failed"}
        call = self.books.calls.get(job.place)
        if call is not None:
            assert fields["state"] == ("released" if call.state == "ready" else "running")
        else:
            assert fields["state"] == (job.place if ended else "queued")
        lost = self.books.calls.get(job.call) if job.waits else None
        if lost is not None:
            assert lost.state == "lost"
            assert fields.get("call") == job.call
        elif not job.waits:
            assert fields.get("call") == (call.id if call else None)
        assert number(fields, "attempts") == job.attempts
        assert number(fields, "failures") == job.failures
        assert number(fields, "crashed") == job.crashed
        assert (f"y:{job.id}" in dump) == (not ended)

    def _counts_are_right(self) -> None:
        dump, books = self.look(), self.books
        for id, flow in books.flows.items():
            of = dump[f"f:{id}"]
            assert number(of, "open") == books.open(id)
            for name in ("held", "succeeded", "failed", "calls", "refusals"):
                assert number(of, name) == getattr(flow, name)
        free = sum(number(dump[f"w:{name}"], "free") for name in books.workers)
        assert number(dump["m"], "free:acme") == free


def line(dump: Dump, flow: str) -> list[str]:
    """Ids of the queued jobs of a flow. A job that a late answer has ended leaves its entry behind,
    which is dropped when its turn comes."""
    ids = [entry.split("|")[1] for entry in dump.get(f"f:{flow}:q", [])]
    return [id for id in ids if dump.get(f"j:{id}", {}).get("state") == "queued"]


def number(fields: dict[str, str], name: str) -> int:
    return int(fields.get(name, 0))


def row_of(fields: dict[str, str]) -> tuple[str, ...]:
    if "call" in fields:
        return ("call", fields["call"], fields["outcome"], fields["characters"])
    return ("job", fields["job"], fields["state"], fields["attempts"])


def without_clock(dump: Dump) -> Dump:
    clock = {"raw", "now", "lease_now"}
    return {**dump, "m": {name: dump["m"][name] for name in dump["m"] if name not in clock}}


@pytest.mark.slow
def test_the_scripts_keep_the_books_whatever_happens(server_url: str) -> None:
    with asyncio.Runner() as runner:
        Model.loop = runner.get_loop()
        Model.redis = connect(server_url)
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
            runner.run(Model.redis.aclose())
