"""What a run waits for, and for how long: from how things stand, without asking anybody."""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.clock import rfc3339
from millpond.domain.forecast import Taken, last_release_ms
from millpond.domain.limit import Limit, Unit
from millpond.run.preview import LATENCY_GUESS_MS, Contents, plan
from millpond.store.view import View, WindowView


@dataclass(frozen=True, slots=True)
class Reason:
    """Why jobs wait: a limit with what is used of it, and when (unix s) the next may go."""

    limit: str
    unit: str | None
    used: int | None
    amount: int | None
    next_release_s: float | None

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
        if self.next_release_s is not None:
            text += f", next at {rfc3339(self.next_release_s)}"
        return text


def waiting_reason(view: View, limits: Sequence[Limit], *, wall_s: float) -> Reason | None:
    """Why the flow's open jobs do not all go now; None: nothing holds them but their turn."""
    lane, org, flow = view.lane, view.org, view.flow

    def at(logical_ms: int | None) -> float | None:
        return None if logical_ms is None else wall_s + (logical_ms - view.now_ms) / 1_000

    if lane.paused is not None:
        return Reason(lane.paused, None, None, None, None)
    if quota_stops(view):
        return Reason("quota", "characters", org.used + org.estimated, org.quota, None)
    shut_until_ms = lane.shut_until_ms if lane.shut_until_ms > view.now_ms else None
    if lane.unreachable_since_ms is not None:
        return Reason("provider unreachable", None, None, None, at(shut_until_ms))
    if shut_until_ms is not None:
        return Reason("the provider's own limit", None, None, None, at(shut_until_ms))
    full = [
        (window.frees_at_ms or view.now_ms, limit, window)
        for limit, window in zip(_held(limits, lane.windows), lane.windows, strict=True)
        if window.used >= window.amount
    ]
    if full and flow.open > 0:
        _, limit, window = max(full, key=lambda one: one[0])
        return Reason(
            limit.written, window.unit, window.used, window.amount, at(window.frees_at_ms)
        )
    if flow.later_at_ms is not None and flow.later == flow.open:
        return Reason("retry", None, None, None, at(flow.later_at_ms))
    return None


def quota_stops(view: View) -> bool:
    """Every open job waits for quota and not even the smallest fits: time changes nothing."""
    flow, org = view.flow, view.org
    return (
        0 < flow.open == flow.parked
        and org.quota is not None
        and flow.parked_least is not None
        and flow.parked_least > org.quota - org.used - org.estimated
    )


def seconds_left(
    view: View, contents: Contents, waiting: int, *, limits: Sequence[Limit], concurrency: int
) -> float:
    """How long until the last of `waiting` jobs is answered, if all goes on as it does. What is in
    flight in the lane is taken to be some of them."""
    latency_ms = view.lane.latency_ms or LATENCY_GUESS_MS
    held = _held(limits, view.lane.windows)
    contents = contents.under(held)
    calls = contents.calls_of(waiting) - view.lane.flight
    if calls <= 0:
        return latency_ms / 1_000
    slots, plans = plan(held, contents, concurrency)
    windows = [window for window in view.lane.windows if window.window_ms]
    taken = [
        Taken(planned.amount, planned.window_ms, _frees(view.now_ms, window, planned.amount))
        for planned, window in zip(plans, windows, strict=True)
    ]
    last_ms = last_release_ms(calls, taken, latency_ms=latency_ms, concurrency=slots)
    return (last_ms + latency_ms) / 1_000


def _held(limits: Sequence[Limit], windows: Sequence[WindowView]) -> Sequence[Limit]:
    """The limits that the lane was seen under: this run's, unless they were learnt since, or
    another run on the same server has set others."""
    seen = [(window.amount, window.window_ms, window.unit) for window in windows]
    if [(limit.amount, limit.window_ms, limit.unit) for limit in limits] == seen:
        return limits
    return [
        Limit(amount, window_ms, _written(amount, window_ms, unit), Unit(unit))
        for amount, window_ms, unit in seen
    ]


def _written(amount: int, window_ms: int, unit: str) -> str:
    counted = "" if unit == Unit.CALLS else unit
    return f"{amount}{counted}/{window_ms / 1_000:g}s" if window_ms else f"{amount}{counted}@once"


def _frees(now_ms: int, window: WindowView, amount: int) -> list[float]:
    """When what is used of a window frees: the first moment is known, the rest spread evenly."""
    used = min(amount, round(amount * window.used / window.amount))
    first_ms = window.window_ms if window.frees_at_ms is None else window.frees_at_ms - now_ms
    step_ms = (window.window_ms - max(0, first_ms)) / max(1, used)
    return [max(0, first_ms) + step_ms * number for number in range(used)]
