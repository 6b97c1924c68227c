"""Large windows are counted, not stamped one by one: what is known of them is kept all the same."""

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.job import Class
from millpond.store.store import Store
from store.pond import PREFIX, Pond

LANE = "l:acme.generate"
DAY_MS = 86_400_000
#: How long one of the 480 counters of a window is.
COUNTER_MS = {10_000: 26, 60_000: 130, DAY_MS: 180_758}

#: A call that has just been given up may still be counted so long after now.
GRACE_MS = 1_000


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def make(pond: Pond, calls: int) -> None:
    """So many calls are made and end now."""
    done = 0
    while done < calls:
        now = min(200, calls - done)
        await pond.accept(*(f"j{pond.now_ms}.{done + i}" for i in range(now)))
        await pond.beat(free=200)
        gone = (await pond.release())[0]
        assert gone > 0
        claimed = await pond.claim(most=200)
        await pond.store.settle([pond.settlement(call) for call in claimed])
        done += gone


async def used(pond: Pond) -> list[int]:
    return [window.used for window in (await pond.store.look("f")).lane.windows]


async def room(pond: Pond) -> int:
    """So many calls may go now: they are given back."""
    await pond.accept(*(f"try{pond.now_ms}.{i}" for i in range(200)))
    await pond.beat(free=200)
    gone = (await pond.release(200))[0]
    claimed = await pond.claim(most=200)
    await pond.store.give_back("w", [call.id for call in claimed], unreachable=False)
    return gone


# ---------------------------------------------------------------- counting


async def test_a_window_of_more_than_a_thousand_calls_is_counted_in_a_ring(pond: Pond) -> None:
    await pond.open("1000/10s", "1001/60s")

    await make(pond, 3)

    assert await pond.keys_of(f"{LANE}:d:") == [f"{LANE}:d:calls:60000"]
    assert await used(pond) == [3, 3]


async def test_no_more_calls_go_than_the_limit_allows(pond: Pond) -> None:
    await pond.open("1200/60s")

    await make(pond, 1_150)

    assert await room(pond) == 50


async def test_calls_in_flight_count_in_it(pond: Pond) -> None:
    await pond.open("1200/60s")
    await make(pond, 1_100)
    await pond.put_flight(60)

    assert await room(pond) == 40


async def test_none_leaves_early_and_none_much_too_late(pond: Pond) -> None:
    await pond.open("1001/60s")
    await make(pond, 1_001)

    await pond.jump(60_000)
    assert await room(pond) == 0
    await pond.jump(2 * COUNTER_MS[60_000])
    assert await room(pond) == 200


@pytest.mark.parametrize("step_ms", [1, 129, 130, 131, 1_000, 7_919])
async def test_what_was_counted_leaves_in_the_order_in_which_it_came(
    pond: Pond, step_ms: int
) -> None:
    """Wherever the counters begin, and however often the ring has gone round."""
    await pond.open("1001/10s")
    made: list[int] = []
    for _ in range(40):
        await make(pond, 1)
        made.append(pond.now_ms)
        await pond.jump(step_ms)

        [counted] = await used(pond)

        inside = sum(at > pond.now_ms - 10_000 for at in made)
        late = sum(at > pond.now_ms - 10_000 - 2 * COUNTER_MS[10_000] for at in made)
        assert inside <= counted <= late


async def test_a_call_that_the_provider_may_still_count_later_counts_until_then(
    pond: Pond,
) -> None:
    """A lost call is stamped ahead of now."""
    await pond.open("1001/10s")
    await make(pond, 1)
    await pond.accept("lost")
    await pond.release()
    await pond.claim()
    await pond.store.leave("w")
    await pond.store.reap()

    await pond.jump(10_999)
    assert await used(pond) == [1]
    await pond.jump(1 + 2 * COUNTER_MS[10_000])
    assert await used(pond) == [0]


