"""raze: an org is erased with everything of it, a part at a time, and a receipt stays."""

import json
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.domain.account import GUIDELINES_VERSION, Form, Role
from millpond.domain.call import Claimed
from millpond.domain.job import Class
from millpond.domain.limit import LIMITED
from millpond.errors import UnknownPart
from millpond.store import keys
from millpond.store.access import Access
from millpond.store.api_keys import ApiKeys
from millpond.store.directory import Directory
from millpond.store.own_models import OwnModels
from millpond.store.purge import Purge, Receipt, Step
from millpond.store.sealing import MasterKey, MasterKeys
from millpond.store.singles import Bounds, Flow, Single, Singles, Suspended
from millpond.store.store import Changes, OrgPurging, Store
from millpond.store.vault import Vault
from store.pond import PREFIX, Pond, everything, whole_dump

DAY_MS = 86_400_000
WIDE = Bounds(10_000_000, 10_000_000)
MASTERS = MasterKeys([MasterKey(bytes(range(32)))])
FORM = Form("sort our mail", "it may sort wrongly", True, GUIDELINES_VERSION)
CHAT, BULK, DYING = "generate.interactive.ann", "embed.bulk.bob", "generate.bulk.ann"
#: What stays and names the org: the receipt, and what was changed of the partition.
STAYS = ("receipt:acme", "audit")
#: Keys that hold something of several orgs.
SHARED = {
    *("m", "turn", "due", "idle", "soon", "until", "ended", "done", "counts", "flows", "orgs"),
    *("orgs:sorted", "desk:open", "desk:asked", "marks", "masters", "models", "audit", "workers"),
    *("w:w", "wc:w", "full:http", "ready:http", "bell:s", "bell:w:http", "receipt:acme"),
}


class Town(Pond):
    """Two orgs that have everything there is, side by side: acme, and brook. `running`: acme's call
    that is at the worker."""

    running: Claimed

    async def build(self) -> None:
        for org in ("acme", "brook"):
            await self._found(org)
        for org in ("acme", "brook"):
            await self._live(org)
        await self._be_at_work()

    async def submit(self, org: str, job: str, flow: str = CHAT, **how: Any) -> None:
        known = {name: how.pop(name) for name in ("idempotency", "fingerprint") if name in how}
        endpoint = flow.partition(".")[0]
        one = Single(
            f"{org[0]}-{job}",
            f"{org}.{flow}",
            how.pop("need", 100),
            f"secret of {org}".encode(),
            f"note of {org}",
            tag=f"{endpoint}|ann|command",
            **how,
        )
        await Singles(self.store.gateway).submit(org, [one], WIDE, **known)

    async def _found(self, org: str) -> None:
        """People, keys, models, an application in each stage."""
        directory, access = Directory(self.store), Access(self.store)
        gateway = self.store.gateway
        await directory.create_org(
            org, org.title(), limits=LIMITED, quota=500_000, pool="http", by="ops"
        )
        for user, role in (("ann", Role.ADMIN), ("bob", Role.MEMBER), ("eve", Role.MEMBER)):
            await directory.create_user(org, user, user.title(), role, by="ops")
            await ApiKeys(gateway, MASTERS).make(org, user, f"of {org}", by="ops")
        await ApiKeys(gateway, MASTERS).make(org, "ann", f"second of {org}", by="ops")
        await self.store.change(org, Changes(weights={"ann": 2.0}), by="ops")
        await OwnModels(gateway).add(org, f"{org}-tuned", "command", by="ann")
        await Vault(gateway, MASTERS).keep(org, f"co-{org}", by="ann")
        number = await access.apply(org, FORM, by="ann")
        await access.reject(org, number, {}, by="rev", why=f"no, {org}")
        number = await access.apply(org, replace(FORM, use_case="another"), by="ann")
        await access.ask(org, number, "What for?", by="rev")
        for flow, user, klass, crashes in (
            (CHAT, "ann", Class.INTERACTIVE, 3),
            (BULK, "bob", Class.BULK, 3),
            (DYING, "ann", Class.BULK, 1),
        ):
            at = f"{org}.{flow.partition('.')[0]}"
            opened = Flow(f"{org}.{flow}", org, at, user, klass, 3, crashes, 8, b"{}")
            await Singles(gateway).open(opened, by=user)
        await self.open_run(org)

    async def open_run(self, org: str, flow: str = "run") -> None:
        brought = replace(
            lane(org=org, endpoint="classify", quota=500_000), pool="http", if_new=True
        )
        await self.store.set_flow(f"{org}.{flow}", brought, attempts=3, crashes=3, user="")

    async def take(self, most: int = 20) -> list[Claimed]:
        """What goes now is at the worker."""
        await self.beat(free=most, pool="http")
        await self.release()
        return await self.claim(most=most)

    async def _die(self) -> None:
        await self.store.leave("w")
        await self.store.reap()

    async def _live(self, org: str) -> None:
        """What has happened: a job died, a call was lost, others ended."""
        await self.submit(org, "dead", DYING)
        await self.take()
        await self._die()
        await self.submit(org, "lost", idempotency="k", fingerprint="p")
        [lost] = await self.take()
        await self.command("SET", f"{PREFIX}r:{lost.id}:{org[0]}-lost", f"secret of {org}")
        await self._die()
        await self.submit(org, "failed")
        for end in ("failed", "succeeded"):
            [*calls] = await self.take(1)
            for call in calls:
                await self.settle(call, end)
        for job in ("e1", "e2"):
            await self.submit(org, job, BULK, pack="p")
        await self.jump(300)
        for call in await self.take():
            await self.settle(call)

    async def _be_at_work(self) -> None:
        """What goes on: jobs that run, were released, wait in line, for a time or for quota."""
        for org in ("acme", "brook"):
            await self.submit(org, "runs", within_ms=DAY_MS)
        self.running = {call.org: call for call in await self.take()}["acme"]
        for org in ("acme", "brook"):
            await self.submit(org, "big", need=400_000_000)
            await self.submit(org, "released")
            await self.submit(org, "r1", BULK, pack="p")
            await self.submit(org, "r2", BULK, pack="p")
        await self.jump(300)
        await self.release()
        for org in ("acme", "brook"):
            await self.submit(org, "line1", within_ms=DAY_MS, idempotency="k2", fingerprint="p")
            await self.submit(org, "line2", BULK)
            await self.submit(org, "later", wait_ms=60_000)
        await Directory(self.store).orgs()

    async def step(self, most: int = 200) -> Step:
        """One by a process that dies after it."""
        return await Purge(self.another_store()).step(
            "acme", "olga", "they asked for it", most=most
        )

    async def steps(self, most: int = 200) -> Step:
        """Until it is done, or waits."""
        for _ in range(2_000):
            step = await self.step(most)
            if step.done or step.waits is not None:
                return step
        raise AssertionError("it goes on for ever")


