"""Jobs that may share a call: what goes together, what it takes, and how it ends."""

from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed, JobEnd, Settlement
from millpond.domain.job import Class
from millpond.store.store import Store
from store.pond import Pond, flows, job_ids, names

WIDE = "10000/60s"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def gone(pond: Pond, most: int = 200) -> list[Claimed]:
    """All that can go goes. Nobody feeds any more, so that no pack waits for more."""
    await pond.jump(250)
    await pond.store.promote(200)
    await pond.beat(free=200)
    while (await pond.release(most))[0]:
        pass
    claimed: list[Claimed] = []
    while more := await pond.claim(most=200):
        claimed += more
    return claimed


def packs(calls: Sequence[Claimed]) -> list[list[str]]:
    return [job_ids(call) for call in calls]


# ---------------------------------------------------------------- what goes together


async def test_jobs_of_a_flow_with_the_same_key_share_a_call(pond: Pond) -> None:
    await pond.open(WIDE, pack=3)
    await pond.accept("a", "b", "c", "d", pack="k")

    assert packs(await gone(pond)) == [["a", "b", "c"], ["d"]]


async def test_a_pack_stops_at_another_key(pond: Pond) -> None:
    await pond.open(WIDE, pack=5)
    await pond.accept("a", "b", pack="k")
    await pond.accept("c", pack="other")
    await pond.accept("d", "e", pack="k")

    assert packs(await gone(pond)) == [["a", "b"], ["c"], ["d", "e"]]


async def test_jobs_without_a_key_go_alone(pond: Pond) -> None:
    await pond.open(WIDE, pack=5)
    await pond.accept("a", "b", "c")

    assert packs(await gone(pond)) == [["a"], ["b"], ["c"]]


async def test_a_job_without_a_key_does_not_ride_along(pond: Pond) -> None:
    await pond.open(WIDE, pack=5)
    await pond.accept("a", pack="k")
    await pond.accept("b")
    await pond.accept("c", pack="k")

    assert packs(await gone(pond)) == [["a"], ["b"], ["c"]]


async def test_a_pack_is_filled_from_other_flows_in_their_order(pond: Pond) -> None:
    for flow, user in (("f", "ann"), ("g", "ann"), ("h", "bob")):
        await pond.open(WIDE, flow=flow, user=user, pack=6)
        await pond.accept(f"{flow}1", f"{flow}2", flow=flow, pack="k")

    [call] = await gone(pond)

    assert call.flow == "f"
    assert job_ids(call) == ["f1", "f2", "g1", "g2", "h1", "h2"]


async def test_a_pack_stops_where_the_next_flow_has_another_key(pond: Pond) -> None:
    for flow, key in (("f", "k"), ("g", "other"), ("h", "k")):
        await pond.open(WIDE, flow=flow, pack=6)
        await pond.accept(f"{flow}1", flow=flow, pack=key)

    assert packs(await gone(pond)) == [["f1"], ["g1"], ["h1"]]


