"""The lane's breaker: a provider that is unwell costs no job its tries."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.store.store import Store
from store.pond import Pond, names

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def running(pond: Pond, *jobs: str, pack: str = "") -> list[Claimed]:
    await pond.accept(*jobs, pack=pack)
    await pond.beat(free=200)
    await pond.release()
    return await pond.claim(most=200)


async def fail(pond: Pond, calls: Sequence[Claimed], *, delay_ms: int = 1_000_000) -> None:
    """They fail, each for itself, and are not asked again for long."""
    for call in calls:
        await pond.settle(call, "retry", used=0, failed=True, trouble=True, delay_ms=delay_ms)


async def trouble(pond: Pond, *, failing: int = 10) -> None:
    """So many jobs fail at their first try, one after the other."""
    await pond.open("1000/60s")
    await fail(pond, await running(pond, *(f"bad{i}" for i in range(failing))))


async def failures(pond: Pond, *jobs: str) -> list[int]:
    return [await pond.number(f"j:{job}", "failures") for job in jobs]


async def test_nine_jobs_that_fail_in_a_row_shut_nothing(pond: Pond) -> None:
    await trouble(pond, failing=9)
    await pond.accept("next")

    assert (await pond.release())[0] == 1


async def test_ten_jobs_that_fail_in_a_row_at_their_first_try_shut_the_lane(pond: Pond) -> None:
    await trouble(pond)
    await pond.accept("next")

    assert await pond.release() == (0, 1_000)

    lane = (await pond.store.look("f")).lane
    assert lane.shut_reason == "unwell"


async def test_an_answer_in_between_begins_the_row_anew(pond: Pond) -> None:
    await trouble(pond, failing=9)
    [good] = await running(pond, "good")
    await pond.settle(good)
    await fail(pond, await running(pond, *(f"more{i}" for i in range(9))))
    await pond.accept("next")

    assert (await pond.release())[0] == 1


async def test_an_answer_that_refuses_a_job_is_an_answer_too(pond: Pond) -> None:
    await trouble(pond, failing=9)
    [rejected] = await running(pond, "rejected")
    await pond.settle(rejected, "failed", used=0)
    await fail(pond, await running(pond, "more"))
    await pond.accept("next")

    assert (await pond.release())[0] == 1


async def test_a_refusal_for_the_rate_is_neither(pond: Pond) -> None:
    await trouble(pond, failing=9)
    [call] = await running(pond, "refused")
    await pond.settle(call, "retry", used=0, refused=True, shut_ms=1)
    assert await pond.number(LANE, "trouble") == 9


async def test_a_single_job_that_fails_again_and_again_does_not_shut_the_lane(pond: Pond) -> None:
    await pond.open("1000/60s", attempts=100)
    await pond.accept("j1")
    for _ in range(30):
        await pond.store.promote(200)
        [call] = await running(pond)
        await fail(pond, [call], delay_ms=0)

    assert await pond.number(LANE, "trouble") == 1
    assert await failures(pond, "j1") == [30]


async def test_a_flow_of_bad_jobs_beside_good_ones_does_not_shut_the_lane(pond: Pond) -> None:
    await pond.open("1000/60s")
    for i in range(20):
        bad, good = await running(pond, f"bad{i}", f"good{i}")
        await fail(pond, [bad])
        await pond.settle(good)

    assert await pond.field(LANE, "shut_until") is None


async def test_the_tenth_failure_and_all_after_it_are_held_against_no_job(pond: Pond) -> None:
    await pond.open("1000/60s")
    calls = await running(pond, *(f"bad{i:02}" for i in range(15)))

    await fail(pond, calls)

    assert await failures(pond, *(f"bad{i:02}" for i in range(15))) == [1] * 9 + [0] * 6


async def test_a_job_that_would_have_failed_for_good_is_tried_again_while_it_is_open(
    pond: Pond,
) -> None:
    await pond.open("1000/60s")
    calls = await running(pond, *(f"bad{i}" for i in range(11)))
    await fail(pond, calls[:10])

    await pond.settle(calls[10], "failed", used=0, failed=True, trouble=True)

    assert await pond.state("bad10") == "queued"
    assert list(await pond.scores("f:f:later")).count("bad10") == 1
    assert await pond.number("f:f", "failed") == 0


async def test_a_job_that_the_provider_rejects_ends_even_then(pond: Pond) -> None:
    await pond.open("1000/60s")
    calls = await running(pond, *(f"bad{i}" for i in range(11)))
    await fail(pond, calls[:10])

    await pond.settle(calls[10], "failed", used=0)

    assert await pond.state("bad10") == "failed"


async def test_after_a_while_one_call_goes_and_no_other_beside_it(pond: Pond) -> None:
    await trouble(pond)
    await pond.accept("j1", "j2", "j3")
    await pond.beat(free=200)
    await pond.jump(999)
    assert await pond.release() == (0, 1)
    await pond.jump(1)

    assert (await pond.release())[0] == 1
    assert await pond.release() == (0, None)
    assert names(await pond.claim()) == ["j1"]


async def test_one_call_goes_only_when_all_that_were_on_their_way_have_ended(pond: Pond) -> None:
    await pond.open("1000/60s")
    calls = await running(pond, *(f"bad{i}" for i in range(11)))
    await fail(pond, calls[:10])
    await pond.accept("next")
    await pond.jump(1_000)
    assert await pond.release() == (0, None)

    await fail(pond, calls[10:])

    await pond.jump(2_000)
    assert (await pond.release())[0] == 1


async def test_each_try_that_fails_shuts_the_lane_for_twice_as_long_up_to_a_minute(
    pond: Pond,
) -> None:
    await trouble(pond)
    waits = []
    for i in range(8):
        await pond.accept(f"try{i}")
        _, wait_ms = await pond.release()
        assert wait_ms is not None
        waits.append(wait_ms)
        await pond.jump(wait_ms)
        await fail(pond, await running(pond))

    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


async def test_a_try_is_held_against_no_job(pond: Pond) -> None:
    await trouble(pond)
    await pond.jump(1_000)
    [probe] = await running(pond, "probe")

    await fail(pond, [probe])

    assert await failures(pond, "probe") == [0]
    assert await pond.number("j:probe", "attempts") == 1


async def test_one_answer_opens_the_lane_to_all(pond: Pond) -> None:
    await trouble(pond)
    await pond.jump(1_000)
    [probe, *_] = await running(pond, "probe", "j1", "j2", "j3")

    await pond.settle(probe)

    assert (await pond.release())[0] == 3
    assert (await pond.store.look("f")).lane.shut_until_ms <= pond.now_ms
    assert await pond.field(LANE, "trouble") is None


async def test_after_it_was_well_again_it_takes_ten_to_shut_it_for_a_second(pond: Pond) -> None:
    await trouble(pond)
    for _ in range(3):
        await pond.jump(60_000)
        [probe] = await running(pond, f"probe{pond.now_ms}")
        await fail(pond, [probe])
    await pond.jump(60_000)
    [probe] = await running(pond, "last probe")
    await pond.settle(probe)

    calls = await running(pond, *(f"again{i}" for i in range(10)))
    await fail(pond, calls[:9])
    assert await pond.field(LANE, "trouble_since") is None
    await fail(pond, calls[9:])

    await pond.accept("next")
    assert await pond.release() == (0, 1_000)


async def test_a_try_that_was_never_sent_is_made_again(pond: Pond) -> None:
    await trouble(pond)
    await pond.jump(1_000)
    [probe] = await running(pond, "probe")

    await pond.store.give_back("w", [probe.id], unreachable=False)

    assert (await pond.release())[0] == 1


async def test_a_try_whose_worker_died_is_made_again(pond: Pond) -> None:
    await trouble(pond)
    await pond.jump(1_000)
    await running(pond, "probe")
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.beat("w2", free=10)

    assert (await pond.release())[0] == 1


async def test_a_pack_that_fails_is_one_failure_of_the_lane(pond: Pond) -> None:
    await pond.open("1000/60s", pack=20)
    calls = await running(pond, *(f"bad{i}" for i in range(20)), pack="k")
    assert len(calls) == 1

    await fail(pond, calls)

    assert await pond.number(LANE, "trouble") == 1


async def test_opening_the_lane_again_tries_it_at_once(pond: Pond) -> None:
    await trouble(pond)
    await pond.accept("next")

    await pond.open("1000/60s")

    assert (await pond.release())[0] == 1


async def test_another_lane_goes_on(pond: Pond) -> None:
    await pond.open(flow="e", endpoint="embed")
    await trouble(pond)
    await pond.accept("e1", flow="e")

    assert (await pond.release())[0] == 1
