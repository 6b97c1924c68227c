"""What a journal says about a run, measured against what was possible. Pure sums over rows.

    sustained        how full the trailing window was on average, while there was work enough
    bound            the most that any policy that is never refused can sustain: W / (W + mean L)
    drain            seconds until the last call of the run was admitted
    ..._ideal        the same of the ideal policy, replayed with the delays of these very calls

L is the time from the moment the body was read to the headers of the reply, delays included.
The ideal policy lets a call go as soon as fewer than `amount` are in flight or were answered
within the last W, at once and at no cost: no limiter that must never be refused can do better.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import fmean

from millpond.simulator.journal import Call
from millpond.simulator.limits import Limit
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
    characters: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that counts. `latency_ms` is None if no headers were ever sent."""

    received_ms: float
    at_ms: float
    latency_ms: float | None


def report(calls: Sequence[Call], limits: Sequence[Limit], *, total: int | None = None) -> Report:
    """The run of one organisation at one endpoint; `total` calls were to be made."""
    admitted = _admitted(calls)
    arrivals_ms = sorted(call.at_ms for call in admitted)
    total = len(admitted) if total is None else total
    limit = tightest(limits, run_ms=arrivals_ms[-1] - arrivals_ms[0] if arrivals_ms else 0)
    mean_ms = mean_latency_ms(admitted)
    ideal_ms: list[float] = []
    bound = None
    if limit is not None and mean_ms is not None:
        ideal_ms = ideal_arrivals_ms(admitted, limit, missing_latency_ms=mean_ms)
        bound = limit.length_ms / (limit.length_ms + mean_ms)
    return Report(
        admitted=len(admitted),
        refused=dict(Counter(call.refused_by for call in calls if call.refused_by is not None)),
        sustained=sustained(arrivals_ms, limit, total) if limit else None,
        sustained_ideal=sustained(ideal_ms, limit, total) if limit else None,
        bound=bound,
        drain=drain_s(arrivals_ms, total),
        drain_ideal=drain_s(ideal_ms, total),
        duplicates=duplicates(calls),
        characters=sum(call.characters for call in calls),
    )


def tightest(limits: Sequence[Limit], *, run_ms: float) -> Limit | None:
    """The limit that the run was held back by: the slowest of those shorter than the run."""
    shorter = [limit for limit in limits if limit.length_ms < run_ms]
    if shorter:
        return min(shorter, key=lambda limit: limit.amount / limit.length_ms)
    return min(limits, key=lambda limit: limit.length_ms, default=None)


def sustained(arrivals_ms: Sequence[float], limit: Limit, total: int) -> float | None:
    """The time average of arrivals in the trailing (t - W, t], as a share of the amount.

    From the moment the first window is over, until only one more window's worth is to come: each
    arrival fills [its time, its time + W) of that span.
    """
    nth = total - limit.amount
    if not 1 <= nth <= len(arrivals_ms):
        return None
    from_ms, to_ms = arrivals_ms[0] + limit.length_ms, arrivals_ms[nth - 1]
    if to_ms <= from_ms:
        return None
    filled_ms = sum(
        max(0.0, min(to_ms, at_ms + limit.length_ms) - max(from_ms, at_ms)) for at_ms in arrivals_ms
    )
    return filled_ms / (to_ms - from_ms) / limit.amount


def drain_s(arrivals_ms: Sequence[float], total: int) -> float | None:
    """Seconds from the first arrival to the last of `total`."""
    if not 1 <= total <= len(arrivals_ms):
        return None
    return (arrivals_ms[total - 1] - arrivals_ms[0]) / 1_000


def mean_latency_ms(admitted: Sequence[Admitted]) -> float | None:
    known_ms = [call.latency_ms for call in admitted if call.latency_ms is not None]
    return fmean(known_ms) if known_ms else None


def ideal_arrivals_ms(
    admitted: Sequence[Admitted], limit: Limit, *, missing_latency_ms: float
) -> list[float]:
    """When the calls would have arrived under the ideal policy; the first is let go at 0.

    Each of `amount` slots is free again at its call's headers + W.
    """
    free_ms = [0.0] * limit.amount
    heapify(free_ms)
    arrivals_ms = []
    for call in sorted(admitted, key=lambda call: call.received_ms):
        latency_ms = missing_latency_ms if call.latency_ms is None else call.latency_ms
        released_ms = free_ms[0]
        heapreplace(free_ms, released_ms + latency_ms + limit.length_ms)
        arrivals_ms.append(released_ms + call.at_ms - call.received_ms)
    return sorted(arrivals_ms)


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


def _admitted(calls: Sequence[Call]) -> list[Admitted]:
    return [
        Admitted(
            call.received_ms,
            call.at_ms,
            None if call.headers_ms is None else call.headers_ms - call.received_ms,
        )
        for call in calls
        if call.admitted and call.at_ms is not None
    ]
