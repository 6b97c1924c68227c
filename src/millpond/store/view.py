"""How things stand for a flow, as `look` tells it: numbers for progress, reasons and summary."""

from dataclasses import dataclass
from typing import Any

import orjson

from millpond.domain.forecast import Line
from millpond.domain.job import Class


@dataclass(frozen=True, slots=True)
class OrgView:
    """Characters: the quota (None: none), used, reserved for calls in flight, and kept for
    calls of unknown outcome. While it is `suspended` nothing goes. An org that was created, and
    not made by a run, has a `name`; `guidelines`: the version that it has accepted, `""`: none;
    `application`: the number of its latest application for full access, 0: none."""

    quota: int | None
    used: int
    reserved: int
    estimated: int
    suspended: bool = False
    mode: str | None = None
    reserve: str = "strict"
    name: str = ""
    created_ms: int = 0
    guidelines: str = ""
    guidelines_by: str = ""
    guidelines_at_ms: int = 0
    application: int = 0

    @property
    def left(self) -> int | None:
        """What is neither used nor spoken for; None: there is no quota."""
        return None if self.quota is None else self.quota - self.spent - self.reserved

    @property
    def spent(self) -> int:
        """What counts as used: calls of unknown outcome with all that they may have used."""
        return self.used + self.estimated


@dataclass(frozen=True, slots=True)
class FlowView:
    """Counts of the flow's jobs and calls, and its characters.

    `held`: jobs in the server; `open`: not ended; of those `queued` wait for their turn, `parked`
    for quota (the least needs `parked_least`), `later` to be tried again at `later_at_ms`.
    """

    open: int
    held: int
    queued: int
    parked: int
    parked_least: int | None
    later: int
    later_at_ms: int | None
    succeeded: int
    failed: int
    calls: int
    refusals: int
    used: int
    reserved: int
    estimated: int
    paused: bool = False
    user: str = ""
    klass: Class = Class.BULK
    weight: float = 1.0
    pack: int = 1


@dataclass(frozen=True, slots=True)
class WindowView:
    """One limit: how much is used, and when (logical ms) it next has room, if that is known."""

    amount: int
    window_ms: int
    used: int
    frees_at_ms: int | None
    unit: str = "calls"


@dataclass(frozen=True, slots=True)
class CapView:
    """One cap as its user has used it: a limit of calls that holds for each user. `taken_ms`: when
    (logical ms) calls that count were let go; of large caps only their number is known."""

    amount: int
    window_ms: int
    used: int
    frees_at_ms: int | None
    taken_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LaneView:
    """`latency_ms`: mean time from release to headers; `told`: what the provider says of limits;
    `share`: how much of them is used, less than 1 after it refused calls that they allow;
    `refusals`: of all time. Since `trouble_since_ms` its breaker is open. `said`: what the
    provider's own headers say. `counted`: its characters count against the quota; `paced`: bulk
    always goes evenly, else until a window after `chat_at_ms`, when an interactive job went;
    `credit`: the provider's word on its service time is believed."""

    flight: int
    paused: str | None
    shut_until_ms: int
    shut_reason: str
    unreachable_since_ms: int | None
    windows: tuple[WindowView, ...]
    latency_ms: int | None = None
    told: str | None = None
    share: float = 1.0
    trouble_since_ms: int | None = None
    said: str | None = None
    refusals: int = 0
    counted: bool = False
    paced: bool = False
    credit: bool = False
    chat_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """`caps`: those of the flow's user."""

    now_ms: int
    org: OrgView
    flow: FlowView
    lane: LaneView
    caps: tuple[CapView, ...] = ()


@dataclass(frozen=True, slots=True)
class JobView:
    """A job: its state, and where it stands while it is queued: `before` jobs of its flow come
    first (None: it is not in line, or very many do), or it waits until `later_at_ms`, or is
    `parked`, since the quota has no room for what it needs."""

    id: str
    state: str
    attempts: int
    failures: int
    before: int | None
    later_at_ms: int | None
    parked: bool