async def test_who_leads_says_how_large_a_pack_may_be(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", pack=2)
    await pond.open(WIDE, flow="g", pack=5)
    await pond.accept("f1", flow="f", pack="k")
    await pond.accept("g1", "g2", "g3", flow="g", pack="k")

    assert packs(await gone(pond)) == [["f1", "g1"], ["g2", "g3"]]


async def test_only_who_leads_pays_for_the_turn(pond: Pond) -> None:
    """The one that rode along is next, since it has had no turn of its own."""
    await pond.open(WIDE, flow="f", pack=3)
    await pond.open(WIDE, flow="g", pack=3)
    await pond.accept("f1", "f2", flow="f", pack="k")
    await pond.accept("g1", "g2", "g3", flow="g", pack="k")
    await pond.jump(250)
    await pond.beat()
    await pond.release(1)
    [call] = await pond.claim()
    assert job_ids(call) == ["f1", "f2", "g1"]
    await pond.settle(call)
    await pond.accept("f3", "f4", "f5", flow="f", pack="k")

    assert packs(await gone(pond)) == [["g2", "g3", "f3"], ["f4", "f5"]]


async def test_flows_that_fill_their_own_packs_take_turns(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", user="ann", pack=4)
    await pond.open(WIDE, flow="g", user="bob", pack=4)
    await pond.add("f", 12, pack="k")
    await pond.add("g", 12, pack="k")

    calls = await gone(pond)

    assert flows(calls) == ["f", "g"] * 3
    assert {len(call.jobs) for call in calls} == {4}


async def test_a_chat_never_shares_a_call_with_bulk(pond: Pond) -> None:
    await pond.open(WIDE, flow="chat", klass=Class.INTERACTIVE, pack=5)
    await pond.open(WIDE, flow="bulk", pack=5)
    await pond.accept("c1", flow="chat", pack="k")
    await pond.accept("b1", flow="bulk", pack="k")

    calls = await gone(pond)

    assert packs(calls) == [["c1"], ["b1"]]
    assert [call.bulk for call in calls] == [0, 1]


async def test_jobs_that_have_ended_meanwhile_are_left_out_of_a_pack(pond: Pond) -> None:
    await pond.open(WIDE, pack=3)
    await pond.accept("a", "b", "c", "d", pack="k")
    [lost, _] = await gone(pond)
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.settle(lost)
    await pond.accept("e", "f", pack="k")

    assert packs(await gone(pond)) == [["d", "e", "f"]]


async def test_a_call_tells_its_worker_what_it_holds(pond: Pond) -> None:
    await pond.open(WIDE, pack=3, attempts=4)
    await pond.accept("a", need=10, tokens=3, pack="k")
    await pond.accept("b", need=20, tokens=4, pack="k")

    [call] = await gone(pond)

    assert (call.need, call.tokens, call.inputs, call.bulk, call.attempts) == (30, 7, 2, 1, 4)
    assert [(job.id, job.need, job.payload) for job in call.jobs] == [
        ("a", 10, b"payload of a"),
        ("b", 20, b"payload of b"),
    ]


# ---------------------------------------------------------------- how many at once


@pytest.mark.parametrize("most", [1, 7, 200])
async def test_every_pack_of_a_long_line_is_full_but_the_last(pond: Pond, most: int) -> None:
    """However many calls are asked for, and though a script looks at only so many jobs."""
    await pond.open(WIDE, pack=96)
    await pond.add("f", 1_000, pack="k")

    sizes = [len(call.jobs) for call in await gone(pond, most)]

    assert sizes == [96] * 10 + [40]


async def test_one_release_of_packs_looks_at_few_more_than_two_hundred_jobs(pond: Pond) -> None:
    await pond.open(WIDE, pack=96)
    await pond.add("f", 1_000, pack="k")
    await pond.beat(free=100)

    assert await pond.release() == (3, 0)


async def test_a_claim_takes_no_more_calls_once_it_has_four_hundred_jobs(pond: Pond) -> None:
    await pond.open(WIDE, pack=96)
    await pond.add("f", 1_000, pack="k")
    await pond.beat(free=100)
    await pond.jump(250)
    await pond.store.promote(200)
    while (await pond.release())[0]:
        pass

    claims = [len(names(await pond.claim(most=100))) for _ in range(3)]

    assert claims == [5 * 96, 5 * 96, 40]


async def test_a_claim_of_single_jobs_takes_two_hundred(pond: Pond) -> None:
    await pond.open(WIDE)
    await pond.add("f", 300)
    await pond.beat(free=300)
    while (await pond.release())[0]:
        pass

    assert len(await pond.claim(most=200)) == 200


async def test_a_claim_of_packs_asked_again_gives_the_same(pond: Pond) -> None:
    await pond.open(WIDE, pack=3)
    await pond.add("f", 9, pack="k")
    await pond.beat()
    await pond.release()
    first = await pond.claim()

    assert await pond.store.claim("w", 1, 10) == first
    assert [len(call.jobs) for call in first] == [3, 3, 3]


async def test_a_pack_that_is_not_full_waits_a_moment_for_more_of_a_flow_that_is_fed(
    pond: Pond,
) -> None:
    await pond.open(WIDE, pack=4)
    await pond.beat()
    await pond.accept("a", "b", pack="k")
    assert (await pond.release())[0] == 0
    await pond.jump(249)
    await pond.store.promote(200)
    assert (await pond.release())[0] == 0

    await pond.accept("c", "d", pack="k")

    assert (await pond.release())[0] == 1
    assert packs(await pond.claim()) == [["a", "b", "c", "d"]]


async def test_it_waits_no_longer_than_that_moment(pond: Pond) -> None:
    await pond.open(WIDE, pack=4)
    await pond.beat()
    await pond.store.promote(200)
    await pond.accept("a", "b", pack="k")
    await pond.release()
    assert await pond.store.promote(200) == (0, 250)

    await pond.jump(250)
    await pond.store.promote(200)

    assert (await pond.release())[0] == 1


async def test_who_waits_for_more_of_its_pack_loses_no_turn(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", user="ann", pack=4)
    await pond.open(WIDE, flow="g", user="bob")
    await pond.add("g", 100)
    await pond.pass_through(10)
    await pond.accept("f1", "f2", flow="f", pack="k")
    await pond.pass_through(5)
    await pond.jump(250)
    await pond.store.promote(200)

    assert "f" in flows(await pond.pass_through(2))


async def test_though_jobs_keep_coming_a_pack_waits_no_longer_than_that_moment(pond: Pond) -> None:
    await pond.open(WIDE, pack=96)
    await pond.beat()
    released = 0
    for i in range(10):
        await pond.accept(f"j{i}", pack="k")
        await pond.store.promote(200)
        released += (await pond.release())[0]
        await pond.jump(100)

    assert released >= 1


async def test_a_chat_waits_for_nobody(pond: Pond) -> None:
    await pond.open(WIDE, klass=Class.INTERACTIVE, pack=4)
    await pond.beat()
    await pond.accept("a", pack="k")

    assert (await pond.release())[0] == 1


async def test_a_flow_that_waits_for_its_pack_does_not_hold_up_those_behind_it(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", pack=4)
    await pond.open(WIDE, flow="g")
    await pond.accept("f1", flow="f", pack="k")
    await pond.accept("g1", flow="g")
    await pond.beat()

    await pond.release()

    assert packs(await pond.claim()) == [["g1"]]


async def test_while_a_pack_waits_for_more_its_lane_costs_nothing(pond: Pond) -> None:
    await pond.open(WIDE, pack=4)
    await pond.accept("a", pack="k")
    await pond.beat()

    await pond.release()

    assert await pond.scores("turn") == {}
    assert await pond.scores("due") == {}


# ---------------------------------------------------------------- limits and quota


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        #  limit                    jobs of 100 characters and 10 tokens that go together
        ("1/60s",                   [4]),          # a limit of calls counts the pack as one
        ("1@once",                  [4]),
        ("3inputs/60s",             [3]),
        ("5inputs/60s",             [4, 1]),
        ("25tokens/60s",            [2]),
        ("50tokens/60s",            [4, 1]),
        ("299characters/60s",       [2]),
        ("650characters/60s",       [4, 2]),
        ("5characters/60s",         [1]),          # more than the limit goes alone
    ],
)  # fmt: skip
async def test_a_limit_counts_all_that_is_in_a_pack(
    pond: Pond, limit: str, sizes: list[int]
) -> None:
    await pond.open(limit, pack=4)
    await pond.accept(*"abcdefgh", need=100, tokens=10, pack="k")

    assert [len(call.jobs) for call in await gone(pond)] == sizes


async def test_what_a_pack_did_not_use_is_free_when_it_ends(pond: Pond) -> None:
    await pond.open("40tokens/60s", pack=4)
    await pond.accept(*"abcdef", tokens=10, pack="k")
    [call] = await gone(pond)

    await pond.settle(call, tokens=25)

    assert [len(call.jobs) for call in await gone(pond)] == [1]


async def test_a_pack_that_was_not_sent_gives_back_all_of_it(pond: Pond) -> None:
    await pond.open("4inputs/60s", "40tokens/60s", "400characters/60s", pack=4)
    await pond.accept(*"abcd", tokens=10, pack="k")
    [call] = await gone(pond)

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert packs(await gone(pond)) == [["a", "b", "c", "d"]]


async def test_the_quota_reserves_for_each_job_and_what_does_not_fit_is_parked(pond: Pond) -> None:
    await pond.open(WIDE, pack=4, quota=250)
    await pond.accept(*"abcd", pack="k")

    assert packs(await gone(pond)) == [["a", "b"]]

    assert await pond.books() == (200, 0, 0)
    assert await pond.scores("f:f:parked") == {"c": 100, "d": 100}


async def test_jobs_of_each_flow_of_a_pack_are_parked_with_their_own_flow(pond: Pond) -> None:
    await pond.open(WIDE, flow="f", pack=4, quota=100)
    await pond.open(WIDE, flow="g", pack=4, quota=100)
    await pond.accept("f1", "f2", flow="f", pack="k")
    await pond.accept("g1", flow="g", pack="k")

    assert packs(await gone(pond)) == [["f1"]]

    assert await pond.scores("f:f:parked") == {"f2": 100}
    assert await pond.scores("f:g:parked") == {"g1": 100}
    assert sorted(await pond.scores("o:acme:parked")) == ["f", "g"]


# ---------------------------------------------------------------- how it ends


async def mixed(pond: Pond, *, quota: int | None = None) -> Claimed:
    """A call with jobs a, b of f and c of g."""
    await pond.open(WIDE, flow="f", user="ann", pack=3, quota=quota)
    await pond.open(WIDE, flow="g", user="bob", pack=3, quota=quota)
    await pond.accept("a", "b", flow="f", need=100, pack="k")
    await pond.accept("c", flow="g", need=300, pack="k")
    [call] = await gone(pond)
    assert job_ids(call) == ["a", "b", "c"]
    return call


def ended(pond: Pond, call: Claimed, **used: int | None) -> Settlement:
    total = None if None in used.values() else sum(one or 0 for one in used.values())
    return Settlement(
        call,
        counted_by_ms=pond.time.monotonic_ms(),
        used=total,
        jobs=tuple(JobEnd(job, "succeeded", used=one) for job, one in used.items()),
    )


async def test_each_flow_reserves_for_its_own_jobs(pond: Pond) -> None:
    await mixed(pond)

    assert await pond.books() == (500, 0, 0)
    assert await pond.flow_books("f") == (200, 0, 0)
    assert await pond.flow_books("g") == (300, 0, 0)


async def test_each_flow_is_charged_for_its_own_jobs(pond: Pond) -> None:
    call = await mixed(pond)

    await pond.store.settle([ended(pond, call, a=10, b=20, c=5)])

    assert await pond.books() == (0, 0, 35)
    assert await pond.flow_books("f") == (0, 0, 30)
    assert await pond.flow_books("g") == (0, 0, 5)
    assert [await pond.state(job) for job in "abc"] == ["succeeded"] * 3


async def test_each_flow_has_a_row_of_the_call_and_of_its_own_jobs(pond: Pond) -> None:
    call = await mixed(pond)

    await pond.store.settle([ended(pond, call, a=10, b=20, c=5)])

    first, *jobs = [row.fields for row in await pond.rows("f")]
    assert first == {"call": call.id, "jobs": "a,b", "outcome": "known", "characters": "30"}
    assert [row["job"] for row in jobs] == ["a", "b"]
    first, *jobs = [row.fields for row in await pond.rows("g")]
    assert first == {"call": call.id, "jobs": "c", "outcome": "known", "characters": "5"}
    assert [row["job"] for row in jobs] == ["c"]


async def test_of_an_unknown_outcome_each_flow_keeps_what_its_jobs_may_have_used(
    pond: Pond,
) -> None:
    call = await mixed(pond)

    await pond.store.settle([ended(pond, call, a=None, b=None, c=None)])

    assert await pond.books() == (0, 500, 0)
    assert await pond.flow_books("f") == (0, 200, 0)
    assert await pond.flow_books("g") == (0, 300, 0)


async def test_jobs_of_one_call_may_end_each_in_its_own_way(pond: Pond) -> None:
    call = await mixed(pond)
    told = ended(pond, call, a=10, b=0, c=0)

    await pond.store.settle(
        [
            Settlement(
                call,
                told.counted_by_ms,
                told.used,
                (
                    JobEnd("a", "succeeded", used=10),
                    JobEnd("b", "failed", used=0),
                    JobEnd("c", "retry", used=0, delay_ms=1_000),
                ),
            )
        ]
    )

    assert await pond.state("a") == "succeeded"
    assert await pond.state("b") == "failed"
    assert await pond.state("c") == "queued"
    assert list(await pond.scores("f:g:later")) == ["c"]
    assert await pond.number("f:f", "open") == 0
    assert await pond.number("f:g", "open") == 1


async def test_a_pack_that_was_not_sent_puts_all_its_jobs_at_the_head_in_their_order(
    pond: Pond,
) -> None:
    call = await mixed(pond, quota=1_000)
    await pond.accept("d", flow="f", pack="k")
    await pond.accept("e", flow="g", pack="k")

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await pond.line("f") == ["a", "b", "d"]
    assert await pond.line("g") == ["c", "e"]
    assert await pond.books() == (0, 0, 0)
    assert await pond.flow_books("f") == (0, 0, 0)
    assert await pond.flow_books("g") == (0, 0, 0)
    assert [row.fields["outcome"] for row in await pond.rows("g")] == ["unsent"]


async def test_packs_given_back_together_come_back_in_their_order(pond: Pond) -> None:
    await pond.open(WIDE, pack=2)
    await pond.accept(*"abcdef", pack="k")
    calls = await gone(pond)

    await pond.store.give_back("w", [call.id for call in calls], unreachable=False)

    assert await pond.line() == list("abcdef")


async def test_a_pack_whose_worker_died_puts_its_jobs_at_the_head_and_stays_charged(
    pond: Pond,
) -> None:
    await mixed(pond)
    await pond.accept("d", flow="f", pack="k")
    await pond.store.leave("w")

    await pond.store.reap()

    assert await pond.line("f") == ["a", "b", "d"]
    assert await pond.line("g") == ["c"]
    assert await pond.books() == (0, 500, 0)
    assert await pond.flow_books("f") == (0, 200, 0)
    assert await pond.flow_books("g") == (0, 300, 0)


async def test_a_lost_packs_late_answer_is_taken_for_each_job_that_still_waits(pond: Pond) -> None:
    call = await mixed(pond)
    await pond.store.leave("w")
    await pond.store.reap()
    await pond.beat("w2", free=1)
    await pond.store.pause("g")
    await pond.release(1)
    [again] = await pond.claim("w2")
    assert job_ids(again) == ["a", "b"]

    await pond.store.settle([ended(pond, call, a=10, b=20, c=5)])

    assert [await pond.state(job) for job in "abc"] == ["running", "running", "succeeded"]
    assert await pond.books() == (200, 0, 35)
    assert await pond.flow_books("g") == (0, 0, 5)


async def test_a_pack_settled_twice_is_charged_once(pond: Pond) -> None:
    call = await mixed(pond)
    told = ended(pond, call, a=10, b=20, c=5)

    assert await pond.store.settle([told]) == ["settled"]
    assert await pond.store.settle([told]) == ["late"]

    assert await pond.books() == (0, 0, 35)


async def test_an_answer_never_ends_a_job_of_another_call(pond: Pond) -> None:
    await pond.open(WIDE, pack=2)
    await pond.accept(*"abcd", pack="k")
    one, two = await gone(pond)

    await pond.store.settle([ended(pond, one, a=1, c=1)])

    assert await pond.state("a") == "succeeded"
    assert await pond.state("c") == "running"
    assert await pond.field("j:c", "call") == two.id


async def forgotten(pond: Pond) -> Claimed:
    """A running pack of which a server that came back has forgotten everything but its jobs."""
    await pond.open(WIDE, "1000inputs/60s", pack=3, quota=10_000)
    await pond.accept("a", "b", "c", need=100, tokens=5, pack="k")
    await pond.beat()
    known = await pond.snapshot()
    await pond.release()
    [call] = await pond.claim()
    await pond.forget_since(known)
    return call


async def test_a_pack_that_the_server_has_forgotten_is_held_again_with_all_that_it_holds(
    pond: Pond,
) -> None:
    call = await forgotten(pond)

    await pond.beat(seq=1, free=9, held=[call])

    assert await pond.flight() == 1
    assert await pond.number("l:acme.generate", "flight:inputs") == 3
    assert await pond.books() == (300, 0, 0)
    assert await pond.flow_books() == (300, 0, 0)


async def test_a_forgotten_pack_that_is_held_again_gives_back_what_it_held_when_it_ends(
    pond: Pond,
) -> None:
    call = await forgotten(pond)
    await pond.beat(seq=1, free=9, held=[call])

    await pond.settle(call, used=70)

    assert await pond.flight() == 0
    assert await pond.number("l:acme.generate", "flight:inputs") == 0
    assert await pond.books() == (0, 0, 70)
    assert await pond.flow_books() == (0, 0, 70)


async def test_a_forgotten_pack_that_ends_first_is_charged_once_and_names_its_jobs(
    pond: Pond,
) -> None:
    call = await forgotten(pond)

    assert await pond.settle(call, used=70) == "late"
    assert await pond.settle(call, used=70) == "late"

    assert await pond.books() == (0, 0, 70)
    assert [row.fields for row in await pond.rows()] == [
        {"call": call.id, "jobs": "a,b,c", "outcome": "known", "characters": "70"}
    ]
    windows = (await pond.store.look("f")).lane.windows
    assert [window.used for window in windows] == [1, 3]


# ---------------------------------------------------------------- how large


async def pack_size(pond: Pond, flow: str = "f") -> int:
    return await pond.number(f"f:{flow}", "pack")


async def test_a_pack_that_is_refused_for_its_size_halves_the_flows_packs(pond: Pond) -> None:
    await pond.open(WIDE, pack=96)
    await pond.add("f", 96, pack="k")
    [call] = await gone(pond)

    await pond.settle(call, "retry", used=0, split=True)

    assert await pack_size(pond) == 48
    assert [len(call.jobs) for call in await gone(pond)] == [48, 48]


async def test_jobs_of_a_pack_that_was_split_are_first_in_line(pond: Pond) -> None:
    await pond.open(WIDE, pack=4)
    await pond.accept(*"abcd", pack="k")
    [call] = await gone(pond)
    await pond.accept(*"efgh", pack="k")

    await pond.settle(call, "retry", used=0, split=True)
    await pond.store.promote(200)

    assert await pond.line() == list("abcdefgh")


async def test_a_pack_of_few_jobs_that_is_refused_halves_by_what_it_had(pond: Pond) -> None:
    await pond.open(WIDE, pack=96)
    await pond.add("f", 10, pack="k")
    [call] = await gone(pond)

    await pond.settle(call, "retry", used=0, split=True)

    assert await pack_size(pond) == 5


async def test_packs_become_no_smaller_than_one(pond: Pond) -> None:
    await pond.open(WIDE, pack=2)
    for _ in range(3):
        await pond.accept("a", "b", pack="k")
        for call in await gone(pond):
            await pond.settle(call, "retry", used=0, split=True)

    assert await pack_size(pond) == 1


async def test_packs_grow_back_as_they_are_taken_to_just_below_what_was_refused(
    pond: Pond,
) -> None:
    await pond.open(WIDE, pack=96)
    await pond.add("f", 96, pack="k")
    [call] = await gone(pond)
    await pond.settle(call, "retry", used=0, split=True)
    for _ in range(10):
        for call in await gone(pond):
            await pond.settle(call)
        await pond.accept(*(f"more{i}.{pond.now_ms}" for i in range(96)), pack="k")

    assert await pack_size(pond) == 95


async def test_a_size_that_was_refused_is_tried_again_after_many_that_were_taken(
    pond: Pond,
) -> None:
    await pond.open(WIDE, pack=4)
    await pond.accept(*"abcd", pack="k")
    [call] = await gone(pond)
    await pond.settle(call, "retry", used=0, split=True)
    sizes = []
    for _ in range(30):
        await pond.accept(*(f"{i}.{pond.now_ms}" for i in range(12)), pack="k")
        calls = await gone(pond)
        sizes += [len(call.jobs) for call in calls]
        for call in calls:
            await pond.settle(call)

    assert 4 not in sizes[:60]
    assert 4 in sizes[60:]


async def test_a_provider_that_is_unwell_does_not_make_packs_grow(pond: Pond) -> None:
    await pond.open(WIDE, pack=8)
    await pond.add("f", 8, pack="k")
    [call] = await gone(pond)
    await pond.settle(call, "retry", used=0, split=True)
    calls = await gone(pond)

    for call in calls:
        await pond.settle(call, "retry", used=0, trouble=True)

    assert await pack_size(pond) == 4


async def test_opening_the_flow_again_does_not_forget_the_size_that_is_taken(pond: Pond) -> None:
    await pond.open(WIDE, pack=8)
    await pond.add("f", 8, pack="k")
    [call] = await gone(pond)
    await pond.settle(call, "retry", used=0, split=True)

    await pond.open(WIDE, pack=8)
    assert await pack_size(pond) == 4

    await pond.open(WIDE, pack=6)
    assert await pack_size(pond) == 6


async def test_each_job_of_a_pack_may_fail_as_often_as_its_own_flow_says(pond: Pond) -> None:
    await pond.open(WIDE, flow="a", attempts=1, pack=4)
    await pond.open(WIDE, flow="b", attempts=5, pack=4)
    await pond.accept("a1", flow="a", pack="k")
    await pond.accept("b1", flow="b", pack="k")
    await pond.beat()
    await pond.pass_time(300)
    await pond.store.promote(200)
    await pond.release()

    [call] = await pond.claim()

    assert {job.id: job.attempts for job in call.jobs} == {"a1": 1, "b1": 5}


async def test_what_rides_in_a_call_is_not_sent_once_its_flow_is_paused(pond: Pond) -> None:
    await pond.open(WIDE, flow="a", pack=4)
    await pond.open(WIDE, flow="b", pack=4)
    await pond.accept("a1", flow="a", pack="k")
    await pond.accept("b1", flow="b", pack="k")
    await pond.beat()
    await pond.pass_time(300)
    await pond.store.promote(200)
    assert (await pond.release())[0] == 1

    await pond.store.pause("b")

    assert await pond.claim() == []
    assert await pond.state("b1") == "queued"
