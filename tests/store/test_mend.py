"""mend: what fell out of its place comes back to it, and what has not is left alone."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import Class
from millpond.domain.limit import parse_limit
from millpond.errors import UnknownPart
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything, names

LANE = "acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def mend(pond: Pond) -> int:
    n, cursor = await pond.store.mend("0", 1_000)
    assert cursor == "0"
    return n


async def lose(pond: Pond, start: str) -> None:
    for _ in range(10):  # flows that were opened are looked at, some at once
        await pond.store.promote(200)
    for key in await pond.keys_of(start):
        await pond.command("DEL", PREFIX + key)


async def test_nothing_is_mended_where_nothing_is_amiss(pond: Pond) -> None:
    """In line, later, parked, paused, sitting out, blocked by a window, in flight: all in place."""
    await pond.open("5/60s", flow="f", quota=2_000)
    await pond.open("5/60s", flow="late", quota=2_000)
    await pond.open("5/60s", flow="still", quota=2_000)
    await pond.open("5/60s", flow="capped", user="ann", klass=Class.INTERACTIVE, quota=2_000)
    await pond.change(lane=LANE, caps=[parse_limit("1/60s")])
    await pond.change(flow="still", flow_paused=True)
    for flow in ("f", "late", "still", "capped"):
        await pond.add(flow, 4)
    await pond.accept("large", flow="late", need=9_000)
    await pond.pass_through(2)
    await pond.beat()
    await pond.release()
    for call in await pond.claim():
        await pond.settle(call, "retry", delay_ms=5_000)
    await pond.release()
    before = await everything(pond.redis)

    assert await mend(pond) == 0

    assert await everything(pond.redis) == before
    assert await pond.number("m", "repairs") == 0


async def test_a_lane_that_was_lost_is_as_it_was_set_and_its_jobs_go(pond: Pond) -> None:
    await pond.open("3/60s", "100/1d", flow="f", user="ann", quota=100_000)
    await pond.change(lane=LANE, caps=[parse_limit("2/60s")], paced=True)
    await pond.add("f", 9)
    before = await pond.fields(f"l:{LANE}")
    await lose(pond, "l:")

    assert await pond.release() == (0, None)
    assert await mend(pond) > 0

    after = await pond.fields(f"l:{LANE}")
    same = ("org", "pool", "counted", "limits", "caps", "paced", "credit")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    # Nobody knows what was made in it, so its short windows count as full.
    assert await pond.pass_through(9) == []
    await pond.jump(60_001)
    assert len(await pond.pass_through(9)) == 2
    assert await mend(pond) == 0
    assert await pond.number("m", "repairs") > 0


async def test_a_lane_without_a_flow_is_there_again_as_soon_as_one_is_opened(pond: Pond) -> None:
    await pond.open("3/60s")
    await lose(pond, "l:")
    with pytest.raises(UnknownPart):
        await pond.store.explain(lane=LANE)

    await pond.change(lane=LANE, paused="paused: night")

    assert (await pond.store.explain(lane=LANE)).lane.windows[0].amount == 3
    await lose(pond, "l:")
    await pond.change(flow="f", flow_weight=2.0)
    assert await mend(pond) == 1
    seen = (await pond.store.explain(lane=LANE)).lane
    assert seen.paused == "paused: night"  # somebody's word


@pytest.mark.parametrize("what", ["turn", "due", f"l:{LANE}:c", f"l:{LANE}:u", f"l:{LANE}:f"])
async def test_who_fell_out_of_the_turns_takes_them_again(pond: Pond, what: str) -> None:
    await pond.open("60/60s")
    await pond.add("f", 3)
    if what == "turn":
        await pond.beat(free=1)
        await pond.release(1)
        await pond.settle((await pond.claim())[0])
    await lose(pond, what)

    assert await mend(pond) > 0

    assert len(await pond.pass_through(9)) == 3 - (what == "turn")


async def test_later_and_parked_jobs_are_looked_at_again(pond: Pond) -> None:
    await pond.open("60/60s", quota=150)
    [call] = await pond.run("j1")
    await pond.accept("j2", need=120)
    await pond.release()
    await lose(pond, "o:acme:parked")
    assert await mend(pond) == 1
    assert await pond.scores("o:acme:parked") == {"f": 120}

    await pond.settle(call, "retry", delay_ms=5_000)
    await lose(pond, "soon")
    assert await mend(pond) == 1
    assert list(await pond.scores("soon")) == ["f"]
    assert await mend(pond) == 0


async def test_a_few_flows_are_looked_at_with_each_call(pond: Pond) -> None:
    for number in range(300):
        await pond.open("10000/60s", flow=f"f{number}")
        await pond.accept(f"j{number}", flow=f"f{number}")
    await lose(pond, f"l:{LANE}:f")
    total, cursor, calls = 0, "0", 0
    while calls == 0 or cursor != "0":
        n, cursor = await pond.store.mend(cursor, 20)
        total, calls = total + n, calls + 1
        assert n < 100
    assert total >= 300
    assert len(names(await pond.pass_through(300, at_once=20))) == 300
