"""Who is next: classes, users and flows of a lane by weight, and lanes one after the other."""

from collections import Counter

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import Class
from millpond.store.store import Store
from store.pond import PREFIX, Pond, flows

#: Limits and quota hold up nothing.
WIDE = "10000/60s"
ALL = [1, 20]


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("at_once", ALL)
async def test_of_seventeen_calls_sixteen_are_interactive_where_both_classes_wait(
    pond: Pond, at_once: int
) -> None:
    await pond.open(WIDE, flow="chat", klass=Class.INTERACTIVE)
    await pond.open(WIDE, flow="bulk")
    await pond.add("chat", 200)
    await pond.add("bulk", 200)

    # So slowly that bulk, which goes evenly where somebody waits, is never held up by that.
    gone = Counter(flows(await pond.pass_through(170, at_once=at_once, every_ms=20)))

    assert gone in ({"chat": 160, "bulk": 10}, {"chat": 161, "bulk": 9})


async def test_bulk_has_all_turns_while_nobody_waits(pond: Pond) -> None:
    await pond.open(WIDE, flow="chat", klass=Class.INTERACTIVE)
    await pond.open(WIDE, flow="bulk")
    await pond.add("bulk", 50)

    assert len(await pond.pass_through(50, at_once=20)) == 50


async def test_a_chat_that_comes_is_next(pond: Pond) -> None:
    await pond.open(WIDE, flow="chat", klass=Class.INTERACTIVE)
    await pond.open(WIDE, flow="bulk")
    await pond.add("bulk", 100)
    await pond.pass_through(30, every_ms=20)
    await pond.add("chat", 1)

    assert flows(await pond.pass_through(2)) == ["chat", "bulk"]


async def test_a_chat_that_comes_while_bulk_waits_for_a_slot_is_next(pond: Pond) -> None:
    await pond.open(WIDE, flow="chat", klass=Class.INTERACTIVE)
    await pond.open(WIDE, flow="bulk")
    await pond.add("bulk", 5)
    await pond.beat(free=0)
    await pond.release()
    await pond.add("chat", 1)

    assert flows(await pond.pass_through(2)) == ["chat", "bulk"]


# ---------------------------------------------------------------- users and flows by weight


@pytest.mark.parametrize("at_once", ALL)
async def test_flows_of_a_user_have_shares_by_weight_exact_within_one_turn(
    pond: Pond, at_once: int
) -> None:
    for weight in range(1, 9):
        await pond.open(WIDE, flow=f"f{weight}", weight=weight)
        await pond.add(f"f{weight}", 200)

    for rounds in range(1, 6):
        gone = Counter(flows(await pond.pass_through(36, at_once=at_once)))
        for weight in range(1, 9):
            assert abs(gone[f"f{weight}"] - weight) <= 1, (rounds, gone)


@pytest.mark.parametrize("at_once", ALL)
async def test_users_have_shares_by_weight_exact_within_one_turn(pond: Pond, at_once: int) -> None:
    for weight in range(1, 9):
        await pond.open(WIDE, flow=f"f{weight}", user=f"user{weight}")
        await pond.add(f"f{weight}", 200)
    await pond.change(weights={f"user{weight}": weight for weight in range(1, 9)})

    gone: Counter[str] = Counter()
    for rounds in range(1, 6):
        gone.update(flows(await pond.pass_through(36, at_once=at_once)))
        for weight in range(1, 9):
            assert abs(gone[f"f{weight}"] - rounds * weight) <= 1, (rounds, gone)


