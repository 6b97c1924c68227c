"""What a journal says about a run, measured against what was possible. Pure sums over rows.

    sustained        how full the trailing window was on average, while there was work enough
    bound            the most that any policy that is never refused can sustain: W / (W + mean L)
    drain            seconds until the last call of the run was admitted
    ..._ideal        the same of the ideal policy, replayed with the delays of these very calls

L is the time from the moment the body was read to the headers of the reply, delays included.
The ideal policy lets a call go as soon as fewer than `amount` are in flight or were answered
within the last W, at once and at no cost: no limiter that must never be refused can do better.
For a limit of another unit, it is units that are counted, and every call has its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate

from millpond.simulator.journal import Call
from millpond.simulator.limits import AtOnce, Limit, Unit
from millpond.simulator.limits import limit as read_limit
from millpond.simulator.values import BadValue


@dataclass(frozen=True, slots=True)
class Report:
    """Shares are of 1, times are seconds; None: the run was too short to say."""

    admitted: int
    refused: dict[str, int]
    sustained: float | None
    sustained_ideal: float | None
    bound: float | None
    drain: float | None
    drain_ideal: float | None
    duplicates: int
    inputs: int
    characters: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that counts. `latency_ms` is None if no headers were ever sent."""

    received_ms: float
    at_ms: float
    latency_ms: float | None
    units: int


@dataclass(frozen=True, slots=True)
class Arrival:
    at_ms: float
    units: int


def report(
    calls: Sequence[Call],
    limits: Sequence[Limit | AtOnce],
    *,
    total: int | None = None,
    by: Limit | None = None,
) -> Report:
    """The run of one organisation at one endpoint; `total` calls were to be made.

    It is measured by the limit `by`, or else by the window of calls that held it back.
    """
    limit = by or tightest(limits, run_ms=_run_ms(calls))
    admitted = _admitted(calls, limit.unit if limit else Unit.CALLS)
    arrivals = sorted((Arrival(call.at_ms, call.units) for call in admitted), key=_at_ms)
    total = len(admitted) if total is None else total
    mean_ms = mean_latency_ms(admitted)
    ideal: list[Arrival] = []
    bound = None
    if limit is not None and mean_ms is not None:
        ideal = ideal_arrivals(admitted, limit, missing_latency_ms=mean_ms)
        bound = limit.length_ms / (limit.length_ms + mean_ms)
    return Report(
        admitted=len(admitted),
        refused=dict(Counter(call.refused_by for call in calls if call.refused_by is not None)),
        sustained=sustained(arrivals, limit, total) if limit else None,
        sustained_ideal=sustained(ideal, limit, total) if limit else None,
        bound=bound,
        drain=drain_s(arrivals, total),
        drain_ideal=drain_s(ideal, total),
        duplicates=duplicates(calls),
        inputs=sum(call.inputs for call in calls),
        characters=sum(call.characters for call in calls),
        tokens=sum(call.tokens for call in calls),
    )


def tightest(limits: Sequence[Limit | AtOnce], *, run_ms: float) -> Limit | None:
    """The limit that the run was held back by: the slowest of those shorter than the run."""
    of_calls = [one for one in limits if isinstance(one, Limit) and one.unit is Unit.CALLS]
    shorter = [limit for limit in of_calls if limit.length_ms < run_ms]
    if shorter:
        return min(shorter, key=lambda limit: limit.amount / limit.length_ms)
    return min(of_calls, key=lambda limit: limit.length_ms, default=None)


def named(limits: Sequence[Limit | AtOnce], text: str) -> Limit:
    """The one of the journal's limits that is meant."""
    wanted = read_limit(text)
    if isinstance(wanted, AtOnce):
        raise BadValue(f"{wanted.written} is not a window, and a run is measured by one")
    meant = (wanted.amount, wanted.length_ms, wanted.unit)
    for limit in limits:
        if isinstance(limit, Limit) and (limit.amount, limit.length_ms, limit.unit) == meant:
            return limit
    there = ", ".join(limit.written for limit in limits) or "none"
    raise BadValue(f"{wanted.written} is not among the limits of the journal: {there}")


