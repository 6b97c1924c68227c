"""How things stand for a flow, as `look` tells it: numbers for progress, reasons and summary."""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class OrgView:
    """Characters: the quota (None: none), used, reserved for calls in flight, and kept for
    calls of unknown outcome."""

    quota: int | None
    used: int
    reserved: int
    estimated: int


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


@dataclass(frozen=True, slots=True)
class WindowView:
    """One limit: how much is used, and when (logical ms) it next has room, if that is known."""

    amount: int
    window_ms: int
    used: int
    frees_at_ms: int | None
    unit: str = "calls"


@dataclass(frozen=True, slots=True)
class LaneView:
    """`latency_ms`: mean time from release to headers; `told`: what the provider says of limits;
    `share`: how much of them is used, less than 1 after it refused calls that they allow."""

    flight: int
    paused: str | None
    shut_until_ms: int
    shut_reason: str
    unreachable_since_ms: int | None
    windows: tuple[WindowView, ...]
    latency_ms: int | None = None
    told: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class View:
    now_ms: int
    org: OrgView
    flow: FlowView
    lane: LaneView


def read_view(told: bytes, *, now_ms: int) -> View:
    """Read what look.lua replied."""
    raw = orjson.loads(told)
    org, flow, lane = raw["org"], raw["flow"], raw["lane"]
    limits = orjson.loads(lane["limits"])
    windows = tuple(
        WindowView(amount, window_ms, int(seen["used"]), _maybe(seen.get("frees_at")), unit)
        for (amount, window_ms, unit, _), seen in zip(limits, lane["windows"], strict=True)
    )
    return View(
        now_ms=now_ms,
        org=OrgView(
            quota=None if org["quota"] == "none" else int(org["quota"]),
            used=_count(org, "used"),
            reserved=_count(org, "reserved"),
            estimated=_count(org, "estimated"),
        ),
        flow=FlowView(
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
        ),
        lane=LaneView(
            flight=_count(lane, "flight"),
            paused=lane.get("paused"),
            shut_until_ms=_count(lane, "shut_until"),
            shut_reason=lane.get("shut_reason", ""),
            unreachable_since_ms=_maybe(lane.get("unreachable_since")),
            windows=windows,
            latency_ms=_maybe(lane.get("latency")),
            told=lane.get("told"),
            share=float(lane.get("share", 1)),
        ),
    )


def _count(fields: dict[str, Any], name: str) -> int:
    return int(float(fields.get(name, 0)))


def _maybe(value: Any) -> int | None:
    return None if value is None else int(float(value))
