"""release: calls go while every window, the quota and the workers have room."""

from collections import Counter

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import State
from millpond.domain.limit import Unit, parse_limit
from millpond.domain.window import ONE_CALL, Windows
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything, names

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def test_a_released_job_is_a_ready_call_that_holds_its_place(pond: Pond) -> None:
    await pond.open(quota=1_000)
    await pond.accept("j1")
    await pond.beat()

    assert await pond.release() == (1, None)

    [call] = await pond.list_of("ready:acme")
    assert await pond.fields(f"c:{call}") == {
        "lane": "acme.generate",
        "org": "acme",
        "flow": "f",
        "jobs": "j1|f|100",
        "need": "100",
        "tokens": "0",
        "inputs": "1",
        "bulk": "1",
        "state": "ready",
        "pool": "acme",
        "counted": "1",
    }
    assert await pond.state("j1") == "released"
    assert await pond.field("j:j1", "call") == call
    assert await pond.scores(f"{LANE}:flight") == {call: pond.now_ms}
    assert await pond.books() == (100, 0, 0)
    assert await pond.flow_books() == (100, 0, 0)
    assert await pond.list_of("bell:w:acme") == ["1"]


async def test_of_a_lane_that_does_not_count_the_org_reserves_nothing(pond: Pond) -> None:
    await pond.open(endpoint="embed", quota=0)
    await pond.accept("j1")
    await pond.beat()

    assert await pond.release() == (1, None)

    assert await pond.books() == (0, 0, 0)
    assert await pond.flow_books() == (100, 0, 0)


@pytest.mark.parametrize("state", sorted(set(State) - {State.QUEUED}))
async def test_a_job_in_any_other_state_is_not_released_and_nothing_changes(
    pond: Pond, redis: Redis, state: State
) -> None:
    await pond.bring(state)
    await pond.release()
    before = await everything(redis)

    assert (await pond.release())[0] == 0

    assert await everything(redis) == before


async def test_an_entry_in_line_whose_job_is_not_queued_is_dropped(pond: Pond) -> None:
    await pond.bring(State.RELEASED)
    await pond.command("LPUSH", f"{PREFIX}f:f:q", "100|j1|0|0|", "100|nobody|0|0|")
    await pond.accept("j2")

    assert await pond.release() == (1, None)

    assert await pond.line() == []
    assert await pond.state("j2") == "released"


@pytest.mark.parametrize(
    ("limits", "ages_ms", "flight", "released", "wait_ms"),
    [
        # limits            stamps, so old                            in flight  go  then wait
        (["3/60s"],         [],                                       0,         3,  None),
        (["3/60s"],         [60_000],                                 0,         3,  None),
        (["3/60s"],         [59_999],                                 0,         2,  1),
        (["3/60s"],         [60_000, 59_999, 30_000],                 0,         1,  1),
        (["3/60s"],         [30_000, 20_000, 10_000],                 0,         0,  30_000),
        (["3/60s"],         [30_000, 20_000],                         1,         0,  30_000),
        (["3/60s"],         [30_000],                                 2,         0,  30_000),
        (["3/60s"],         [],                                       3,         0,  None),
        (["3/60s"],         [],                                       2,         1,  None),
        # more than the amount, since it was lowered: enough must leave for one to go
        (["3/60s"],         [30_000, 20_000, 10_000, 5_000],          0,         0,  40_000),
        (["3/60s"],         [30_000, 20_000],                         2,         0,  40_000),
        (["3/60s"],         [30_000],                                 3,         0,  None),
        # a stamp that lies ahead: the provider may count that call until then
        (["1/60s"],         [-1_000],                                 0,         0,  61_000),
        # several windows: all must have room, and the last to have it is waited for
        (["3/10s", "5/60s"], [50_000, 40_000, 30_000, 20_000],        0,         1,  10_000),
        (["3/10s", "5/60s"], [50_000, 40_000, 30_000, 20_000, 9_000], 0,         0,  10_000),
        (["3/10s", "6/60s"], [50_000, 9_000, 8_000, 7_000],           0,         0,  1_000),
        (["3/10s", "5/60s"], [50_000, 40_000, 9_000, 8_000, 7_000],   0,         0,  10_000),
        (["3/10s", "5/60s"], [59_900, 40_000, 9_000, 8_000, 7_000],   0,         0,  1_000),
        (["1/10s", "2/60s"], [30_000],                                1,         0,  None),
        (["5/1d"],          [86_400_000, 86_399_999, 5, 4, 3],        0,         1,  1),
    ],
)  # fmt: skip
async def test_calls_go_while_stamps_and_flight_leave_room_and_the_wait_is_told(
    pond: Pond,
    limits: list[str],
    ages_ms: list[int],
    flight: int,
    released: int,
    wait_ms: int | None,
) -> None:
    await pond.open(*limits)
    await pond.accept("j1", "j2", "j3", "j4")
    await pond.beat()
    await pond.put_stamps(*ages_ms)
    await pond.put_flight(flight)
    windows = Windows(
        [parse_limit(one) for one in limits],
        Counter({Unit.CALLS: flight}),
        sorted((pond.now_ms - age, ONE_CALL) for age in ages_ms),
    )
    assert (windows.wait_ms(pond.now_ms) == 0) == (released > 0)

    assert await pond.release() == (released, wait_ms)

    for _ in range(released):
        windows.release()
    assert windows.wait_ms(pond.now_ms) == wait_ms


