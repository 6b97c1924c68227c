"""When jobs of a lane will go and be answered: the ideal policy, from how things stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from millpond.domain.forecast import Line, Taken, calls_until, last_release_ms
from millpond.domain.job import Class
from millpond.domain.limit import Unit
from millpond.store.view import (
    CapView,
    Explanation,
    FlowView,
    Holds,
    LaneView,
    WindowView,
)

#: How long a call is taken to last while nobody has measured it.
LATENCY_GUESS_MS = 1_000
#: Stamps of calls are kept for the longest window that counts so few of them one by one, or for so
#: long if there is none (as window.lua has it).
_EXACT_MOST, _KEPT_MS = 1_000, 15_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """`calls` that the lane makes until then, this one's own included; ms from now until it goes
    and until it is answered."""

    calls: int
    goes_ms: float
    answered_ms: float


def latency_of(lane: LaneView) -> float:
    return lane.latency_ms or LATENCY_GUESS_MS


def estimate(
    seen: Explanation, holds: Holds, lines: Sequence[Line], flow: str, jobs: int
) -> Estimate | None:
    """When so many jobs of a flow, the first in its line, have gone and are answered.

    None: nobody can know, since it cannot go as things stand, or nothing of it is in line.
    """
    own = next((line for line in lines if line.flow == flow), None)
    if own is None or own.queued <= 0 or jobs <= 0:
        return None
    if seen.org.suspended or seen.lane.paused is not None or not slots_of(seen):
        return None
    calls = calls_until(lines, flow, jobs)
    latency_ms = latency_of(seen.lane)
    goes_ms = last_release_ms(
        calls,
        places(seen, holds, own.klass),
        latency_ms=latency_ms,
        concurrency=_at_once(seen, holds),
    )
    if seen.caps:
        of_user = calls_until([line for line in lines if line.user == own.user], flow, jobs)
        goes_ms = max(goes_ms, _goes_under_caps(seen, of_user))
    return Estimate(calls, goes_ms, goes_ms + latency_ms)


def alone_goes_ms(seen: Explanation, holds: Holds, jobs: int, pack: int) -> float | None:
    """When so many jobs would have gone in a lane that has nothing else to do and has used
    nothing of its limits; None: nobody can know."""
    if seen.org.suspended or seen.lane.paused is not None or not slots_of(seen):
        return None
    unused = [replace(one, frees_in_ms=[]) for one in places(seen, holds, Class.BULK)]
    return last_release_ms(
        ceil(jobs / pack),
        unused,
        latency_ms=latency_of(seen.lane),
        concurrency=_at_once(seen, holds),
    )


def _goes_under_caps(seen: Explanation, calls: int) -> float:
    """When a user's caps alone let the last of so many calls go."""
    caps = [Taken(cap.amount, cap.window_ms, _cap_frees(seen.now_ms, cap)) for cap in seen.caps]
    return last_release_ms(calls, caps, latency_ms=0.0, concurrency=1)


def _cap_frees(now_ms: int, cap: CapView) -> list[float]:
    """When each call that counts leaves a cap, in ms from now. Where only their number is known
    they are taken to leave evenly, from the first that will on."""
    if cap.taken_ms:
        return [float(at + cap.window_ms - now_ms) for at in cap.taken_ms[-cap.amount :]]
    used = min(cap.used, cap.amount)
    first_ms = 0.0 if cap.frees_at_ms is None else max(0.0, cap.frees_at_ms - now_ms)
    step_ms = (cap.window_ms - first_ms) / max(1, used)
    return [first_ms + step_ms * number for number in range(used)]


def lines_of(seen: Explanation) -> tuple[Line, ...]:
    """The flows that take turns; of the flow that was asked for also the jobs that will be tried
    again, which come back to its line."""
    flow = seen.flow
    if seen.flow_id is None or flow is None or flow.paused or not flow.later:
        return seen.lines
    own = next((line for line in seen.lines if line.flow == seen.flow_id), None)
    if own is not None:
        more = replace(own, queued=own.queued + flow.later)
        return tuple(more if line is own else line for line in seen.lines)
    return (*seen.lines, _line(seen, seen.flow_id, flow))


def _line(seen: Explanation, flow_id: str, flow: FlowView) -> Line:
    weights = (one.user_weight for one in seen.lines if one.user == flow.user)
    return Line(
        flow.klass, flow.user, flow_id, flow.later, flow.weight, next(weights, 1.0), flow.pack
    )


def slots_of(seen: Explanation) -> int:
    """Calls that the lane's workers can make at once: slots that are free or taken by its calls."""
    return max(0, seen.slots + max(0, seen.lane.flight - seen.ready))