@dataclass(frozen=True, slots=True)
class Holds:
    """Calls that count in a lane's windows, as moments of logical time in order: when those in
    flight were released, and when those that have ended were counted."""

    released_ms: tuple[int, ...] = ()
    counted_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a lane stands, with the flows that take turns in it (at most 200). `slots`: calls that
    its workers could take now; `ready`: calls that wait for one of them; `caps`: limits whose scope
    is one user, as that user has used them."""

    now_ms: int
    lane_id: str
    org_id: str
    org: OrgView
    lane: LaneView
    lines: tuple[Line, ...]
    slots: int
    ready: int
    flow_id: str | None
    flow: FlowView | None
    job: JobView | None
    caps: tuple[CapView, ...] = ()


def read_view(told: bytes, *, now_ms: int) -> View:
    """Read what look.lua replied."""
    raw = orjson.loads(told)
    return View(
        now_ms=now_ms,
        org=read_org(raw["org"]),
        flow=_flow(raw["flow"]),
        lane=_lane(raw["lane"], raw["windows"]),
        caps=_caps(raw["caps"]),
    )


def read_explanation(told: bytes, *, now_ms: int) -> Explanation:
    """Read what explain.lua replied."""
    raw = orjson.loads(told)
    flow, job = raw.get("flow"), raw.get("job")
    return Explanation(
        now_ms=now_ms,
        lane_id=raw["lane"]["id"],
        org_id=raw["org"]["id"],
        org=read_org(raw["org"]),
        lane=_lane(raw["lane"], raw["windows"]),
        lines=tuple(
            Line(
                Class(one["class"]),
                one["user"],
                one["flow"],
                int(one["queued"]),
                float(one["weight"]),
                float(one["user_weight"]),
                int(one["pack"]),
            )
            for one in raw["lines"]
        ),
        slots=int(raw["slots"]),
        ready=int(raw["ready"]),
        flow_id=flow and flow["id"],
        flow=flow and _flow(flow),
        job=job and _job(job),
        caps=_caps(raw["caps"]),
    )


def read_org(org: dict[str, Any]) -> OrgView:
    """Read an org's record."""
    return OrgView(
        quota=None if org.get("quota", "none") == "none" else int(org["quota"]),
        used=_count(org, "used"),
        reserved=_count(org, "reserved"),
        estimated=_count(org, "estimated"),
        suspended=org.get("status") == "suspended",
        mode=org.get("mode"),
        reserve=org.get("reserve", "strict"),
        name=org.get("name", ""),
        created_ms=_count(org, "created"),
        guidelines=org.get("guidelines", ""),
        guidelines_by=org.get("guidelines_by", ""),
        guidelines_at_ms=_count(org, "guidelines_at"),
        application=_count(org, "application"),
    )


def _flow(flow: dict[str, Any]) -> FlowView:
    return FlowView(
        open=_count(flow, "open"),
        held=_count(flow, "held"),
        queued=_count(flow, "queued"),
        parked=_count(flow, "parked"),
        parked_least=_maybe(flow.get("parked_least")),
        later=_count(flow, "later"),
        later_at_ms=_maybe(flow.get("later_at")),
        succeeded=_count(flow, "succeeded"),
        failed=_count(flow, "failed"),
        calls=_count(flow, "calls"),
        refusals=_count(flow, "refusals"),
        used=_count(flow, "used"),
        reserved=_count(flow, "reserved"),
        estimated=_count(flow, "estimated"),
        paused="paused" in flow,
        user=flow.get("user", ""),
        klass=Class(flow.get("class", Class.BULK)),
        weight=float(flow.get("weight", 1)),
        pack=int(float(flow.get("pack", 1))),
    )


def _lane(lane: dict[str, Any], windows: list[dict[str, Any]]) -> LaneView:
    limits = orjson.loads(lane["limits"])
    return LaneView(
        flight=_count(lane, "flight"),
        paused=lane.get("paused"),
        shut_until_ms=_count(lane, "shut_until"),
        shut_reason=lane.get("shut_reason", ""),
        unreachable_since_ms=_maybe(lane.get("unreachable_since")),
        windows=tuple(
            WindowView(amount, window_ms, int(seen["used"]), _maybe(seen.get("frees_at")), unit)
            for (amount, window_ms, unit, _), seen in zip(limits, windows, strict=True)
        ),
        latency_ms=_maybe(lane.get("latency")),
        told=lane.get("told"),
        share=float(lane.get("share", 1)),
        trouble_since_ms=_maybe(lane.get("trouble_since")),
        said=lane.get("said"),
        refusals=_count(lane, "refusals"),
        counted=lane.get("counted") == "1",
        paced=lane.get("paced") == "1",
        credit=lane.get("credit") == "1",
        chat_at_ms=_count(lane, "chat_at"),
    )


def _caps(caps: list[dict[str, Any]]) -> tuple[CapView, ...]:
    return tuple(
        CapView(
            amount=int(one["amount"]),
            window_ms=int(one["window"]),
            used=int(one["used"]),
            frees_at_ms=_maybe(one.get("frees_at")),
            taken_ms=tuple(map(int, one["taken_at"])),
        )
        for one in caps
    )


def _job(job: dict[str, Any]) -> JobView:
    before = _maybe(job.get("before"))
    return JobView(
        id=job["id"],
        state=job["state"],
        attempts=_count(job, "attempts"),
        failures=_count(job, "failures"),
        before=None if before == -1 else before,
        later_at_ms=_maybe(job.get("later_at")),
        parked="parked" in job,
    )


def _count(fields: dict[str, Any], name: str) -> int:
    return int(float(fields.get(name, 0)))


def _maybe(value: Any) -> int | None:
    return None if value is None else int(float(value))
