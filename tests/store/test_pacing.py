"""Bulk goes evenly while somebody waits for answers, and leaves what is kept for them."""

from collections import Counter

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.domain.job import Class
from millpond.store.store import Store
from store.pond import PREFIX, Pond, flows, names

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def open_both(pond: Pond, *limits: str, chats: int = 0, bulk: int = 100) -> None:
    """An interactive flow and a bulk one, with so many jobs."""
    await pond.open(*limits, flow="chat", klass=Class.INTERACTIVE)
    await pond.open(*limits, flow="bulk")
    await pond.add("chat", chats)
    await pond.add("bulk", bulk)
    await pond.beat(free=1_000)


async def went(pond: Pond) -> int:
    return (await pond.release())[0]


async def chat(pond: Pond) -> None:
    """A chat comes and goes at once."""
    await pond.accept(f"chat.at.{pond.now_ms}", flow="chat")
    assert await pond.field(f"j:chat.at.{pond.now_ms}", "state") == "queued"
    await pond.release()
    assert await pond.field(f"j:chat.at.{pond.now_ms}", "state") == "released"


async def test_without_chats_bulk_goes_as_fast_as_the_limit_allows(pond: Pond) -> None:
    await open_both(pond, "60/60s")

    assert await went(pond) == 60


async def test_while_somebody_waits_two_calls_go_at_once_and_then_one_each_second(
    pond: Pond,
) -> None:
    await open_both(pond, "60/60s", chats=1)
    assert await went(pond) == 2
    assert Counter(await kinds(pond)) == {"chat": 1, "bulk": 1}

    assert await pond.release() == (0, 1_000)
    for _ in range(20):
        await pond.jump(999)
        assert await went(pond) == 0
        await pond.jump(1)
        assert await went(pond) == 1


async def kinds(pond: Pond) -> list[str]:
    """The flows of all ready calls."""
    calls = await pond.list_of("ready:acme")
    return [await pond.field(f"c:{call}", "flow") or "" for call in calls]


async def test_a_provider_that_takes_long_is_given_less_often(pond: Pond) -> None:
    """A call holds its place for the window and for as long as it takes."""
    await open_both(pond, "60/60s", chats=1)
    await pond.command("HSET", PREFIX + LANE, "latency", 30_000)
    await went(pond)

    assert await pond.release() == (0, 1_500)


async def test_what_bulk_did_not_use_is_saved_up_for_two_calls_at_most(pond: Pond) -> None:
    await open_both(pond, "60/60s", chats=1, bulk=1)
    assert await went(pond) == 2
    await pond.jump(30_000)
    await pond.add("bulk", 10)

    assert await went(pond) == 2


async def test_chats_go_as_long_as_the_windows_have_room(pond: Pond) -> None:
    await open_both(pond, "60/60s", chats=40)

    assert await went(pond) == 41

    assert Counter(await kinds(pond)) == {"chat": 40, "bulk": 1}


async def test_bulk_waits_until_what_chats_took_has_come_back(pond: Pond) -> None:
    """Eleven calls of a bucket of two: nine are owed, and one more must be there."""
    await open_both(pond, "60/60s", chats=10)
    assert await went(pond) == 11

    assert await pond.release() == (0, 10_000)
    await pond.jump(9_999)
    assert await went(pond) == 0
    await pond.jump(1)
    assert await went(pond) == 1


async def test_bulk_bursts_again_when_no_chat_was_seen_for_a_window(pond: Pond) -> None:
    await open_both(pond, "60/60s", chats=1)
    await went(pond)
    for call in await pond.claim(most=200):
        await pond.settle(call)
    await pond.jump(59_000)
    assert await went(pond) <= 2
    await pond.jump(2_000)

    assert await went(pond) > 50


async def test_a_chat_that_comes_goes_while_bulk_has_to_wait(pond: Pond) -> None:
    await open_both(pond, "60/60s", chats=1)
    await went(pond)
    assert await went(pond) == 0

    await pond.jump(10)
    await chat(pond)


async def test_after_chats_bulk_that_waits_is_looked_at_in_time(pond: Pond) -> None:
    """A chat takes the lane out of its wait; it must come back to it."""
    await open_both(pond, "60/60s", chats=1)
    await went(pond)
    await pond.jump(500)
    await chat(pond)

    released, wait_ms = await pond.release()

    assert released == 0
    assert wait_ms == 1_500


