"""Why a job, a flow or a lane waits: the first cause that holds is told, and no other."""

from dataclasses import replace

import pytest

from millpond.domain.forecast import Line
from millpond.domain.job import Class, State
from millpond.standing.explain import (
    Reason,
    Why,
    kept_for_interactive,
    why_flow,
    why_job,
    why_lane,
    written,
)
from millpond.store.view import (
    Explanation,
    FlowView,
    JobView,
    LaneView,
    OrgView,
    WindowView,
)

NOW_MS = 1_000_000
WALL_S = 1_700_000_000.0

EMPTY = WindowView(60, 60_000, 0, None)
FULL = WindowView(60, 60_000, 60, NOW_MS + 2_000)
BULK_FULL = WindowView(50, 60_000, 50, NOW_MS + 3_000, "bulk")
TURN = Reason(Why.TURN, "its turn")

FLOW = FlowView(
    open=10,
    held=10,
    queued=10,
    parked=0,
    parked_least=None,
    later=0,
    later_at_ms=None,
    succeeded=0,
    failed=0,
    calls=0,
    refusals=0,
    used=0,
    reserved=0,
    estimated=0,
)
JOB = JobView("r.4", State.QUEUED, 0, 0, before=3, later_at_ms=None, parked=False)
SEEN = Explanation(
    now_ms=NOW_MS,
    lane_id="a.generate",
    org_id="a",
    org=OrgView(quota=1_000, used=700, reserved=0, estimated=50),
    lane=LaneView(0, None, 0, "", None, (EMPTY,)),
    lines=(Line(Class.BULK, "", "r", 10),),
    slots=5,
    ready=0,
    flow_id="r",
    flow=FLOW,
    job=JOB,
)


def lane(*windows: WindowView, **more: object) -> Explanation:
    told = replace(SEEN.lane, windows=windows or (EMPTY,), **more)  # type: ignore[arg-type]
    return replace(SEEN, lane=told)


def of_all(seen: Explanation) -> list[Reason | None]:
    """Of the job, its flow and its lane."""
    return [why(seen, wall_s=WALL_S) for why in (why_job, why_flow, why_lane)]


def test_what_nothing_holds_waits_for_its_turn() -> None:
    assert of_all(SEEN) == [TURN] * 3


UNWELL = {
    "trouble_since_ms": NOW_MS - 60_000,
    "shut_until_ms": NOW_MS + 4_000,
    "shut_reason": "unwell",
}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (
            replace(lane(FULL, paused="paused: x"), org=replace(SEEN.org, suspended=True)),
            Reason(Why.SUSPENDED, "suspended"),
        ),
        (lane(FULL, paused="paused: new key"), Reason(Why.PAUSED, "paused: new key")),
        (
            lane(FULL, unreachable_since_ms=NOW_MS - 9_000, **UNWELL),
            Reason(
                Why.UNREACHABLE,
                "provider unreachable",
                next_release_s=WALL_S + 4,
                since_s=WALL_S - 9,
            ),
        ),
        (
            lane(FULL, **UNWELL),
            Reason(Why.UNWELL, "provider unwell", next_release_s=WALL_S + 4, since_s=WALL_S - 60),
        ),
        (
            lane(FULL, shut_until_ms=NOW_MS + 4_000, shut_reason="refused"),
            Reason(Why.REFUSED, "the provider's own limit", next_release_s=WALL_S + 4),
        ),
        (
            replace(lane(FULL), slots=0),
            Reason(Why.LIMIT, "60/60s", "calls", 60, 60, WALL_S + 2),
        ),
        (
            replace(lane(flight=7), slots=1, ready=1),
            Reason(Why.NO_SLOT, "no worker slot is free", "calls", 7, 7),
        ),
        (replace(SEEN, slots=0), Reason(Why.NO_SLOT, "no worker is there")),
    ],
    ids=lambda value: value.why if isinstance(value, Reason) else "",
)
def test_the_first_cause_that_holds_is_told_of_job_flow_and_lane(
    seen: Explanation, reason: Reason
) -> None:
    assert of_all(seen) == [reason] * 3


def test_a_flow_that_is_paused_says_so_and_its_lane_does_not_wait_for_it() -> None:
    seen = replace(lane(FULL), flow=replace(FLOW, paused=True), lines=())

    paused = Reason(Why.PAUSED, "paused: the flow")
    assert of_all(seen) == [paused, paused, None]


def test_a_job_that_is_on_its_way_or_has_ended_waits_for_nothing() -> None:
    for state in (State.RELEASED, State.RUNNING, State.SUCCEEDED, State.FAILED):
        assert why_job(replace(lane(FULL), job=replace(JOB, state=state)), wall_s=WALL_S) is None


