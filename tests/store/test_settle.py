"""settle: calls that were sent end."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed, Settlement
from millpond.domain.job import State
from millpond.store.store import Store
from store.pond import LEASE_MS, PREFIX, End, Pond, everything, names

LANE = "l:acme.generate"


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def lose(pond: Pond) -> None:
    """The worker `w` dies and what it held is taken back."""
    await pond.store.leave("w")
    await pond.store.reap()


async def test_a_known_call_is_charged_what_it_used_and_its_reservation_returned(
    pond: Pond,
) -> None:
    await pond.open(quota=1_000)
    [call] = await pond.run("j1")
    assert await pond.books() == (100, 0, 0)

    assert await pond.settle(call, used=70) == "settled"

    assert await pond.books() == (0, 0, 70)
    assert await pond.flow_books() == (0, 0, 70)
    assert await pond.fields(f"c:{call.id}") == {}
    assert await pond.number("f:f", "calls") == 1


async def test_a_call_of_unknown_outcome_stays_charged_with_its_whole_reservation(
    pond: Pond,
) -> None:
    await pond.open(quota=1_000)
    [call] = await pond.run("j1")

    assert await pond.settle(call, "failed", used=None) == "settled"

    assert await pond.books() == (0, 100, 0)
    assert await pond.flow_books() == (0, 100, 0)
    assert await pond.fields(f"c:{call.id}") == {}
    assert (await pond.rows())[-2].fields == {
        "call": call.id,
        "jobs": "j1",
        "outcome": "unknown",
        "characters": "100",
    }


async def test_of_a_lane_that_does_not_count_only_the_flow_is_charged(pond: Pond) -> None:
    await pond.open(endpoint="embed")
    [call] = await pond.run("j1")

    await pond.settle(call, used=70)

    assert await pond.books() == (0, 0, 0)
    assert await pond.flow_books() == (0, 0, 70)


@pytest.mark.parametrize("end", ["succeeded", "failed"])
async def test_a_job_that_has_ended_leaves_its_row_behind_the_row_of_its_call(
    pond: Pond, redis: Redis, end: End
) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    await pond.settle(call, end, used=70)

    assert [row.fields for row in await pond.rows()] == [
        {"call": call.id, "jobs": "j1", "outcome": "known", "characters": "70"},
        {
            "job": "j1",
            "state": end,
            "note": "note of j1",
            "attempts": "1",
            "body": '{"text":"yes"}',
        },
    ]
    assert await pond.fields("j:j1") == {
        "state": end,
        "flow": "f",
        "entry": "100|j1|0|0|",
        "note": "note of j1",
        "attempts": "1",
    }
    assert await redis.exists(f"{PREFIX}y:j1") == 0
    assert await pond.number("f:f", "open") == 0
    assert await pond.number("f:f", "held") == 1
    assert await pond.number("f:f", end) == 1


async def test_the_workers_slot_is_free_again(pond: Pond) -> None:
    await pond.open()
    one, _two = await pond.run("j1", "j2")
    assert await pond.number("m", "free:acme") == 8

    await pond.settle(one)

    assert await pond.number("m", "free:acme") == 9
    assert await pond.number("w:w", "free") == 9
    assert len(await pond.members("wc:w")) == 1


@pytest.mark.parametrize(
    ("since_ms", "stamp"),
    [
        # counted so long ago   stamp, from now: never earlier than it was counted
        (0,                     1),
        (0.5,                   1),
        (1,                     0),
        (400.9,                 -399),
        (5_000,                 -4_999),
        # it may still be counted so long after now
        (-0.5,                  2),
        (-1,                    3),
        (-1_000,                1_002),
    ],
)  # fmt: skip
async def test_the_hold_becomes_a_stamp_at_the_latest_moment_it_can_have_been_counted(
    pond: Pond, since_ms: float, stamp: int
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.jump(5_000)

    await pond.settle(call, since_ms=since_ms)

    assert await pond.flight() == 0
    assert await pond.stamps() == [stamp]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
async def test_from_any_other_state_it_is_late_and_changes_nothing(
    pond: Pond, redis: Redis, state: State
) -> None:
    call = await pond.bring(state)
    before = await everything(redis)

    assert await pond.settle(call, used=70, refused=True, pause="key") == "late"

    assert await everything(redis) == before


async def test_a_call_that_a_restarted_server_has_forgotten_is_counted_and_charged_once(
    pond: Pond, redis: Redis
) -> None:
    """Its release, claim and settle fell into the moments that the server lost."""
    await pond.bring(State.QUEUED)
    await redis.hset(f"{PREFIX}m", mapping={"known": 16, "base": 32})  # type: ignore[misc]

    for _ in range(2):
        assert await pond.settle("1f", used=70, since_ms=400) == "late"

    assert await pond.stamps() == [-399]
    assert (await pond.store.look("f")).org.used == 70


@pytest.mark.parametrize("id", ["10", "21"])
async def test_a_call_that_ended_before_is_late_and_changes_nothing(
    pond: Pond, redis: Redis, id: str
) -> None:
    await pond.bring(State.QUEUED)
    await redis.hset(f"{PREFIX}m", mapping={"known": 16, "base": 32})  # type: ignore[misc]
    before = await everything(redis)

    assert await pond.settle(id, used=70, refused=True, pause="key", since_ms=400) == "late"

    assert await everything(redis) == before


async def test_a_call_whose_claim_the_server_has_forgotten_ends_all_the_same(pond: Pond) -> None:
    """It is ready again, but it was sent: nobody may send it once more."""
    await pond.open()
    await pond.accept("j1")
    await pond.beat()
    await pond.release()
    known = await pond.snapshot()
    [call] = await pond.claim()
    await pond.forget_since(known)

    assert await pond.settle(call, used=70) == "settled"

    assert await pond.list_of("ready:acme") == []
    assert await pond.state("j1") == "succeeded"
    assert await pond.flight() == 0
    assert await pond.stamps() == [1]
    assert await pond.books() == (0, 0, 70)
    assert await pond.number("m", "free:acme") == 10


async def test_settling_the_same_call_twice_changes_nothing(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    assert await pond.settle(call) == "settled"
    before = await everything(redis)

    assert await pond.settle(call) == "late"

    assert await everything(redis) == before


async def test_several_calls_are_settled_at_once_with_a_word_for_each(pond: Pond) -> None:
    await pond.open()
    one, two, three = await pond.run("j1", "j2", "j3")
    await pond.settle(two)

    words = await pond.store.settle(
        [
            pond.settlement(one, used=10),
            pond.settlement(two, used=20),
            pond.settlement(three, used=30),
        ]
    )

    assert words == ["settled", "late", "settled"]
    assert await pond.books() == (0, 0, 110)


async def test_a_lost_call_that_is_settled_late_is_charged_what_it_used(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await lose(pond)
    assert await pond.books() == (0, 100, 0)
    stamps = await pond.stamps()

    assert await pond.settle(call, used=70) == "settled"

    assert await pond.books() == (0, 0, 70)
    assert await pond.flow_books() == (0, 0, 70)
    assert await pond.stamps() == stamps
    assert await pond.scores("o:acme:lost") == {}
    assert await pond.fields(f"c:{call.id}") == {}
    assert await pond.number("f:f", "calls") == 1
    assert await pond.settle(call, used=70) == "late"
    assert await pond.books() == (0, 0, 70)


async def test_a_lost_call_whose_outcome_stays_unknown_stays_charged(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await lose(pond)

    assert await pond.settle(call, "failed", used=None) == "settled"

    assert await pond.books() == (0, 100, 0)
    assert await pond.scores("o:acme:lost") == {}


async def test_a_job_that_has_gone_on_under_another_call_is_not_touched(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    [lost] = await pond.run("j1")
    await lose(pond)
    await pond.beat()
    await pond.release()
    [running] = await pond.claim()
    before = await pond.fields("j:j1")

    await pond.settle(lost, "failed", used=70)

    assert await pond.fields("j:j1") == before
    assert before["state"] == "running"
    assert before["call"] == running.id
    assert await pond.settle(running, "succeeded", used=60) == "settled"
    assert await pond.state("j1") == "succeeded"
    assert await pond.books() == (0, 0, 130)


@pytest.mark.parametrize("end", ["succeeded", "failed"])
async def test_a_late_answer_is_taken_while_its_job_still_waits(pond: Pond, end: End) -> None:
    await pond.open()
    [lost] = await pond.run("j1")
    await pond.accept("j2")
    await lose(pond)

    await pond.settle(lost, end)

    assert await pond.state("j1") == end
    assert await pond.field("j:j1", "attempts") == "1"
    assert (await pond.rows())[-1].fields["job"] == "j1"
    await pond.beat()
    await pond.release()
    assert names(await pond.claim()) == ["j2"]


async def test_a_late_answer_is_taken_while_its_job_is_parked(pond: Pond) -> None:
    await pond.open(quota=150)
    [lost] = await pond.run("j1")
    await lose(pond)
    await pond.beat()
    await pond.release()
    assert await pond.scores("f:f:parked") == {"j1": 100}

    await pond.settle(lost, "succeeded", used=10)
    await pond.store.promote(200)

    assert await pond.state("j1") == "succeeded"
    assert await pond.scores("f:f:parked") == {}
    assert await pond.line() == []


async def test_a_lost_call_that_asks_for_another_try_gives_its_job_none(pond: Pond) -> None:
    """It waits for its next try already."""
    await pond.open()
    [lost] = await pond.run("j1")
    await lose(pond)

    await pond.settle(lost, "retry", failed=True, delay_ms=60_000)

    assert await pond.state("j1") == "queued"
    assert await pond.line() == ["j1"]
    assert await pond.field("j:j1", "attempts") == "1"
    assert await pond.field("j:j1", "failures") is None
    assert await pond.scores("f:f:later") == {}


@pytest.mark.parametrize(
    ("failed", "failures"), [(True, "1"), (False, None)], ids=["failure", "no failure"]
)
async def test_a_job_to_try_again_waits_for_its_time(
    pond: Pond, failed: bool, failures: str | None
) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    await pond.settle(call, "retry", used=None, failed=failed, delay_ms=2_000)

    assert await pond.scores("f:f:later") == {"j1": pond.now_ms + 2_000}
    assert await pond.state("j1") == "queued"
    assert await pond.field("j:j1", "call") is None
    assert await pond.field("j:j1", "attempts") == "1"
    assert await pond.field("j:j1", "failures") == failures
    assert await pond.number("f:f", "open") == 1
    assert await pond.line() == []


async def test_it_comes_back_at_exactly_its_time(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.accept("j2")
    await pond.settle(call, "retry", delay_ms=2_000)

    await pond.jump(1_999)
    assert await pond.store.promote(200) == (0, 1)
    await pond.jump(1)
    assert await pond.store.promote(200) == (1, None)

    assert await pond.line() == ["j1", "j2"]


@pytest.mark.parametrize(
    ("limits", "ages_ms", "shut_ms", "shut_for_ms"),
    [
        # limits            stamps, so old   told to wait  shut for
        (["60/60s"],          [50_000],        5_000,        5_000),
        (["60/60s"],          [50_000, 100],   0,            10_000),   # the oldest hold ends
        (["60/60s"],          [],              0,            60_001),   # the refused call's own
        (["60/60s"],          [59_999],        0,            1_000),    # not less than a second
        (["60/60s"],          [60_000],        0,            60_001),   # it is outside
        (["9/10s", "99/1d"],  [80_000, 4_000], 0,            6_000),    # of the shortest window
        (["99/1d", "9/10s"],  [80_000, 4_000], 0,            6_000),
    ],
)  # fmt: skip
async def test_a_refusal_shuts_the_lane_as_told_or_until_the_oldest_hold_ends(
    pond: Pond, limits: list[str], ages_ms: list[int], shut_ms: int, shut_for_ms: int
) -> None:
    await pond.open(*limits)
    [call] = await pond.run("j1")
    await pond.put_stamps(*ages_ms)

    await pond.settle(call, "retry", used=0, refused=True, shut_ms=shut_ms)

    assert await pond.number(LANE, "shut_until") == pond.now_ms + shut_for_ms
    assert await pond.field(LANE, "shut_reason") == "refused"
    assert await pond.number("f:f", "refusals") == 1


async def test_a_shorter_refusal_does_not_open_the_lane_earlier(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.settle(one, used=0, refused=True, shut_ms=5_000)

    await pond.settle(two, used=0, refused=True, shut_ms=2_000)

    assert await pond.number(LANE, "shut_until") == pond.now_ms + 5_000


async def test_a_lane_stands_still_for_the_reason_that_was_told(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    await pond.settle(call, "retry", used=0, pause="key: refused (401)")

    assert await pond.field(LANE, "paused") == "key: refused (401)"


async def test_a_lane_that_was_unreachable_is_reached_again(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    await pond.store.give_back("w", [one.id], unreachable=True)
    assert await pond.field(LANE, "unreachable") == "1"

    await pond.settle(two)

    assert await pond.field(LANE, "unreachable") is None
    assert await pond.field(LANE, "unreachable_since") is None


async def test_what_an_answer_frees_of_the_quota_brings_back_a_parked_job(pond: Pond) -> None:
    await pond.open(quota=150)
    [call] = await pond.run("j1")
    await pond.accept("j2")
    await pond.release()
    assert await pond.scores("f:f:parked") == {"j2": 100}

    await pond.settle(call, used=50)
    assert await pond.store.promote(200) == (1, None)

    assert await pond.release() == (1, None)
    assert sorted(await pond.scores("o:acme:parked")) == []


async def test_a_look_that_was_put_off_comes_sooner_if_the_call_was_counted_long_ago(
    pond: Pond,
) -> None:
    """A streamed answer: its headers came long before its end."""
    await pond.open("2/10s")
    await pond.put_stamps(1_000)
    [streamed] = await pond.run("j1")
    await pond.jump(8_000)
    await pond.accept("j2")
    assert await pond.release() == (0, 1_000)
    await pond.put_stamps(0)  # in the place of the old one
    await pond.jump(1_000)
    assert await pond.release() == (0, 9_000)

    await pond.settle(streamed, since_ms=7_000)

    assert await pond.release() == (0, 3_001)
    await pond.jump(3_001)
    assert await pond.release() == (1, 5_999)


async def test_a_call_that_was_counted_before_the_window_leaves_room_at_once(pond: Pond) -> None:
    await pond.open("2/10s")
    [streamed] = await pond.run("j1")
    await pond.jump(30_000)
    await pond.put_stamps(0)
    await pond.accept("j2")
    assert await pond.release() == (0, 10_000)

    await pond.settle(streamed, since_ms=29_000)

    assert await pond.release() == (1, 10_000)


async def test_settling_after_the_flow_has_left_charges_the_org_and_brings_nothing_back(
    pond: Pond, redis: Redis
) -> None:
    await pond.open()
    [lost] = await pond.run("j1")
    await lose(pond)
    await pond.beat()
    await pond.release()
    [again] = await pond.claim()
    await pond.settle(again, used=60)
    rows = await pond.rows()
    await pond.store.flushed("f", rows[-1].id, done=True)

    assert await pond.settle(lost, used=70) == "settled"

    assert await pond.books() == (0, 0, 130)
    assert [key for key in await everything(redis) if key.startswith("f:")] == []


async def test_a_workers_lease_does_not_matter_to_what_it_settles(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.pass_time(LEASE_MS + 250)

    assert await pond.settle(call) == "settled"

    assert await pond.state("j1") == "succeeded"
    assert await pond.store.reap() == (0, None)


# ---------------------------------------------------------------- large answers


def large(pond: Pond, call: Claimed, size: int) -> Settlement:
    [end] = pond.settlement(call).jobs
    body = b'{"text":"' + b"x" * size + b'"}'
    return replace(pond.settlement(call), jobs=(replace(end, body=body),))


@pytest.mark.parametrize("size", [8_000, 9_000, 3_000_000])
async def test_a_large_answer_is_taken_and_leaves_nothing_behind(pond: Pond, size: int) -> None:
    await pond.open()
    [call] = await pond.run("j1")

    assert await pond.store.settle([large(pond, call, size)]) == ["settled"]

    [row] = [row for row in await pond.rows() if "job" in row.fields]
    assert row.fields["body"] == '{"text":"' + "x" * size + '"}'
    assert await pond.keys_of("r:") == []


async def test_one_that_was_sent_ahead_twice_is_taken_once(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.settle([large(pond, call, 9_000)])

    assert await pond.store.settle([large(pond, call, 9_000)]) == ["late"]

    assert len([row for row in await pond.rows() if "job" in row.fields]) == 1
    assert await pond.keys_of("r:") == []


async def test_one_that_has_gone_is_asked_for_again(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    told = large(pond, call, 9_000)

    [argument] = await pond.store._settle_arguments([told])
    await pond.command("DEL", *(f"{PREFIX}{key}" for key in await pond.keys_of("r:")))
    await pond.store.gateway.run("settle", argument)

    assert await pond.state("j1") == "queued"
    assert await pond.books() == (0, 0, 70)


async def test_a_server_without_room_takes_it_all_the_same(pond: Pond, redis: Redis) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    used = int((await redis.info("memory"))["used_memory"])
    await pond.command("CONFIG", "SET", "maxmemory", used)
    try:
        assert await pond.store.settle([large(pond, call, 9_000)]) == ["settled"]
    finally:
        await pond.command("CONFIG", "SET", "maxmemory", 0)

    assert await pond.state("j1") == "succeeded"
