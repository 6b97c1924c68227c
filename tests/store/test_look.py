"""look: how things stand for a flow."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.errors import UnknownFlow
from millpond.store.store import Store
from millpond.store.view import FlowView, LaneView, OrgView, WindowView
from store.pond import Pond, everything


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_flow_that_was_just_opened_has_nothing(pond: Pond) -> None:
    await pond.open("60/60s")

    view = await pond.store.look("f")

    assert view.now_ms == pond.now_ms
    assert view.org == OrgView(quota=None, used=0, reserved=0, estimated=0)
    assert view.flow == FlowView(
        open=0,
        held=0,
        queued=0,
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
    assert view.lane == LaneView(
        flight=0,
        paused=None,
        shut_until_ms=0,
        shut_reason="",
        unreachable_since_ms=None,
        counted=True,
        windows=(WindowView(amount=60, window_ms=60_000, used=0, frees_at_ms=None),),
    )


async def test_everything_is_counted(pond: Pond) -> None:
    await pond.open("60/60s", "5000/1d", quota=600)
    calls = await pond.run("j1", "j2", "j3", "j4", "j5")
    began_ms = pond.now_ms
    await pond.settle(calls[0], "succeeded", used=70)
    await pond.settle(calls[1], "failed", used=None)
    await pond.settle(calls[2], "retry", used=0, delay_ms=5_000, refused=True, shut_ms=2_000)
    await pond.accept("j6", need=900)
    await pond.accept("j7", need=800)
    await pond.jump(2_000)
    await pond.release()
    await pond.accept("j8", "j9")

    view = await pond.store.look("f")

    assert view.org == OrgView(quota=600, used=70, reserved=200, estimated=100)
    assert view.flow == FlowView(
        open=7,
        held=9,
        queued=2,
        parked=2,
        parked_least=800,
        later=1,
        later_at_ms=began_ms + 5_000,
        succeeded=1,
        failed=1,
        calls=3,
        refusals=1,
        used=70,
        reserved=200,
        estimated=100,
    )
    assert view.lane == LaneView(
        flight=2,
        paused=None,
        shut_until_ms=began_ms + 2_000,
        shut_reason="refused",
        unreachable_since_ms=None,
        counted=True,
        latency_ms=0,
        share=view.lane.share,
        windows=(
            WindowView(60, 60_000, used=5, frees_at_ms=began_ms + 60_001),
            WindowView(5_000, 86_400_000, used=5, frees_at_ms=view.lane.windows[1].frees_at_ms),
        ),
        refusals=1,
    )
    # A counter of a day is three minutes long.
    day_later_ms = began_ms + 86_400_000
    frees_at_ms = view.lane.windows[1].frees_at_ms
    assert frees_at_ms is not None
    assert day_later_ms < frees_at_ms <= day_later_ms + 2 * 180_758


async def test_a_lane_that_stands_still_says_why(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one, pause="quota: spent")
    await pond.store.give_back("w", [two.id], unreachable=True)

    lane = (await pond.store.look("f")).lane

    assert lane.paused == "quota: spent"
    assert lane.shut_until_ms == pond.now_ms + 500
    assert lane.shut_reason == "unreachable"
    assert lane.unreachable_since_ms == pond.now_ms


@pytest.mark.parametrize(
    ("ages_ms", "flight", "used", "frees_in_ms"),
    [
        # stamps, so old                 in flight  used  next has room in
        ([60_000],                       0,         0,    None),
        ([50_000, 40_000],               0,         2,    10_000),
        ([50_000, 40_000, 30_000],       0,         3,    10_000),
        ([50_000, 40_000, 30_000],       1,         4,    20_000),  # two must leave
        ([],                             3,         3,    None),
    ],
)  # fmt: skip
async def test_a_window_tells_how_much_is_used_and_when_it_has_room(
    pond: Pond, ages_ms: list[int], flight: int, used: int, frees_in_ms: int | None
) -> None:
    await pond.open("3/60s")
    await pond.put_stamps(*ages_ms)
    await pond.put_flight(flight)

    [window] = (await pond.store.look("f")).lane.windows

    frees_at_ms = None if frees_in_ms is None else pond.now_ms + frees_in_ms
    assert window == WindowView(3, 60_000, used, frees_at_ms)


async def test_what_is_known_by_number_only_is_told_as_used(pond: Pond) -> None:
    await pond.open("10/10s")
    await pond.jump(100_000)
    await pond.beat()
    await pond.put_stamps(12_000, 11_000, 4_000)
    await pond.release()
    await pond.open("10/10s", "50/60s")

    windows = (await pond.store.look("f")).lane.windows

    assert windows == (
        WindowView(10, 10_000, 1, pond.now_ms + 6_000),
        WindowView(50, 60_000, 3, pond.now_ms + 50_000),
    )


async def test_looking_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    await pond.run("j1")
    before = await everything(redis)

    await pond.store.look("f")

    assert await everything(redis) == before


async def test_an_unknown_flow_is_refused_and_nothing_changes(pond: Pond, redis: Redis) -> None:
    await pond.open()
    before = await everything(redis)

    with pytest.raises(UnknownFlow):
        await pond.store.look("g")

    assert await everything(redis) == before


async def test_places_that_cancelled_jobs_have_left_are_no_jobs_in_line(pond: Pond) -> None:
    await pond.open("60/60s")
    await pond.accept("j1", "j2", "j3", "j4", "j5")
    await pond.store.cancel(["j1", "j2", "j4"])

    seen = await pond.store.explain(job="j5")
    assert seen.job is not None
    assert seen.job.before == 1
    assert [line.queued for line in seen.lines] == [2]
    assert (await pond.store.look("f")).flow.queued == 2

    assert [call.jobs[0].id for call in await pond.pass_through(9)] == ["j3", "j5"]
    assert await pond.number("f:f", "gaps") == 0
    await pond.accept("j6")
    assert (await pond.store.look("f")).flow.queued == 1
