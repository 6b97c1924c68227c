"""Why jobs wait: from how things stand, without asking anybody.

The first cause that holds is the reason: nothing is said to wait for a limit that could not go if
it had room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from millpond.clock import rfc3339
from millpond.domain.job import Class, State
from millpond.domain.limit import Limit, Unit
from millpond.standing.estimate import shortest, slots_of, used_amount
from millpond.store.view import CapView, Explanation, FlowView, LaneView, OrgView, View, WindowView


class Why(StrEnum):
    """What kind of reason it is."""

    SUSPENDED = "suspended"
    PAUSED = "paused"
    QUOTA = "quota"
    UNREACHABLE = "unreachable"
    UNWELL = "unwell"
    REFUSED = "refused"
    LIMIT = "limit"
    NO_SLOT = "no_slot"
    NOT_BEFORE = "not_before"
    RETRY = "retry"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why jobs wait: `limit` names it for people, with what is used of which amount where that is
    what it is about; when (unix s) the next may go, if that is known, and since when it is so."""

    why: Why
    limit: str
    unit: str | None = None
    used: int | None = None
    amount: int | None = None
    next_release_s: float | None = None
    since_s: float | None = None

    def as_json(self) -> dict[str, str | int | None]:
        at = self.next_release_s
        return {
            "limit": self.limit,
            "unit": self.unit,
            "used": self.used,
            "amount": self.amount,
            "next_release_at": None if at is None else rfc3339(at),
        }

    def for_people(self) -> str:
        text = self.limit
        if self.amount is not None and self.used is not None:
            text += f" ({self.used:,} of {self.amount:,} {self.unit})"
        if self.since_s is not None:
            text += f" since {rfc3339(self.since_s)}"
        if self.next_release_s is not None:
            text += f", next at {rfc3339(self.next_release_s)}"
        return text


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, in logical time and as people know it."""

    now_ms: int
    wall_s: float

    def wall(self, logical_ms: int | None) -> float | None:
        if logical_ms is None:
            return None
        return self.wall_s + (logical_ms - self.now_ms) / 1_000


def waiting_reason(
    view: View, limits: Sequence[Limit], *, wall_s: float, klass: Class = Class.BULK
) -> Reason | None:
    """Why a run's open jobs do not all go now; None: nothing holds them but their turn."""
    now = Moment(view.now_ms, wall_s)
    return _why_flow(now, view, view.flow, limits, klass)


def why_flow(seen: Explanation, *, wall_s: float) -> Reason | None:
    """Why the open jobs of the flow that was asked for do not all go now; None: all are on their
    way."""
    flow = seen.flow
    assert flow is not None
    now = Moment(seen.now_ms, wall_s)
    reason = _why_flow(now, seen, flow, (), flow.klass)
    if reason is None and flow.open and flow.parked and not flow.queued + flow.later:
        return _quota_for_now(seen.org)
    return reason or (_no_slot(seen) or _TURN if flow.queued else None)


def why_lane(seen: Explanation, *, wall_s: float) -> Reason | None:
    """Why a lane's jobs do not all go now; None: none is in line, and nothing stands in the way."""
    now = Moment(seen.now_ms, wall_s)
    reason = _stands_still(now, seen.org, seen.lane) or _shut(now, seen.lane)
    if reason is not None or not seen.lines:
        return reason
    bulk_alone = all(line.klass is Class.BULK for line in seen.lines)
    klass = Class.BULK if bulk_alone else Class.INTERACTIVE
    return _full(now, seen.lane, (), klass) or _no_slot(seen) or _TURN


