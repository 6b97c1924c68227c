"""The books: what was admitted when, what is in flight, and what was charged. Times are told.

A call of `n` units arriving at `a` is refused by `amount` per W if and only if the admitted
calls of its organisation and endpoint that arrived in (a - W, a] have more than `amount` - n.
Refused calls are not in the books. Books of another kind (windows.py) do it their way.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from millpond.simulator.journal import Call
from millpond.simulator.limits import AtOnce, Limit, Limits, Unit, Units
from millpond.simulator.windows import FRONTS, Kind, Window, windows

#: The character quota is the provider's on this endpoint alone.
QUOTA_ENDPOINT = "generate"


@dataclass(frozen=True, slots=True)
class QuotaSpent:
    """The organisation has settled as many characters as it may, or more."""

    settled: int
    quota: int


#: What can speak against a call.
Against = Limit | AtOnce | QuotaSpent


@dataclass(frozen=True, slots=True)
class Standing:
    """How a window is filled; `whole_ms`: until it will be empty if nothing more comes in."""

    amount: int
    left: int
    whole_ms: float


@dataclass(slots=True)
class Account:
    """The characters of one organisation; `quota` None: as many as it likes."""

    quota: int | None
    settled: int = 0


@dataclass(slots=True)
class Flight:
    """Calls of one organisation and endpoint between their arrival and the end of the reply."""

    calls: int = 0


class Books:
    def __init__(
        self, limits: Limits, quota: int | None, *, kind: Kind = Kind.EXACT, seed: int = 1
    ) -> None:
        self._limits = limits
        self._quota = quota
        self._kind = kind
        self._coin = Random(f"{seed} fronts")
        self._pages: dict[tuple[str, str], list[Page]] = {}
        self._accounts: dict[str, Account] = {}

    def page(self, org: str, endpoint: str) -> "Page":
        """Where the next call is written; of two front ends, a coin says which it comes to."""
        pages = self._pages.get((org, endpoint)) or self._opened(org, endpoint)
        return pages[0] if len(pages) == 1 else self._coin.choice(pages)

    def leave(self, org: str, endpoint: str) -> None:
        """An admitted call is over."""
        self._pages[org, endpoint][0].flight.calls -= 1

    def settle(self, org: str, endpoint: str, characters: int) -> None:
        """Charge what a call has used."""
        if endpoint == QUOTA_ENDPOINT:
            self._account(org).settled += characters

    def restore(self, calls: Iterable[Call]) -> None:
        """Go on from a journal: its calls come in again, as they came. None is in flight.

        The coin is tossed for them as it was then, which is right unless calls were in flight at
        the end. What a cut call would have used is not known and counts as nothing.
        """
        for at_ms, call in sorted(
            ((call.at_ms, call) for call in calls if call.at_ms is not None),
            key=lambda pair: pair[0],
        ):
            if call.org is None:
                continue
            page = self.page(call.org, call.endpoint)
            if not call.admitted:
                page.turn_away(at_ms)
                continue
            page.admit(at_ms, call.units)
            self.leave(call.org, call.endpoint)
            self.settle(call.org, call.endpoint, call.characters)

    def _opened(self, org: str, endpoint: str) -> list["Page"]:
        limits = self._limits.get(endpoint, ())
        kept = [(one, windows(self._kind, one)) for one in limits if isinstance(one, Limit)]
        at_once = [one for one in limits if isinstance(one, AtOnce)]
        flight = Flight()
        account = self._account(org) if endpoint == QUOTA_ENDPOINT else None
        self._pages[org, endpoint] = pages = [
            Page(
                [(limit, its[front]) for limit, its in kept],
                at_once,
                flight,
                account,
                count_refused=self._kind is Kind.COUNT_REFUSED,
            )
            for front in range(FRONTS if self._kind is Kind.TWO_FRONTS else 1)
        ]
        return pages

    def _account(self, org: str) -> Account:
        return self._accounts.setdefault(org, Account(self._quota))


class Page:
    """The books of one organisation and endpoint, as one front end sees them."""

    def __init__(
        self,
        windows: list[tuple[Limit, Window]],
        at_once: list[AtOnce],
        flight: Flight,
        account: Account | None,
        *,
        count_refused: bool,
    ) -> None:
        self.flight = flight
        self._windows = windows
        self._at_once = at_once
        self._account = account
        self._count_refused = count_refused

    def refusal(self, at_ms: float, units: Units) -> Against | None:
        """What speaks against admitting a call that arrives now; changes nothing."""
        for limit, window in self._windows:
            if window.room(at_ms) < units.of(limit.unit):
                return limit
        for one in self._at_once:
            if self.flight.calls >= one.amount:
                return one
        account = self._account
        if account is not None and account.quota is not None and account.settled >= account.quota:
            return QuotaSpent(account.settled, account.quota)
        return None

    def admit(self, at_ms: float, units: Units) -> None:
        """Count an arrival, whether or not something speaks against it."""
        self.flight.calls += 1
        for limit, window in self._windows:
            window.enter(at_ms, units.of(limit.unit))

    def turn_away(self, at_ms: float) -> None:
        """A call was refused: some providers count it all the same."""
        if self._count_refused:
            for limit, window in self._windows:
                if limit.unit is Unit.CALLS:
                    window.enter(at_ms, 1)

    def standing(self, unit: Unit, at_ms: float) -> Standing | None:
        """How the shortest window of a unit is filled; None if there is none."""
        of_unit = [
            (limit.length_ms, window) for limit, window in self._windows if limit.unit is unit
        ]
        if not of_unit:
            return None
        _, window = min(of_unit, key=lambda pair: pair[0])
        return Standing(window.amount, max(0, int(window.room(at_ms))), window.whole_ms(at_ms))
