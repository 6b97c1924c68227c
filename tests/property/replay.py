"""What one run of release.lua let go, judged call by call by the sums of `domain/`."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from millpond.domain.job import Class
from millpond.domain.turns import Turn, Turns
from property.books import TROUBLE_MOST, Books, FlowBook, JobBook, LaneBook
from property.counted import Taken, share_of, shortest, taken
from property.direct import Dump

BURST = 2
LINGER_MS = 250
P99_FROM = 20


@dataclass
class Pace:
    """The bucket from which bulk takes (and all, while `careful`)."""

    tokens: float
    rate: float
    window_ms: int
    careful: bool
    always: bool

    @property
    def wait_ms(self) -> int:
        if self.tokens >= 1:
            return 0
        return min(math.ceil((1 - self.tokens) / self.rate), self.window_ms)


@dataclass
class LaneSeen:
    """A lane as it stands before its calls go, and then call by call."""

    taken: list[Taken]
    pace: Pace | None
    probing: bool
    gone: list[str] = field(default_factory=list)
    chats: int = 0


class Replay:
    def __init__(self, books: Books, before: Dump, now: int) -> None:
        self.books = books
        self.before = before
        self.now = now
        self.slots = _number(before["m"], "free:acme") - len(books.ready)
        self.lanes: dict[str, LaneSeen] = {}
        self.led: set[str] = set()
        self.told = ""
        #: Ended jobs are still in it, until they are come upon.
        self.lines = {
            id: [entry.split("|")[1] for entry in before.get(f"f:{id}:q", [])] for id in books.flows
        }

    def seen(self, lane: LaneBook) -> LaneSeen:
        if lane.id not in self.lanes:
            self.lanes[lane.id] = look_at(self.books, self.before, lane, self.now)
        return self.lanes[lane.id]

    # ------------------------------------------------------------------ one call

    def one_went(self, id: str, told: Mapping[str, str]) -> None:
        """The lane might let one more go, and it was this one's turn."""
        lane = self.books.lanes[told["lane"]]
        seen = self.seen(lane)
        self._lane_may_go(lane, seen)
        self.told = told["flow"]
        first = self._lead(lane, seen)
        assert first is not None
        lead, job, may_go = first
        size = lead.pack
        needs = {job.id: self.need(lane, job)}
        tokens = job.tokens
        units = _units(lead, needs, tokens)
        left = self.books.left() if lane.counted else math.inf
        for one in seen.taken:
            assert one.wait_ms(self.now, units) == 0, (
                id,
                one,
                self.now,
                self.before[f"l:{lane.id}"],
            )
        self._take(lead)
        weight = self.books.weights.get(lead.user, 1.0)
        lane.turns.serve(lead.turn, may_go, user_weight=weight, flow_weight=lead.weight)
        self.led.add(lead.id)
        while job.pack and len(needs) < size:
            rider = self._rider(lane, lead)
            if rider is None or rider[1].pack != job.pack:
                break
            flow, more = rider
            wanted = {**needs, more.id: self.need(lane, more)}
            units = _units(lead, wanted, tokens + more.tokens)
            if units["characters"] > left or not self._all_fits(seen, units):
                break
            needs, tokens = wanted, tokens + more.tokens
            self._take(flow)
        assert told["jobs"] == ",".join(
            f"{one}|{self.books.jobs[one].flow}|{need}" for one, need in needs.items()
        )
        call = self.books.release(id, lead, needs, tokens)
        assert told["flow"] == lead.id
        for name in ("tokens", "inputs", "bulk"):
            assert int(told[name]) == call.units[name]
        assert int(told["need"]) == call.need
        for one in seen.taken:
            one.release(call.units)
        self._pay(seen, lead)
        seen.gone.append(id)

    def _lane_may_go(self, lane: LaneBook, seen: LaneSeen) -> None:
        fields = self.before[f"l:{lane.id}"]
        assert not self.books.suspended
        assert not lane.paused
        assert self.now >= lane.shut_least
        assert self.now >= _number(fields, "shut_until")
        assert self.slots > 0
        if seen.probing:
            assert not seen.gone
            assert not self.books.flight(lane.id)

    def _lead(self, lane: LaneBook, seen: LaneSeen) -> tuple[FlowBook, JobBook, set[Class]] | None:
        """Whose turn it is, and which classes might go. Jobs that the quota has no room for are
        parked on the way."""
        while turn := lane.turns.next(may_go := self._may_go(lane, seen)):
            job = self._first(lane, turn, riding=False)
            if job is None:
                continue
            if not lane.counted or self.need(lane, job) <= self.books.left():
                return self.books.flows[turn.flow], job, may_go
            self._take(self.books.flows[turn.flow])
            job.place = "parked"
        return None

    def _may_go(self, lane: LaneBook, seen: LaneSeen) -> set[Class]:
        if seen.pace and seen.pace.careful and seen.pace.tokens < 1:
            return set()
        if self._bulk_wait_ms(lane, seen) == 0:
            return {Class.INTERACTIVE, Class.BULK}
        return {Class.INTERACTIVE}

    def _bulk_wait_ms(self, lane: LaneBook, seen: LaneSeen) -> int | None:
        """How long bulk has to wait where others need not; None: until something happens."""
        chats = any(
            flow.line and flow.klass is Class.INTERACTIVE and not flow.paused
            for flow in self.books.flows.values()
            if flow.lane == lane.id
        )
        paced = seen.pace and (seen.pace.always or seen.chats or chats)
        wait = seen.pace.wait_ms if seen.pace and paced else 0
        for one in seen.taken:
            if one.cap.unit == "bulk":
                ends = one.wait_ms(self.now, {"bulk": 1})
                if ends is None:
                    return None
                wait = max(wait, ends)
        return wait

    def _rider(self, lane: LaneBook, lead: FlowBook) -> tuple[FlowBook, JobBook] | None:
        while turn := lane.turns.next_of(lead.klass, leads=lead.turn):
            if job := self._first(lane, turn, riding=True):
                return self.books.flows[turn.flow], job
        return None

    def _first(self, lane: LaneBook, turn: Turn, *, riding: bool) -> JobBook | None:
        flow = self.books.flows[turn.flow]
        if not flow.line or (not riding and self._lingers(flow)):
            lane.turns.leave(turn)
            return None
        return self.books.jobs[flow.line[0]]

    def _lingers(self, flow: FlowBook) -> bool:
        """It is being fed, and waits a moment so that its pack becomes full."""
        line, first = self.lines[flow.id], self.books.jobs[flow.line[0]]
        until = _number(self.before[f"f:{flow.id}"], "lingers_until")
        if not until or flow.id in self.led:
            until = self.now + LINGER_MS
        return (
            flow.klass is Class.BULK
            and flow.pack > 1
            and flow.fed_at + LINGER_MS > self.now
            and until > self.now
            and first.pack != ""
            and len(line) - line.index(first.id) < flow.pack
        )

    def _take(self, flow: FlowBook) -> None:
        flow.line.pop(0)

    def _all_fits(self, seen: LaneSeen, units: Mapping[str, int]) -> bool:
        """What rides along takes no more than is free."""
        return all(
            units[one.cap.unit] <= one.left(self.now)
            for one in seen.taken
            if one.cap.unit not in {"calls", "bulk"}
        )

    def _pay(self, seen: LaneSeen, lead: FlowBook) -> None:
        self.slots -= 1
        if seen.pace:
            seen.pace.tokens -= 1
        seen.chats += lead.klass is Class.INTERACTIVE

    def need(self, lane: LaneBook, job: JobBook) -> int:
        return need_of(self.books, self.before[f"l:{lane.id}"], lane, job)

    # ------------------------------------------------------------------ after all of them

    def nothing_more_could_go(self, dump: Dump, wait_ms: int | None, *, life: int) -> None:
        """Every call that could have gone has, and the wait that was told is not too long."""
        if self.slots <= 0 or self.books.suspended:
            return
        for lane in self.books.lanes.values():
            wait = self._could_go_in(dump, lane, life)
            if wait is None:
                continue
            seen = look_at(self.books, dump, lane, self.now)
            about = (lane.id, self.now, wait_ms, wait, seen, dump.get("due"), dump.get("turn"))
            assert wait > 0, about
            assert wait_ms is not None, about
            assert wait_ms <= wait, about

    def _could_go_in(self, dump: Dump, lane: LaneBook, life: int) -> int | None:
        """How long until the lane's next call may go if no call ends; None: nobody knows."""
        fields = dump[f"l:{lane.id}"]
        flight = self.books.flight(lane.id)
        waiting = any(
            flow.line and not flow.paused
            for flow in self.books.flows.values()
            if flow.lane == lane.id
        )
        probing = _number(fields, "trouble") >= TROUBLE_MOST
        if lane.paused or not waiting or (probing and flight):
            return None
        seen = look_at(self.books, dump, lane, self.now)
        told_all = fields["life"] == str(life)
        wait = max(0 if told_all else 100, _number(fields, "shut_until") - self.now)
        for one in seen.taken:
            if one.cap.unit == "calls":
                ends = one.wait_ms(self.now, {"calls": 1, "bulk": 0})
                if ends is None:
                    return None
                wait = max(wait, ends)
        window, _ = shortest(lane.caps)
        careful = share_of(fields, window, self.now) < 1
        if careful and (wait > 0 or (seen.pace and seen.pace.tokens < 1)):
            return None  # its share climbs meanwhile
        job_waits = self._next_job_waits(lane, seen)
        return None if job_waits is None else max(wait, job_waits)

    def _next_job_waits(self, lane: LaneBook, seen: LaneSeen) -> int | None:
        turns = copy.deepcopy(lane.turns)
        bulk_wait = 0
        first = self._first_waits(seen, turns, self._may_go(lane, seen))
        if first is None:
            wait = self._bulk_wait_ms(lane, seen)
            first = self._first_waits(seen, turns, {Class.BULK})
            if first is None or wait is None:
                return None
            bulk_wait = wait
        klass, job_wait = first
        if job_wait is None:
            return None
        if seen.pace and (klass is Class.BULK or seen.pace.careful):
            # The look was put off by the pace of that moment, for somebody who waited then.
            bulk_wait = max(bulk_wait, seen.pace.window_ms)
        return max(job_wait, bulk_wait)

    def _first_waits(
        self, seen: LaneSeen, turns: Turns, may_go: set[Class]
    ) -> tuple[Class, int | None] | None:
        """The class whose turn it is, and how long limits make its first job wait."""
        while turn := turns.next(may_go):
            lead = self.books.flows[turn.flow]
            if not lead.line or self._lingers(lead):
                turns.leave(turn)
                continue
            lane, job = self.books.lanes[lead.lane], self.books.jobs[lead.line[0]]
            need = self.need(lane, job)
            if lane.counted and need > self.books.left():
                return turn.klass, None  # it is parked when the lane is looked at
            units = _units(lead, {job.id: need}, job.tokens)
            waits = [one.wait_ms(self.now, units) for one in seen.taken]
            return turn.klass, None if None in waits else max(one or 0 for one in waits)
        return None


