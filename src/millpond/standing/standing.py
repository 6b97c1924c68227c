"""How a job, a flow, a lane or everything stands: why it waits, and when it will be done."""

from typing import Any

from millpond.domain.forecast import Line
from millpond.domain.job import Class, State
from millpond.domain.limit import Unit
from millpond.standing.estimate import (
    LATENCY_GUESS_MS,
    Estimate,
    estimate,
    latency_of,
    lines_of,
    slots_of,
    used_amount,
)
from millpond.standing.explain import (
    Reason,
    kept_for_interactive,
    why_flow,
    why_job,
    why_lane,
    written,
    written_cap,
)
from millpond.standing.moments import Clock, Told
from millpond.store.view import Explanation, FlowView, Holds, LaneView, OrgView, WindowView

#: Flows of a lane that are told with an estimate.
ESTIMATED_MOST = 20
CLASSES = {Class.INTERACTIVE: "interactive", Class.BULK: "bulk"}


def standing(seen: Explanation, holds: Holds, *, wall_s: float) -> Told:
    """Of what was asked for: a job, a flow or a lane."""
    if seen.job is not None:
        return _job(seen, holds, Clock(seen.now_ms, wall_s))
    if seen.flow is not None:
        return _flow(seen, holds, Clock(seen.now_ms, wall_s))
    return lane_standing(seen, holds, wall_s=wall_s)


def _job(seen: Explanation, holds: Holds, clock: Clock) -> Told:
    job, flow, flow_id = seen.job, seen.flow, seen.flow_id
    assert job is not None
    assert flow is not None
    assert flow_id is not None
    reason = why_job(seen, wall_s=clock.wall_s)
    goes: Estimate | None = None
    on_its_way = job.state in {State.RELEASED, State.RUNNING}
    if on_its_way:
        goes = Estimate(0, 0.0, latency_of(seen.lane))
    elif job.state == State.QUEUED and not flow.paused and job.before is not None:
        goes = estimate(seen, holds, seen.lines, flow_id, job.before + 1)
    elif job.later_at_ms is not None and not flow.paused:
        goes = _after_retry(seen, holds, flow_id, job.later_at_ms)
    before = None if goes is None or on_its_way else goes.calls - 1
    return {
        "kind": "job",
        "id": job.id,
        "state": job.state,
        "attempts": job.attempts,
        "failures": job.failures,
        "waits": _waits(reason, clock, calls_before=before),
        "calls_before": before,
        **_when(goes, clock, on_its_way=on_its_way),
        "flow": flow_id,
        "org": org_standing(seen.org, seen.org_id),
        "lane": _lane(seen, clock),
    }


def _after_retry(
    seen: Explanation, holds: Holds, flow_id: str, later_at_ms: int
) -> Estimate | None:
    """A job that is tried again is the first in its line from then on."""
    goes = estimate(seen, holds, lines_of(seen), flow_id, 1)
    if goes is None:
        return None
    starts_ms = max(goes.goes_ms, later_at_ms - seen.now_ms)
    return Estimate(goes.calls, starts_ms, starts_ms + latency_of(seen.lane))


def _flow(seen: Explanation, holds: Holds, clock: Clock) -> Told:
    flow, flow_id = seen.flow, seen.flow_id
    assert flow is not None
    assert flow_id is not None
    reason = why_flow(seen, wall_s=clock.wall_s)
    lines = lines_of(seen)
    goes: Estimate | None = None
    flying = flow.open - flow.queued - flow.later - flow.parked
    if not flow.paused:
        goes = estimate(seen, holds, lines, flow_id, flow.queued + flow.later)
    on_its_way = goes is None and flow.open > 0 and flying == flow.open
    if on_its_way:
        goes = Estimate(0, 0.0, latency_of(seen.lane))
    if flow.later_at_ms is not None and goes is not None:
        least_ms = max(goes.goes_ms, flow.later_at_ms - seen.now_ms)
        goes = Estimate(goes.calls, least_ms, least_ms + latency_of(seen.lane))
    own = [line for line in lines if line.flow == flow_id]
    before = None if goes is None or on_its_way else goes.calls - sum(line.calls for line in own)
    return {
        "kind": "flow",
        "id": flow_id,
        "state": _flow_state(flow, reason),
        "class": CLASSES[flow.klass],
        "user": flow.user,
        "weight": flow.weight,
        "jobs": {
            "held": flow.held,
            "open": flow.open,
            "queued": flow.queued,
            "later": flow.later,
            "parked": flow.parked,
            "in_flight": max(0, flying),
            "succeeded": flow.succeeded,
            "failed": flow.failed,
        },
        "calls": flow.calls,
        "refusals": flow.refusals,
        "waits": _waits(reason, clock, calls_before=before),
        "calls_before": before,
        **_when(goes, clock, on_its_way=on_its_way),
        "org": org_standing(seen.org, seen.org_id),
        "lane": _lane(seen, clock),
    }