async def test_a_call_that_is_older_than_the_window_when_it_is_settled_is_not_counted(
    pond: Pond,
) -> None:
    await pond.open("1001/10s")
    [call] = await pond.run("j1")
    await pond.jump(20_000)

    await pond.settle(call, since_ms=15_000)

    assert await used(pond) == [0]


# ---------------------------------------------------------------- changes


async def test_a_limit_that_is_raised_to_thousands_and_back_keeps_what_is_known(
    pond: Pond,
) -> None:
    await pond.open("60/60s")
    await make(pond, 50)
    await pond.jump(20_000)

    await pond.open("5000/60s")
    assert await used(pond) == [50]
    await make(pond, 100)
    assert await used(pond) == [150]

    await pond.open("60/60s")
    assert await used(pond) == [150]
    assert await room(pond) == 0
    await pond.jump(40_000 + 2 * COUNTER_MS[60_000])
    assert await used(pond) == [100]
    assert await room(pond) == 0
    await pond.jump(20_000)
    assert await room(pond) == 60


async def test_calls_in_flight_when_it_is_raised_count_when_they_end(pond: Pond) -> None:
    await pond.open("60/60s")
    calls = await pond.run("a", "b")

    await pond.open("5000/60s")
    await pond.store.settle([pond.settlement(call) for call in calls])

    assert await used(pond) == [2]


async def test_raised_by_an_operator_it_is_the_same(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 50)
    limits = (await pond.open("5000/60s", flow="g", org="beta")).limits

    await pond.change(lane="acme.generate", limits=limits)

    assert await used(pond) == [50]


async def test_stamps_that_are_not_needed_any_more_leave(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 50)
    await pond.open("5000/60s")
    await pond.jump(30_000)

    await make(pond, 1)

    assert len(await pond.stamps()) == 1
    assert await used(pond) == [51]


async def test_a_day_that_comes_beside_a_busy_minute_counts_all_that_may_have_been_made(
    pond: Pond,
) -> None:
    await pond.open("60/60s")
    for _ in range(3):
        await make(pond, 60)
        await pond.jump(60_001)
    await make(pond, 10)

    await pond.open("60/60s", "2000/1d")

    assert await used(pond) == [10, 190]
    await pond.jump(60_001)
    assert await used(pond) == [0, 190]


async def test_another_day_beside_a_day_is_not_fuller_than_the_first_one(pond: Pond) -> None:
    """Half a day is as full as the day was at most."""
    await pond.open("60/60s", "5000/1d")
    for _ in range(3):
        await make(pond, 60)
        await pond.jump(60_001)
    await make(pond, 10)

    await pond.open("60/60s", "5000/1d", "3000/12h")

    assert await used(pond) == [10, 190, 190]


async def test_of_calls_that_left_a_day_long_ago_another_window_knows_nothing(
    pond: Pond,
) -> None:
    await pond.open("60/60s", "5000/1d")
    await make(pond, 60)
    await pond.jump(DAY_MS + 2 * COUNTER_MS[DAY_MS])
    await make(pond, 5)

    await pond.open("60/60s", "5000/1d", "3000/12h")

    assert await used(pond) == [5, 5, 5]


async def test_the_first_calls_of_a_ring_that_comes_later_are_not_forgotten(pond: Pond) -> None:
    """Calls that have left every window before, but whose stamps nobody has cleared away yet."""
    await pond.open("10/10s")
    await make(pond, 10)
    await pond.jump(12_000)

    await pond.open("10/10s", "1001/60s")

    assert await used(pond) == [0, 10]


async def test_a_window_that_is_taken_away_and_comes_back_is_not_empty(pond: Pond) -> None:
    await pond.open("60/60s", "2000/1d")
    await make(pond, 60)
    await pond.jump(60_001)
    await make(pond, 60)

    await pond.open("60/60s")
    assert await pond.keys_of(f"{LANE}:d:") == []
    await pond.open("60/60s", "2000/1d")

    assert await used(pond) == [60, 120]


