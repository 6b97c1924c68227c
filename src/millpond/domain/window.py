"""The sum behind release: may one more call go, and if not, when?

This is the reference that the store's script is compared with, step by step. It holds, for one
lane, the calls in flight and the stamps of those that have ended.

A call that was released at s and answered at r was counted by the provider at some unknown moment
in between. So while it is in flight it counts in every window, and afterwards as if it had been
counted at r, the latest moment possible. No policy that is never refused can count less: each of
those calls may really lie inside the window that ends now.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from millpond.domain.limit import Limit


@dataclass
class Windows:
    """Of one lane: limits, calls in flight, and stamps (in order, ms) of calls that have ended."""

    limits: Sequence[Limit]
    flight: int = 0
    stamps_ms: list[int] = field(default_factory=list)

    def release(self) -> None:
        self.flight += 1

    def give_back(self) -> None:
        self.flight -= 1

    def end(self, stamp_ms: int) -> None:
        self.flight -= 1
        insort(self.stamps_ms, stamp_ms)

    def used(self, limit: Limit, now_ms: int) -> int:
        """How much of a limit is taken. A stamp as old as the window is outside of it."""
        return self.flight + sum(at > now_ms - limit.window_ms for at in self.stamps_ms)

    def wait_ms(self, now_ms: int) -> int | None:
        """How long until one more call may go: 0 is now, None is when a call in flight ends."""
        wait = 0
        for limit in self.limits:
            inside = [at for at in self.stamps_ms if at > now_ms - limit.window_ms]
            over = self.flight + len(inside) - limit.amount
            if over < 0:
                continue
            if over >= len(inside):
                return None
            wait = max(wait, inside[over] + limit.window_ms - now_ms)
        return wait
