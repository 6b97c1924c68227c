"""When will it be done? The ideal policy, played forward.

Of each limit a call takes one unit from its release until its answer (after `latency_ms`) plus
the window. So the k-th call goes, at the earliest, when the (k − amount)-th one's unit is free
again, in every limit. What is in the windows already is given as the moments at which it frees.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Calls that are played one by one; what is beyond goes on at the pace of the last ones.
PLAYED_MOST = 200_000


@dataclass(frozen=True, slots=True)
class Taken:
    """One limit as it stands: amount, window, and when (ms from now, in order) what is used of it
    frees; at most `amount` moments."""

    amount: int
    window_ms: float
    frees_in_ms: Sequence[float]


def last_release_ms(
    calls: int, limits: Iterable[Taken], *, latency_ms: float, concurrency: int
) -> float:
    """How long until the last of `calls` may go. `concurrency`: calls in flight at once."""
    if calls <= 0:
        return 0.0
    slots = _Slots([0.0] * concurrency, latency_ms)
    windows = [
        _Slots(
            [0.0] * (limit.amount - len(limit.frees_in_ms)) + sorted(limit.frees_in_ms),
            latency_ms + limit.window_ms,
        )
        for limit in limits
    ]
    times = [0.0]
    for _ in range(min(calls, PLAYED_MOST)):
        at = max(times[-1], slots.next(), *(window.next() for window in windows))
        slots.take(at)
        for window in windows:
            window.take(at)
        times.append(at)
    played = len(times) - 1
    beyond = calls - played
    if not beyond:
        return times[-1]
    cycle = _whole_rounds(played, [one.amount for one in (slots, *windows)])
    rounds, rest = divmod(beyond, cycle)
    return times[rest - 1 - cycle] + (rounds + 1) * (times[-1] - times[-1 - cycle])


def _whole_rounds(played: int, amounts: Sequence[int]) -> int:
    """So many of the last calls as say the pace: about half of them, and whole rounds of the
    largest amount, since calls go in bursts."""
    largest = max((amount for amount in amounts if amount <= played), default=played)
    return max(1, played // 2 // largest) * largest


class _Slots:
    """Places that are taken in turn; each is free again `held_ms` after it was taken."""

    def __init__(self, free_at: Sequence[float], held_ms: float) -> None:
        self.amount = len(free_at)
        self._free_at = deque(free_at)
        self._held_ms = held_ms

    def next(self) -> float:
        return self._free_at[0]

    def take(self, at: float) -> None:
        self._free_at.popleft()
        self._free_at.append(at + self._held_ms)