def look_at(books: Books, dump: Dump, lane: LaneBook, now: int) -> LaneSeen:
    probing = _number(dump[f"l:{lane.id}"], "trouble") >= TROUBLE_MOST
    return LaneSeen(taken(dump, books, lane, now), pace_of(dump, lane, now), probing)


def pace_of(dump: Dump, lane: LaneBook, now: int) -> Pace | None:
    """Bulk goes evenly while somebody waits for answers; all does after refusals."""
    fields = dump[f"l:{lane.id}"]
    window, amount = shortest(lane.caps)
    share = share_of(fields, window, now)
    always = window > 0 and (lane.paced or now - float(fields.get("chat_at", -math.inf)) < window)
    careful = share < 1
    if not window and not careful:
        return None
    rate = amount * share / (window + float(fields.get("latency", 0)))
    capacity = 1 if careful else BURST
    had = float(fields.get("bucket", capacity))
    tokens = min(capacity, had + (now - int(fields.get("bucket_at", now))) * rate)
    return Pace(tokens, rate, window, careful, always or careful)


def need_of(books: Books, fields: Mapping[str, str], lane: LaneBook, job: JobBook) -> int:
    """What is reserved for a job, by what answers came to of their bounds."""
    if not lane.counted:
        return job.need
    scale = float(fields.get("bound", 1))
    if books.reserve == "p99" and _number(fields, "answers") >= P99_FROM:
        scale = float(fields["p99"])
    if scale == 1:
        return job.need
    return job.base + math.ceil((job.need - job.base) * scale)


def _units(lead: FlowBook, needs: Mapping[str, int], tokens: int) -> dict[str, int]:
    return {
        "calls": 1,
        "inputs": len(needs),
        "characters": sum(needs.values()),
        "tokens": tokens,
        "bulk": int(lead.klass is Class.BULK),
    }


def _number(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name, 0))
