"""The sum behind release: may one more call go, and if not, when?

This is the reference that the store's script is compared with, step by step. It holds, for one
lane, the calls in flight and the stamps of those that have ended.

A call that was released at s and answered at r was counted by the provider at some unknown moment
in between. So while it is in flight it counts in every window, and afterwards as if it had been
counted at r, the latest moment possible. No policy that is never refused can count less: each of
those calls may really lie inside the window that ends now.
"""

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from millpond.domain.limit import Limit, Unit

#: What one call takes of a limit of calls.
ONE_CALL: Mapping[Unit, int] = {Unit.CALLS: 1}


@dataclass
class Windows:
    """Of one lane: its limits, and calls in flight and ended ones (stamps in ms, in order), each
    with what it takes of every unit that is limited."""

    limits: Sequence[Limit]
    flight: Counter[Unit] = field(default_factory=Counter)
    stamps: list[tuple[int, Mapping[Unit, int]]] = field(default_factory=list)

    def release(self, units: Mapping[Unit, int] = ONE_CALL) -> None:
        self.flight.update(units)

    def give_back(self, units: Mapping[Unit, int] = ONE_CALL) -> None:
        self.flight.subtract(units)

    def end(
        self,
        stamp_ms: int,
        units: Mapping[Unit, int] = ONE_CALL,
        *,
        used: Mapping[Unit, int] | None = None,
    ) -> None:
        """A call ends that was released with `units`, and really used `used` of them."""
        self.give_back(units)
        insort(self.stamps, (stamp_ms, units if used is None else used), key=itemgetter(0))

    def used(self, limit: Limit, now_ms: int) -> int:
        """How much of a limit is taken. A stamp as old as the window is outside of it."""
        return self.flight[limit.unit] + sum(units for _, units in self._inside(limit, now_ms))

    def wait_ms(self, now_ms: int, units: Mapping[Unit, int] = ONE_CALL) -> int | None:
        """How long until one more call may go: 0 is now, None is when a call in flight ends.

        A call that is larger than a limit may go when all of that limit is free.
        """
        wait = 0
        for limit in self.limits:
            lacking = min(units.get(limit.unit, 0), limit.amount) - (
                limit.amount - self.used(limit, now_ms)
            )
            if lacking <= 0:
                continue
            for at, taken in self._inside(limit, now_ms):
                lacking -= taken
                if lacking <= 0:
                    wait = max(wait, at + limit.window_ms - now_ms)
                    break
            else:
                return None
        return wait

    def _inside(self, limit: Limit, now_ms: int) -> list[tuple[int, int]]:
        return [
            (at, units.get(limit.unit, 0))
            for at, units in self.stamps
            if limit.window_ms and at > now_ms - limit.window_ms
        ]
