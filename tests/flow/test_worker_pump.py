"""The pump on a real store, with a provider that does what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from conftest import PARTITION, TestTime, lane
from millpond.domain.call import Claimed, Settlement
from millpond.errors import StoreUnavailable
from millpond.providers.caller import Sent
from millpond.providers.outcome import Answered, NotSent, Outcome
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.store import NewJob, Store
from millpond.worker.pump import Pump

FLOW = "f"
DEADLINE_S = 20
GOOD = Answered(({"text": "yes"},), used=(7,))

Send = Callable[[Claimed], Awaitable[Outcome]]


class Provider:
    """Answers every call, or does as told; knows what was sent and how many ran at once."""

    def __init__(self, send: Send | None = None) -> None:
        self._send = send
        self.sent: list[str] = []
        self.running = 0
        self.most = 0

    async def send(self, call: Claimed, may_begin: Callable[[], bool]) -> Sent:
        if not may_begin():
            return Sent(NotSent("the lease has ended", unreachable=False))
        self.sent.append(call.jobs[0].id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            outcome = GOOD if self._send is None else await self._send(call)
            return Sent(outcome, None if isinstance(outcome, NotSent) else 0.0)
        finally:
            self.running -= 1


class Rig:
    def __init__(self, store: Store, redis: Redis, provider: Provider, slots: int) -> None:
        self.store = store
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.bell = Bell(redis, keys.worker_bell(PARTITION, "acme"))
        self.pump = Pump(
            store, provider, self.bell, worker="w", pool="acme", slots=slots, lease_ms=30_000
        )

    async def rows(self, what: str = "job") -> list[dict[str, str]]:
        """What the flow has told so far of its jobs, or of its calls."""
        rows = await self.store.rows(FLOW, block_ms=1)
        return [row.fields for row in rows if what in row.fields]

    async def until(self, true: Callable[[], Awaitable[Any]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await true():  # noqa: ASYNC110 (it is the store that is asked)
                await asyncio.sleep(0.005)

    async def until_done(self, jobs: int) -> list[dict[str, str]]:
        async def done() -> bool:
            await self.store.promote(200)
            return len(await self.rows()) >= jobs

        await self.until(done)
        return await self.rows()

    def end(self, *, hurry: bool = False) -> None:
        self.stop.set()
        if hurry:
            self.hurry.set()
        self.bell.ring()


@asynccontextmanager
async def pumping(
    store: Store,
    redis: Redis,
    provider: Provider,
    *,
    jobs: int,
    slots: int = 50,
    grace_ms: int = 10_000,
) -> AsyncIterator[Rig]:
    """A pump at work on some jobs; with the block it stops, and has ended."""
    await store.set_flow(FLOW, lane("1000/60s"), attempts=3, crashes=3)
    await store.accept(FLOW, [NewJob(f"f.{n}", 10, "", b"{}") for n in range(jobs)])
    rig = Rig(store, redis, provider, slots)
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.pump.run_until(rig.stop, hurry=rig.hurry, grace_ms=grace_ms))
        yield rig
        rig.end()


async def test_every_job_is_sent_once_and_told_with_its_answer(store: Store, redis: Redis) -> None:
    provider = Provider()
    async with pumping(store, redis, provider, jobs=80) as rig:
        rows = await rig.until_done(80)

    assert sorted(provider.sent) == sorted(f"f.{n}" for n in range(80))
    assert {(row["state"], row["body"]) for row in rows} == {("succeeded", '{"text":"yes"}')}
    view = await store.look(FLOW)
    assert (view.flow.used, view.flow.reserved, view.flow.calls) == (560, 0, 80)


async def test_a_call_is_logged_with_its_org_and_its_jobs(store: Store, redis: Redis) -> None:
    with capture_logs() as events:
        async with pumping(store, redis, Provider(), jobs=1) as rig:
            await rig.until_done(1)

    [ended] = [event for event in events if event["event"] == "call_ended"]
    assert (ended["org"], ended["jobs"], ended["job_count"]) == ("acme", ["f.0"], 1)


async def test_no_more_calls_run_at_once_than_there_are_slots(store: Store, redis: Redis) -> None:
    async def slow(call: Claimed) -> Outcome:
        await asyncio.sleep(0.01)
        return GOOD

    provider = Provider(slow)
    async with pumping(store, redis, provider, jobs=30, slots=4) as rig:
        await rig.until_done(30)

    assert provider.most == 4


async def test_a_fault_of_ours_costs_the_job_an_attempt_and_the_pump_goes_on(
    store: Store, redis: Redis, time: TestTime
) -> None:
    async def broken(call: Claimed) -> Outcome:
        if call.jobs[0].id == "f.1":
            raise RuntimeError("a bug")
        return GOOD

    async with pumping(store, redis, Provider(broken), jobs=3) as rig:
        await rig.until_done(2)
        for _ in range(2):
            await rig.until(lambda: _later(store))
            time.advance(60_000)
            await store.promote(200)
            rig.bell.ring()
        rows = {row["job"]: row for row in await rig.until_done(3)}
        calls = await rig.rows("call")

    assert (rows["f.1"]["state"], rows["f.1"]["attempts"]) == ("failed", "3")
    assert orjson.loads(rows["f.1"]["body"])["error"]["code"] == "no_answer"
    assert [call["outcome"] for call in calls].count("unknown") == 3


async def _later(store: Store) -> bool:
    return (await store.look(FLOW)).flow.later == 1


async def test_what_could_not_be_sent_costs_nothing_and_is_sent_again(
    store: Store, redis: Redis
) -> None:
    refusals = 3

    async def shy(call: Claimed) -> Outcome:
        nonlocal refusals
        refusals -= 1
        return NotSent("not now", unreachable=False) if refusals >= 0 else GOOD

    async with pumping(store, redis, Provider(shy), jobs=1) as rig:
        (row,) = await rig.until_done(1)
        outcomes = [call["outcome"] for call in await rig.rows("call")]

    assert (row["state"], row["attempts"]) == ("succeeded", "1")
    assert outcomes == ["unsent"] * 3 + ["known"]
    view = await store.look(FLOW)
    assert (view.flow.calls, view.flow.used, view.flow.estimated) == (1, 7, 0)


async def test_a_provider_that_cannot_be_reached_shuts_the_lane_for_a_while(
    store: Store, redis: Redis
) -> None:
    async def away(call: Claimed) -> Outcome:
        return NotSent("no connection", unreachable=True)

    async def shut() -> bool:
        view = await store.look(FLOW)
        return view.lane.shut_reason == "unreachable" and view.lane.flight == 0

    provider = Provider(away)
    async with pumping(store, redis, provider, jobs=1) as rig:
        await rig.until(shut)

    assert provider.sent == ["f.0"]
    assert (await store.look(FLOW)).flow.open == 1


async def test_a_worker_whose_lease_has_ended_sends_nothing(
    store: Store, redis: Redis, time: TestTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = store.turn
    stood_still = False

    async def and_then_time_passed(*args: Any, **named: Any) -> Any:
        nonlocal stood_still
        told = await turn(*args, **named)
        if told.claimed and not stood_still:
            stood_still = True
            time.advance(26_000)
        return told

    monkeypatch.setattr(store, "turn", and_then_time_passed)
    provider = Provider()
    async with pumping(store, redis, provider, jobs=2) as rig:
        await rig.until_done(2)
        outcomes = sorted(call["outcome"] for call in await rig.rows("call"))

    assert outcomes == ["known", "known", "unsent", "unsent"]
    assert len(provider.sent) == 2


async def test_an_outage_of_the_server_loses_no_answer_and_repeats_no_call(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = store.turn
    turns = 0

    async def sometimes(*args: Any, **named: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns % 3 == 2:
            raise StoreUnavailable("gone for a moment")
        told = await turn(*args, **named)
        if turns % 3 == 0:
            raise StoreUnavailable("gone before it replied")
        return told

    monkeypatch.setattr(store, "turn", sometimes)
    provider = Provider()
    async with pumping(store, redis, provider, jobs=10, slots=2) as rig:
        rows = await rig.until_done(10)

    assert sorted(provider.sent) == sorted(f"f.{n}" for n in range(10))
    assert {row["attempts"] for row in rows} == {"1"}
    assert (await store.look(FLOW)).flow.used == 70


async def test_at_a_stop_what_runs_comes_to_its_end_and_nothing_new_begins(
    store: Store, redis: Redis
) -> None:
    go_on = asyncio.Event()

    async def slow(call: Claimed) -> Outcome:
        await go_on.wait()
        return GOOD

    async def all_run() -> bool:
        return provider.running == 2

    provider = Provider(slow)
    async with pumping(store, redis, provider, jobs=5, slots=2) as rig:
        await rig.until(all_run)
        rig.end()
        go_on.set()

    assert len(provider.sent) == 2
    assert [row["state"] for row in await rig.rows()] == ["succeeded"] * 2
    view = await store.look(FLOW)
    assert (view.flow.queued, view.flow.reserved, view.flow.estimated) == (3, 0, 0)


async def test_in_a_hurry_what_runs_is_cut_and_stays_charged(store: Store, redis: Redis) -> None:
    async def endless(call: Claimed) -> Outcome:
        await asyncio.Event().wait()
        return GOOD

    async def all_run() -> bool:
        return provider.running == 2

    provider = Provider(endless)
    async with pumping(store, redis, provider, jobs=2) as rig:
        await rig.until(all_run)
        rig.end(hurry=True)

    view = await store.look(FLOW)
    assert (view.flow.reserved, view.flow.estimated, view.flow.later) == (0, 20, 2)
    assert [call["outcome"] for call in await rig.rows("call")] == ["unknown"] * 2


async def test_at_a_stop_calls_beyond_the_grace_are_cut(store: Store, redis: Redis) -> None:
    async def endless(call: Claimed) -> Outcome:
        await asyncio.Event().wait()
        return GOOD

    async def all_run() -> bool:
        return provider.running == 1

    provider = Provider(endless)
    async with pumping(store, redis, provider, jobs=1, grace_ms=0) as rig:
        await rig.until(all_run)

    assert (await store.look(FLOW)).flow.estimated == 10


@pytest.mark.parametrize("fault", ["none", "a lost request", "a lost reply"])
async def test_of_many_that_end_at_once_some_are_settled_beside_the_turns(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    all_run, settle = asyncio.Event(), store.settle
    beside: list[str] = []

    async def together(call: Claimed) -> Outcome:
        if provider.running == 80:
            all_run.set()
        await all_run.wait()
        return GOOD

    async def watched(settlements: Sequence[Settlement]) -> list[str]:
        beside.extend(one.id for one in settlements)
        first = len(beside) == len(settlements)
        if first and fault == "a lost request":
            raise StoreUnavailable("the server does not answer")
        words = await settle(settlements)
        if first and fault == "a lost reply":
            raise StoreUnavailable("the server does not answer")
        return words

    provider = Provider(together)
    monkeypatch.setattr(store, "settle", watched)
    async with pumping(store, redis, provider, jobs=90, slots=80) as rig:
        rows = await rig.until_done(90)

    assert beside
    assert sorted(provider.sent) == sorted(f"f.{n}" for n in range(90))
    assert len(rows) == 90
    view = await store.look(FLOW)
    assert (view.flow.used, view.flow.reserved, view.flow.calls) == (630, 0, 90)
    free = await redis.hget(keys.partition(PARTITION), "free:acme")  # type: ignore[misc]
    assert free == b"80"  # all of its slots, until it is noticed that it left
