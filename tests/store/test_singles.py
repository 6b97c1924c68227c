"""Single jobs: submitted all or none, kept with their answers, told to whoever waits, erased."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import TestTime
from millpond.domain.call import Claimed
from millpond.domain.job import Class, State
from millpond.errors import UnknownPart
from millpond.store.singles import (
    PURGE_MOST,
    Bounds,
    Flow,
    FlowClosed,
    Forgotten,
    Full,
    KeyReused,
    NotEnded,
    Single,
    Singles,
    Suspended,
)
from millpond.store.store import Store
from store.pond import PREFIX, Pond, everything

WIDE = Bounds(1_000_000, 1_000_000)


class Desk(Pond):
    """A pond whose jobs are single ones."""

    singles: Singles

    async def open_single(self, flow: str = "s", *, org: str = "acme", user: str = "ann") -> None:
        await self.singles.open(
            Flow(flow, org, f"{org}.generate", user, Class.INTERACTIVE, 3, 3, 1, b"{}"), by="api"
        )

    async def submit(self, *ids: str, flow: str = "s", **how: Any) -> list[str]:
        known = {name: how.pop(name) for name in ("idempotency", "fingerprint") if name in how}
        jobs = [Single(id, flow, 100, f"payload of {id}".encode(), id, **how) for id in ids]
        return await self.singles.submit("acme", jobs, WIDE, **known)

    async def bring_one(self, id: str = "j1", **how: Any) -> Claimed:
        """Submit a job, and bring it to the worker."""
        await self.submit(id, **how)
        await self.beat(free=10, seq=self.seqs.get("w", 0))
        await self.release()
        [call] = await self.claim()
        return call


@pytest.fixture
async def desk(store: Store, redis: Redis, time: TestTime) -> Desk:
    desk = Desk(store, redis, time)
    desk.singles = Singles(store.gateway)
    await desk.open()
    await desk.open_single()
    return desk


async def test_a_job_is_kept_with_its_answer(desk: Desk, time: TestTime) -> None:
    began_ms = desk.now_ms
    call = await desk.bring_one()
    time.advance(500)

    await desk.settle(call)

    kept = await desk.singles.find("acme", "j1")
    assert kept.state is State.SUCCEEDED
    assert kept.answer == b'{"text":"yes"}'
    assert (kept.submitted_ms, kept.ended_ms) == (began_ms, began_ms + 500)
    assert (kept.note, kept.attempts) == ("j1", 1)


async def test_nothing_of_it_goes_to_the_stream_that_a_run_would_read(desk: Desk) -> None:
    await desk.settle(await desk.bring_one())

    assert await desk.rows("s") == []
    assert await desk.number("o:acme", "used") == 70


async def test_what_was_asked_is_not_kept_once_it_is_answered(desk: Desk) -> None:
    call = await desk.bring_one()
    assert await desk.keys_of("y:") == ["y:j1"]

    await desk.settle(call)

    assert await desk.keys_of("y:") == []


async def test_all_are_submitted_or_none(desk: Desk, redis: Redis) -> None:
    before = await everything(redis)
    jobs = [Single("j1", "s", 100, b"x"), Single("j2", "closed", 100, b"x")]

    with pytest.raises(FlowClosed, match="closed"):
        await desk.singles.submit("acme", jobs, WIDE)

    assert await everything(redis) == before


async def test_of_another_orgs_flow_nothing_is_known(desk: Desk) -> None:
    await desk.open(org="other", flow="theirs")

    with pytest.raises(FlowClosed):
        await desk.submit("j1", flow="theirs")


async def test_the_same_key_again_tells_the_same_ids(desk: Desk) -> None:
    known = {"idempotency": "key", "fingerprint": "print"}
    first = await desk.submit("j1", "j2", **known)

    again = await desk.submit("j3", "j4", **known)

    assert first == again == ["j1", "j2"]
    assert await desk.line("s") == ["j1", "j2"]


async def test_the_same_key_for_something_else_is_refused(desk: Desk) -> None:
    await desk.submit("j1", idempotency="key", fingerprint="print")

    with pytest.raises(KeyReused):
        await desk.submit("j2", idempotency="key", fingerprint="another")

    assert await desk.line("s") == ["j1"]


async def test_a_job_may_have_a_key_of_its_own(desk: Desk) -> None:
    def keyed(id: str, fingerprint: str = "print") -> Single:
        return Single(id, "s", 100, b"x", idempotency="own", fingerprint=fingerprint)

    await desk.singles.submit("acme", [keyed("j1")], WIDE)

    jobs = [Single("j2", "s", 100, b"x"), keyed("j3")]
    assert await desk.singles.submit("acme", jobs, WIDE) == ["j2", "j1"]
    assert await desk.line("s") == ["j1", "j2"]
    with pytest.raises(KeyReused):
        await desk.singles.submit("acme", [keyed("j4", "another")], WIDE)


async def test_what_waits_has_a_bound(desk: Desk) -> None:
    jobs = [Single(f"j{n}", "s", 100, b"x" * 100, "n" * 50, tag="t" * 50) for n in range(3)]
    await desk.singles.submit("acme", jobs[:2], Bounds(1_250, 9_000))

    with pytest.raises(Full, match="1,000 bytes of jobs of the org wait already, of 1,250"):
        await desk.singles.submit("acme", jobs[2:], Bounds(1_250, 9_000))
    with pytest.raises(Full, match="all orgs"):
        await desk.singles.submit("acme", jobs[2:], Bounds(9_000, 1_250))

    assert await desk.line("s") == ["j0", "j1"]


async def test_what_is_kept_after_its_end_has_a_bound(desk: Desk) -> None:
    """Whoever cancels what was submitted gets no room by that: it may be asked again."""
    await desk.submit("j1")
    await desk.store.cancel(["j1"])
    kept = await desk.number("o:acme", "kept")
    assert kept == await desk.number("m", "kept") > len("payload of j1")

    for bounds in (Bounds(9_000, 9_000, org_kept=kept), Bounds(9_000, 9_000, server_kept=kept)):
        with pytest.raises(Full, match="kept already"):
            await desk.singles.submit("acme", [Single("j2", "s", 100, b"x")], bounds)
        with pytest.raises(Full, match="kept already"):
            await desk.singles.again("acme", "j1", "j3", bounds)
    await desk.singles.erase("acme", "j1")

    assert await desk.number("o:acme", "kept") == await desk.number("m", "kept") == 0


async def test_of_an_answered_job_the_answer_weighs_and_not_what_was_asked(desk: Desk) -> None:
    long = Single("j1", "s", 100, b"x" * 5_000)
    await desk.singles.submit("acme", [long], WIDE)
    await desk.beat(free=10, seq=0)
    await desk.release()
    [call] = await desk.claim()

    await desk.settle(call)

    assert await desk.number("o:acme", "bytes") == 0
    assert await desk.number("o:acme", "kept") == 300 + len(b'{"text":"yes"}')


async def test_one_key_twice_in_a_list_is_one_job(desk: Desk) -> None:
    def keyed(id: str, fingerprint: str = "print") -> Single:
        return Single(id, "s", 100, b"x", idempotency="own", fingerprint=fingerprint)

    assert await desk.singles.submit("acme", [keyed("j1"), keyed("j2")], WIDE) == ["j1", "j1"]
    with pytest.raises(KeyReused):
        await desk.singles.submit("acme", [keyed("j3"), keyed("j4", "another")], WIDE)
    assert await desk.line("s") == ["j1"]


async def test_who_is_asked_again_is_not_asked_twice_either(desk: Desk) -> None:
    await desk.settle(await desk.bring_one(on_unknown="end", tag="a|b|c"), "failed")

    await desk.singles.again("acme", "j1", "j2", WIDE)

    assert await desk.field("j:j2", "on_unknown") == "end"
    assert await desk.field("j:j2", "tag") == "a|b|c"


@pytest.mark.parametrize("end", ["succeeded", "failed"])
async def test_what_has_ended_waits_no_more(desk: Desk, end: Any) -> None:
    call = await desk.bring_one()
    size = await desk.number("o:acme", "bytes")
    assert size == await desk.number("m", "bytes") == 300 + len("payload of j1") + len("j1")

    await desk.settle(call, end)

    assert await desk.number("o:acme", "bytes") == await desk.number("m", "bytes") == 0


async def test_a_suspended_org_submits_nothing(desk: Desk) -> None:
    await desk.change(status="suspended")

    with pytest.raises(Suspended, match="org acme is suspended"):
        await desk.submit("j1")


async def test_a_job_waits_for_its_time(desk: Desk, time: TestTime) -> None:
    await desk.submit("j1", wait_ms=5_000)
    await desk.beat()
    assert (await desk.release())[0] == 0

    await desk.pass_time(5_000)

    await desk.store.promote(200)
    assert (await desk.release())[0] == 1


async def test_a_deadline_that_passes_first_ends_it(desk: Desk, time: TestTime) -> None:
    await desk.submit("j1", wait_ms=5_000, within_ms=1_000)
    await desk.pass_time(1_000)

    await desk.store.promote(200)

    assert (await desk.singles.find("acme", "j1")).state is State.EXPIRED


async def test_who_waits_is_told(desk: Desk) -> None:
    after = await desk.singles.last_done()
    assert await desk.singles.done(after, block_ms=10) == ([], after)
    call = await desk.bring_one()
    await desk.settle(call)

    ended, place = await desk.singles.done(after, block_ms=10)

    assert ended == ["j1"]
    assert place == await desk.singles.last_done()
    assert await desk.singles.done(place, block_ms=10) == ([], place)


async def test_whether_it_has_ended_can_be_asked(desk: Desk) -> None:
    call = await desk.bring_one()
    await desk.submit("j2")
    await desk.settle(call)

    assert await desk.singles.ended(["j1", "j2", "nowhere"]) == ["j1", "nowhere"]


async def test_an_event_tells_of_each_end(desk: Desk) -> None:
    await desk.settle(await desk.bring_one(), "failed")

    [event] = await desk.store.records("acme", "events", most=10)

    assert event.fields["event"] == "job"
    assert (event.fields["job"], event.fields["state"]) == ("j1", "failed")


async def test_a_failed_job_is_asked_again_as_a_new_one(desk: Desk) -> None:
    await desk.settle(await desk.bring_one(), "failed")

    await desk.singles.again("acme", "j1", "j2", WIDE)
    await desk.singles.again("acme", "j1", "j2", WIDE)  # the reply was lost

    assert await desk.line("s") == ["j2"]
    assert (await desk.singles.find("acme", "j2")).again_of == "j1"
    assert (await desk.singles.find("acme", "j1")).state is State.FAILED
    assert await desk.number("o:acme", "bytes") == 300 + len("payload of j1") + len("j1")


async def test_an_answered_or_open_job_is_not(desk: Desk) -> None:
    await desk.settle(await desk.bring_one())
    await desk.submit("j2")

    for job in ("j1", "j2"):
        with pytest.raises(NotEnded):
            await desk.singles.again("acme", job, "j3", WIDE)
    with pytest.raises(UnknownPart):
        await desk.singles.again("other", "j1", "j3", WIDE)


async def test_what_it_asked_may_be_kept_no_more(desk: Desk) -> None:
    await desk.settle(await desk.bring_one(), "failed")
    await desk.command("DEL", f"{PREFIX}y:j1")

    with pytest.raises(Forgotten):
        await desk.singles.again("acme", "j1", "j2", WIDE)


async def test_of_an_erased_job_nothing_is_left(desk: Desk, redis: Redis) -> None:
    await desk.settle(await desk.bring_one(), "failed")

    await desk.singles.erase("acme", "j1")

    assert "j1" not in await desk.keys_of("")
    assert not [key for key in await desk.keys_of("") if "j1" in key]
    with pytest.raises(UnknownPart):
        await desk.singles.find("acme", "j1")
    with pytest.raises(UnknownPart):
        await desk.singles.erase("acme", "j1")


@pytest.mark.parametrize("state", ["queued", "later", "ready"])
async def test_a_job_that_waits_is_erased_at_once(desk: Desk, state: str) -> None:
    await desk.submit("j1", wait_ms=9_000 if state == "later" else 0)
    if state == "ready":
        await desk.beat()
        await desk.release()

    await desk.singles.erase("acme", "j1")

    assert not [key for key in await desk.keys_of("") if "j1" in key]
    assert await desk.number("o:acme", "bytes") == 0
    await desk.beat()
    assert (await desk.release())[0] == 0


async def test_a_running_job_is_erased_as_it_ends(desk: Desk) -> None:
    call = await desk.bring_one()

    await desk.singles.erase("acme", "j1")
    with pytest.raises(UnknownPart):
        await desk.singles.find("acme", "j1")
    assert await desk.beat(held=[call], free=9) == (call.id,)
    await desk.settle(call)

    assert not [key for key in await desk.keys_of("") if "j1" in key]
    assert await desk.number("o:acme", "used") == 70


async def test_another_orgs_job_is_as_unknown_as_none(desk: Desk) -> None:
    await desk.submit("j1")

    for ask in (desk.singles.find, desk.singles.erase):
        with pytest.raises(UnknownPart) as theirs:
            await ask("other", "j1")
        with pytest.raises(UnknownPart) as none:
            await ask("other", "j2")
        assert str(theirs.value).replace("j1", "j2") == str(none.value)


async def test_jobs_are_listed_from_the_latest(desk: Desk, time: TestTime) -> None:
    for n in range(5):
        await desk.submit(f"j{n}")
        time.advance(n % 2)  # some at the same moment

    pages: list[list[str]] = []
    before: str | None = ""
    while before is not None:
        page, before = await desk.singles.page("acme", before=before, most=2)
        pages.append([job.id for job in page])

    assert pages == [["j4", "j3"], ["j2", "j1"], ["j0"]]


async def test_a_place_in_the_list_stands_though_its_job_has_left(
    desk: Desk, time: TestTime
) -> None:
    for n in range(4):
        await desk.submit(f"j{n}")
        time.advance(1)
    _, before = await desk.singles.page("acme", before="", most=2)
    assert before is not None
    await desk.singles.erase("acme", "j2")

    page, _ = await desk.singles.page("acme", before=before, most=2)

    assert [job.id for job in page] == ["j1", "j0"]


async def test_what_ended_long_ago_leaves_with_its_flow(
    desk: Desk, redis: Redis, time: TestTime
) -> None:
    await desk.settle(await desk.bring_one())
    await desk.pass_time(1_000)
    assert await desk.singles.purge(kept_ms=2_000) == 0

    await desk.pass_time(1_000)

    assert await desk.singles.purge(kept_ms=2_000) == 1
    assert not [key for key in await desk.keys_of("") if "j1" in key]
    assert await desk.keys_of("f:s") == []
    with pytest.raises(FlowClosed):
        await desk.submit("j2")


async def test_a_flow_with_jobs_stays(desk: Desk) -> None:
    await desk.settle(await desk.bring_one())
    await desk.submit("j2")
    await desk.pass_time(1_000)

    await desk.singles.purge(kept_ms=0)

    assert await desk.line("s") == ["j2"]
    assert await desk.number("f:s", "held") == 1


async def test_many_leave_in_steps(desk: Desk, time: TestTime) -> None:
    ids = [f"j{n}" for n in range(PURGE_MOST + 1)]
    await desk.submit(*ids)
    await desk.store.cancel(ids[:PURGE_MOST])
    await desk.store.cancel(ids[PURGE_MOST:])

    assert [await desk.singles.purge(kept_ms=0) for _ in range(3)] == [PURGE_MOST, 1, 0]


async def test_that_a_users_flow_opens_is_nobodys_decision(desk: Desk) -> None:
    assert len(await desk.store.records("acme", "audit", most=10)) == 1  # its lane's


async def test_what_it_used_is_counted_by_the_day(desk: Desk) -> None:
    await desk.settle(await desk.bring_one("j1", tag="generate|ann|command"))
    await desk.settle(await desk.bring_one("j2", tag="generate|ann|command"), "failed", used=0)

    assert await desk.singles.usage("acme", desk.now_ms // 86_400_000) == {
        ("ann", "generate", "command", "jobs"): 1,
        ("ann", "generate", "command", "characters"): 70,
    }


async def test_events_are_told_in_order_from_a_place(desk: Desk) -> None:
    for n in range(3):
        await desk.settle(await desk.bring_one(f"j{n}"))
    first, *rest = await desk.singles.events("acme", "0-0", most=10)

    assert [row.fields["job"] for row in rest] == ["j1", "j2"]
    assert await desk.singles.events("acme", first.id, most=10) == rest
    assert await desk.singles.event_is_kept("acme", first.id)
    assert not await desk.singles.event_is_kept("acme", "1-1")


async def test_a_dead_letter_of_a_single_job_becomes_one_again(desk: Desk) -> None:
    for _ in range(3):
        await (desk.bring_one(tag="generate|ann|m") if not desk.seqs else again(desk))
        await desk.store.leave("w")
        await desk.store.reap()
        desk.seqs["w"] = 0
    assert (await desk.singles.find("acme", "j1")).state is State.FAILED

    await desk.store.replay("acme", "j1", "j2")

    assert (await desk.singles.find("acme", "j2")).state is State.QUEUED
    assert await desk.field("j:j2", "tag") == "generate|ann|m"


async def test_with_a_job_its_dead_letter_is_erased(desk: Desk) -> None:
    for _ in range(3):
        await (desk.bring_one() if not desk.seqs else again(desk))
        await desk.store.leave("w")
        await desk.store.reap()
        desk.seqs["w"] = 0
    assert await desk.keys_of("x:") == ["x:j1"]

    await desk.singles.erase("acme", "j1")

    assert await desk.keys_of("x:") == []
    assert await desk.store.dead("acme") == []


async def again(desk: Desk) -> Claimed:
    await desk.pass_time(2_000)
    await desk.beat(free=10, seq=0)
    await desk.release()
    [call] = await desk.claim()
    return call


async def test_who_submits_at_once_does_not_mix(desk: Desk) -> None:
    known = {"idempotency": "key", "fingerprint": "print"}

    told = await asyncio.gather(*(desk.submit(f"j{n}", **known) for n in range(10)))

    assert len({tuple(ids) for ids in told}) == 1
    assert len(await desk.line("s")) == 1