async def test_weights_may_be_less_than_one(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", weight=0.25)
    await pond.open(WIDE, flow="g")
    await pond.add("f", 100)
    await pond.add("g", 100)

    gone = Counter(flows(await pond.pass_through(50, at_once=20)))

    assert abs(gone["f"] - 10) <= 1


async def test_a_flow_split_in_ten_has_one_users_share(pond: Pond) -> None:
    for i in range(10):
        await pond.open(WIDE, flow=f"part{i}", user="many")
        await pond.add(f"part{i}", 20)
    await pond.open(WIDE, flow="one", user="single")
    await pond.add("one", 100)

    gone = Counter(flows(await pond.pass_through(100, at_once=20)))

    assert gone["one"] == 50
    assert [gone[f"part{i}"] for i in range(10)] == [5] * 10


async def test_who_is_named_nothing_is_a_user_like_any_other(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", user="")
    await pond.open(WIDE, flow="g", user="ann")
    await pond.add("f", 200)
    await pond.add("g", 200)

    gone = Counter(flows(await pond.pass_through(100)))

    assert gone == {"f": 50, "g": 50}


async def test_after_who_is_named_nothing_has_rested_a_new_user_does_not_get_back_what_it_missed(
    pond: Pond,
) -> None:
    await pond.open(WIDE, flow="f", user="")
    await pond.open(WIDE, flow="g", user="ann")
    await pond.add("g", 200)
    for i in range(20):
        await pond.accept(f"single{i}", flow="f")
        await pond.pass_through(3)
    await pond.accept("single20", flow="f")
    await pond.open(WIDE, flow="h", user="bob")
    await pond.add("h", 100)

    gone = Counter(flows(await pond.pass_through(20)))

    assert gone["g"] >= 9


async def test_a_weight_that_is_changed_holds_from_the_next_decision_on(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", user="ann")
    await pond.open(WIDE, flow="g", user="bob")
    await pond.add("f", 200)
    await pond.add("g", 200)
    assert Counter(flows(await pond.pass_through(20))) == {"f": 10, "g": 10}

    await pond.change(weights={"ann": 4})
    gone = Counter(flows(await pond.pass_through(50)))
    assert abs(gone["f"] - 40) <= 1

    await pond.change(weights={"ann": 1})
    gone = Counter(flows(await pond.pass_through(50)))
    assert abs(gone["f"] - 25) <= 1


# ---------------------------------------------------------------- going and coming back


async def test_an_emptied_flow_that_comes_back_gains_nothing(pond: Pond) -> None:
    await pond.open(WIDE, flow="steady")
    await pond.open(WIDE, flow="drips")
    await pond.add("steady", 100)

    gone: list[str] = []
    for i in range(30):
        await pond.accept(f"drip{i}", flow="drips")
        gone += flows(await pond.pass_through(2))

    assert Counter(gone) == {"steady": 30, "drips": 30}


async def test_a_heavy_flow_that_comes_back_each_time_does_not_pay_less_than_its_turn(
    pond: Pond,
) -> None:
    """A flow of little weight owes four turns for each of its calls, however often it leaves."""
    await pond.open(WIDE, flow="steady")
    await pond.open(WIDE, flow="drips", weight=0.25)
    await pond.add("steady", 100)

    gone: list[str] = []
    for i in range(40):
        await pond.accept(f"drip{i}", flow="drips")
        gone += flows(await pond.pass_through(1))

    assert abs(Counter(gone)["drips"] - 8) <= 1


async def test_an_emptied_user_that_comes_back_gains_nothing(pond: Pond) -> None:
    await pond.open(WIDE, flow="steady", user="ann")
    for i in range(30):
        await pond.open(WIDE, flow=f"new{i}", user="bob")
    await pond.add("steady", 100)

    gone: list[str] = []
    for i in range(30):
        await pond.accept(f"drip{i}", flow=f"new{i}")
        gone += flows(await pond.pass_through(2))

    assert Counter(gone)["steady"] == 30


async def test_tags_that_virtual_time_has_passed_are_forgotten(pond: Pond) -> None:
    await pond.open(WIDE, flow="steady", user="ann")
    await pond.add("steady", 300)
    for i in range(50):
        await pond.open(WIDE, flow=f"single{i}", user=f"user{i}")
        await pond.add(f"single{i}", 1)

    await pond.pass_through(150)
    for i in range(20):
        await pond.open(WIDE, flow=f"late{i}", user=f"user{i}")
        await pond.add(f"late{i}", 1)
        await pond.pass_through(3)

    kept = [key for key in await pond.keys_of("l:acme.generate:") if "user" in key]
    assert len(kept) <= 2
    assert len(await pond.scores("l:acme.generate:u:b:idle")) <= 4


async def test_a_paused_flow_comes_back_where_it_stood(pond: Pond) -> None:
    """It gets back no turn that it missed meanwhile."""
    await pond.open(WIDE, flow="f")
    await pond.open(WIDE, flow="g")
    await pond.add("f", 50)
    await pond.add("g", 50)
    await pond.pass_through(4)
    await pond.store.pause("f")
    assert set(flows(await pond.pass_through(20))) == {"g"}

    await pond.open(WIDE, flow="f")

    assert abs(Counter(flows(await pond.pass_through(20)))["f"] - 10) <= 1


async def test_a_flow_that_is_paused_and_set_again_owes_what_it_owed(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", weight=0.1)
    await pond.open(WIDE, flow="g")
    await pond.add("f", 50)
    await pond.add("g", 50)
    await pond.pass_through(2)
    for _ in range(3):
        await pond.store.pause("f")
        await pond.open(WIDE, flow="f", weight=0.1)

    assert flows(await pond.pass_through(9)) == ["g"] * 9


async def test_a_flow_that_is_given_another_user_leaves_the_first_ones_turn(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", user="ann")
    await pond.add("f", 10)
    await pond.open(WIDE, flow="f", user="bob")

    assert len(await pond.pass_through(20)) == 10
    assert await pond.scores("l:acme.generate:u:b") == {}


# ---------------------------------------------------------------- nobody waits long


async def test_one_job_beside_ten_thousand_of_another_user_goes_after_one_call(pond: Pond) -> None:
    await pond.open(WIDE, flow="many", user="ann")
    await pond.open(WIDE, flow="one", user="bob")
    await pond.add("many", 10_000)
    await pond.pass_through(40, at_once=20)
    await pond.add("one", 1)

    assert "one" in flows(await pond.pass_through(2))


async def test_three_hundred_users_with_a_job_each_go_in_the_order_in_which_they_came(
    pond: Pond,
) -> None:
    came = [f"f{i * 7 % 300}" for i in range(300)]
    for flow in came:
        await pond.open(WIDE, flow=flow, user=f"of {flow}")
    for flow in came:
        await pond.add(flow, 1)

    assert flows(await pond.pass_through(300, at_once=20)) == came


async def test_flows_of_a_user_with_a_job_each_go_in_the_order_in_which_they_came(
    pond: Pond,
) -> None:
    came = [f"f{i * 7 % 50}" for i in range(50)]
    for flow in came:
        await pond.open(WIDE, flow=flow)
    for flow in came:
        await pond.add(flow, 1)

    assert flows(await pond.pass_through(50)) == came


async def test_who_waits_is_served_though_there_are_always_new_flows(pond: Pond) -> None:
    await pond.open(WIDE, flow="waits")
    await pond.add("waits", 10)
    await pond.pass_through(1)

    gone: list[str] = []
    for i in range(60):
        await pond.open(WIDE, flow=f"new{i}")
        await pond.add(f"new{i}", 1)
        gone += flows(await pond.pass_through(1))

    assert "waits" in gone


# ---------------------------------------------------------------- lanes


async def test_lanes_are_served_by_tag(pond: Pond) -> None:
    """A lane that let twenty calls go is behind one that let none go, until that has caught up."""
    await pond.open(WIDE, flow="e", endpoint="embed")
    await pond.open(WIDE, flow="g", endpoint="generate")
    await pond.add("e", 60)
    await pond.pass_through(20, at_once=20)
    await pond.add("g", 60)

    gone = [call.flow for _ in range(4) for call in await pond.pass_through(10, at_once=10)]

    assert Counter(gone[:10]) == {"g": 10}
    assert abs(Counter(gone)["g"] - Counter(gone)["e"]) <= 20


async def busy(pond: Pond, *, flow: str = "f") -> None:
    """The lane has work, and its workers none to spare."""
    await pond.open(WIDE, flow=flow)
    await pond.add(flow, 5)
    await pond.beat(free=1)
    assert (await pond.release())[0] == 1
    assert await pond.release() == (0, None)
    assert await pond.scores("full:acme") != {}
    assert await pond.scores("turn") == {}
    assert await pond.scores("due") == {}


async def test_a_lane_whose_workers_are_busy_comes_back_when_a_call_ends(pond: Pond) -> None:
    await busy(pond)
    [call] = await pond.claim()

    await pond.settle(call)

    assert await pond.release() == (1, None)


async def test_a_lane_whose_workers_are_busy_comes_back_when_a_call_is_given_back(
    pond: Pond,
) -> None:
    await busy(pond)
    [call] = await pond.claim()

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await pond.release() == (1, None)


async def test_a_lane_whose_workers_are_busy_comes_back_with_a_new_worker(pond: Pond) -> None:
    await busy(pond)

    await pond.beat("w2", free=3)

    assert await pond.release() == (3, None)


async def test_a_lane_whose_workers_are_busy_comes_back_when_a_ready_call_is_not_sent(
    pond: Pond,
) -> None:
    await busy(pond)
    await pond.open(WIDE, flow="g")
    await pond.add("g", 1)
    await pond.store.pause("f")
    assert await pond.claim() == []

    assert await pond.release() == (1, None)
    assert flows(await pond.claim()) == ["g"]


async def test_a_slot_that_is_free_is_used_by_a_lane_of_the_pool_that_has_work(pond: Pond) -> None:
    """The two that waited longest have nothing left to do: it is the third one's."""
    for i, name in enumerate(("embed", "generate", "classify")):
        await pond.open(WIDE, flow=f"f{i}", endpoint=name)
        await pond.add(f"f{i}", 2)
    await pond.beat(free=0)
    await pond.release()
    assert len(await pond.scores("full:acme")) == 3
    await pond.store.pause("f0")
    await pond.store.pause("f1")

    await pond.beat(free=1)

    assert (await pond.release())[0] == 1
    assert flows(await pond.claim()) == ["f2"]


async def test_many_pools_without_a_free_slot_do_not_hold_up_another(pond: Pond) -> None:
    for i in range(60):
        await pond.open(WIDE, flow=f"f{i}", org=f"org{i}")
        await pond.add(f"f{i}", 2)
        await pond.beat(f"w{i}", pool=f"org{i}", free=0)
    for _ in range(2):
        await pond.release()
    await pond.open(WIDE, flow="g", org="acme")
    await pond.add("g", 1)
    await pond.beat(free=1)

    assert (await pond.release())[0] == 1
    assert flows(await pond.claim()) == ["g"]
    assert await pond.scores("turn") == {}


async def test_a_lane_whose_record_is_lost_while_it_waits_for_a_slot_is_not_made_up(
    pond: Pond,
) -> None:
    for i, name in enumerate(("a", "b", "lost", "other")):
        await pond.open(WIDE, flow=f"f{i}", endpoint=name)
        await pond.add(f"f{i}", 1)
    await pond.beat(free=0)
    await pond.release()
    assert len(await pond.scores("full:acme")) == 4
    await pond.command("DEL", f"{PREFIX}l:acme.lost")

    await pond.beat(free=9)

    assert (await pond.release())[0] == 3
    assert await pond.fields("l:acme.lost") == {}
