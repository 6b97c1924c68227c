"""Caps: what one user may have of a lane, however much is free in it."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.domain.job import Class
from millpond.domain.limit import parse_limit
from millpond.standing.explain import Reason, Why, why_flow, why_job
from millpond.standing.standing import standing
from millpond.store.store import Store
from store.pond import PREFIX, Pond, flows

LANE = "acme.generate"
WIDE = "10000/60s"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def cap(pond: Pond, *caps: str) -> None:
    await pond.change(lane=LANE, caps=[parse_limit(one) for one in caps])


async def two_users(pond: Pond, jobs: int = 20) -> None:
    """Flows `ann` and `bob` of users of the same names, each with so many jobs."""
    for user in ("ann", "bob"):
        await pond.open(WIDE, flow=user, user=user)
        await pond.add(user, jobs)


def led(calls: list[Claimed]) -> Counter[str]:
    return Counter(flows(calls))


async def test_a_user_goes_no_further_than_the_cap_and_others_go_on(pond: Pond) -> None:
    await two_users(pond)
    await cap(pond, "3/60s")
    await pond.open(WIDE, flow="eve", user="eve")
    await pond.add("eve", 2)

    assert led(await pond.pass_through(50)) == {"ann": 3, "bob": 3, "eve": 2}

    gone, wait_ms = await pond.release()
    assert gone == 0
    assert wait_ms is not None
    await pond.jump(wait_ms)
    assert led(await pond.pass_through(50)) == {"ann": 3, "bob": 3}


async def test_without_caps_nobody_sits_out(pond: Pond) -> None:
    await two_users(pond)
    assert led(await pond.pass_through(50)) == {"ann": 20, "bob": 20}
    assert await pond.keys_of("capped") == await pond.keys_of(f"l:{LANE}:by") == []


@pytest.mark.parametrize("caps", [("5/2s",), ("5/2s", "12/10s"), ("1500/10s", "1/0.5s")])
@pytest.mark.parametrize("seed", range(3))
async def test_in_no_window_a_user_has_more_than_the_cap(
    pond: Pond, caps: tuple[str, ...], seed: int
) -> None:
    dice = random.Random(seed)
    await two_users(pond, jobs=60)
    await pond.open(WIDE, flow="chat", user="ann", klass=Class.INTERACTIVE)
    await pond.add("chat", 20)
    await cap(pond, *caps)
    gone: dict[str, list[int]] = {"ann": [], "bob": []}

    while sum(map(len, gone.values())) < 140:
        for call in await pond.pass_through(20, at_once=dice.choice([1, 3, 20])):
            gone["ann" if call.flow == "chat" else call.flow].append(pond.now_ms)
        _, wait_ms = await pond.release()
        # Somebody always comes back by itself.
        assert wait_ms is not None
        await pond.jump(min(wait_ms, dice.choice([50, 700, 5_000])) or 1)

    for limit in map(parse_limit, caps):
        for moments in gone.values():
            after = moments[limit.amount :]
            for first, later in zip(moments, after, strict=False):
                assert later - first >= limit.window_ms


async def test_a_ring_of_a_user_counts_like_a_zset(pond: Pond) -> None:
    """A cap of more than 1,000 calls is counted in counters of a 478th of its window."""
    await two_users(pond, jobs=1_300)
    await cap(pond, "1200/60s")

    assert led(await pond.pass_through(3_000, at_once=20)) == {"ann": 1_200, "bob": 1_200}
    assert await pond.keys_of(f"l:{LANE}:by:3:ann:s") == []

    await pond.jump(60_000 + 2 * 60_000 // 478 + 500)
    assert led(await pond.pass_through(3_000, at_once=20)) == {"ann": 100, "bob": 100}


async def test_other_caps_hold_from_the_next_decision_on(pond: Pond) -> None:
    await two_users(pond)
    await cap(pond, "3/60s")
    assert led(await pond.pass_through(50)) == {"ann": 3, "bob": 3}

    await cap(pond, "5/60s")
    assert led(await pond.pass_through(50)) == {"ann": 2, "bob": 2}
    await cap(pond, "1/60s")
    assert led(await pond.pass_through(50)) == {}
    await cap(pond)
    assert led(await pond.pass_through(50)) == {"ann": 15, "bob": 15}


@pytest.mark.parametrize(("first", "then", "more"), [(50, 1_001, 951), (1_200, 1_100, 0)])
async def test_what_a_user_has_had_is_known_whatever_the_size_of_the_cap(
    pond: Pond, first: int, then: int, more: int
) -> None:
    """Above a thousand calls are counted by number, and such a window stays so."""
    await two_users(pond, jobs=2_500)
    await cap(pond, f"{first}/60s")
    assert led(await pond.pass_through(6_000, at_once=20)) == {"ann": first, "bob": first}

    await cap(pond, f"{then}/60s")
    assert led(await pond.pass_through(6_000, at_once=20)) == (
        {"ann": more, "bob": more} if more else {}
    )
    await cap(pond, "20/60s")
    assert led(await pond.pass_through(100)) == {}
    await pond.jump(61_000)
    assert led(await pond.pass_through(100)) == {"ann": 20, "bob": 20}


async def test_a_user_of_both_classes_has_one_cap(pond: Pond) -> None:
    """Also one who was looked at as a rider of somebody's pack, where nothing else holds back."""
    for user in ("ann", "bob"):
        await pond.open("100@once", flow=user, user=user, pack=3)
        await pond.add(user, 7, pack="same")
    await pond.open("100@once", flow="chat", user="bob", klass=Class.INTERACTIVE, pack=3)
    await pond.add("chat", 2)
    await cap(pond, "1/60s")
    await pond.beat(free=50)
    await pond.release()
    await pond.jump(300)  # nobody lingers for more of a pack
    await pond.release()

    of = {"chat": "bob"}
    gone = Counter(of.get(call.flow, call.flow) for call in await pond.claim(most=50))
    assert gone == {"ann": 1, "bob": 1}


