"""Ways to keep the books of one limit. Plain sums; times are told.

    exact           slides: what came in (a - W, a] counts against a call that arrives at a
    bucket          filled with the amount, refilled evenly with the amount per W
    fixed           the clock's own stretches of W, each with the whole amount
    slices          60 stretches a window, by the clock, each with a sixtieth of it
    count-refused   exact, but refused calls count like the others
    two-fronts      two doors with half of it each; the second's clock goes wrong

All but the first are for windows of calls; other units are always kept exactly. The two fronts
share nothing, so the second's wrong clock is its own affair: no window of its own ever sees it.
"""

from bisect import bisect_right
from enum import StrEnum
from math import inf
from typing import Protocol, assert_never

from millpond.simulator.limits import Limit, Unit

#: So many arrivals may be out of a window before they are thrown away, all at once.
STALE_MAX = 4_096

SLICES = 60
FRONTS = 2
FRONT_SKEW_MS = 700

#: A bucket's level is a sum of fractions: so close to a whole one is one.
ROUNDING = 1e-6


class Kind(StrEnum):
    EXACT = "exact"
    BUCKET = "bucket"
    FIXED = "fixed"
    SLICES = "slices"
    COUNT_REFUSED = "count-refused"
    TWO_FRONTS = "two-fronts"


class Window(Protocol):
    @property
    def amount(self) -> int:
        """What it holds when nothing has come in."""

    def room(self, at_ms: float) -> float:
        """How many units may still come in now; below 0 if too many have come in already."""

    def enter(self, at_ms: float, units: int) -> None:
        """Count what comes in, whether or not there is room."""

    def whole_ms(self, at_ms: float) -> float:
        """How long until all that came in so far is forgotten."""


def windows(kind: Kind, limit: Limit) -> tuple[Window, ...]:
    """The books of a limit, as each front end keeps them; the same for all if not of calls."""
    fronts = FRONTS if kind is Kind.TWO_FRONTS else 1
    if limit.unit is not Unit.CALLS:
        return (Sliding(limit.amount, limit.length_ms),) * fronts
    match kind:
        case Kind.EXACT | Kind.COUNT_REFUSED:
            return (Sliding(limit.amount, limit.length_ms),)
        case Kind.BUCKET:
            return (Bucket(limit.amount, limit.length_ms),)
        case Kind.FIXED:
            return (Fixed(limit.amount, limit.length_ms),)
        case Kind.SLICES:
            return (Fixed(_share(limit.amount, SLICES), limit.length_ms / SLICES),)
        case Kind.TWO_FRONTS:
            half = _share(limit.amount, FRONTS)
            right, wrong = (Sliding(half, limit.length_ms) for _ in range(FRONTS))
            return (right, Skewed(wrong, FRONT_SKEW_MS))
        case _:
            assert_never(kind)


def _share(amount: int, parts: int) -> int:
    """Rounded up, so it is never nothing."""
    return -(-amount // parts)


class Sliding:
    def __init__(self, amount: int, length_ms: float) -> None:
        self.amount = amount
        self._length_ms = length_ms
        self._arrivals_ms: list[float] = []
        #: What had come in with each arrival and before it, since ever.
        self._totals: list[int] = []
        self._forgotten = 0

    def room(self, at_ms: float) -> float:
        return self.amount - (self._total(at_ms) - self._total(at_ms - self._length_ms))

    def enter(self, at_ms: float, units: int) -> None:
        arrivals_ms, totals = self._arrivals_ms, self._totals
        place = bisect_right(arrivals_ms, at_ms)
        before = totals[place - 1] if place else self._forgotten
        arrivals_ms.insert(place, at_ms)
        totals.insert(place, before + units)
        # None are later, unless the clock has been set back.
        for later in range(place + 1, len(totals)):
            totals[later] += units
        stale = bisect_right(arrivals_ms, at_ms - self._length_ms)
        if stale > STALE_MAX:
            self._forgotten = totals[stale - 1]
            del arrivals_ms[:stale], totals[:stale]

    def whole_ms(self, at_ms: float) -> float:
        return max(0.0, self._arrivals_ms[-1] + self._length_ms - at_ms) if self._totals else 0.0

    def _total(self, until_ms: float) -> int:
        place = bisect_right(self._arrivals_ms, until_ms)
        return self._totals[place - 1] if place else self._forgotten


class Bucket:
    def __init__(self, amount: int, length_ms: float) -> None:
        self.amount = amount
        self._per_ms = amount / length_ms
        self._level = float(amount)
        self._at_ms = -inf

    def room(self, at_ms: float) -> float:
        return self._filled(at_ms) + ROUNDING

    def enter(self, at_ms: float, units: int) -> None:
        self._level = self._filled(at_ms) - units
        self._at_ms = max(self._at_ms, at_ms)

    def whole_ms(self, at_ms: float) -> float:
        return (self.amount - self._filled(at_ms)) / self._per_ms

    def _filled(self, at_ms: float) -> float:
        passed_ms = max(0.0, at_ms - self._at_ms)
        return min(self.amount, self._level + passed_ms * self._per_ms)


class Fixed:
    """Its stretches begin at whole multiples of their length since 1970."""

    def __init__(self, amount: int, length_ms: float) -> None:
        self.amount = amount
        self._length_ms = length_ms
        self._stretch = -inf
        self._inside = 0

    def room(self, at_ms: float) -> float:
        return self.amount - (self._inside if self._nth(at_ms) <= self._stretch else 0)

    def enter(self, at_ms: float, units: int) -> None:
        nth = self._nth(at_ms)
        if nth > self._stretch:
            self._stretch, self._inside = nth, 0
        self._inside += units

    def whole_ms(self, at_ms: float) -> float:
        return max(0.0, (self._stretch + 1) * self._length_ms - at_ms)

    def _nth(self, at_ms: float) -> float:
        return at_ms // self._length_ms


class Skewed:
    """A window whose clock is ahead by so much."""

    def __init__(self, window: Window, ahead_ms: float) -> None:
        self.amount = window.amount
        self._window = window
        self._ahead_ms = ahead_ms

    def room(self, at_ms: float) -> float:
        return self._window.room(at_ms + self._ahead_ms)

    def enter(self, at_ms: float, units: int) -> None:
        self._window.enter(at_ms + self._ahead_ms, units)

    def whole_ms(self, at_ms: float) -> float:
        return self._window.whole_ms(at_ms + self._ahead_ms)