def _flow_state(flow: FlowView, reason: Reason | None) -> str:
    if flow.paused:
        return "paused"
    if not flow.open:
        return "idle"
    return "running" if reason is None else "waiting"


def lane_standing(seen: Explanation, holds: Holds, *, wall_s: float) -> Told:
    """Of a lane: with the flows in its line, each with its own estimate."""
    clock = Clock(seen.now_ms, wall_s)
    reason = why_lane(seen, wall_s=wall_s)
    if reason is not None:
        state = "waiting" if seen.lines or seen.lane.flight else "idle"
    else:
        state = "running" if seen.lane.flight else "idle"
    return {
        "kind": "lane",
        **_lane(seen, clock),
        "state": state,
        "waits": _waits(reason, clock, calls_before=None),
        "in_line": [
            _in_line(line, seen, holds, clock, estimated=number < ESTIMATED_MOST)
            for number, line in enumerate(seen.lines)
        ],
        "org": org_standing(seen.org, seen.org_id),
    }


def _in_line(line: Line, seen: Explanation, holds: Holds, clock: Clock, *, estimated: bool) -> Told:
    goes = estimate(seen, holds, seen.lines, line.flow, line.queued) if estimated else None
    return {
        "flow": line.flow,
        "class": CLASSES[line.klass],
        "user": line.user,
        "weight": line.weight,
        "user_weight": line.user_weight,
        "queued": line.queued,
        "calls": line.calls,
        "calls_before": None if goes is None else goes.calls - line.calls,
        **_when(goes, clock),
    }


def org_standing(org: OrgView, org_id: str) -> Told:
    """Of an org's quota."""
    quota = org.quota
    return {
        "id": org_id,
        "state": "suspended" if org.suspended else "active",
        "mode": org.mode,
        "reserve": org.reserve,
        "quota": quota,
        "used": org.used,
        "estimated": org.estimated,
        "reserved": org.reserved,
        "left": org.left,
        "percent": round(100 * org.spent / quota, 1) if quota else None,
    }


def _lane(seen: Explanation, clock: Clock) -> Told:
    lane = seen.lane
    return {
        "id": seen.lane_id,
        "in_flight": lane.flight,
        "slots": slots_of(seen),
        "slots_free": max(0, seen.slots - seen.ready),
        "latency_ms": lane.latency_ms or LATENCY_GUESS_MS,
        "latency_measured": lane.latency_ms is not None,
        "counted": lane.counted,
        "paused": lane.paused,
        "paced": lane.paced,
        "service_time": lane.credit,
        "share": round(lane.share, 3),
        "refusals": lane.refusals,
        "shut_until": clock.at(lane.shut_until_ms if lane.shut_until_ms > seen.now_ms else None),
        "unreachable_since": clock.at(lane.unreachable_since_ms),
        "unwell_since": clock.at(lane.trouble_since_ms),
        "limits": [_window(window, lane, clock) for window in lane.windows],
        "provider_says": {"limits": lane.told, "left": lane.said},
    }


def _window(window: WindowView, lane: LaneView, clock: Clock) -> Told:
    amount = used_amount(lane, window)
    full = window.used >= amount
    bulk = window.unit == Unit.BULK
    told: dict[str, Any] = {
        "limit": written(window, lane.windows),
        "scope": "org",
        "unit": Unit.CALLS if bulk else window.unit,
        "used": window.used,
        "amount": amount,
        "has_room": clock.at(window.frees_at_ms) if full else None,
    }
    if bulk:
        told["kept_for_interactive"] = kept_for_interactive(window, lane.windows)
    return told


def caps_standing(seen: Explanation, *, wall_s: float) -> list[Told]:
    """Of limits whose scope is one user: how that user stands."""
    clock = Clock(seen.now_ms, wall_s)
    return [
        {
            "limit": written_cap(cap),
            "scope": "user",
            "unit": Unit.CALLS,
            "used": cap.used,
            "amount": cap.amount,
            "has_room": clock.at(cap.frees_at_ms),
        }
        for cap in seen.caps
    ]


def _waits(reason: Reason | None, clock: Clock, *, calls_before: int | None) -> Told | None:
    if reason is None:
        return None
    return {
        "why": reason.why,
        "limit": reason.limit,
        "unit": reason.unit,
        "used": reason.used,
        "amount": reason.amount,
        "next_release": clock.wall(reason.next_release_s),
        "since": clock.wall(reason.since_s),
        "calls_before": calls_before,
    }


def _when(goes: Estimate | None, clock: Clock, *, on_its_way: bool = False) -> Told:
    """When the last of it goes and is answered, as an estimate."""
    return {
        "goes": None if goes is None or on_its_way else clock.after(goes.goes_ms / 1_000),
        "answered": None if goes is None else clock.after(goes.answered_ms / 1_000),
    }
