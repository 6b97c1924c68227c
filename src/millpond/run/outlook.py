"""What a run waits for, and for how long: from how things stand, without asking anybody."""

from collections.abc import Sequence
from dataclasses import dataclass

from millpond.clock import rfc3339
from millpond.domain.limit import Limit
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
        for limit, window in zip(limits, lane.windows, strict=True)
        if window.used >= window.amount
    ]
    if full and flow.open > 0:
        _, limit, window = max(full, key=lambda one: one[0])
        return Reason(limit.written, "calls", window.used, window.amount, at(window.frees_at_ms))
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


def seconds_left(view: View, waiting: int) -> float:
    """When the last of `waiting` calls may go, if they go one after the other under the limits."""
    return max((_seconds(view.now_ms, window, waiting) for window in view.lane.windows), default=0)


def _seconds(now_ms: int, window: WindowView, waiting: int) -> float:
    behind = waiting - max(0, window.amount - window.used)
    if behind <= 0:
        return 0.0
    first_ms = max(0, (window.frees_at_ms or now_ms) - now_ms)
    return (first_ms + (behind - 1) * window.window_ms / window.amount) / 1_000
