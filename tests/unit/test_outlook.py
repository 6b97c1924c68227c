"""Why jobs wait, and for how long: from how things stand."""

from dataclasses import replace

import pytest

from millpond.domain.limit import Limit, parse_limit
from millpond.run.outlook import Crossings, seconds_left
from millpond.run.preview import Contents
from millpond.run.summary import (
    UNREACHABLE_MOST_MS,
    WORDS,
    End,
    end_of,
    exit_code,
    summarize,
)
from millpond.standing.explain import Reason, Why, quota_stops, waiting_reason
from millpond.store.view import FlowView, LaneView, OrgView, View, WindowView

NOW_MS = 1_000_000
WALL_S = 1_700_000_000.0
MINUTE, DAY = parse_limit("60/60s"), parse_limit("50000/1d")

FLOW = FlowView(
    open=10,
    held=12,
    queued=10,
    parked=0,
    parked_least=None,
    later=0,
    later_at_ms=None,
    succeeded=5,
    failed=0,
    calls=5,
    refusals=0,
    used=700,
    reserved=0,
    estimated=0,
)
ORG = OrgView(quota=1_000, used=700, reserved=0, estimated=50)
PARKED = replace(FLOW, queued=0, parked=10, parked_least=251)


def window(limit: Limit, used: int, frees_at_ms: int | None = None) -> WindowView:
    return WindowView(limit.amount, limit.window_ms, used, frees_at_ms, limit.unit)


def lane(
    *windows: WindowView,
    paused: str | None = None,
    shut_until_ms: int = 0,
    shut_reason: str = "",
    unreachable_since_ms: int | None = None,
) -> LaneView:
    seen = windows or (window(MINUTE, 0), window(DAY, 0))
    return LaneView(0, paused, shut_until_ms, shut_reason, unreachable_since_ms, seen)


def view(lane: LaneView, *, flow: FlowView = FLOW, org: OrgView = ORG) -> View:
    return View(NOW_MS, org, flow, lane)


def reason(view: View) -> Reason | None:
    return waiting_reason(view, [MINUTE, DAY], wall_s=WALL_S)


def test_nothing_holds_jobs_that_only_wait_for_their_turn() -> None:
    assert reason(view(lane(window(MINUTE, 59), window(DAY, 49_999)))) is None


def test_a_paused_lane_is_the_reason_before_all_others() -> None:
    paused = lane(window(MINUTE, 60), window(DAY, 60), paused="key: wrong (401)")

    assert reason(view(paused, flow=PARKED)) == Reason(Why.PAUSED, "key: wrong (401)")


def test_a_quota_too_small_for_the_smallest_job_is_a_reason_that_no_time_ends() -> None:
    seen = view(lane(window(MINUTE, 60, NOW_MS + 5), window(DAY, 60)), flow=PARKED)

    assert quota_stops(seen)
    assert reason(seen) == Reason(Why.QUOTA, "quota", "characters", 750, 1_000)


@pytest.mark.parametrize(
    ("flow", "org"),
    [
        (replace(PARKED, parked_least=250), ORG),
        (replace(PARKED, open=11), ORG),
        (replace(PARKED, parked=0, open=0, parked_least=None), ORG),
        (PARKED, replace(ORG, quota=None)),
    ],
    ids=["the smallest fits", "one is not parked", "nothing is open", "no quota"],
)
def test_the_quota_does_not_stop_a_flow_as_long_as_something_may_move(
    flow: FlowView, org: OrgView
) -> None:
    assert not quota_stops(view(lane(), flow=flow, org=org))


def test_a_lane_that_the_provider_has_shut_is_told_with_the_time_at_which_it_opens() -> None:
    shut = lane(shut_until_ms=NOW_MS + 3_000, shut_reason="refused")

    told = Reason(Why.REFUSED, "the provider's own limit", next_release_s=WALL_S + 3)
    assert reason(view(shut)) == told
    assert reason(view(replace(shut, shut_until_ms=NOW_MS))) is None