async def test_whatever_is_in_a_name_windows_are_its_owners(pond: Pond) -> None:
    for number, user in enumerate(("ann", "ann:s", "ann:d:calls:86400000", "", "a|b")):
        await pond.open(WIDE, flow=f"f{number}", user=user)
        await pond.add(f"f{number}", 3)
    await cap(pond, "2/60s", "2000/1d")
    assert set(led(await pond.pass_through(50)).values()) == {2}


async def test_caps_are_versioned_and_audited(pond: Pond) -> None:
    await pond.open(WIDE)
    await cap(pond, "3/60s", "2000/1d")
    [row, *_] = await pond.store.records("acme", "audit", most=1)
    assert '"caps","","[[3,60000,\\"calls\\",false],[2000,86400000,\\"calls\\",true]]"' in (
        row.fields["changes"].replace(" ", "")
    )


async def test_one_who_leads_a_pack_pays_for_it_and_who_rides_along_does_not(pond: Pond) -> None:
    for user in ("ann", "bob"):
        await pond.open(WIDE, flow=user, user=user, pack=4)
        await pond.add(user, 2, pack="same")
    await cap(pond, "1/60s")
    await pond.release()
    await pond.jump(300)  # nobody lingers for more of a pack

    [call] = await pond.pass_through(9)
    assert len(call.jobs) == 4
    [leader] = led([call])
    for user in ("ann", "bob"):
        await pond.accept(f"{user}.later", flow=user)
    assert led(await pond.pass_through(9)) == {"bob" if leader == "ann" else "ann": 1}


async def test_jobs_that_come_while_their_user_sits_out_wait_too(pond: Pond) -> None:
    await two_users(pond, jobs=3)
    await cap(pond, "2/60s")
    await pond.pass_through(9)
    await pond.open(WIDE, flow="ann-2", user="ann")
    await pond.add("ann-2", 1)

    assert led(await pond.pass_through(9)) == {}
    await pond.jump(60_001)
    assert led(await pond.pass_through(9)) == {"ann": 1, "ann-2": 1, "bob": 1}