def why_job(seen: Explanation, *, wall_s: float) -> Reason | None:
    """Why the job that was asked for has not gone; None: it is on its way, or has ended."""
    job, flow = seen.job, seen.flow
    assert job is not None
    assert flow is not None
    now = Moment(seen.now_ms, wall_s)
    if job.state != State.QUEUED:
        return None
    reason = _stands_still(now, seen.org, seen.lane) or _paused(flow)
    if reason is None and job.parked:
        reason = _quota_for_now(seen.org)
    reason = reason or _shut(now, seen.lane)
    if reason is not None:
        return reason
    if job.later_at_ms is not None:
        next_s = now.wall(job.later_at_ms)
        if not job.attempts:  # it was submitted so
            return Reason(Why.NOT_BEFORE, "not before its time", next_release_s=next_s)
        return Reason(Why.RETRY, "retry", next_release_s=next_s)
    return _full(now, seen.lane, (), flow.klass, seen.caps) or _no_slot(seen) or _TURN


def quota_stops(view: View) -> bool:
    """Every open job waits for quota and not even the smallest fits: time changes nothing."""
    return _quota_stops(view.flow, view.org)


def held(limits: Sequence[Limit], windows: Sequence[WindowView]) -> Sequence[Limit]:
    """The limits that the lane was seen under: those that are given, unless they were learnt since,
    or somebody else has set others."""
    seen = [(window.amount, window.window_ms, window.unit) for window in windows]
    if [(limit.amount, limit.window_ms, limit.unit) for limit in limits] == seen:
        return limits
    return [
        Limit(window.amount, window.window_ms, written(window, windows), Unit(window.unit))
        for window in windows
    ]


def written(window: WindowView, windows: Sequence[WindowView]) -> str:
    """A limit as people write it; of what bulk may use, how much is kept for others."""
    if window.unit == Unit.BULK:
        whole = _whole(window, windows)
        if whole is not None:
            return f"{written(whole, ())}, {kept_for_interactive(window, windows)} of it kept"
        return f"bulk {window.amount}/{_length(window.window_ms)}"
    counted = "" if window.unit == Unit.CALLS else window.unit
    if not window.window_ms:
        return f"{window.amount}{counted}@once"
    return f"{window.amount}{counted}/{_length(window.window_ms)}"


def written_cap(cap: CapView) -> str:
    """A limit whose scope is one user, as people write it."""
    return f"{written(_as_window(cap), ())} per user"


def _as_window(cap: CapView) -> WindowView:
    return WindowView(cap.amount, cap.window_ms, cap.used, cap.frees_at_ms)


def kept_for_interactive(window: WindowView, windows: Sequence[WindowView]) -> int:
    """How much of a limit of calls bulk has to leave."""
    whole = _whole(window, windows)
    return 0 if whole is None else max(0, whole.amount - window.amount)


def _whole(window: WindowView, windows: Sequence[WindowView]) -> WindowView | None:
    """The limit of calls that a limit of bulk is a part of."""
    same = (one for one in windows if (one.unit, one.window_ms) == (Unit.CALLS, window.window_ms))
    return next(same, None)


def _length(window_ms: int) -> str:
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000)):
        if window_ms % length_ms == 0:
            return f"{window_ms // length_ms}{unit}"
    return f"{window_ms / 1_000:g}s"


_TURN = Reason(Why.TURN, "its turn")
#: Why a lane is shut, by the word of the store.
_SHUT = {
    "refused": (Why.REFUSED, "the provider's own limit"),
    "unreachable": (Why.UNREACHABLE, "provider unreachable"),
    "unwell": (Why.UNWELL, "provider unwell"),
}


def _why_flow(
    now: Moment,
    seen: View | Explanation,
    flow: FlowView,
    limits: Sequence[Limit],
    klass: Class,
) -> Reason | None:
    org, lane = seen.org, seen.lane
    reason = _stands_still(now, org, lane) or _paused(flow)
    if reason is not None:
        return reason
    if _quota_stops(flow, org):
        return _quota(org)
    reason = _shut(now, lane)
    if reason is None and flow.open > 0:
        reason = _full(now, lane, limits, klass, seen.caps)
    if reason is None and flow.later_at_ms is not None and flow.later == flow.open:
        # (of which it is the second only the job itself knows)
        why = Why.RETRY if flow.calls else Why.NOT_BEFORE
        name = "retry, or not before their time" if flow.calls else "not before their time"
        return Reason(why, name, next_release_s=now.wall(flow.later_at_ms))
    return reason