def test_a_provider_is_unreachable_until_somebody_has_reached_it() -> None:
    """Also at the moments at which it is tried again."""
    shut = lane(
        *(window(MINUTE, 60), window(DAY, 0)),
        shut_until_ms=NOW_MS + 3_000,
        shut_reason="unreachable",
        unreachable_since_ms=NOW_MS - 9_000,
    )

    assert reason(view(shut)) == Reason(
        Why.UNREACHABLE, "provider unreachable", next_release_s=WALL_S + 3, since_s=WALL_S - 9
    )
    assert reason(view(replace(shut, shut_until_ms=NOW_MS))) == Reason(
        Why.UNREACHABLE, "provider unreachable", since_s=WALL_S - 9
    )


def test_of_several_full_limits_the_one_that_frees_last_is_told() -> None:
    both = lane(window(MINUTE, 60, NOW_MS + 2_000), window(DAY, 50_000, NOW_MS + 90_000))

    assert reason(view(both)) == Reason(Why.LIMIT, "50000/1d", "calls", 50_000, 50_000, WALL_S + 90)


def test_a_limit_full_of_calls_in_flight_frees_at_a_time_nobody_knows() -> None:
    assert reason(view(lane(window(MINUTE, 61), window(DAY, 0)))) == Reason(
        Why.LIMIT, "60/60s", "calls", 61, 60
    )


def test_limits_that_were_set_by_somebody_else_are_told_as_they_are_on_the_server() -> None:
    """Limits learnt since the look, or those of another run on the same server."""
    tokens, at_once = parse_limit("900tokens/1m"), parse_limit("2@once")
    seen = view(lane(window(tokens, 900, NOW_MS + 4_000), window(at_once, 1)))

    assert reason(seen) == Reason(Why.LIMIT, "900tokens/60s", "tokens", 900, 900, WALL_S + 4)
    full = view(lane(window(at_once, 2)))
    assert reason(full) == Reason(Why.LIMIT, "2@once", "calls", 2, 2)
    # Two at once, a second each: nobody has measured them.
    assert seconds_left(full, HUNDRED, 4, limits=[MINUTE, DAY], concurrency=9) == 2.0


def test_a_full_limit_holds_nobody_if_nothing_is_open() -> None:
    full = lane(window(MINUTE, 60, NOW_MS + 2_000), window(DAY, 0))

    assert reason(view(full, flow=replace(FLOW, open=0, queued=0))) is None


def test_jobs_that_all_back_off_wait_for_their_retry() -> None:
    later = replace(FLOW, queued=0, later=10, later_at_ms=NOW_MS + 1_500)

    assert reason(view(lane(), flow=later)) == Reason(
        Why.RETRY, "retry, or not before their time", next_release_s=WALL_S + 1.5
    )
    never = replace(later, calls=0)
    assert reason(view(lane(), flow=never)) == Reason(
        Why.NOT_BEFORE, "not before their time", next_release_s=WALL_S + 1.5
    )
    assert reason(view(lane(), flow=replace(later, later=9))) is None


def test_a_reason_is_told_to_programs_with_a_time_of_day_in_utc() -> None:
    full = Reason(Why.LIMIT, "60/60s", "calls", 60, 60, WALL_S)

    assert full.as_json() == {
        "limit": "60/60s",
        "unit": "calls",
        "used": 60,
        "amount": 60,
        "next_release_at": "2023-11-14T22:13:20Z",
    }
    assert Reason(Why.RETRY, "retry").as_json()["next_release_at"] is None


def test_a_reason_is_told_to_people_with_what_is_known_of_it() -> None:
    spent = Reason(Why.QUOTA, "quota", "characters", 1_750, 2_000)

    assert spent.for_people() == "quota (1,750 of 2,000 characters)"
    assert Reason(Why.RETRY, "retry", next_release_s=WALL_S).for_people() == (
        "retry, next at 2023-11-14T22:13:20Z"
    )


#: A hundred calls of 50 characters and 40 tokens each, at their most.
HUNDRED = Contents(lines=100, bad_lines=0, characters=5_000, tokens=4_000)


def left(*windows: WindowView, waiting: int, limits: list[Limit], concurrency: int = 500) -> float:
    """The time left if a call takes half a second to its answer."""
    seen = view(replace(lane(*windows), latency_ms=500))
    return seconds_left(seen, HUNDRED, waiting, limits=limits, concurrency=concurrency)


