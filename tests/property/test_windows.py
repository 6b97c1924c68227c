"""The reference sum against books that know when the provider really counted each call."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from millpond.domain.limit import Limit
from millpond.domain.window import Windows

LIMITS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 60)),
    min_size=1,
    max_size=3,
    unique_by=lambda limit: limit[1],
).map(lambda pairs: [Limit(amount, window, f"{amount}/{window}") for amount, window in pairs])


@dataclass
class Ended:
    """A call as only the provider knows it: counted at `arrived_ms`, some time before its end."""

    ended_ms: int
    arrived_ms: int


class Run:
    """A client that goes as early as the reference lets it, and a provider with books."""

    def __init__(self, limits: list[Limit]) -> None:
        self.limits = limits
        self.windows = Windows(limits)
        self.now_ms = 0
        self.flying_since_ms: list[int] = []
        self.ended: list[Ended] = []

    def may_break_a_window(self) -> bool:
        """Could one more call, counted now, be one too many for the provider?

        Each call in flight may be counted just now, each that ended within the window may have
        been counted at its end: no client can know better.
        """
        return any(
            len(self.flying_since_ms)
            + sum(one.ended_ms > self.now_ms - limit.window_ms for one in self.ended)
            >= limit.amount
            for limit in self.limits
        )

    def release(self) -> None:
        self.windows.release()
        self.flying_since_ms.append(self.now_ms)

    def end(self, which: int, arrival: float) -> None:
        """A call ends now; it arrived at a fraction of its way."""
        released_ms = self.flying_since_ms.pop(which % len(self.flying_since_ms))
        arrived_ms = released_ms + round((self.now_ms - released_ms) * arrival)
        self.ended.append(Ended(self.now_ms, arrived_ms))
        self.windows.end(self.now_ms)

    def give_back(self, which: int) -> None:
        self.flying_since_ms.pop(which % len(self.flying_since_ms))
        self.windows.give_back()

    def most_in_a_window(self, window_ms: int) -> int:
        """The most arrivals in any window (a - W, a]."""
        arrivals = [one.arrived_ms for one in self.ended]
        return max((sum(a - window_ms < b <= a for b in arrivals) for a in arrivals), default=0)


#: What happens next: time passes, a call ends (which, where on its way it was counted), a call is
#: given back. In between the client lets go what it may.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(0, 70), st.just(0.0)),
        st.tuples(st.just("end"), st.integers(0, 20), st.floats(0, 1)),
        st.tuples(st.just("end"), st.integers(0, 20), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("give back"), st.integers(0, 20), st.just(0.0)),
    ),
    max_size=60,
)


def play(run: Run, step: tuple[str, int, float]) -> None:
    match step:
        case ("pass", ms, _):
            run.now_ms += ms
        case ("end", which, arrival) if run.flying_since_ms:
            run.end(which, arrival)
        case ("give back", which, _) if run.flying_since_ms:
            run.give_back(which)


@given(LIMITS, STEPS, st.integers(0, 5))
def test_whenever_calls_arrive_no_window_ever_holds_more_than_its_amount(
    limits: list[Limit], steps: list[tuple[str, int, float]], burst: int
) -> None:
    run = Run(limits)
    for step in steps:
        play(run, step)
        for _ in range(burst):
            if run.windows.wait_ms(run.now_ms) == 0:
                run.release()
    while run.flying_since_ms:
        run.end(0, 1.0)

    for limit in limits:
        assert run.most_in_a_window(limit.window_ms) <= limit.amount


@given(LIMITS, STEPS, st.integers(0, 5))
def test_a_call_goes_unless_it_could_be_one_too_many(
    limits: list[Limit], steps: list[tuple[str, int, float]], burst: int
) -> None:
    """No client that must never be refused can go earlier (facts/admission.md, 3.1)."""
    run = Run(limits)
    for step in steps:
        play(run, step)
        for _ in range(burst):
            may_go = run.windows.wait_ms(run.now_ms) == 0
            assert may_go != run.may_break_a_window()
            if may_go:
                run.release()


@given(LIMITS, STEPS)
def test_the_wait_that_is_told_ends_at_the_first_moment_at_which_a_call_may_go(
    limits: list[Limit], steps: list[tuple[str, int, float]]
) -> None:
    run = Run(limits)
    for step in steps:
        play(run, step)
        if run.windows.wait_ms(run.now_ms) == 0:
            run.release()
    wait_ms = run.windows.wait_ms(run.now_ms)

    longest = max(limit.window_ms for limit in limits)
    free_after = [ms for ms in range(longest + 1) if _may_go_after(run, ms)]
    assert wait_ms == (free_after[0] if free_after else None)


def _may_go_after(run: Run, ms: int) -> bool:
    run.now_ms += ms
    may_go = not run.may_break_a_window()
    run.now_ms -= ms
    return may_go