def _stands_still(now: Moment, org: OrgView, lane: LaneView) -> Reason | None:
    """What only somebody's word ends."""
    if org.suspended:
        return Reason(Why.SUSPENDED, "suspended")
    if lane.paused is not None:
        return Reason(Why.PAUSED, lane.paused)
    if lane.counted and org.quota is not None and org.spent >= org.quota:
        return _quota(org)
    return None


def _paused(flow: FlowView) -> Reason | None:
    return Reason(Why.PAUSED, "paused: the flow") if flow.paused else None


def _quota(org: OrgView) -> Reason:
    return Reason(Why.QUOTA, "quota", "characters", org.spent, org.quota)


def _quota_for_now(org: OrgView) -> Reason:
    """What is reserved comes back in part when its calls end."""
    if not org.reserved:
        return _quota(org)
    name = "quota, with what calls in flight may use"
    return Reason(Why.QUOTA, name, "characters", org.spent + org.reserved, org.quota)


def _quota_stops(flow: FlowView, org: OrgView) -> bool:
    return (
        0 < flow.open == flow.parked
        and org.quota is not None
        and flow.parked_least is not None
        and flow.parked_least > org.quota - org.spent
    )


def _shut(now: Moment, lane: LaneView) -> Reason | None:
    """What the provider has done, or nobody could do with it."""
    until_ms = lane.shut_until_ms if lane.shut_until_ms > now.now_ms else None
    next_s = now.wall(until_ms)
    if lane.unreachable_since_ms is not None:
        since_s = now.wall(lane.unreachable_since_ms)
        return Reason(
            Why.UNREACHABLE, "provider unreachable", next_release_s=next_s, since_s=since_s
        )
    if lane.trouble_since_ms is not None:
        since_s = now.wall(lane.trouble_since_ms)
        return Reason(Why.UNWELL, "provider unwell", next_release_s=next_s, since_s=since_s)
    if until_ms is None:
        return None
    why, words = _SHUT.get(lane.shut_reason, _SHUT["refused"])
    return Reason(why, words, next_release_s=next_s)


def _full(
    now: Moment,
    lane: LaneView,
    limits: Sequence[Limit],
    klass: Class,
    caps: Sequence[CapView] = (),
) -> Reason | None:
    """The full limit that frees last, or the user's own cap."""
    limited: list[tuple[str, int, WindowView]] = [
        (limit.written, used_amount(lane, window), window)
        for limit, window in zip(held(limits, lane.windows), lane.windows, strict=True)
        if not (window.unit == Unit.BULK and klass is Class.INTERACTIVE)
    ]
    limited += [(written_cap(cap), cap.amount, _as_window(cap)) for cap in caps]
    full = [one for one in limited if one[2].used >= one[1]]
    if not full:
        return None
    name, amount, window = max(full, key=lambda one: one[2].frees_at_ms or now.now_ms)
    if amount < window.amount and window == shortest(lane):
        name += f", at {lane.share:.0%} since the provider refused"
    unit = Unit.CALLS if window.unit == Unit.BULK else window.unit
    next_s = now.wall(window.frees_at_ms) if window.used >= window.amount else None
    return Reason(Why.LIMIT, name, unit, window.used, amount, next_s)


def _no_slot(seen: Explanation) -> Reason | None:
    if seen.slots - seen.ready > 0:
        return None
    slots = slots_of(seen)
    if not slots:
        return Reason(Why.NO_SLOT, "no worker is there")
    return Reason(Why.NO_SLOT, "no worker slot is free", "calls", seen.lane.flight, slots)