@pytest.mark.parametrize(
    ("waiting", "seconds"),
    [
        (0, 0.5),  # those in flight are answered
        (20, 0.5),
        (21, 4.5),
        # From 4 s on one frees every (60 - 4) / 40 s.
        (22, 5.9),
        (60, 59.1),
        # The first of this start goes at 0, is answered at 0.5 and outside of the window at 60.5.
        (61, 61.0),
        (80, 61.0),
        (81, 65.0),
    ],
)
def test_what_is_left_goes_at_once_then_as_the_window_frees(waiting: int, seconds: float) -> None:
    used = window(MINUTE, 40, NOW_MS + 4_000)

    assert left(used, waiting=waiting, limits=[MINUTE]) == pytest.approx(seconds)


def test_the_slowest_limit_says_how_long_it_takes() -> None:
    hour = Limit(10, 3_600_000, "10/1h")
    seen = (window(MINUTE, 0), window(hour, 10, NOW_MS + 3_600_000))

    # All ten free at the hour's end; the eleventh goes when the first has left the window again.
    assert left(*seen, waiting=10, limits=[MINUTE, hour]) == 3_600.5
    assert left(*seen, waiting=11, limits=[MINUTE, hour]) == 7_201.0


def test_a_limit_of_tokens_lets_as_many_calls_through_as_fit_into_it_on_average() -> None:
    tokens = parse_limit("400tokens/60s")

    # Of 40 tokens each ten fit; half of them are taken, and free all but evenly from 10 s on.
    half = window(tokens, 200, NOW_MS + 10_000)
    assert left(half, waiting=5, limits=[tokens]) == 0.5
    assert left(half, waiting=6, limits=[tokens]) == 10.5
    assert left(half, waiting=7, limits=[tokens]) == 20.5


def test_with_so_many_at_once_each_waits_for_an_answer() -> None:
    at_once = parse_limit("2@once")

    assert left(window(at_once, 0), waiting=2, limits=[at_once]) == 0.5
    assert left(window(at_once, 0), waiting=5, limits=[at_once]) == 1.5
    assert left(window(at_once, 0), waiting=5, limits=[at_once], concurrency=1) == 2.5


def test_jobs_that_share_a_call_go_together() -> None:
    tens = replace(HUNDRED, along=90)
    seen = view(replace(lane(window(MINUTE, 58, NOW_MS + 4_000)), latency_ms=500))

    def left_of_packs(waiting: int, limits: list[Limit], seen: View = seen) -> float:
        return seconds_left(seen, tens, waiting, limits=limits, concurrency=9)

    assert left_of_packs(20, [MINUTE]) == 0.5
    assert left_of_packs(21, [MINUTE]) == 4.5
    # One more is in flight, and its jobs wait for nothing but their answers.
    flying = view(replace(seen.lane, flight=1))
    assert left_of_packs(30, [MINUTE], flying) == 0.5
    assert left_of_packs(31, [MINUTE], flying) == 4.5
    inputs = parse_limit("5inputs/60s")
    empty = view(replace(lane(window(inputs, 0)), latency_ms=500))
    assert left_of_packs(10, [inputs], empty) == 61.0


def test_while_no_call_was_measured_one_is_taken_to_last_a_second() -> None:
    seen = view(lane(window(MINUTE, 0)))

    assert seconds_left(seen, HUNDRED, 60, limits=[MINUTE], concurrency=60) == 1.0


def test_a_run_ends_when_time_alone_cannot_free_it() -> None:
    parked = view(lane(), flow=PARKED)

    assert end_of(view(lane()), fed=True) is None
    assert end_of(parked, fed=True) is End.QUOTA
    assert end_of(parked, fed=False) is None
    assert end_of(view(lane(paused="quota: spent")), fed=False) is End.QUOTA
    assert end_of(view(lane(paused="key: wrong (401)")), fed=False) is End.KEY_REFUSED


def test_a_provider_that_nobody_can_connect_to_ends_the_run_after_a_quarter_of_an_hour() -> None:
    since_ms = NOW_MS - UNREACHABLE_MOST_MS

    assert end_of(view(lane(unreachable_since_ms=since_ms)), fed=True) is None
    assert end_of(view(lane(unreachable_since_ms=since_ms - 1)), fed=True) is End.UNREACHABLE