async def test_a_full_window_holds_up_chats_too(pond: Pond) -> None:
    await open_both(pond, "10/60s", bulk=20)
    assert await went(pond) == 10
    await pond.accept("late", flow="chat")

    assert await went(pond) == 0


async def test_six_chats_a_minute_never_wait_beside_a_full_backlog_from_the_second_minute_on(
    pond: Pond,
) -> None:
    """Sixty calls a minute; each takes two seconds."""
    await open_both(pond, "60/60s", bulk=400)
    running: dict[int, list[Claimed]] = {}
    waited: list[int] = []
    bulk = came = 0
    for second in range(300):
        if second % 10 == 3:
            await pond.accept(f"chat.{second}", flow="chat")
            came = second
        while await went(pond):
            pass
        claimed = await pond.claim(most=200)
        for call in claimed:
            if call.flow == "chat":
                waited.append(second - came)
            else:
                bulk += second >= 120
        running[second + 2] = claimed
        await pond.jump(1_000)
        for call in running.pop(second + 1, []):
            await pond.settle(call)

    assert len(waited) == 30
    assert max(waited[12:]) <= 2
    assert bulk >= 0.95 * (58 - 6) * 3


async def test_bulk_goes_on_though_there_are_always_chats(pond: Pond) -> None:
    await open_both(pond, "60/60s", chats=500, bulk=100)
    running: dict[int, list[Claimed]] = {}
    bulk = Counter[int]()
    for second in range(420):
        while await went(pond):
            pass
        running[second + 2] = await pond.claim(most=200)
        bulk[second // 60] += flows(running[second + 2]).count("bulk")
        await pond.jump(1_000)
        for call in running.pop(second + 1, []):
            await pond.settle(call)

    assert min(bulk[minute] for minute in range(7)) >= 1


# ---------------------------------------------------------------- a lane that always goes evenly


async def test_a_paced_lane_goes_evenly_though_nobody_waits(pond: Pond) -> None:
    await pond.open("60/60s", paced=True)
    await pond.add("f", 10)
    await pond.beat(free=100)

    assert await pond.release() == (2, 1_000)
    await pond.jump(1_000)
    assert await pond.release() == (1, 1_000)


async def test_a_lane_that_is_paced_from_now_on_goes_evenly_at_the_next_decision(
    pond: Pond,
) -> None:
    await pond.open("60/60s")
    await pond.add("f", 100)
    await pond.beat(free=1_000)
    await pond.release(10)

    await pond.change(lane="acme.generate", paced=True)
    assert (await pond.release())[0] == 2

    await pond.change(lane="acme.generate", paced=False)
    assert (await pond.release())[0] == 48


async def test_a_lane_without_a_window_is_not_paced(pond: Pond) -> None:
    await pond.open("20@once", paced=True)
    await pond.add("f", 30)
    await pond.beat(free=1_000)

    assert (await pond.release())[0] == 20


# ---------------------------------------------------------------- what is kept for those who wait


async def keep(pond: Pond, *bulk: str, limits: tuple[str, ...] = ("10/60s",)) -> None:
    await pond.open(*limits, flow="chat", klass=Class.INTERACTIVE, bulk=bulk)
    await pond.open(*limits, flow="bulk", bulk=bulk)
    await pond.beat(free=1_000)


async def test_bulk_stops_at_its_amount_and_chats_go_on(pond: Pond) -> None:
    await keep(pond, "6/60s")
    await pond.add("bulk", 20)
    assert await went(pond) == 6
    assert await went(pond) == 0

    await pond.add("chat", 20)

    assert await went(pond) == 4
    assert Counter(await kinds(pond)) == {"bulk": 6, "chat": 4}


async def test_chats_take_nothing_of_bulks_amount(pond: Pond) -> None:
    await keep(pond, "6/60s")
    await pond.add("chat", 4)
    assert await went(pond) == 4
    await pond.jump(59_000)
    await pond.add("bulk", 20)

    gone = 0
    for _ in range(40):
        gone += await went(pond)
        await pond.jump(1_000)

    assert gone == 6


async def test_bulk_goes_on_when_its_own_calls_have_left_the_window(pond: Pond) -> None:
    await keep(pond, "6/60s")
    await pond.add("bulk", 20)
    await went(pond)
    await pond.store.settle([pond.settlement(call) for call in await pond.claim(most=200)])

    assert (await pond.release())[0] == 0

    await pond.jump(60_000)
    assert (await pond.release())[0] == 0
    await pond.jump(2 * 130)  # a counter of a minute is 130 ms long
    assert await went(pond) == 6


async def test_bulk_that_is_in_flight_with_all_of_its_amount_waits_for_an_event(
    pond: Pond,
) -> None:
    await keep(pond, "2/60s")
    await pond.add("bulk", 4)

    assert await pond.release() == (2, None)
    assert await pond.release() == (0, None)


async def test_bulk_goes_on_after_its_worker_died(pond: Pond) -> None:
    await keep(pond, "2/60s")
    await pond.add("bulk", 4)
    await went(pond)
    await pond.claim(most=10)
    await went(pond)
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.beat("w2", free=100)

    assert await went(pond) == 0
    await pond.jump(61_000 + 2 * 130)
    assert await went(pond) == 2


async def test_bulk_goes_on_after_a_call_was_given_back(pond: Pond) -> None:
    await keep(pond, "2/60s")
    await pond.add("bulk", 4)
    await went(pond)
    [one, _two] = await pond.claim(most=10)
    await went(pond)

    await pond.store.give_back("w", [one.id], unreachable=False)

    assert await went(pond) == 1


async def test_bulk_has_an_amount_of_a_day_too(pond: Pond) -> None:
    await keep(pond, "6/60s", "8/1d", limits=("10/60s", "20/1d"))
    await pond.add("bulk", 20)

    gone = []
    for _ in range(4):
        calls = await pond.pass_through(20, at_once=20)
        gone.append(len(calls))
        await pond.jump(61_000)

    assert gone == [6, 2, 0, 0]
    await pond.add("chat", 1)
    assert flows(await pond.pass_through(1)) == ["chat"]


async def test_when_bulks_amount_is_lowered_below_what_it_took_chats_go_on(pond: Pond) -> None:
    await keep(pond, "6/60s")
    await pond.add("bulk", 20)
    await went(pond)

    await keep(pond, "2/60s")
    await pond.add("chat", 10)

    assert await went(pond) == 4
    assert Counter(await kinds(pond)) == {"bulk": 6, "chat": 4}


async def test_an_amount_for_bulk_that_comes_later_counts_the_bulk_that_is_in_flight(
    pond: Pond,
) -> None:
    await keep(pond)
    await pond.add("bulk", 20)
    await pond.release(4)

    await keep(pond, "6/60s")

    assert await went(pond) == 2


async def test_an_amount_for_bulk_that_comes_later_counts_every_call_of_the_window(
    pond: Pond,
) -> None:
    """Which of them were bulk is not known."""
    await pond.open("10/10s", flow="bulk")
    await pond.jump(100_000)
    await pond.put_stamps(12_000, 11_000, 4_000)

    await pond.open("10/10s", flow="bulk", bulk=("4/60s",))

    await pond.add("bulk", 10)
    await pond.beat(free=100)
    assert await went(pond) == 1


async def test_bulk_that_had_to_wait_does_not_go_before_chats_for_what_it_missed(
    pond: Pond,
) -> None:
    await keep(pond, "1/60s", limits=("1000/60s",))
    await pond.add("bulk", 300)
    await pond.pass_through(1)
    await pond.add("chat", 300)
    await pond.pass_through(200, at_once=20)
    await pond.add("chat", 300)

    await keep(pond, limits=("1000/60s",))
    await pond.jump(15_000)  # what chats took of the pace has come back

    gone = Counter(flows(await pond.pass_through(51, every_ms=100)))
    assert abs(gone["bulk"] - 3) <= 1


async def test_a_chat_that_does_not_fit_does_not_put_bulk_to_sleep(pond: Pond) -> None:
    """The chat waits for a call in flight to end, bulk for a token: that is the next look."""
    limits = ("6/60s", "30tokens/60s")
    await pond.open(*limits, flow="chat", klass=Class.INTERACTIVE, endpoint="embed")
    await pond.open(*limits, flow="bulk", endpoint="embed")
    await pond.jump(61_000)
    await pond.accept("c1", flow="chat")
    await pond.beat()
    await pond.release()
    await pond.accept("b1", flow="bulk", tokens=10)
    await pond.release()
    assert names(await pond.claim()) == ["c1", "b1"]

    await pond.accept("c2", flow="chat", tokens=70)
    await pond.accept("b2", flow="bulk", tokens=10)

    assert await pond.release() == (0, 10_000)