def sustained(arrivals: Sequence[Arrival], limit: Limit, total: int) -> float | None:
    """The time average of units in the trailing (t - W, t], as a share of the amount.

    From the moment the first window is over, until only one more window's worth is to come: each
    arrival fills [its time, its time + W) of that span. Calls that are still to be made are taken
    to be like those that were.
    """
    so_far = list(accumulate(arrival.units for arrival in arrivals))
    goal = so_far[-1] * total / len(arrivals) - limit.amount if arrivals else 0
    to_ms = next(
        (one.at_ms for one, units in zip(arrivals, so_far, strict=True) if units >= goal), None
    )
    if goal <= 0 or to_ms is None:
        return None
    from_ms = arrivals[0].at_ms + limit.length_ms
    if to_ms <= from_ms:
        return None
    filled = sum(
        one.units * max(0.0, min(to_ms, one.at_ms + limit.length_ms) - max(from_ms, one.at_ms))
        for one in arrivals
    )
    return filled / (to_ms - from_ms) / limit.amount


def drain_s(arrivals: Sequence[Arrival], total: int) -> float | None:
    """Seconds from the first arrival to the last of `total`."""
    if not 1 <= total <= len(arrivals):
        return None
    return (arrivals[total - 1].at_ms - arrivals[0].at_ms) / 1_000


def mean_latency_ms(admitted: Sequence[Admitted]) -> float | None:
    """How long a unit waited for its headers, on average."""
    known = [(call.latency_ms, call.units) for call in admitted if call.latency_ms is not None]
    units = sum(units for _, units in known)
    return sum(latency_ms * units for latency_ms, units in known) / units if units else None


def ideal_arrivals(
    admitted: Sequence[Admitted], limit: Limit, *, missing_latency_ms: float
) -> list[Arrival]:
    """When the calls would have arrived under the ideal policy; the first is let go at 0.

    The units of a call are free again at its headers + W; the next call is let go as soon as so
    many are free that it fits.
    """
    held: list[tuple[float, int]] = []
    free = limit.amount
    released_ms = 0.0
    arrivals = []
    for call in sorted(admitted, key=lambda call: call.received_ms):
        while free < call.units and held:
            released_ms, units = heappop(held)
            free += units
        latency_ms = missing_latency_ms if call.latency_ms is None else call.latency_ms
        heappush(held, (released_ms + latency_ms + limit.length_ms, call.units))
        free -= call.units
        arrivals.append(Arrival(released_ms + call.at_ms - call.received_ms, call.units))
    return sorted(arrivals, key=_at_ms)


def duplicates(calls: Sequence[Call]) -> int:
    """How many answers were given for a body that had been answered before."""
    answers = [call.body_sha256 for call in calls if call.answered and call.status == 200]
    return len(answers) - len(set(answers))


def pick(calls: Sequence[Call], org: str | None, endpoint: str | None) -> tuple[str, str] | None:
    """The one organisation and endpoint that is meant; None in a journal without calls."""
    present = sorted({(call.org, call.endpoint) for call in calls if call.org and call.at_ms})
    meant = [
        (its_org, its_endpoint)
        for its_org, its_endpoint in present
        if org in (None, its_org) and endpoint in (None, its_endpoint)
    ]
    if len(meant) == 1:
        return meant[0]
    if not present:
        return None
    there = "; ".join(f"--org {one} --endpoint {other}" for one, other in present)
    raise BadValue(f"{len(meant)} match, and one is needed. There are: {there}")


def _run_ms(calls: Sequence[Call]) -> float:
    times_ms = [call.at_ms for call in calls if call.admitted and call.at_ms is not None]
    return max(times_ms) - min(times_ms) if times_ms else 0


def _admitted(calls: Sequence[Call], unit: Unit) -> list[Admitted]:
    return [
        Admitted(
            call.received_ms,
            call.at_ms,
            None if call.headers_ms is None else call.headers_ms - call.received_ms,
            call.units.of(unit),
        )
        for call in calls
        if call.admitted and call.at_ms is not None
    ]


def _at_ms(arrival: Arrival) -> float:
    return arrival.at_ms