async def test_a_day_that_comes_to_an_unused_lane_is_empty(pond: Pond) -> None:
    await pond.open("60/60s")

    await pond.open("60/60s", "2000/1d")

    assert await used(pond) == [0, 0]


# ---------------------------------------------------------------- memory


async def weight(pond: Pond) -> int:
    """Bytes of all keys of the lane."""
    sizes = [
        await pond.command("MEMORY", "USAGE", f"{PREFIX}{key}", "SAMPLES", 0)
        for key in await pond.keys_of(LANE)
    ]
    return sum(sizes)


async def test_a_lane_of_500_a_minute_and_100000_a_day_is_small_when_it_is_full(
    pond: Pond,
) -> None:
    await pond.new_life()
    await pond.open("500/60s", "100000/1d")
    await make(pond, 490)
    calls = await pond.run(*(f"last{i}" for i in range(10)))

    assert len(calls) == 10
    assert await used(pond) == [500, 500]
    assert await weight(pond) <= 60_000


async def test_after_its_windows_have_passed_an_idle_lane_keeps_nothing_but_its_record(
    pond: Pond,
) -> None:
    await pond.open("500/60s", "100000/1d", user="ann", klass=Class.INTERACTIVE, bulk=("400/60s",))
    await make(pond, 300)
    await pond.jump(1_000)
    await drain(pond)
    assert await pond.keys_of(f"{LANE}:") != []

    for _ in range(9):
        await pond.jump(DAY_MS // 8)
        await pond.release()
        await pond.store.promote(200)
    for _ in range(3):
        await pond.jump(60_000)
        await pond.store.promote(200)

    assert await pond.keys_of(f"{LANE}:") == []
    assert await pond.scores("idle") == {}
    record = await pond.fields(LANE)
    assert [name for name in record if name.startswith(("total:", "base:", "bucket"))] == []


async def drain(pond: Pond) -> None:
    """All that waits goes and ends."""
    await pond.beat(free=200)
    for _ in range(10):
        await pond.release()
        for call in await pond.claim(most=200):
            await pond.settle(call)
        await pond.jump(61_000)


async def test_what_an_idle_lane_has_counted_is_kept_as_long_as_it_counts(pond: Pond) -> None:
    await pond.open("60/60s", "2000/1d")
    await make(pond, 60)
    await drain(pond)
    before = await used(pond)

    for _ in range(7):
        await pond.jump(DAY_MS // 8)
        await pond.release()
        await pond.store.promote(200)

    assert await used(pond) == [0, before[1]]


async def test_a_lane_that_was_forgotten_counts_from_nought_and_exactly(pond: Pond) -> None:
    await pond.open("60/60s", "2000/1d")
    await make(pond, 60)
    await drain(pond)
    for _ in range(12):
        await pond.jump(DAY_MS // 8)
        await pond.release()
        await pond.store.promote(200)
    assert await pond.keys_of(f"{LANE}:") == []

    await make(pond, 7)
    assert await used(pond) == [7, 7]

    await pond.open("60/60s", "2000/1d", "1500/12h")
    assert await used(pond) == [7, 7, 7]


async def test_tags_of_a_thousand_users_are_forgotten_when_their_lane_is_idle(
    pond: Pond,
) -> None:
    for i in range(250):
        await pond.open("1000/10s", flow=f"f{i}", user=f"user{i}")
        await pond.add(f"f{i}", 1)
    await pond.beat(free=300)
    await pond.release()
    await pond.release()
    for call in [*await pond.claim(most=200), *await pond.claim(most=200)]:
        await pond.settle(call)
    await pond.release()
    for _ in range(6):
        await pond.jump(60_000)
        await pond.release()
        await pond.store.promote(200)

    assert await pond.keys_of(f"{LANE}:") == []


# ---------------------------------------------------------------- a record that is lost


async def lose_record(pond: Pond) -> None:
    await pond.command("DEL", f"{PREFIX}{LANE}")


async def test_a_lane_whose_record_is_lost_counts_as_full_when_it_is_set_again(
    pond: Pond,
) -> None:
    await pond.open("60/60s")
    await make(pond, 3)
    await lose_record(pond)

    await pond.open("60/60s")

    assert await room(pond) == 0
    await pond.jump(59_999)
    assert await room(pond) == 0
    await pond.jump(1 + GRACE_MS)
    assert await room(pond) == 60


async def test_calls_on_their_way_are_in_flight_again(pond: Pond) -> None:
    await pond.open("60/60s", "100inputs/60s")
    [running] = await pond.run("j1")
    await pond.accept("j2")
    await pond.release()
    await lose_record(pond)
    await pond.command("DEL", f"{PREFIX}{LANE}:flight")

    await pond.open("60/60s", "100inputs/60s")

    assert await pond.flight() == 2
    assert await pond.number(LANE, "flight:inputs") == 2
    await pond.jump(60_000)
    await pond.settle(running)
    assert await pond.flight() == 1
    assert await pond.number(LANE, "flight:inputs") == 1


async def test_a_ring_counts_as_full_too(pond: Pond) -> None:
    await pond.open("5000/60s", "500tokens/60s")
    await make(pond, 3)
    await lose_record(pond)

    await pond.open("5000/60s", "500tokens/60s")

    assert await room(pond) == 0
    await pond.jump(60_000 + GRACE_MS + 2 * COUNTER_MS[60_000])
    assert await room(pond) == 200


async def test_a_day_does_not_stand_still_for_a_day(pond: Pond) -> None:
    await pond.open("60/60s", "2000/1d")
    await make(pond, 3)
    await lose_record(pond)

    await pond.open("60/60s", "2000/1d")

    await pond.jump(60_000 + GRACE_MS)
    assert await room(pond) == 60


async def test_it_counts_as_full_though_calls_end_before_it_is_set_again(pond: Pond) -> None:
    await pond.open("60/60s")
    one, two = await pond.run("j1", "j2")
    await lose_record(pond)
    await pond.settle(one)
    await pond.store.give_back("w", [two.id], unreachable=False)

    await pond.open("60/60s")

    assert await pond.field(LANE, "org") == "acme"
    assert await room(pond) == 0
    await pond.jump(60_001 + GRACE_MS)
    assert await room(pond) == 60


async def test_it_counts_as_full_whichever_flow_sets_it_again(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 3)
    await lose_record(pond)

    await pond.open("60/60s", flow="another")

    assert await room(pond) == 0


async def test_a_lane_that_nobody_has_used_yet_counts_as_empty(pond: Pond) -> None:
    await pond.open("60/60s")

    assert await room(pond) == 60


async def test_a_lane_of_which_its_caller_knows_calls_counts_as_full(pond: Pond) -> None:
    await pond.open("60/60s", lost=True)

    assert await room(pond) == 0


async def test_a_lane_that_is_there_does_not_count_as_full_for_that(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 3)

    await pond.open("60/60s", lost=True)

    assert await room(pond) == 57


# ---------------------------------------------------------------- what the ledger tells of one


async def lose_all_of_it(pond: Pond) -> None:
    for key in await pond.keys_of(LANE):
        await pond.command("DEL", f"{PREFIX}{key}")


async def test_a_ledger_that_reaches_back_a_window_tells_which_calls_were_made(pond: Pond) -> None:
    await pond.open("60/60s", "5000/1h")
    await make(pond, 1)
    await pond.jump(3_602_000)
    await make(pond, 2)
    await pond.jump(50_000)
    await make(pond, 4)
    await lose_all_of_it(pond)

    await pond.open("60/60s", "5000/1h")

    assert await used(pond) == [6, 6]
    assert await room(pond) == 54
    await pond.jump(10_001)
    assert await used(pond) == [4, 6]
    assert await room(pond) == 56


async def test_a_lost_call_that_is_settled_late_counts_as_it_did_when_it_was_lost(
    pond: Pond,
) -> None:
    """The provider may have counted it a grace after we stopped watching it."""
    await pond.open("60/10s")
    await make(pond, 1)
    await pond.jump(20_000)
    [call] = await pond.run("late")
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.settle(call)
    before = await pond.stamps()
    await lose_all_of_it(pond)

    await pond.open("60/10s")

    assert await pond.stamps() == before[-1:]


async def test_a_ledger_that_is_younger_than_the_window_does_not(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 1)
    await pond.jump(61_999)
    await make(pond, 2)
    await lose_all_of_it(pond)

    await pond.open("60/60s")

    assert await room(pond) == 0


async def test_a_longer_window_counts_by_the_ledger_too_or_as_full(pond: Pond) -> None:
    """The ledger reaches back for the minute, not for the hour."""
    await pond.open("60/60s", "900/1h")
    await make(pond, 1)
    await pond.jump(120_000)
    await lose_all_of_it(pond)

    await pond.open("60/60s", "900/1h")

    assert await used(pond) == [900, 900]


async def test_other_lanes_rows_are_not_counted(pond: Pond) -> None:
    await pond.open("60/60s", flow="c", endpoint="chat")
    await pond.open("60/60s")
    await make(pond, 1)
    await pond.jump(62_000)
    [call] = await pond.run("j1", flow="c")
    await pond.settle(call)
    await lose_all_of_it(pond)

    await pond.open("60/60s")

    assert await room(pond) == 60


async def test_a_call_whose_answer_nobody_saw_counts_a_moment_longer(pond: Pond) -> None:
    await pond.open("60/60s")
    await make(pond, 1)
    await pond.run("j1")
    await pond.jump(62_000)
    await pond.store.leave("w")
    assert (await pond.store.reap())[0] == 1
    await lose_all_of_it(pond)
    await pond.jump(500)

    await pond.open("60/60s")

    await pond.jump(GRACE_MS - 500 + 59_999)
    assert await used(pond) == [1]
    await pond.jump(1)
    assert await used(pond) == [0]


async def test_a_limit_of_tokens_counts_as_full_whatever_the_ledger_tells(pond: Pond) -> None:
    await pond.open("60/60s", "500tokens/60s")
    await make(pond, 1)
    await pond.jump(62_000)
    await lose_all_of_it(pond)

    await pond.open("60/60s", "500tokens/60s")

    assert await used(pond) == [0, 500]


async def test_a_lane_that_is_not_charged_has_no_ledger_and_counts_as_full(pond: Pond) -> None:
    await pond.open("60/60s", endpoint="embed")
    await make(pond, 1)
    await pond.jump(62_000)
    for key in await pond.keys_of("l:acme.embed"):
        await pond.command("DEL", f"{PREFIX}{key}")

    await pond.open("60/60s", endpoint="embed")

    assert await used(pond) == [60]


# ---------------------------------------------------------------- and raised afterwards


async def test_what_a_lost_lane_counts_is_as_full_as_a_limit_that_is_raised_then(
    pond: Pond,
) -> None:
    """Under the old limit there was one call of 70 tokens, which is larger and went alone; and
    there were more calls, when the limit was higher."""
    await pond.open("10/60s", "30tokens/60s", endpoint="embed")
    await make(pond, 5)
    await pond.open("2/60s", "30tokens/60s", endpoint="embed")
    for key in await pond.keys_of("l:acme.embed"):
        await pond.command("DEL", f"{PREFIX}{key}")
    await pond.open("2/60s", "30tokens/60s", endpoint="embed")
    assert await used(pond) == [2, 30]
    await pond.jump(1_000)

    await pond.open("10/60s", "120tokens/60s", endpoint="embed")

    assert await used(pond) == [10, 120]
    await pond.jump(59_000 + GRACE_MS + COUNTER_MS[60_000])
    assert await used(pond) == [0, 0]
