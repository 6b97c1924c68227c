"""When will it be done, and when is it whose turn? The ideal policy, played forward.

Of each limit a call takes one unit from its release until its answer (after `latency_ms`) plus
the window. So the k-th call goes, at the earliest, when the (k − amount)-th one's unit is free
again, in every limit. What is in the windows already is given as the moments at which it frees.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from millpond.domain.job import Class

#: What a class is served in the time in which the other one is served once (design: 16 to 1).
CLASS_WEIGHT = {Class.INTERACTIVE: 16.0, Class.BULK: 1.0}

#: Calls that are played one by one; what is beyond goes on at the pace of the last ones.
PLAYED_MOST = 200_000


@dataclass(frozen=True, slots=True)
class Taken:
    """One limit as it stands: amount, window, and when (ms from now, in order) what is used of it
    frees; at most `amount` moments."""

    amount: int
    window_ms: float
    frees_in_ms: Sequence[float]


@dataclass(frozen=True, slots=True)
class Line:
    """A flow that takes turns in a lane: `queued` jobs, at most `pack` of them in a call."""

    klass: Class
    user: str
    flow: str
    queued: int
    weight: float = 1.0
    user_weight: float = 1.0
    pack: int = 1

    @property
    def calls(self) -> int:
        return ceil(self.queued / self.pack)


def calls_until(lines: Sequence[Line], flow: str, jobs: int) -> int:
    """How many calls a lane makes until so many jobs of a flow have gone, by the shares of all.

    Classes share the lane, users their class, flows their user, each by weight, as long as they
    have anything in line.
    """
    left = {line.flow: float(line.calls) for line in lines}
    own = next(line for line in lines if line.flow == flow)
    wanted = min(float(ceil(jobs / own.pack)), left[flow])
    made = 0.0
    while wanted > 1e-9:
        shares = _shares([line for line in lines if left[line.flow] > 1e-9])
        ends = min(left[name] / share for name, share in shares.items())
        step = min(ends, wanted / shares[flow])
        for name, share in shares.items():
            left[name] -= step * share
        wanted -= step * shares[flow]
        made += step
    return ceil(made - 1e-6)


def _shares(lines: Sequence[Line]) -> dict[str, float]:
    """What part of a lane's calls each flow makes."""
    classes = {line.klass: CLASS_WEIGHT[line.klass] for line in lines}
    users = {(line.klass, line.user): line.user_weight for line in lines}
    shares: dict[str, float] = {}
    for line in lines:
        of_class = classes[line.klass] / sum(classes.values())
        peers = sum(weight for (klass, _), weight in users.items() if klass == line.klass)
        of_user = users[line.klass, line.user] / peers
        flows = sum(one.weight for one in lines if (one.klass, one.user) == (line.klass, line.user))
        shares[line.flow] = of_class * of_user * line.weight / flows
    return shares


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