def places(seen: Explanation, holds: Holds, klass: Class) -> list[Taken]:
    """The lane's limits, each with the moments at which its places free."""
    lane, latency_ms = seen.lane, latency_of(seen.lane)
    starts_ms = max(0, lane.shut_until_ms - seen.now_ms)
    ends = [max(0.0, at + latency_ms - seen.now_ms) for at in holds.released_ms]
    slots = slots_of(seen)
    found = [_taken(slots, 0.0, ends, starts_ms)]
    for window in lane.windows:
        if not window.window_ms or (window.unit == Unit.BULK and klass is Class.INTERACTIVE):
            continue
        frees = _frees(seen.now_ms, window, holds, ends)
        amount = _in_calls(window, _calls_in(seen, window, holds))
        if amount is not None:
            amount = used_amount(lane, window) if window.unit == Unit.CALLS else amount
            found.append(_taken(amount, window.window_ms, frees, starts_ms))
    pace = _pace(seen, klass)
    return found if pace is None else [*found, pace]


def used_amount(lane: LaneView, window: WindowView) -> int:
    """How much of a limit is used: after refusals less than all of the shortest one of calls."""
    return max(1, int(window.amount * lane.share)) if window == shortest(lane) else window.amount


def shortest(lane: LaneView) -> WindowView | None:
    """The shortest window of calls: what is paced, and used less after refusals."""
    windows = [one for one in lane.windows if one.window_ms and one.unit == Unit.CALLS]
    return min(windows, key=lambda one: one.window_ms, default=None)


def _pace(seen: Explanation, klass: Class) -> Taken | None:
    """Bulk goes evenly where somebody waits, and everything does after refusals."""
    lane, window = seen.lane, shortest(seen.lane)
    if window is None:
        return None
    careful = lane.share < 1
    chat = lane.paced or any(line.klass is Class.INTERACTIVE for line in seen.lines)
    chat = chat or seen.now_ms - lane.chat_at_ms < window.window_ms
    if not careful and (klass is Class.INTERACTIVE or not chat):
        return None
    latency_ms = latency_of(lane)
    step_ms = (window.window_ms + latency_ms) / (window.amount * lane.share)
    return Taken(1, step_ms - latency_ms, [])


def _at_once(seen: Explanation, holds: Holds) -> int:
    """Calls in flight at once: as many as workers make, less where a limit says so."""
    slots = slots_of(seen)
    for window in seen.lane.windows:
        if not window.window_ms and window.unit != Unit.BULK:
            slots = min(slots, _in_calls(window, len(holds.released_ms)) or slots)
    return max(1, slots)


def _calls_in(seen: Explanation, window: WindowView, holds: Holds) -> float:
    """How many calls have what is used of a window. Of one that is longer than stamps are kept it
    is taken that calls went on as they do, if they have for so long."""
    exact = [
        one.window_ms
        for one in seen.lane.windows
        if one.unit == Unit.CALLS and one.amount <= _EXACT_MOST
    ]
    kept_ms = max(exact, default=0) or _KEPT_MS
    ages = [seen.now_ms - at for at in holds.counted_ms]
    inside = sum(age < min(window.window_ms, kept_ms) for age in ages)
    if window.window_ms > kept_ms and max(ages, default=0) > 0.9 * kept_ms:
        return inside * window.window_ms / kept_ms + len(holds.released_ms)
    return inside + len(holds.released_ms)


def _taken(amount: int, window_ms: float, frees: Sequence[float], starts_ms: float) -> Taken:
    """Only the last of what is used matters if it is more than there is; nothing goes before a
    shut lane opens."""
    last = sorted(frees)[-amount:]
    if starts_ms:
        last = [starts_ms] * (amount - len(last)) + [max(starts_ms, one) for one in last]
    return Taken(amount, window_ms, last)


def _in_calls(window: WindowView, calls: float) -> int | None:
    """How many calls a limit has room for, by what they have taken of it so far; None: it is not
    known yet what they take."""
    if window.unit in {Unit.CALLS, Unit.BULK}:
        return window.amount
    if not calls or not window.used:
        return None
    return max(1, int(window.amount * calls / window.used))


def _frees(now_ms: int, window: WindowView, holds: Holds, ends: Sequence[float]) -> list[float]:
    """When each call that counts in a window leaves it, in ms from now. Calls that are known by
    number only are taken to leave evenly, from the first that will on."""
    counted = [
        at + window.window_ms - now_ms for at in holds.counted_ms if now_ms - window.window_ms < at
    ]
    known: list[float] = [*map(float, counted), *(end + window.window_ms for end in ends)]
    if window.unit == Unit.BULK:
        return sorted(known)[-window.used :] if window.used else []
    if window.unit != Unit.CALLS:
        return known
    others = min(window.used, window.amount) - len(known)
    if others > 0:
        first_ms = 0.0 if window.frees_at_ms is None else max(0.0, window.frees_at_ms - now_ms)
        last_ms = min(known, default=float(window.window_ms))
        step_ms = max(0.0, last_ms - first_ms) / others
        known += [first_ms + step_ms * number for number in range(others)]
    return known
