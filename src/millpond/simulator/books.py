"""The books: who was admitted when, and what was charged. Plain sums; times are told.

A window is exact and slides: a call arriving at `a` is refused by `amount` per W if and only if
at least `amount` admitted calls of its organisation and endpoint arrived in (a - W, a].
Refused calls are not in the books.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from dataclasses import dataclass

from millpond.simulator.limits import Limit, Limits

#: The character quota is the provider's on this endpoint alone.
QUOTA_ENDPOINT = "generate"

#: So many arrivals may be out of every window before they are thrown away, all at once.
STALE_MAX = 4_096


@dataclass(frozen=True, slots=True)
class QuotaSpent:
    """The organisation has settled as many characters as it may, or more."""

    settled: int
    quota: int


class Books:
    def __init__(self, limits: Limits, quota: int | None) -> None:
        self._limits = limits
        self._quota = quota
        self._longest_ms = {
            endpoint: max(limit.length_ms for limit in its) for endpoint, its in limits.items()
        }
        self._arrivals_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._settled: dict[str, int] = defaultdict(int)

    def refusal(self, org: str, endpoint: str, at_ms: float) -> Limit | QuotaSpent | None:
        """What speaks against admitting a call that arrives now; changes nothing."""
        arrivals_ms = self._arrivals_ms[org, endpoint]
        until = bisect_right(arrivals_ms, at_ms)
        for limit in self._limits.get(endpoint, ()):
            if until - bisect_right(arrivals_ms, at_ms - limit.length_ms) >= limit.amount:
                return limit
        if endpoint == QUOTA_ENDPOINT and self._quota is not None:
            settled = self._settled[org]
            if settled >= self._quota:
                return QuotaSpent(settled, self._quota)
        return None

    def admit(self, org: str, endpoint: str, at_ms: float) -> None:
        """Count an arrival, whether or not something speaks against it."""
        arrivals_ms = self._arrivals_ms[org, endpoint]
        insort(arrivals_ms, at_ms)
        stale = bisect_right(arrivals_ms, at_ms - self._longest_ms.get(endpoint, 0))
        if stale > STALE_MAX:
            del arrivals_ms[:stale]

    def settle(self, org: str, endpoint: str, characters: int) -> None:
        """Charge what a call has used."""
        if endpoint == QUOTA_ENDPOINT:
            self._settled[org] += characters
