"""What is reserved for an answer, what is charged, and the org's ledger of it."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.store.store import Reserve, Row, Store
from store.pond import PREFIX, Pond, job_ids

LANE = "l:acme.generate"
WIDE = "10000/60s"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def asked(
    pond: Pond, *jobs: str, need: int = 600, base: int = 100, held: Sequence[Claimed] = ()
) -> list[Claimed]:
    """Jobs with prompts of 100 characters, and answers of 500 at most; `held` go on."""
    await pond.accept(*jobs, need=need, base=base)
    await pond.beat(free=200, held=held)
    await pond.release()
    return await pond.claim(most=200)


async def answers(pond: Pond, *used: int) -> None:
    """Jobs that used so much in all, one after the other."""
    for one in used:
        [call] = await asked(pond, f"j{await pond.number('f:f', 'succeeded')}")
        await pond.settle(call, used=one)


async def reserved(pond: Pond, *, need: int = 600, base: int = 100) -> int:
    """What is reserved for one more job."""
    [call] = await asked(pond, "one.more", need=need, base=base)
    assert (await pond.books())[0] == call.need
    return call.need


# ---------------------------------------------------------------- how much is reserved


async def test_all_of_a_jobs_bound_is_reserved(pond: Pond) -> None:
    await pond.open(WIDE)
    await answers(pond, *[150] * 40)

    assert await reserved(pond) == 600


async def test_with_p99_all_of_it_is_reserved_until_twenty_answers_are_known(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 19)

    assert await reserved(pond) == 600


async def test_then_what_99_of_100_answers_have_come_to_is_reserved(pond: Pond) -> None:
    """A tenth of what they might have."""
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 20)

    assert await reserved(pond) == 150


async def test_of_few_answers_the_longest_counts(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 10, 400, *[150] * 9)

    assert await reserved(pond) == 400


async def test_of_two_hundred_the_longest_two_do_not_count(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, 600, 600, *[200] * 198)

    assert await reserved(pond) == 200


async def test_the_known_part_of_a_job_is_reserved_whole(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 20)

    assert await reserved(pond, need=2_000, base=1_000) == 1_100


async def test_of_what_would_be_half_a_character_all_is_reserved(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 20)

    assert await reserved(pond, need=105, base=100) == 101


async def test_a_job_without_an_answer_teaches_nothing(pond: Pond) -> None:
    """Its bound is what is known of it."""
    await pond.open(WIDE, reserve="p99")
    for i in range(30):
        [call] = await asked(pond, f"e{i}", need=100, base=100)
        await pond.settle(call, used=100)

    assert await reserved(pond) == 600


async def test_a_job_that_used_less_than_was_known_beforehand_counts_as_no_answer(
    pond: Pond,
) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[20] * 20)

    assert await reserved(pond, need=5_000, base=10) == 10


async def test_failed_and_unknown_answers_teach_nothing(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    for i in range(15):
        one, two = await asked(pond, f"a{i}", f"b{i}")
        await pond.settle(one, "failed", used=0)
        await pond.settle(two, "succeeded", used=None)

    assert await pond.field(LANE, "answers") is None


async def test_an_org_that_reserves_all_again_does_so_at_the_next_decision(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99")
    await answers(pond, *[150] * 20)

    await pond.change(reserve="strict")

    assert await reserved(pond) == 600


async def test_more_jobs_fit_into_the_quota_then(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99", quota=4_000)
    await answers(pond, *[150] * 20)

    calls = await asked(pond, *(f"more{i}" for i in range(10)))

    assert len(calls) == 6
    assert await pond.books() == (900, 0, 3_000)
    assert await pond.scores("f:f:parked") == {f"more{i}": 150 for i in range(6, 10)}


async def test_what_was_reserved_is_returned_though_the_share_has_changed_meanwhile(
    pond: Pond,
) -> None:
    await pond.open(WIDE, reserve="p99")
    [early] = await asked(pond, "early")
    for i in range(20):
        [call] = await asked(pond, f"beside{i}", held=[early])
        await pond.settle(call, used=150)
    [late] = await asked(pond, "late", held=[early])

    await pond.settle(early, used=150)
    await pond.settle(late, used=150)

    assert await pond.books() == (0, 0, 22 * 150)
    assert await pond.flow_books() == (0, 0, 22 * 150)


async def test_an_answer_longer_than_its_bound_makes_the_bound_larger_by_a_margin(
    pond: Pond,
) -> None:
    """It came to 1.5 of its bound; 1.8 of the bound is reserved from then on."""
    await pond.open(WIDE)
    await answers(pond, 850)

    assert await pond.number(LANE, "over") == 250
    assert await reserved(pond) == 1_000


async def test_the_bound_does_not_become_smaller_again(pond: Pond) -> None:
    await pond.open(WIDE)
    await answers(pond, 850, 700, *[150] * 30)

    assert await reserved(pond) == 1_000


async def test_what_waits_under_a_bound_that_was_lost_with_its_lane_needs_no_more_than_it_says(
    pond: Pond,
) -> None:
    await pond.open(WIDE)
    await answers(pond, 850)
    await pond.change(quota=850 + 700)
    await pond.accept("parked", need=600)
    await pond.beat()
    assert (await pond.release())[0] == 0  # with the margin it may use a thousand

    await pond.command("DEL", f"{PREFIX}{LANE}")
    await pond.open(WIDE, quota=850 + 700)
    await pond.store.promote(200)

    assert await pond.line() == ["parked"]


async def test_the_sum_of_what_answers_went_over_is_kept(pond: Pond) -> None:
    await pond.open(WIDE)
    await answers(pond, 850, 601, 600, 599)

    assert await pond.number(LANE, "over") == 251


async def test_each_job_of_a_pack_teaches_by_its_own_bound(pond: Pond) -> None:
    await pond.open(WIDE, reserve="p99", pack=2)
    for i in range(10):
        await pond.accept(f"a{i}", f"b{i}", need=600, base=100, pack="k")
        await pond.beat(free=10)
        await pond.release()
        [call] = await pond.claim()
        assert len(call.jobs) == 2
        await pond.settle(call, used=400)

    assert await reserved(pond) == 200


@pytest.mark.parametrize("reserve", ["strict", "p99"])
async def test_of_a_lane_that_does_not_count_all_of_a_jobs_need_is_its_hold(
    pond: Pond, reserve: Reserve
) -> None:
    await pond.open(WIDE, endpoint="embed", reserve=reserve)
    await answers(pond, *[850] * 25)

    [call] = await asked(pond, "one.more")

    assert call.need == 600


# ---------------------------------------------------------------- the ledger


async def ledger(pond: Pond, org: str = "acme") -> list[dict[str, str]]:
    """The oldest first."""
    rows: list[Row] = await pond.store.records(org, "ledger", most=1_000)
    return [row.fields for row in reversed(rows)]


async def test_each_call_that_was_sent_is_a_row_with_the_sums_after_it(pond: Pond) -> None:
    await pond.open(WIDE, quota=10_000)
    one, two, three = await asked(pond, "a", "b", "c")
    await pond.settle(one, used=150)
    await pond.settle(two, used=None)
    await pond.store.give_back("w", [three.id], unreachable=False)

    rows = await ledger(pond)

    about = {"at": str(pond.now_ms), "lane": "acme.generate", "counted": str(pond.now_ms + 1)}
    assert rows == [
        about | {"outcome": "known", "characters": "150", "used": "150", "estimated": "0"}
        | {"call": one.id},
        about | {"outcome": "unknown", "characters": "600", "used": "150", "estimated": "600"}
        | {"call": two.id},
    ]  # fmt: skip


async def test_a_lost_call_has_a_row_and_one_more_when_its_answer_comes_after_all(
    pond: Pond,
) -> None:
    await pond.open(WIDE, quota=10_000)
    [call] = await asked(pond, "a")
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.settle(call, used=150)

    sums = [
        (row["outcome"], row["characters"], row["used"], row["estimated"])
        for row in await ledger(pond)
    ]

    assert sums == [("unknown", "600", "0", "600"), ("known", "150", "150", "0")]


async def test_by_the_row_before_each_row_can_be_checked(pond: Pond) -> None:
    """Known characters are used; of an unknown outcome they are estimated until it is known."""
    await pond.open(WIDE, flow="f", quota=100_000, pack=3)
    await pond.open(WIDE, flow="g", quota=100_000, pack=3)
    for i in range(12):
        await pond.accept(f"f{i}", flow="f", need=600, base=100, pack="k")
        await pond.accept(f"g{i}", flow="g", need=300, base=100, pack="k")
    await pond.jump(250)
    await pond.store.promote(200)
    await pond.beat(free=200)
    await pond.release()
    calls = await pond.claim()
    for i, call in enumerate(calls[:-2]):
        await pond.settle(call, used=None if i % 3 == 1 else 200 + i)
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.settle(calls[-1], used=77)

    used = estimated = 0
    unknown: dict[str, int] = {}
    rows = await ledger(pond)
    for row in rows:
        characters = int(row["characters"])
        if row["outcome"] == "unknown":
            unknown[row["call"]] = characters
            estimated += characters
        else:
            used += characters
            estimated -= unknown.pop(row["call"], 0)
        assert (int(row["used"]), int(row["estimated"])) == (used, estimated)
    assert len(rows) == len(calls) + 1
    assert await pond.books() == (0, estimated, used)
    assert await pond.store.unknown("acme") == unknown
    both = [await pond.flow_books(flow) for flow in ("f", "g")]
    assert (0, estimated, used) == tuple(map(sum, zip(*both, strict=True)))


async def test_of_a_lane_that_does_not_count_there_is_no_row(pond: Pond) -> None:
    await pond.open(WIDE, endpoint="embed")
    [call] = await asked(pond, "a")

    await pond.settle(call)

    assert await ledger(pond) == []


async def test_of_an_org_without_a_quota_there_are_rows_and_no_events(pond: Pond) -> None:
    await pond.open(WIDE)
    [call] = await asked(pond, "a")

    await pond.settle(call)

    assert len(await ledger(pond)) == 1
    assert await events(pond) == []


# ---------------------------------------------------------------- events


async def events(pond: Pond) -> list[tuple[int, int]]:
    """Percent of the quota, and what of it was used then; the oldest first."""
    rows = await pond.store.records("acme", "events", most=1_000)
    return [
        (int(row.fields["percent"]), int(row.fields["used"]) + int(row.fields["estimated"]))
        for row in reversed(rows)
    ]


async def test_at_half_four_fifths_and_all_of_the_quota_there_is_one_event_each(
    pond: Pond,
) -> None:
    await pond.open(WIDE, quota=2_000)
    for i in range(20):
        [call] = await asked(pond, f"j{i}", need=100)
        await pond.settle(call, used=100)

    assert await events(pond) == [(50, 1_000), (80, 1_600), (100, 2_000)]


async def test_a_large_call_may_cross_several_at_once(pond: Pond) -> None:
    await pond.open(WIDE, quota=1_000)
    [call] = await asked(pond, "a", need=900)

    await pond.settle(call, used=900)

    assert await events(pond) == [(50, 900), (80, 900)]


async def test_estimated_characters_cross_them_too(pond: Pond) -> None:
    await pond.open(WIDE, quota=1_000)
    [call] = await asked(pond, "a", need=500)

    await pond.settle(call, used=None)

    assert await events(pond) == [(50, 500)]


async def test_after_the_quota_was_raised_they_are_told_again(pond: Pond) -> None:
    await pond.open(WIDE, quota=1_000)
    [call] = await asked(pond, "a", need=1_000)
    await pond.settle(call, used=1_000)

    await pond.change(quota=2_500)
    [call] = await asked(pond, "b", need=1_000)
    await pond.settle(call, used=1_000)

    assert await events(pond) == [(50, 1_000), (80, 1_000), (100, 1_000), (50, 2_000), (80, 2_000)]


async def test_setting_the_same_quota_again_tells_nothing_again(pond: Pond) -> None:
    await pond.open(WIDE, quota=1_000)
    [call] = await asked(pond, "a", need=600)
    await pond.settle(call, used=600)

    await pond.change(quota=1_000)
    [call] = await asked(pond, "b", need=100)
    await pond.settle(call, used=100)

    assert await events(pond) == [(50, 600)]


# ---------------------------------------------------------------- several flows


async def test_flows_of_an_org_share_its_quota_and_park_each_its_own_jobs(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", quota=300)
    await pond.open(WIDE, flow="g", quota=300)
    await pond.add("f", 3)
    await pond.add("g", 3)
    await pond.beat(free=10)

    assert (await pond.release())[0] == 3

    parked = {**await pond.scores("f:f:parked"), **await pond.scores("f:g:parked")}
    assert len(parked) == 3
    assert await pond.books() == (300, 0, 0)


async def test_what_one_flow_did_not_use_lets_another_ones_jobs_go(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", quota=100)
    await pond.open(WIDE, flow="g", quota=100)
    await pond.add("f", 1)
    await pond.add("g", 1)
    await pond.beat(free=10)
    await pond.release()
    [call] = await pond.claim()
    assert job_ids(call) == ["f.0"]

    await pond.settle(call, used=0)
    await pond.store.promote(200)

    assert (await pond.release())[0] == 1


async def test_at_no_moment_is_more_of_the_quota_spoken_for_than_there_is(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", quota=1_000, pack=4)
    await pond.open(WIDE, flow="g", quota=1_000, pack=4)
    for i in range(40):
        await pond.accept(f"f{i}", flow="f", need=90 + i, base=20, pack="k")
        await pond.accept(f"g{i}", flow="g", need=70 + i, base=20, pack="k")
    await pond.beat(free=10)
    for _ in range(60):
        await pond.jump(250)
        await pond.store.promote(200)
        await pond.release()
        assert sum(await pond.books()) <= 1_000
        for call in await pond.claim():
            await pond.settle(call, used=call.need // 3)
            assert sum(await pond.books()) <= 1_000

    reserved_now, estimated, used = await pond.books()
    assert (reserved_now, estimated) == (0, 0)
    assert used > 850


async def test_flows_of_two_orgs_share_nothing(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", org="acme", quota=0)
    await pond.open(WIDE, flow="g", org="beta", quota=100)
    await pond.add("f", 1)
    await pond.add("g", 1)
    await pond.beat("a", pool="acme")
    await pond.beat("b", pool="beta")

    assert (await pond.release())[0] == 1
    assert len(await pond.claim("b")) == 1


async def test_a_quota_that_is_lowered_below_what_was_used_is_told(pond: Pond) -> None:
    await pond.open(quota=1_000)
    [call] = await pond.run("j1", need=400)
    await pond.settle(call, used=400)

    await pond.change(quota=400)

    rows = await pond.store.records("acme", "events", most=10)
    assert [row.fields["percent"] for row in reversed(rows)] == ["50", "80", "100"]


async def test_of_more_flows_than_are_looked_at_once_all_that_fit_come_back(pond: Pond) -> None:
    await pond.open(quota=1)
    for i in range(120):
        await pond.open(flow=f"f{i}", quota=1)
        await pond.accept(f"j{i}", flow=f"f{i}", need=100 if i % 10 else 900_000)
    await pond.beat(free=1_000)
    while (await pond.release())[1] == 0:
        pass

    await pond.change(quota=50_000)
    back = 0
    for _ in range(20):
        back += (await pond.store.promote(200))[0]

    assert back == 108


async def test_a_job_that_needs_more_by_now_does_not_hold_up_one_that_still_fits(
    pond: Pond,
) -> None:
    """Answers went over their bound, so what a job may use is more than when it was parked."""
    await pond.open(quota=200)
    await pond.accept("first", need=100, base=0)
    await pond.beat()
    await pond.release()
    await pond.accept("a", need=110, base=0)
    await pond.accept("b", need=120, base=120)
    await pond.release()
    assert set(await pond.scores("f:f:parked")) == {"a", "b"}
    [call] = await pond.claim()
    await pond.settle(call, used=150)
    await pond.open(quota=150 + 130)

    await pond.store.promote(200)

    assert await pond.line() == ["b"]
    assert (await pond.scores("f:f:parked"))["a"] > 130