@pytest.fixture
async def town(store: Store, redis: Redis, time: TestTime) -> Town:
    town = Town(store, redis, time)
    await town.build()
    return town


async def test_the_rig_has_everything_there_is(town: Town) -> None:
    found = {key for key in await whole_dump(town.redis) if "acme" in key}

    for wanted in (
        *("o:acme:weights", "o:acme:lanes", "o:acme:lost", "o:acme:unknown", "o:acme:parked"),
        *("o:acme:dead", "o:acme:led", "o:acme:audit", "o:acme:ev", "o:acme:users"),
        *("o:acme:admins", "o:acme:u:ann", "o:acme:u:ann:keys", "o:acme:app:1", "o:acme:app:2"),
        *("o:acme:app:2:talk", "o:acme:key", "o:acme:models", "o:acme:jobs"),
        *("l:acme.generate", "l:acme.generate:flight", "l:acme.generate:s", "l:acme.generate:c"),
        *("l:acme.generate:u:i", "l:acme.generate:f:i:ann", "l:acme.embed:u:b"),
        *("l:acme.embed:d:calls:86400000", f"f:acme.{CHAT}:q", f"f:acme.{CHAT}:later"),
        *(f"f:acme.{CHAT}:parked", "f:acme.run", "i:acme:k", "i:acme:k2"),
    ):
        assert wanted in found, wanted
    assert any(key.startswith("o:acme:use:") for key in found)
    jobs = {name: (await town.state(f"a-{name}")) for name in ("runs", "released", "r1", "line1")}
    assert jobs == {"runs": "running", "released": "released", "r1": "released", "line1": "queued"}
    assert await town.keys_of("x:") == ["x:a-dead", "x:b-dead"]
    assert len(await town.keys_of("r:")) == 2


@pytest.mark.parametrize("most", [1, 2, 7, 50, 200])
async def test_nothing_of_the_org_is_left_but_its_receipt(town: Town, most: int) -> None:
    secrets = [key.removeprefix("k:") for key in await town.keys_of("k:")]
    mine = [key for key in secrets if await town.field(f"k:{key}", "org") == "acme"]
    call = town.running

    step = await town.steps(most)
    assert step.waits is not None
    assert not step.done
    assert await town.settle(call) == "settled"
    step = await town.steps(most)

    assert step.done
    left = await whole_dump(town.redis)
    for key, value in left.items():
        if key in STAYS:
            continue
        if key.startswith("i:acme:"):
            assert 0 < await town.redis.ttl(PREFIX + key) <= DAY_MS // 1_000
            assert set(value) == {"print", "ids"}
            continue
        assert "acme" not in key
        assert "acme" not in json.dumps(value), key
        assert not any(id in key for id in mine)
        assert key == "done" or '"a-' not in json.dumps(value), key
    assert "secret" not in json.dumps({key: left[key] for key in STAYS})
    assert len(mine) == 4


