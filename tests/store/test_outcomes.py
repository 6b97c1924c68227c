"""How a job ends that is not answered: cancelled, expired, of unknown outcome, dead."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.domain.job import State
from millpond.errors import Refused, UnknownPart
from millpond.store.store import BadId, OnUnknown, Store
from store.pond import PREFIX, Pond, names


@pytest.fixture
def pond(store: Store, redis: Redis, time: TestTime) -> Pond:
    return Pond(store, redis, time)


async def last_rows(pond: Pond) -> list[tuple[str, str]]:
    """Of each job that has ended: its id and state."""
    return [
        (row.fields["job"], row.fields["state"]) for row in await pond.rows() if "job" in row.fields
    ]


async def pack(pond: Pond, *ids: str) -> Claimed:
    """Jobs that share a call, with the worker."""
    await pond.open(pack=10, endpoint="embed")
    await pond.accept(*ids, pack="p")
    await pond.jump(250)  # a pack that is not full waits a moment
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    assert [job.id for job in call.jobs] == list(ids)
    return call


# ---------------------------------------------------------------- deadlines


async def test_a_job_in_line_ends_when_its_deadline_passes(pond: Pond) -> None:
    await pond.open("1/60s")
    await pond.accept("j1", "j2", "j3", within_ms=1_000)
    await pond.beat()
    await pond.release()
    await pond.claim()

    await pond.jump(999)
    assert await pond.store.promote(200) == (0, 1)
    await pond.jump(1)
    assert (await pond.store.promote(200))[0] == 2

    assert await last_rows(pond) == [("j2", "expired"), ("j3", "expired")]
    assert await pond.number("f:f", "open") == 1
    assert await pond.number("f:f", "expired") == 2
    assert await pond.scores("until") == {}
    assert await pond.command("EXISTS", f"{PREFIX}y:j2") == 0


async def test_its_turn_passes_over_it(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.accept("j2")
    await pond.jump(1_000)
    await pond.store.promote(200)

    await pond.beat()
    await pond.release()

    assert names(await pond.claim()) == ["j2"]


async def test_a_job_that_waits_to_be_tried_again_ends_at_its_deadline(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=5_000)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    await pond.settle(call, "retry", failed=True, delay_ms=60_000)

    await pond.jump(5_000)
    await pond.store.promote(200)

    assert await last_rows(pond) == [("j1", "expired")]
    assert await pond.scores("f:f:later") == {}


async def test_a_parked_job_ends_at_its_deadline(pond: Pond) -> None:
    await pond.open(quota=50)
    await pond.accept("j1", within_ms=5_000)
    await pond.beat()
    await pond.release()
    assert await pond.scores("o:acme:parked") == {"f": 100}

    await pond.jump(5_000)
    await pond.store.promote(200)

    assert await last_rows(pond) == [("j1", "expired")]
    assert await pond.scores("f:f:parked") == {}
    assert await pond.scores("o:acme:parked") == {}


async def test_a_released_call_is_not_claimed_after_it(pond: Pond) -> None:
    call = await pack_that_is_ready(pond)

    await pond.jump(1_000)
    assert await pond.claim() == []

    assert await last_rows(pond) == [("old", "expired")]
    assert await pond.command("EXISTS", f"{PREFIX}c:{call}") == 0
    assert await pond.stamps() == []
    await pond.jump(250)
    await pond.store.promote(200)
    await pond.release()
    assert names(await pond.claim()) == ["young"]


async def pack_that_is_ready(pond: Pond) -> str:
    await pond.open(pack=2, endpoint="embed")
    await pond.accept("old", pack="p", within_ms=1_000)
    await pond.accept("young", pack="p")
    await pond.beat()
    await pond.release()
    [ready] = await pond.list_of("ready:acme")
    return ready


async def test_an_answer_that_comes_late_is_taken_all_the_same(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()

    await pond.jump(1_000)
    await pond.store.promote(200)
    await pond.settle(call)

    assert await last_rows(pond) == [("j1", "succeeded")]


@pytest.mark.parametrize("failed", [True, False])
async def test_it_is_not_tried_again_after_it(pond: Pond, failed: bool) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    await pond.jump(1_000)

    await pond.settle(call, "retry", failed=failed)

    assert await last_rows(pond) == [("j1", "expired")]
    assert await pond.scores("until") == {}


async def test_nor_given_to_another_worker(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    await pond.jump(1_000)

    await pond.store.give_back("w", [call.id], unreachable=False)

    assert await last_rows(pond) == [("j1", "expired")]
    assert await pond.books() == (0, 0, 0)


async def test_an_answered_job_leaves_no_deadline_behind(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()

    await pond.settle(call)

    assert await pond.scores("until") == {}


# ---------------------------------------------------------------- cancel


async def test_a_queued_job_ends_at_once(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", "j2")

    assert await pond.store.cancel(["j1", "stranger"]) == ["cancelled", "unknown"]
    assert await pond.store.cancel(["j1"]) == ["ended"]

    assert await last_rows(pond) == [("j1", "cancelled")]
    await pond.beat()
    await pond.release()
    assert names(await pond.claim()) == ["j2"]


async def test_a_released_job_ends_and_its_call_was_never_made(pond: Pond) -> None:
    await pond.bring(State.RELEASED)

    assert await pond.store.cancel(["j1"]) == ["cancelled"]

    assert await last_rows(pond) == [("j1", "cancelled")]
    assert await pond.books() == (0, 0, 0)
    assert await pond.flight() == 0
    assert await pond.list_of("ready:acme") == []
    assert await pond.claim() == []


async def test_a_workers_next_heartbeat_brings_it_to_a_running_call(pond: Pond) -> None:
    await pond.open()
    one, two = await pond.run("j1", "j2")
    assert await pond.beat(free=8, held=[one, two]) == ()

    assert await pond.store.cancel(["j1"]) == ["cancelling"]

    assert await pond.beat(free=8, held=[one, two]) == (one.id,)
    await pond.settle(one, "retry", used=None, unknown=True)
    assert await last_rows(pond) == [("j1", "cancelled")]
    assert await pond.books() == (100, 100, 0)


async def test_an_answer_that_came_before_is_taken(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.cancel(["j1"])

    await pond.settle(call)

    assert await last_rows(pond) == [("j1", "succeeded")]


async def test_a_call_with_other_jobs_goes_on(pond: Pond) -> None:
    call = await pack(pond, "j1", "j2")

    assert await pond.store.cancel(["j1"]) == ["cancelling"]
    assert await pond.beat(free=9, held=[call]) == ()
    await pond.settle(call, "retry", used=None, unknown=True)

    assert await last_rows(pond) == [("j1", "cancelled")]
    assert await pond.state("j2") == "queued"


async def test_a_call_all_of_whose_jobs_are_cancelled_is_cut(pond: Pond) -> None:
    call = await pack(pond, "j1", "j2")

    assert await pond.store.cancel(["j1", "j2"]) == ["cancelling", "cancelling"]

    assert await pond.beat(free=9, held=[call]) == (call.id,)


async def test_others_of_a_released_call_are_first_in_line_again(pond: Pond) -> None:
    await pack_that_is_ready(pond)

    assert await pond.store.cancel(["old"]) == ["cancelled"]

    assert await pond.line() == ["young"]
    assert await pond.state("young") == "queued"


async def test_a_cancelled_job_does_not_go_again_when_its_worker_dies(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.cancel(["j1"])
    await pond.store.leave("w")

    await pond.store.reap()

    assert await last_rows(pond) == [("j1", "cancelled")]
    assert await pond.settle(call) == "settled"
    assert await last_rows(pond) == [("j1", "cancelled")]


async def test_a_lost_call_does_not_answer_what_was_cancelled_since(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.leave("w")
    await pond.store.reap()

    assert await pond.store.cancel(["j1"]) == ["cancelled"]
    await pond.settle(call)

    assert await last_rows(pond) == [("j1", "cancelled")]
    assert await pond.books() == (0, 0, 70)


# ---------------------------------------------------------------- nobody knows


@pytest.mark.parametrize(
    ("on_unknown", "unknown", "state"),
    [("end", True, "failed"), ("end", False, "queued"), ("retry", True, "queued")],
)
async def test_a_job_says_whether_it_is_asked_again_when_nobody_knows(
    pond: Pond, on_unknown: OnUnknown, unknown: bool, state: str
) -> None:
    await pond.open()
    await pond.accept("j1", on_unknown=on_unknown)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()

    await pond.settle(call, "retry", used=None, failed=True, unknown=unknown)

    assert await pond.state("j1") == state
    if state == "failed":
        [row] = [row for row in await pond.rows() if "job" in row.fields]
        assert '"unknown_outcome"' in row.fields["body"]


async def test_nor_is_it_after_its_worker_died(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", on_unknown="end")
    await pond.beat()
    await pond.release()
    await pond.claim()
    await pond.store.leave("w")

    await pond.store.reap()

    assert await last_rows(pond) == [("j1", "failed")]
    assert await pond.store.dead("acme") == []


async def test_what_was_surely_not_sent_is_asked_again(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", on_unknown="end")
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()

    await pond.store.give_back("w", [call.id], unreachable=True)

    assert await pond.state("j1") == "queued"


async def test_each_kind_of_try_is_counted_apart(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.store.give_back("w", [call.id], unreachable=False)
    await again(pond)
    await pond.settle((await pond.claim())[0], "retry", refused=True, used=0)
    await again(pond)
    await pond.settle((await pond.claim())[0], "retry", failed=True, used=None)
    await again(pond)
    await pond.claim()
    await pond.store.leave("w")
    await pond.store.reap()

    job = await pond.fields("j:j1")
    counted = {name: job[name] for name in ("unsent", "refused", "failures", "crashed", "attempts")}
    assert counted == {
        "unsent": "1",
        "refused": "1",
        "failures": "1",
        "crashed": "1",
        "attempts": "3",
    }


async def again(pond: Pond) -> None:
    await pond.jump(70_000)
    await pond.store.promote(200)
    await pond.beat()
    await pond.release()


# ---------------------------------------------------------------- dead letters


async def die(pond: Pond, *, of: str = "") -> list[Claimed]:
    """The worker claims all that may go, and dies; it is known of which job, or not."""
    await pond.beat()
    await pond.release()
    calls = await pond.claim()
    blamed = [call.id for call in calls if call.jobs[0].id == of]
    await pond.store.leave("w", blamed="".join(blamed))
    await pond.store.reap()
    return calls


async def test_a_job_that_saw_too_many_workers_die_is_kept_with_its_errors(pond: Pond) -> None:
    await pond.open(crashes=3)
    await pond.accept("j1")
    await die(pond)
    await die(pond)
    assert await pond.store.dead("acme") == []
    [last] = await die(pond)

    [letter] = await pond.store.dead("acme")
    assert (letter.job, letter.flow, letter.note) == ("j1", "f", "note of j1")
    assert letter.payload == b"payload of j1"
    assert (letter.attempts, letter.failures, letter.call) == (3, 0, last.id)
    assert len(letter.errors) == 3
    assert all('"worker_died"' in error for error in letter.errors)
    assert await last_rows(pond) == [("j1", "failed")]


async def test_five_errors_are_remembered(pond: Pond) -> None:
    await pond.open(crashes=7)
    await pond.accept("j1")
    for _ in range(7):
        await die(pond)

    [letter] = await pond.store.dead("acme")
    assert len(letter.errors) == 5


async def test_it_is_asked_again_as_a_new_job(pond: Pond) -> None:
    await pond.open(crashes=1)
    await pond.accept("j1")
    await die(pond)

    await pond.store.replay("acme", "j1", "j1.again")

    assert await pond.store.dead("acme") == []
    assert await pond.field("j:j1.again", "replays") == "j1"
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    assert [(job.id, job.payload) for job in call.jobs] == [("j1.again", b"payload of j1")]
    await pond.settle(call)
    assert await last_rows(pond) == [("j1", "failed"), ("j1.again", "succeeded")]
    assert await pond.number("f:f", "open") == 0


async def test_a_letter_that_is_not_there_is_not_asked(pond: Pond) -> None:
    await pond.open(crashes=1)
    await pond.accept("j1", "j2")
    await pond.beat(free=1)
    await pond.release()
    await pond.claim(most=1)
    await pond.store.leave("w")
    await pond.store.reap()

    with pytest.raises(UnknownPart, match="letter"):
        await pond.store.replay("acme", "j2", "j9")
    with pytest.raises(UnknownPart, match="letter"):
        await pond.store.replay("another", "j1", "j9")
    with pytest.raises(Refused, match="j2"):
        await pond.store.replay("acme", "j1", "j2")
    assert [letter.job for letter in await pond.store.dead("acme")] == ["j1"]


async def test_of_an_org_a_thousand_are_kept(pond: Pond) -> None:
    await pond.open("2000/60s", crashes=1)
    for start in range(0, 1_010, 10):
        await pond.accept(*(f"j{start + i}" for i in range(10)))
        await die(pond)
        await pond.jump(1)

    assert len(await pond.store.dead("acme", most=2_000)) == 1_000
    assert await pond.command("EXISTS", f"{PREFIX}x:j0", f"{PREFIX}x:j9") == 0
    assert await pond.command("EXISTS", f"{PREFIX}x:j10") == 1


# ---------------------------------------------------------------- whose fault it was


async def test_of_a_death_whose_cause_is_known_nobody_else_is_held_responsible(pond: Pond) -> None:
    await pond.open(crashes=3)
    await pond.accept("poison", "other")
    for _ in range(3):
        await die(pond, of="poison")

    assert [letter.job for letter in await pond.store.dead("acme")] == ["poison"]
    assert await pond.field("j:other", "crashed") == "0"
    assert await pond.state("other") == "queued"


async def test_three_such_deaths_are_enough_however_many_others_may_be_seen(pond: Pond) -> None:
    await pond.open(crashes=20)
    await pond.accept("poison")
    await die(pond, of="poison")
    await die(pond, of="poison")
    assert await pond.store.dead("acme") == []

    await die(pond, of="poison")

    assert [letter.job for letter in await pond.store.dead("acme")] == ["poison"]


async def test_a_pack_that_a_worker_died_of_goes_again_one_by_one(pond: Pond) -> None:
    call = await pack(pond, "j1", "j2", "j3")
    await pond.store.leave("w", blamed=call.id)
    await pond.store.reap()

    await pond.beat()
    await pond.release()

    assert [len(call.jobs) for call in await pond.claim()] == [1, 1, 1]


async def test_a_pack_whose_worker_died_of_something_else_stays_one(pond: Pond) -> None:
    await pack(pond, "j1", "j2", "j3")
    await pond.store.leave("w", blamed="0")
    await pond.store.reap()
    await pond.jump(250)

    await pond.beat()
    await pond.release()

    assert [len(call.jobs) for call in await pond.claim()] == [3]


# ---------------------------------------------------------------- who waited for it goes on


async def parked_behind(pond: Pond) -> None:
    """`a` is in line and the quota has room for it alone; `b` is parked behind it."""
    await pond.open(quota=50)
    await pond.accept("a", within_ms=5_000)
    await pond.accept("b")
    await pond.beat()
    await pond.release()
    await pond.open(quota=150)
    await pond.store.promote(200)
    assert await pond.line() == ["a"]


async def held_up_by_a_head(pond: Pond) -> None:
    """The window has room for the tokens of `b`, not for those of `a` before it."""
    await pond.open("6/60s", "30tokens/60s")
    await pond.jump(61_000)
    await pond.accept("first", tokens=10)
    await pond.beat()
    await pond.release()
    [call] = await pond.claim()
    await pond.settle(call, tokens=10)
    await pond.accept("a", tokens=25, within_ms=5_000)
    await pond.accept("b", tokens=10)
    await pond.beat()
    assert (await pond.release())[0] == 0


async def ends(pond: Pond, how: str) -> None:
    if how == "cancelled":
        assert await pond.store.cancel(["a"]) == ["cancelled"]
    else:
        await pond.jump(5_000)
    await pond.store.promote(200)
    await pond.store.promote(200)
    assert await pond.state("a") == how


@pytest.mark.parametrize("how", ["cancelled", "expired"])
@pytest.mark.parametrize("waits", [parked_behind, held_up_by_a_head])
async def test_a_job_that_ends_holds_up_nobody_behind_it(
    pond: Pond, waits: Callable[[Pond], Awaitable[None]], how: str
) -> None:
    await waits(pond)

    await ends(pond, how)
    await pond.beat()
    await pond.release()

    assert names(await pond.claim()) == ["b"]


# ---------------------------------------------------------------- what a review found


async def test_a_released_job_that_no_worker_comes_for_expires(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=1_000)
    await pond.beat()
    await pond.release()
    assert await pond.state("j1") == "released"
    await pond.jump(1_000)

    await pond.store.promote(200)

    assert await last_rows(pond) == [("j1", "expired")]
    assert await pond.list_of("ready:acme") == []
    assert await pond.flight() == 0


async def test_a_job_whose_deadline_has_passed_already_expires_at_once(pond: Pond) -> None:
    await pond.open()
    await pond.accept("j1", within_ms=-5)

    await pond.store.promote(200)

    assert await last_rows(pond) == [("j1", "expired")]


async def test_of_a_pack_whose_claim_was_forgotten_nobody_is_asked_twice(pond: Pond) -> None:
    """The server was started again and takes a call for ready that a worker runs."""
    call = await pack(pond, "a", "b")
    await pond.command("HSET", f"{PREFIX}c:{call.id}", "state", "ready")
    await pond.command("SREM", f"{PREFIX}wc:w", call.id)
    await pond.command("RPUSH", f"{PREFIX}ready:acme", call.id)
    await pond.command("HSET", f"{PREFIX}m", "life", 1)

    assert await pond.store.cancel(["a"]) == ["cancelling"]

    assert await pond.state("b") == "running"
    assert await pond.list_of("ready:acme") == [call.id]


async def test_a_call_that_we_cut_tells_nothing_of_the_provider(pond: Pond) -> None:
    await pond.open()
    [call] = await pond.run("j1")
    await pond.command("HSET", f"{PREFIX}l:acme.generate", "trouble", 12, "trouble_since", 1)
    cut = replace(pond.settlement(call, "retry", used=None, unknown=True), cut=True)

    await pond.store.settle([cut])

    assert await pond.number("l:acme.generate", "trouble") == 12


@pytest.mark.parametrize("id", ["", "a|b", "a,b", "a\n", "\x85", "x" * 201])
async def test_what_cannot_be_an_id_is_refused(pond: Pond, id: str) -> None:
    await pond.open(crashes=1)
    with pytest.raises(BadId):
        await pond.accept(id)
    await pond.accept("j1")
    await die(pond)

    with pytest.raises(BadId):
        await pond.store.replay("acme", "j1", id)

    assert [letter.job for letter in await pond.store.dead("acme")] == ["j1"]


async def test_errors_with_odd_line_breaks_are_read(pond: Pond) -> None:
    await pond.open(crashes=1)
    [call] = await pond.run("j1")
    [end] = pond.settlement(call, "retry", failed=True, used=None).jobs
    odd = replace(end, body='{"error":{"message":"a\u2028b\x85c"}}'.encode())
    await pond.store.settle([replace(pond.settlement(call, used=None), jobs=(odd,))])
    await pond.jump(60_000)
    await pond.store.promote(200)
    await die(pond)

    [letter] = await pond.store.dead("acme")

    first, _ = (json.loads(error)["error"]["message"] for error in letter.errors)
    assert first == "a\u2028b\x85c"
