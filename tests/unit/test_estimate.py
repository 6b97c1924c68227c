"""When jobs will go and be answered, against sums done by hand. A call takes half a second."""

from dataclasses import replace

import pytest

from millpond.domain.forecast import Line
from millpond.domain.job import Class
from millpond.standing.estimate import Estimate, estimate, lines_of, places, slots_of
from millpond.store.view import Explanation, FlowView, Holds, LaneView, OrgView, WindowView

NOW_MS = 1_000_000
MINUTE_MS = 60_000
FLOW = FlowView(10, 10, 10, 0, None, 0, None, 0, 0, 0, 0, 0, 0, 0)
ONE = Line(Class.BULK, "", "r", 10)


def seen(
    *windows: WindowView, lines: tuple[Line, ...] = (ONE,), slots: int = 100, **lane: object
) -> Explanation:
    view = LaneView(0, None, 0, "", None, windows, latency_ms=500)
    return Explanation(
        now_ms=NOW_MS,
        lane_id="a.generate",
        org_id="a",
        org=OrgView(None, 0, 0, 0),
        lane=replace(view, **lane),  # type: ignore[arg-type]
        lines=lines,
        slots=slots,
        ready=0,
        flow_id="r",
        flow=FLOW,
        job=None,
    )


def limit(amount: int, used: int = 0, unit: str = "calls") -> WindowView:
    return WindowView(amount, MINUTE_MS, used, None, unit)


def goes_s(seen: Explanation, jobs: int, holds: Holds | None = None) -> float:
    found = estimate(seen, holds or Holds(), seen.lines, "r", jobs)
    assert found is not None
    assert found.answered_ms == found.goes_ms + 500
    return found.goes_ms / 1_000


@pytest.mark.parametrize(("jobs", "s"), [(1, 0), (5, 0), (6, 60.5), (10, 60.5)])
def test_an_empty_window_lets_as_many_go_at_once(jobs: int, s: float) -> None:
    assert goes_s(seen(limit(5)), jobs) == s


def test_each_place_frees_when_its_call_leaves_the_window() -> None:
    counted = (NOW_MS - 50_000, NOW_MS - 30_000)
    holds = Holds(released_ms=(NOW_MS - 100,), counted_ms=(NOW_MS - 70_000, *counted))

    # One place is free; then at 10 s, 30 s, and what is in flight 60 s after its answer.
    one = seen(limit(4, used=3), flight=1)
    assert [goes_s(one, jobs, holds) for jobs in (1, 2, 3, 4)] == [0, 10, 30, 60.4]


def test_calls_that_are_known_by_number_only_leave_evenly_before_the_others() -> None:
    holds = Holds(counted_ms=(NOW_MS - 20_000,))
    one = seen(replace(limit(5, used=5), frees_at_ms=NOW_MS + 4_000))

    assert [goes_s(one, jobs, holds) for jobs in (1, 2, 3, 4, 5)] == [4, 13, 22, 31, 40]


def test_of_more_than_there_is_only_the_last_matter() -> None:
    """The limit was made smaller: two calls must leave before one may go."""
    holds = Holds(counted_ms=(NOW_MS - 50_000, NOW_MS - 40_000, NOW_MS - 30_000))

    assert [goes_s(seen(limit(2, used=3)), jobs, holds) for jobs in (1, 2)] == [20, 30]


def test_flows_take_turns_by_their_shares() -> None:
    other = Line(Class.BULK, "bo", "s", 100)
    both = seen(limit(4), lines=(ONE, other))

    # Of the first four calls two are its own, and of each four later ones.
    assert [goes_s(both, jobs) for jobs in (1, 2, 3, 10)] == [0, 0, 60.5, 242]
    found = estimate(both, Holds(), both.lines, "r", 10)
    assert found == Estimate(20, 242_000, 242_500)


def test_jobs_that_share_calls_take_fewer() -> None:
    packed = replace(ONE, pack=5)

    assert goes_s(seen(limit(1), lines=(packed,)), 10) == 60.5


def test_nothing_goes_before_a_shut_lane_opens() -> None:
    until_ms = NOW_MS + 9_000

    assert goes_s(seen(limit(5), shut_until_ms=until_ms), 1) == 9
    assert goes_s(seen(limit(5), shut_until_ms=until_ms), 6) == 69.5
    assert goes_s(seen(shut_until_ms=until_ms), 1) == 9
    assert goes_s(seen(limit(5), shut_until_ms=NOW_MS - 1), 1) == 0