@pytest.mark.parametrize("most", [1, 7, 200])
async def test_the_org_beside_it_is_untouched(town: Town, most: int) -> None:
    call = town.running
    before, named = await town.snapshot(), await whole_dump(town.redis)

    await town.steps(most)
    await town.settle(call)
    assert (await town.steps(most)).done

    after = await town.snapshot()
    for key in before:
        name = key.decode().removeprefix(PREFIX)
        if name in SHARED:
            continue
        if key in after:
            assert after[key] == before[key], name
        else:
            told = name + json.dumps(named[name])
            assert "acme" in told or "a-" in told, name
            assert "brook" not in told, name
    assert {key.decode().removeprefix(PREFIX) for key in after - before.keys()} <= SHARED
    is_now = await whole_dump(town.redis)
    for name in SHARED & set(named) - {"m"}:
        if isinstance(named[name], dict):
            theirs = {k: v for k, v in named[name].items() if "brook" in k or "brook" in str(v)}
            assert theirs.items() <= is_now[name].items(), name
        elif isinstance(named[name][0], str):
            assert {one for one in named[name] if "brook" in one} <= set(is_now[name]), name


async def test_the_org_beside_it_goes_on(town: Town) -> None:
    call = town.running
    await town.steps()
    await town.settle(call)
    await town.steps()

    ids = {job.id for call in await town.take() for job in call.jobs}

    assert ids == {"b-runs", "b-released", "b-r1", "b-r2", "b-line1", "b-line2"}


async def test_the_receipt_tells_who_when_why_and_how_much_of_what(town: Town) -> None:
    began_ms = town.now_ms
    call = town.running
    await town.steps()
    await town.settle(call)
    await town.jump(5_000)

    step = await town.steps()

    receipt = await Purge(town.store).receipt("acme")
    assert step.receipt == receipt
    assert receipt == Receipt(
        org="acme",
        name="Acme",
        by="olga",
        why="they asked for it",
        begun_ms=began_ms,
        ended_ms=began_ms + 5_000,
        erased=receipt.erased,
    )
    assert receipt.erased == {
        "api_keys": 4,
        "applications": 2,
        "audit_rows": receipt.erased["audit_rows"],
        "days_of_usage": 1,
        "dead_letters": 1,
        "events": receipt.erased["events"],
        "flows": receipt.erased["flows"],
        "jobs": 13,
        "lanes": 3,
        "ledger_rows": receipt.erased["ledger_rows"],
        "lost_calls": 2,
        "models": 1,
        "provider_keys": 1,
        "users": 3,
    }


async def test_the_partitions_audit_tells_of_its_begin_and_end(town: Town) -> None:
    call = town.running
    await town.steps()
    await town.settle(call)
    await town.steps()

    ended, begun = (await Directory(town.store).audit(most=2))[:2]

    for row in (ended, begun):
        assert (row.fields["by"], row.fields["why"]) == ("olga", "they asked for it")
    assert json.loads(begun.fields["changes"]) == [["org", "acme", "purge", "", "begun"]]
    changes = json.loads(ended.fields["changes"])
    assert changes[0] == ["org", "acme", "purge", "begun", "ended"]
    assert ["erased", "acme", "users", "3", ""] in changes


async def test_said_again_after_the_end_it_changes_nothing_and_tells_the_same(
    town: Town, redis: Redis
) -> None:
    call = town.running
    await town.steps()
    await town.settle(call)
    done = await town.steps()
    before = await everything(redis)

    again = await Purge(town.store).step("acme", "eve", "for another reason")

    assert again == done
    assert await everything(redis) == before


async def test_with_the_first_step_the_org_is_suspended(town: Town) -> None:
    await town.step(1)

    assert await town.field("o:acme", "status") == "suspended"
    with pytest.raises(Suspended):
        await town.submit("acme", "new")


async def test_once_begun_nothing_of_the_org_changes_any_more(town: Town) -> None:
    await town.step(1)

    with pytest.raises(OrgPurging):
        await Access(town.store).lift("acme", by="eve", why="a mistake")
    with pytest.raises(OrgPurging):
        await town.open_run("acme", "late")
    with pytest.raises(OrgPurging):
        await Directory(town.store).create_user("acme", "zoe", "Zoe", Role.MEMBER, by="ann")
    with pytest.raises(Suspended):
        await town.submit("acme", "new")

    await town.settle(town.running)
    assert (await town.steps(7)).done
    await town.open(org="acme")  # another one may have its id