def test_a_provider_that_is_unwell_ends_the_run_after_a_quarter_of_an_hour_too() -> None:
    since_ms = NOW_MS - UNREACHABLE_MOST_MS
    unwell = replace(lane(), trouble_since_ms=since_ms)

    assert end_of(view(unwell), fed=True) is None
    assert end_of(view(replace(unwell, trouble_since_ms=since_ms - 1)), fed=True) is End.UNWELL
    assert "unwell for 15 minutes" in WORDS[End.UNWELL]


def test_what_an_operator_has_stopped_ends_no_run_however_long() -> None:
    long = replace(lane(unreachable_since_ms=0), trouble_since_ms=0)
    suspended = replace(ORG, suspended=True)

    assert end_of(view(replace(long, paused="paused: key: is new")), fed=True) is None
    assert end_of(view(long, org=suspended, flow=PARKED), fed=True) is None
    # But for what the provider itself has said.
    refused = replace(long, paused="key: wrong (401)")
    assert end_of(view(refused, org=suspended), fed=True) is End.KEY_REFUSED


def test_a_run_waits_for_what_an_operator_has_stopped_and_says_so() -> None:
    seen = view(lane(window(MINUTE, 60), window(DAY, 0)), org=replace(ORG, suspended=True))

    assert reason(seen) == Reason(Why.SUSPENDED, "suspended")
    paused = view(lane(window(MINUTE, 60), window(DAY, 0)), flow=replace(FLOW, paused=True))
    assert reason(paused) == Reason(Why.PAUSED, "paused: the flow")


def test_each_threshold_of_the_quota_is_told_once_when_it_is_crossed() -> None:
    crossings = Crossings()

    def spent(characters: int, quota: int | None = 1_000) -> list[int]:
        return crossings.look(OrgView(quota, characters - 9, 0, 9))

    assert [spent(n) for n in (10, 499, 500, 799, 1_000, 1_001)] == [
        [],
        [],
        [50],
        [],
        [80, 100],
        [],
    ]
    # A larger quota takes them back.
    assert [spent(1_001, quota) for quota in (1_500, None, 1_001)] == [[], [], [50, 80, 100]]


def test_a_run_that_goes_on_is_told_of_the_highest_threshold_only() -> None:
    assert Crossings().look(OrgView(1_000, 850, 0, 0)) == [80]


@pytest.mark.parametrize(
    ("end", "failed", "code"),
    [
        (End.DONE, 0, 0),
        (End.DONE, 2, 3),
        (End.QUOTA, 0, 75),
        (End.QUOTA, 2, 75),
        (End.KEY_REFUSED, 2, 77),
        (End.UNREACHABLE, 2, 69),
        (End.UNWELL, 2, 69),
        (End.NO_SERVER, 0, 69),
        (End.GAVE_UP, 2, 1),
        (End.INTERRUPTED, 2, 130),
    ],
)
def test_each_end_has_its_exit_code(end: End, failed: int, code: int) -> None:
    assert exit_code(end, failed=failed) == code


def test_a_summary_without_a_look_at_the_server_says_null_for_what_is_not_known() -> None:
    summary = summarize(
        *(None, None),
        lines=9,
        succeeded=2,
        failed=1,
        seconds=1.23456,
        resume_command="millpond run",
    )

    assert summary.as_json() == {
        "lines": 9,
        "succeeded": 2,
        "failed": 1,
        "waiting": 6,
        "waiting_reason": None,
        "calls": None,
        "refusals": None,
        "used_characters": None,
        "estimated_characters": None,
        "reserved_characters": None,
        "seconds": 1.235,
        "resume_command": "millpond run",
    }
    assert summary.for_people() == "2 answered, 1 failed, 6 waiting, 1.2 s"


def test_a_summary_of_a_run_that_is_done_has_no_reason_and_nothing_to_go_on_with() -> None:
    full = Reason(Why.LIMIT, "60/60s", "calls", 60, 60, WALL_S)
    done = {"lines": 5, "succeeded": 5, "failed": 0, "seconds": 1.0}

    summary = summarize(view(lane()), full, **done, resume_command="x")  # type: ignore[arg-type]

    assert (summary.waiting_reason, summary.resume_command) == (None, None)
    assert (summary.calls, summary.used_characters) == (5, 700)