async def test_at_the_moment_that_was_told_a_call_goes_and_not_a_millisecond_earlier(
    pond: Pond,
) -> None:
    await pond.open("1/10s")
    await pond.accept("j1", "j2")
    await pond.beat()
    await pond.put_stamps(4_000)
    assert await pond.release() == (0, 6_000)

    await pond.jump(5_999)
    assert await pond.release() == (0, 1)
    await pond.jump(1)
    assert await pond.release() == (1, None)


async def test_a_lane_full_of_calls_in_flight_is_looked_at_when_one_ends(pond: Pond) -> None:
    await pond.open("1/10s")
    [call] = await pond.run("j1")
    await pond.accept("j2")
    assert await pond.release() == (0, None)
    assert await pond.scores("due") == {}
    assert await pond.scores("turn") == {}

    await pond.settle(call)

    assert await pond.release() == (0, 10_001)
    await pond.jump(10_001)
    assert await pond.release() == (1, None)


async def test_stamps_that_are_older_than_every_window_leave(pond: Pond) -> None:
    await pond.open("3/10s", "5/60s")
    await pond.put_stamps(*(60_000 + i for i in range(200)), 59_999)
    await pond.beat()

    await pond.release()
    await pond.accept("j1")
    await pond.release()

    assert await pond.stamps() == [-59_999]