async def test_a_call_that_runs_is_unwanted_and_waited_for(town: Town) -> None:
    call = town.running
    step = await town.steps()

    assert step.waits is not None
    assert call.id in await town.beat(pool="http", held=[call], seq=100)
    jobs = [key for key in await town.keys_of("j:") if key.startswith("j:a-")]
    assert jobs == ["j:a-runs"]
    assert await town.steps() == step


async def test_what_it_answers_is_not_kept(town: Town) -> None:
    call = town.running
    await town.steps()

    assert await town.settle(call) == "settled"

    assert [key for key in await town.keys_of("") if "a-runs" in key] == []
    assert (await town.steps()).done


async def test_a_call_whose_worker_died_ends_late_and_changes_nothing(
    town: Town, redis: Redis
) -> None:
    call = town.running
    assert (await town.steps()).waits is not None
    await town.store.leave("w")
    await town.store.reap()
    assert (await town.steps()).done
    before = await everything(redis)

    assert await town.settle(call) == "late"

    assert await everything(redis) == before


async def test_after_a_restart_what_is_ready_may_be_at_a_worker_and_is_waited_for(
    town: Town,
) -> None:
    await town.new_life()
    step = await town.steps()
    assert step.waits is not None
    assert await town.state("a-released") == "released"

    await town.store.leave("w")
    await town.store.reap()

    assert (await town.steps()).done


@pytest.mark.parametrize("most", [1, 200])
async def test_a_run_that_has_something_left_stops_it_and_loses_nothing(
    town: Town, redis: Redis, most: int
) -> None:
    await town.accept("run1", "run2", flow="acme.run")
    before = await everything(redis)
    step = await town.steps(most)

    assert step.busy == "acme.run"
    assert step.waits is not None
    assert "busy: flow acme.run" in step.waits
    after = await everything(redis)
    for key in ("f:acme.run", "f:acme.run:q", "j:run1", "y:run2"):
        assert after[key] == before[key]

    await town.store.cancel(["run1", "run2"])
    assert (await town.steps(most)).busy == "acme.run"
    await town.open_run("acme", "run")  # started again, it may take its rows
    assert len(await town.rows("acme.run")) == 2
    last = (await town.rows("acme.run"))[-1].id
    await town.store.flushed("acme.run", last)

    assert (await town.steps(most)).busy is None
    await town.store.leave("w")
    await town.store.reap()
    assert (await town.steps(most)).done


async def test_of_an_org_whose_first_day_nobody_knows_all_days_are_looked_at(
    store: Store, redis: Redis, time: TestTime
) -> None:
    town = Town(store, redis, time)
    await town.open()  # as a run does
    await town.command("HSET", f"{PREFIX}o:acme:use:3", "jobs|embed|ann|m", 1)

    assert (await town.steps()).done

    assert await town.keys_of("o:") == []


async def test_more_jobs_than_a_step_may_erase_take_more_steps(
    store: Store, redis: Redis, time: TestTime
) -> None:
    town = Town(store, redis, time)
    await town.open()
    singles = Singles(store.gateway)
    await singles.open(
        Flow("s", "acme", "acme.generate", "ann", Class.BULK, 3, 3, 1, b"{}"), by="ann"
    )
    await singles.submit("acme", [Single(f"j{i}", "s", 1, b"x") for i in range(500)], WIDE)

    counts = [(await town.step()).erased.get("jobs", 0) for _ in range(3)]

    assert counts[0] <= 200
    assert counts[1] - counts[0] <= 200
    assert counts[2] == 500 or (await town.step()).erased["jobs"] == 500
    assert await singles.waiting("acme") == (0, 0)


async def test_an_org_that_has_the_id_anew_is_another_one(town: Town) -> None:
    call = town.running
    await town.steps()
    await town.settle(call)
    await town.steps()
    await Directory(town.store).create_org(
        "acme", "New Acme", limits=LIMITED, quota=1, pool="http", by="ops"
    )
    assert (await Purge(town.store).receipt("acme")).name == "Acme"

    step = await town.steps()

    assert step.done
    assert (step.receipt.name, step.erased.get("users")) == ("New Acme", None)


async def test_an_org_that_nobody_knows_has_no_receipt(town: Town, redis: Redis) -> None:
    before = await everything(redis)

    with pytest.raises(UnknownPart):
        await Purge(town.store).step("nobody", "olga", "why not")
    for org in ("nobody", "acme"):
        with pytest.raises(UnknownPart):
            await Purge(town.store).receipt(org)

    assert await everything(redis) == before
    assert keys.prefix(PARTITION) == PREFIX
