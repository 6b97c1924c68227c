"""How long a run will still take: from how things stand, without asking anybody."""

from collections.abc import Sequence

from millpond.domain.forecast import Taken, last_release_ms
from millpond.domain.limit import Limit
from millpond.run.preview import Contents, plan
from millpond.standing.estimate import LATENCY_GUESS_MS
from millpond.standing.explain import held
from millpond.store.view import OrgView, View, WindowView

#: Per cent of the quota that are worth telling.
THRESHOLDS = (50, 80, 100)


class Crossings:
    """Which thresholds of the quota have been crossed, each told once. At the first look only the
    highest is: a run that goes on was told of the others."""

    def __init__(self) -> None:
        self._crossed: int | None = None

    def look(self, org: OrgView) -> list[int]:
        """Those that have been crossed since the last look; a larger quota can take them back."""
        quota = org.quota
        over = [one for one in THRESHOLDS if quota and org.spent * 100 >= one * quota]
        new = over[-1:] if self._crossed is None else [one for one in over if one > self._crossed]
        self._crossed = over[-1] if over else 0
        return new


def seconds_left(
    view: View, contents: Contents, waiting: int, *, limits: Sequence[Limit], concurrency: int
) -> float:
    """How long until the last of `waiting` jobs is answered, if all goes on as it does. What is in
    flight in the lane is taken to be some of them."""
    latency_ms = view.lane.latency_ms or LATENCY_GUESS_MS
    seen = held(limits, view.lane.windows)
    contents = contents.under(seen)
    calls = contents.calls_of(waiting) - view.lane.flight
    if calls <= 0:
        return latency_ms / 1_000
    slots, plans = plan(seen, contents, concurrency)
    windows = [window for window in view.lane.windows if window.window_ms]
    taken = [
        Taken(planned.amount, planned.window_ms, _frees(view.now_ms, window, planned.amount))
        for planned, window in zip(plans, windows, strict=True)
    ]
    last_ms = last_release_ms(calls, taken, latency_ms=latency_ms, concurrency=slots)
    return (last_ms + latency_ms) / 1_000


def _frees(now_ms: int, window: WindowView, amount: int) -> list[float]:
    """When what is used of a window frees: the first moment is known, the rest spread evenly."""
    used = min(amount, round(amount * window.used / window.amount))
    first_ms = window.window_ms if window.frees_at_ms is None else window.frees_at_ms - now_ms
    step_ms = (window.window_ms - max(0, first_ms)) / max(1, used)
    return [max(0, first_ms) + step_ms * number for number in range(used)]