async def test_a_user_whose_last_waiting_job_is_cancelled_leaves_nothing_behind(
    pond: Pond,
) -> None:
    await pond.open(WIDE, flow="ann", user="ann")
    await pond.add("ann", 2)
    await cap(pond, "1/60s")
    await pond.pass_through(9)
    assert await pond.store.cancel(["ann.1"]) == ["cancelled"]

    await pond.jump(60_001)
    assert (await pond.release())[0] == 0
    assert await pond.keys_of("capped") == []
    await pond.accept("again", flow="ann")
    assert led(await pond.pass_through(9)) == {"ann": 1}


async def test_turns_go_on_where_they_stood(pond: Pond) -> None:
    """Who sat out comes back a little behind the others, and does not make up for it."""
    await two_users(pond, jobs=40)
    await cap(pond, "4/10s")
    await pond.open(WIDE, flow="eve", user="eve")
    await pond.add("eve", 4)
    await pond.pass_through(50)
    await pond.jump(10_001)
    order = flows(await pond.pass_through(8))
    assert all(a != b for a, b in pairwise(order))


# ---------------------------------------------------------------- told


async def test_who_waits_for_its_cap_is_told_so_and_when(pond: Pond) -> None:
    await two_users(pond)
    await cap(pond, "3/60s")
    await pond.pass_through(50)
    await pond.jump(20_000)

    seen = await pond.store.explain(job="ann.3")
    waits = Reason(Why.LIMIT, "3/60s per user", "calls", 3, 3, next_release_s=1_040.0)
    assert why_job(seen, wall_s=1_000) == waits
    assert why_flow(await pond.store.explain(flow="ann"), wall_s=1_000) == waits
    view = await pond.store.look("ann")
    assert [(one.used, one.amount, one.window_ms) for one in view.caps] == [(3, 3, 60_000)]

    fresh = await pond.store.explain(lane=LANE, user="eve")
    assert [(one.used, one.amount) for one in fresh.caps] == [(0, 3)]


async def test_a_user_who_is_back_in_line_is_counted_once(pond: Pond) -> None:
    await two_users(pond)
    await cap(pond, "3/60s")
    await pond.pass_through(50)
    await pond.open(WIDE, flow="ann-2", user="ann")
    await pond.add("ann-2", 1)
    seen = await pond.store.explain(job="ann.3")
    assert Counter(line.flow for line in seen.lines) == {"ann": 1, "ann-2": 1}


@pytest.mark.parametrize(("job", "in_s"), [("ann.3", 40), ("ann.6", 100), ("ann.19", 340)])
async def test_when_a_job_goes_is_estimated_by_the_cap(pond: Pond, job: str, in_s: int) -> None:
    await two_users(pond)
    await cap(pond, "3/60s")
    await pond.pass_through(50)
    await pond.jump(20_000)

    seen = await pond.store.explain(job=job)
    told = standing(seen, await pond.store.holds(LANE), wall_s=0)
    assert told["goes"]["in_s"] == pytest.approx(in_s, abs=1)


async def test_to_look_leaves_nothing_behind(pond: Pond) -> None:
    await pond.open(WIDE, flow="ann", user="ann")
    await cap(pond, "2000/60s", "5/1s")
    await pond.store.explain(lane=LANE, user="ann")
    await pond.store.look("ann")
    assert await pond.keys_of(f"l:{LANE}:by") == []


async def test_what_users_have_taken_forgets_itself(pond: Pond) -> None:
    await two_users(pond)
    await cap(pond, "2000/60s", "5/1s")
    await pond.pass_through(4)
    kept = await pond.keys_of(f"l:{LANE}:by")
    own = [
        f"l:{LANE}:by:3:{user}{of}"
        for user in ("ann", "bob")
        for of in ("", ":d:calls:60000", ":s")
    ]
    assert kept == [f"l:{LANE}:by", *own]
    for key in kept:
        assert 60_000 < await pond.command("PTTL", PREFIX + key) <= 86_460_000