def test_as_many_at_once_as_workers_and_limits_let() -> None:
    assert goes_s(seen(slots=2), 5) == 1.0
    at_once = WindowView(1, 0, 0, None)
    assert goes_s(seen(at_once), 3) == 1.0
    # One slot is taken, for another 0.4 s.
    holds = Holds(released_ms=(NOW_MS - 100,))
    assert goes_s(seen(slots=1, flight=1), 2, holds) == 0.4


def test_slots_are_those_that_are_free_or_taken_by_the_lanes_calls() -> None:
    one = seen(slots=3, flight=5)

    assert slots_of(one) == 8
    assert slots_of(replace(one, ready=2)) == 6


def test_a_limit_of_another_unit_lets_through_what_calls_have_taken_of_it_so_far() -> None:
    holds = Holds(counted_ms=(NOW_MS - 20_000, NOW_MS - 10_000))
    calls = limit(100, used=2)

    # Of 200 tokens two calls took 100: four fit, and two of those places free at 40 and 50 s.
    tokens = seen(calls, limit(200, used=100, unit="tokens"))
    assert [goes_s(tokens, jobs, holds) for jobs in (2, 3, 4)] == [0, 40, 50]
    # Nobody knows yet what a call takes.
    assert goes_s(seen(calls, limit(200, unit="tokens")), 10) == 0


def test_a_window_longer_than_stamps_are_kept_is_reckoned_by_what_there_is() -> None:
    hour = WindowView(1_200, 3_600_000, 600, None, "tokens")
    recent = Holds(counted_ms=(NOW_MS - 59_000, NOW_MS - 1_000))

    # Two calls a minute, so 120 an hour took 600: 240 fit.
    one = next(
        taken
        for taken in places(seen(limit(60, used=2), hour), recent, Class.BULK)
        if taken.window_ms == 3_600_000
    )
    assert one.amount == 240


def test_after_refusals_less_is_used_and_evenly() -> None:
    careful = seen(limit(10), share=0.5)

    # Five a minute, one every 12.1 s.
    assert [goes_s(careful, jobs) for jobs in (1, 2, 3)] == [0, 12.1, 24.2]


def test_bulk_goes_evenly_while_somebody_waits() -> None:
    chat = Line(Class.INTERACTIVE, "", "chat", 1)
    both = seen(limit(10), lines=(ONE, chat))

    # The chat's call, which comes first, then one of ours each 6.05 s.
    assert [goes_s(both, jobs) for jobs in (1, 2)] == [6.05, 12.1]
    found = estimate(both, Holds(), both.lines, "chat", 1)
    assert found is not None
    assert found.goes_ms == 0
    # And for a window after its last call.
    for chat_at_ms, s in ((NOW_MS - 59_000, 6.05), (NOW_MS - 60_000, 0)):
        assert goes_s(seen(limit(10), chat_at_ms=chat_at_ms), 2) == s


def test_what_is_kept_for_interactive_jobs_holds_bulk_alone() -> None:
    limits = (limit(6), limit(3, unit="bulk"))

    assert [goes_s(seen(*limits), jobs) for jobs in (3, 4)] == [0, 60.5]
    chat = replace(ONE, klass=Class.INTERACTIVE)
    assert goes_s(seen(*limits, lines=(chat,)), 6) == 0


@pytest.mark.parametrize(
    "stuck",
    [
        replace(seen(limit(5)), org=OrgView(None, 0, 0, 0, suspended=True)),
        seen(limit(5), paused="paused: x"),
        seen(limit(5), lines=()),
        seen(limit(5), lines=(replace(ONE, flow="other"),)),
        seen(limit(5), slots=0),
    ],
    ids=["suspended", "paused", "no line", "not in line", "no worker"],
)
def test_nobody_knows_when_if_it_cannot_go_as_things_stand(stuck: Explanation) -> None:
    assert estimate(stuck, Holds(), stuck.lines, "r", 1) is None


def test_jobs_that_are_tried_again_come_back_to_the_line() -> None:
    later = replace(FLOW, later=3, later_at_ms=NOW_MS + 5)

    assert lines_of(replace(seen(), flow=later)) == (replace(ONE, queued=13),)
    [alone] = lines_of(replace(seen(lines=()), flow=replace(later, user="bo", weight=2.0)))
    assert alone == Line(Class.BULK, "bo", "r", 3, 2.0, 1.0, 1)
    assert lines_of(replace(seen(), flow=replace(later, paused=True))) == (ONE,)
