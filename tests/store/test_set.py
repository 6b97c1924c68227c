"""set: an org, one of its lanes and a flow are as told."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from conftest import TestTime, lane
from millpond.domain.job import Class
from millpond.store.store import Store
from store.pond import Pond, everything

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def ready_jobs(pond: Pond, *ids: str) -> None:
    """Jobs that only limits and quota hold up."""
    await pond.accept(*ids)
    await pond.beat(free=100)


async def test_an_org_a_lane_and_a_flow_are_opened(pond: Pond) -> None:
    await pond.store.set_flow(
        "f",
        lane("60/60s", "50000/1d", quota=500_000),
        attempts=4,
        crashes=2,
        common=b"what all share",
        user="ann",
        klass=Class.INTERACTIVE,
        weight=2,
        pack=96,
    )

    assert await pond.fields("o:acme") == {
        "quota": "500000",
        "reserve": "strict",
        "version": "1",
    }
    assert await pond.fields(LANE) == {
        "org": "acme",
        "pool": "acme",
        "counted": "1",
        "limits": '[[60,60000,"calls",false],[50000,86400000,"calls",true]]',
        "credit": "0",
        "paced": "0",
        "complete": str(pond.now_ms),
        "before": "0",
        "life": str(pond.store.gateway.life),
        "tag": "0",
    }
    assert await pond.fields("f:f") == {
        "org": "acme",
        "lane": "acme.generate",
        "user": "ann",
        "class": "i",
        "weight": "2",
        "attempts": "4",
        "crashes": "2",
        "pack": "96",
        "pack_most": "96",
        "common": "what all share",
    }
    assert await pond.members("flows") == ["f"]
    assert await pond.store.orgs() == ["acme"]


async def test_setting_the_same_again_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open("60/60s", quota=1_000)
    before = await everything(redis)

    await pond.open("60/60s", quota=1_000)

    assert await everything(redis) == before


async def test_what_is_known_of_limits_and_quota_stays(pond: Pond) -> None:
    await pond.open("60/60s", quota=1_000)
    one, two, _three = await pond.run("j1", "j2", "j3")
    await pond.settle(one, used=70)
    await pond.settle(two, used=None)

    await pond.open("3/30s", quota=800)

    assert await pond.stamps() == [1, 1]
    assert await pond.flight() == 1
    assert await pond.books() == (100, 100, 70)
    assert await pond.field("o:acme", "quota") == "800"


async def test_the_next_release_uses_the_limits_that_are_set(pond: Pond) -> None:
    await pond.open("2/10s")
    await pond.put_stamps(2_000, 1_000)
    await ready_jobs(pond, "j1", "j2", "j3", "j4")
    assert await pond.release() == (0, 8_000)

    await pond.open("4/10s")
    assert await pond.release() == (2, 8_000)


async def test_lowered_limits_let_nothing_go_until_it_fits(pond: Pond) -> None:
    await pond.open("4/10s")
    await pond.put_stamps(4_000, 3_000, 2_000, 1_000)
    await ready_jobs(pond, "j1")

    await pond.open("2/10s")

    assert await pond.release() == (0, 8_000)
    await pond.jump(8_000)
    assert await pond.release() == (1, 1_000)


async def test_a_shorter_window_lets_go_at_once(pond: Pond) -> None:
    await pond.open("2/60s")
    await pond.put_stamps(20_000, 10_000)
    await ready_jobs(pond, "j1", "j2", "j3")
    assert await pond.release() == (0, 40_000)

    await pond.open("2/10s")

    assert await pond.release() == (2, None)


@pytest.mark.parametrize(
    ("ages_ms", "before", "after", "released", "wait_ms"),
    [
        # stamps, so old                   limits before  limits after            go  then wait
        # all that may have been counted in the longer window is remembered
        ([],                               ["10/10s"],    ["10/10s", "15/60s"],   10, None),
        ([9_000, 1_000],                   ["10/10s"],    ["10/10s", "15/60s"],   8,  1_000),
        ([9_000, 1_000],                   ["10/10s"],    ["15/60s"],             13, 51_000),
        # of older ones only the number is known: at worst, they were just not remembered any more
        ([12_000, 11_000, 10_000, 4_000],  ["10/10s"],    ["15/60s"],             11, 50_000),
        ([12_000, 11_000, 10_000, 4_000],  ["10/10s"],    ["4/60s"],              0,  50_000),
        ([12_000, 11_000, 10_000],         ["10/10s"],    ["3/1d"],               0,  86_390_000),
        ([12_000, 11_000, 10_000, 9_000],  ["10/10s"],    ["2/60s"],              0,  50_000),
        # it is the longest window before that is remembered
        ([50_000, 9_000],                  ["9/10s", "20/60s"], ["3/90s"],        1,  40_000),
        ([70_000, 9_000],                  ["9/10s", "20/60s"], ["3/90s"],        1,  30_000),
        # a shorter one is
        ([50_000, 9_000],                  ["20/60s"],    ["3/30s"],              2,  21_000),
    ],
)  # fmt: skip
async def test_a_longer_window_starts_as_full_as_it_may_be(
    pond: Pond,
    ages_ms: list[int],
    before: list[str],
    after: list[str],
    released: int,
    wait_ms: int | None,
) -> None:
    await pond.open(*before)
    await pond.jump(100_000)
    await pond.put_stamps(*ages_ms)
    await pond.beat(free=100)
    await pond.release()

    await pond.open(*after)

    await ready_jobs(pond, *(f"j{i}" for i in range(40)))
    assert await pond.release() == (released, wait_ms)


async def known_by_number_only(pond: Pond, calls: int) -> None:
    """So many calls were stamped ten seconds ago and more, and are not remembered."""
    await pond.open("10/10s")
    await pond.jump(100_000)
    await pond.beat(free=100)
    await pond.put_stamps(*([11_000] * calls))
    await pond.release()
    assert await pond.stamps() == []


async def test_what_is_known_by_number_only_leaves_the_window_like_stamps_of_its_time(
    pond: Pond,
) -> None:
    await known_by_number_only(pond, 3)
    await pond.open("20/10s", "3/60s")
    await ready_jobs(pond, "j1", "j2")
    assert await pond.release() == (0, 50_000)

    await pond.jump(49_999)
    assert await pond.release() == (0, 1)
    await pond.jump(1)
    assert await pond.release() == (2, None)


async def test_a_look_comes_when_it_leaves_though_stamps_stay_longer(pond: Pond) -> None:
    await known_by_number_only(pond, 3)
    await pond.open("5/60s")
    await pond.jump(40_000)
    await pond.put_stamps(1_000, 0)
    await ready_jobs(pond, "j1")

    assert await pond.release() == (0, 10_000)

    await pond.jump(10_000)
    assert await pond.release() == (1, None)


async def test_setting_again_does_not_forget_it(pond: Pond) -> None:
    await known_by_number_only(pond, 3)
    await pond.open("10/10s", "3/60s")
    await ready_jobs(pond, "j1")
    await pond.jump(20_000)

    await pond.open("10/10s", "3/60s")
    assert await pond.release() == (0, 30_000)

    await pond.open("20/10s", "3/60s")
    assert await pond.release() == (0, 30_000)


async def test_a_shorter_window_in_between_does_not_make_it_younger(pond: Pond) -> None:
    """What is known by number only is as young as when it was first not remembered."""
    await known_by_number_only(pond, 3)
    await pond.open("3/60s")
    await pond.jump(1_000)
    await pond.open("10/50s")

    await pond.open("3/60s")

    await ready_jobs(pond, "j1")
    assert await pond.release() == (0, 49_000)


async def test_limits_that_were_higher_a_while_ago_are_not_forgotten(pond: Pond) -> None:
    await pond.open("100/1s")
    await pond.beat()
    await pond.put_stamps(*range(1_000, 1_100))
    await pond.release()
    await pond.open("1/1s")
    await pond.jump(10_000)

    await pond.open("1/1s", "100/60s")

    await ready_jobs(pond, "j1")
    assert await pond.release() == (0, 59_000)


async def test_more_quota_brings_back_parked_jobs(pond: Pond) -> None:
    await pond.open(quota=50)
    await ready_jobs(pond, "j1")
    await pond.release()
    assert await pond.scores("f:f:parked") == {"j1": 100}

    await pond.open(quota=100)

    assert await pond.store.promote(200) == (1, None)
    assert await pond.release() == (1, None)


async def test_a_paused_lane_goes_on(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.settle(call, pause="key: refused")
    await pond.accept("j2")
    assert await pond.release() == (0, None)

    await pond.open()

    assert await pond.release() == (1, None)


async def test_a_lane_whose_provider_could_not_be_reached_is_tried_again(pond: Pond) -> None:
    await pond.open()
    [one] = await pond.run("j1")
    await pond.store.give_back("w", [one.id], unreachable=True)
    assert await pond.release() == (0, 500)

    await pond.open()

    assert await pond.release() == (1, None)
    assert await pond.field(LANE, "unreachable") is None


async def test_what_the_provider_said_stands(pond: Pond) -> None:
    """Whoever opens the lane next, a refusal holds until its time has passed."""
    await pond.open()
    [one] = await pond.run("j1")
    await pond.settle(one, "retry", used=0, refused=True, shut_ms=60_000)

    await pond.open(flow="g")

    assert await pond.release() == (0, 60_000)


async def test_a_paused_flow_takes_turns_again(pond: Pond) -> None:
    await pond.open()
    await ready_jobs(pond, "j1")
    await pond.store.pause("f")
    assert await pond.release() == (0, None)

    await pond.open()

    assert await pond.release() == (1, None)


async def test_a_flow_that_moves_to_another_lane_leaves_the_old_one(pond: Pond) -> None:
    await pond.open(endpoint="generate")
    await ready_jobs(pond, "j1")

    await pond.open(endpoint="embed")

    assert await pond.scores(f"{LANE}:f:b:") == {}
    assert await pond.release() == (1, None)
    assert await pond.flight("embed") == 1
    assert await pond.flight("generate") == 0


async def test_what_it_let_go_in_the_old_lane_and_nobody_claimed_is_given_back(
    pond: Pond,
) -> None:
    await pond.open(flow="f", endpoint="generate")
    await pond.open(flow="g", endpoint="generate")
    await pond.accept("j1")
    await pond.accept("g1", flow="g")
    await pond.beat()
    await pond.release()

    await pond.open(flow="f", endpoint="embed")

    assert await pond.state("j1") == "queued"
    assert await pond.state("g1") == "released"
    assert await pond.flight("generate") == 1
    assert await pond.books() == (100, 0, 0)
    await pond.release()
    assert {call.lane for call in await pond.claim()} == {"acme.generate", "acme.embed"}


async def test_after_a_restart_what_a_worker_may_be_running_is_not_given_back(pond: Pond) -> None:
    """The server has forgotten that it was claimed, and the worker has not told yet."""
    await pond.open(endpoint="generate")
    await pond.accept("j1")
    await pond.beat()
    await pond.release()
    known = await pond.snapshot()
    [call] = await pond.claim()
    await pond.forget_since(known)

    await pond.open(endpoint="embed")
    await pond.beat(seq=1, held=[call])
    await pond.release()

    assert await pond.state("j1") == "running"
    assert await pond.flight("generate") == 1
    assert await pond.flight("embed") == 0
    assert await pond.field(f"c:{call.id}", "state") == "running"


async def test_it_comes_back_in_its_order(pond: Pond) -> None:
    await pond.open(endpoint="generate")
    await ready_jobs(pond, "j1", "j2", "j3")
    await pond.release(2)

    await pond.open(endpoint="embed")

    assert await pond.line() == ["j1", "j2", "j3"]


async def test_parked_jobs_of_a_flow_that_moves_to_another_org_wait_for_its_quota(
    pond: Pond,
) -> None:
    await pond.open(org="acme", quota=0)
    await ready_jobs(pond, "j1")
    await pond.release()
    await pond.open(org="beta", quota=150)
    await pond.store.promote(200)
    await pond.beat("b", pool="beta")
    await pond.release()
    [call] = await pond.claim("b")
    await pond.open(flow="g", org="acme", quota=0)
    await pond.accept("g1", flow="g")
    await pond.release()
    assert await pond.scores("f:g:parked") == {"g1": 100}

    await pond.open(flow="g", org="beta", quota=150)

    assert await pond.store.promote(200) == (0, None)
    await pond.settle(call, used=50)
    assert await pond.store.promote(200) == (1, None)
    assert sorted(await pond.scores("o:acme:parked")) == []


async def test_who_does_not_know_the_limits_leaves_those_that_there_are(pond: Pond) -> None:
    """A second run that is to learn them would else take the window away."""
    await pond.open("3/60s")
    await ready_jobs(pond, "j1", "j2", "j3", "j4")
    assert (await pond.release())[0] == 3
    told = replace(lane("1@once"), if_new=True)

    await pond.store.set_flow("g", told, attempts=3, crashes=3)

    assert await pond.release() == (0, None)
    assert [window.amount for window in (await pond.store.look("g")).lane.windows] == [3]