def test_a_flow_whose_jobs_are_all_on_their_way_waits_for_nothing() -> None:
    seen = replace(SEEN, flow=replace(FLOW, queued=0), lines=())

    assert why_flow(seen, wall_s=WALL_S) is None
    assert why_lane(seen, wall_s=WALL_S) is None


def test_a_job_that_failed_waits_until_it_is_tried_again_unless_the_lane_is_shut() -> None:
    later = replace(JOB, attempts=1, before=None, later_at_ms=NOW_MS + 1_500)

    assert why_job(replace(lane(FULL), job=later), wall_s=WALL_S) == Reason(
        Why.RETRY, "retry", next_release_s=WALL_S + 1.5
    )
    shut = why_job(replace(lane(**UNWELL), job=later), wall_s=WALL_S)
    assert shut is not None
    assert shut.why is Why.UNWELL


def test_a_job_that_was_never_tried_waits_for_the_time_it_was_submitted_for() -> None:
    later = replace(JOB, attempts=0, before=None, later_at_ms=NOW_MS + 1_500)

    assert why_job(replace(lane(FULL), job=later), wall_s=WALL_S) == Reason(
        Why.NOT_BEFORE, "not before its time", next_release_s=WALL_S + 1.5
    )


def test_a_job_without_room_in_the_quota_is_told_with_what_is_reserved() -> None:
    parked = replace(JOB, before=None, parked=True)
    flow = replace(FLOW, queued=0, parked=10, parked_least=100)
    seen = replace(lane(FULL), job=parked, flow=flow, lines=())

    assert why_job(seen, wall_s=WALL_S) == Reason(Why.QUOTA, "quota", "characters", 750, 1_000)
    reserving = replace(seen, org=replace(SEEN.org, reserved=200))
    told = Reason(Why.QUOTA, "quota, with what calls in flight may use", "characters", 950, 1_000)
    assert why_job(reserving, wall_s=WALL_S) == told
    assert why_flow(replace(reserving, lane=SEEN.lane), wall_s=WALL_S) == told
    stopped = replace(seen, flow=replace(flow, parked_least=251))
    assert why_flow(stopped, wall_s=WALL_S) == Reason(Why.QUOTA, "quota", "characters", 750, 1_000)


def test_what_is_kept_for_interactive_jobs_holds_bulk_alone() -> None:
    seen = lane(replace(EMPTY, used=50), BULK_FULL)
    kept = Reason(Why.LIMIT, "60/60s, 10 of it kept", "calls", 50, 50, WALL_S + 3)

    assert of_all(seen) == [kept] * 3
    chat = replace(
        seen,
        flow=replace(FLOW, klass=Class.INTERACTIVE),
        lines=(Line(Class.INTERACTIVE, "", "r", 10),),
    )
    assert of_all(chat) == [TURN] * 3


def test_after_refusals_a_lane_is_full_with_less_and_says_so() -> None:
    seen = lane(replace(EMPTY, used=54, frees_at_ms=NOW_MS + 9), share=0.9)

    assert why_lane(seen, wall_s=WALL_S) == Reason(
        Why.LIMIT, "60/60s, at 90% since the provider refused", "calls", 54, 54
    )
    assert why_lane(lane(replace(EMPTY, used=53), share=0.9), wall_s=WALL_S) == TURN


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (WindowView(60, 60_000, 0, None), "60/60s"),
        (WindowView(60, 6_000, 0, None), "60/6s"),
        (WindowView(1, 1_500, 0, None), "1/1.5s"),
        (WindowView(500, 3_600_000, 0, None), "500/1h"),
        (WindowView(50_000, 86_400_000, 0, None), "50000/1d"),
        (WindowView(900, 60_000, 0, None, "tokens"), "900tokens/60s"),
        (WindowView(20, 0, 0, None), "20@once"),
        (WindowView(50, 60_000, 0, None, "bulk"), "60/60s, 10 of it kept"),
        (WindowView(50, 1_000, 0, None, "bulk"), "bulk 50/1s"),
    ],
)
def test_a_limit_is_written_as_people_write_it(window: WindowView, text: str) -> None:
    assert written(window, (EMPTY, window)) == text


def test_so_much_of_a_limit_is_kept_for_interactive_jobs() -> None:
    assert kept_for_interactive(BULK_FULL, (EMPTY, BULK_FULL)) == 10
    assert kept_for_interactive(BULK_FULL, (BULK_FULL,)) == 0


def test_people_are_told_since_when() -> None:
    unwell = Reason(Why.UNWELL, "provider unwell", next_release_s=WALL_S + 4, since_s=WALL_S)

    assert unwell.for_people() == (
        "provider unwell since 2023-11-14T22:13:20Z, next at 2023-11-14T22:13:24Z"
    )