async def test_no_more_calls_go_than_free_slots_that_no_ready_call_will_fill(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2", "j3", "j4", "j5")
    await pond.beat("w1", free=1)
    await pond.beat("w2", free=2)

    assert await pond.release() == (3, None)
    assert await pond.release() == (0, None)

    await pond.beat("w2", free=3)
    assert await pond.release() == (1, None)
    assert await pond.line() == ["j5"]


async def test_slots_of_another_pool_do_not_count(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1")
    await pond.beat(pool="other")

    assert await pond.release() == (0, None)


async def test_no_more_calls_go_than_were_asked_for(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2", "j3")
    await pond.beat()

    assert await pond.release(2) == (2, 0)
    assert await pond.release(2) == (1, None)


async def test_a_job_that_the_quota_cannot_hold_is_parked_and_smaller_ones_go_on(
    pond: Pond,
) -> None:
    await pond.open(quota=250)
    await pond.accept("j1", need=100)
    await pond.accept("big", need=151)
    await pond.accept("j2", need=150)
    await pond.accept("j3", need=1)
    await pond.beat()

    assert await pond.release() == (2, None)

    assert await pond.scores("f:f:parked") == {"big": 151, "j3": 1}
    assert sorted(await pond.scores("o:acme:parked")) == ["f"]
    assert await pond.state("big") == "queued"
    assert await pond.books() == (250, 0, 0)


async def test_used_reserved_and_estimated_all_count_against_the_quota(pond: Pond) -> None:
    await pond.open(quota=400)
    one, two, _three = await pond.run("j1", "j2", "j3")
    await pond.settle(one, used=70)
    await pond.settle(two, used=None)
    assert await pond.books() == (100, 100, 70)
    await pond.accept("j4", need=131)
    await pond.accept("j5", need=130)

    assert await pond.release() == (1, None)

    assert await pond.scores("f:f:parked") == {"j4": 131}


async def test_one_release_looks_at_no_more_than_200_jobs(pond: Pond) -> None:
    await pond.open(quota=50)
    await pond.accept(*(f"j{i}" for i in range(200)))
    await pond.accept(*(f"k{i}" for i in range(50)))
    await pond.beat()

    assert await pond.release() == (0, 0)
    assert len(await pond.scores("f:f:parked")) == 200

    assert await pond.release() == (0, None)
    assert len(await pond.scores("f:f:parked")) == 250


async def test_a_paused_lane_lets_nothing_go(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, pause="key: refused")
    await pond.accept("j2")

    assert await pond.release() == (0, None)

    assert await pond.scores("turn") == {}
    assert await pond.line() == ["j2"]


async def test_a_shut_lane_lets_nothing_go_until_its_time(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, used=0, refused=True, shut_ms=3_000)
    await pond.accept("j2")

    assert await pond.release() == (0, 3_000)
    await pond.jump(2_999)
    assert await pond.release() == (0, 1)
    await pond.jump(1)
    assert (await pond.release())[0] == 1


async def test_flows_of_a_lane_take_turns(pond: Pond) -> None:
    await pond.open(flow="f")
    await pond.open(flow="g")
    await pond.accept("f1", "f2", "f3", "f4", flow="f")
    await pond.accept("g1", "g2", flow="g")
    await pond.beat()

    await pond.release()

    assert names(await pond.claim()) == ["f1", "g1", "f2", "g2", "f3", "f4"]


async def test_a_flow_that_comes_late_goes_after_one_call_and_does_not_get_back_what_it_missed(
    pond: Pond,
) -> None:
    await pond.open(flow="f")
    await pond.open(flow="g")
    await pond.accept("f1", "f2", "f3", "f4", "f5", "f6", flow="f")
    await pond.beat(free=3)
    await pond.release()
    assert names(await pond.claim()) == ["f1", "f2", "f3"]

    await pond.accept("g1", "g2", "g3", flow="g")
    await pond.beat("w2", free=6)
    await pond.release()

    assert names(await pond.claim("w2") + await pond.claim("w2") + await pond.claim("w2")) == [
        "f4", "g1", "f5", "g2", "f6", "g3",
    ]  # fmt: skip


async def test_lanes_take_turns(pond: Pond) -> None:
    await pond.open(flow="e", endpoint="embed")
    await pond.open(flow="g", endpoint="generate")
    await pond.accept("e1", "e2", "e3", flow="e")
    await pond.accept("g1", "g2", "g3", flow="g")

    gone: list[str] = []
    for i in range(6):
        await pond.beat(f"w{i}", free=1)
        await pond.release()
        gone += names(await pond.claim(f"w{i}"))

    assert gone == ["e1", "g1", "e2", "g2", "e3", "g3"]


async def test_a_lane_lets_twenty_calls_go_at_a_turn(pond: Pond) -> None:
    await pond.open(flow="e", endpoint="embed")
    await pond.open(flow="g", endpoint="generate")
    await pond.accept(*(f"e{i}" for i in range(50)), flow="e")
    await pond.accept(*(f"g{i}" for i in range(50)), flow="g")
    await pond.beat(free=50)

    assert await pond.release() == (50, None)

    assert await pond.flight("embed") == 30
    assert await pond.flight("generate") == 20


async def test_a_blocked_lane_does_not_hold_up_another(pond: Pond) -> None:
    await pond.open("1/10s", flow="e", endpoint="embed")
    await pond.open(flow="g", endpoint="generate")
    await pond.put_stamps(4_000, endpoint="embed")
    await pond.accept("e1", flow="e")
    await pond.accept("g1", flow="g")
    await pond.beat()

    assert await pond.release() == (1, 6_000)

    assert await pond.state("g1") == "released"


async def test_a_lane_whose_workers_are_busy_does_not_hold_up_one_of_another_pool(
    pond: Pond,
) -> None:
    await pond.open(flow="f", org="acme")
    await pond.open(flow="g", org="beta")
    await pond.accept("f1", flow="f")
    await pond.accept("g1", flow="g")
    await pond.beat("wa", pool="acme", free=0)
    await pond.beat("wb", pool="beta", free=1)

    assert await pond.release() == (1, None)

    assert await pond.state("g1") == "released"


async def test_a_flow_that_has_run_dry_leaves_the_turn_and_its_lane_costs_nothing(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    await pond.beat()
    assert await pond.release() == (0, None)
    before = await everything(redis)

    assert await pond.release() == (0, None)

    assert await everything(redis) == before
    assert "turn" not in before
    assert "due" not in before
    assert "l:acme.generate:c" not in before
    assert "l:acme.generate:u:b" not in before
    assert "l:acme.generate:f:b:" not in before
