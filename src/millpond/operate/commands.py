"""The operators' commands: reach the server, ask or change, and tell."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from millpond.operate import books, changes, people
from millpond.operate.reach import find, lane_of, lanes_of, org_of, reach
from millpond.settings import Settings
from millpond.standing.moments import Clock, Told
from millpond.standing.standing import lane_standing, org_standing, standing
from millpond.store.store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to look, and how to tell."""

    data_dir: Path
    as_json: bool
    settings: Settings

    @asynccontextmanager
    async def store(self) -> AsyncIterator[tuple[Store, Clock]]:
        async with reach(self.data_dir, self.settings) as store:
            yield store, Clock(store.gateway.now_ms, time.time())

    def tell(self, found: Any, lines: Iterator[str]) -> None:
        """Programs get an object a line: lists are told row by row."""
        if not self.as_json:
            for line in lines:
                print(line)
            return
        for one in found if isinstance(found, list) else [found]:
            print(orjson.dumps(one).decode())


async def explain(asked: Asked, name: str | None) -> int:
    async with asked.store() as (store, _):
        if name is None:
            every = await _every(store)
            asked.tell(every, people.every_lines(every))
            return 0
        seen = await find(store, name)
        told = standing(seen, await store.holds(seen.lane_id), wall_s=time.time())
    asked.tell(told, people.standing_lines(told))
    return 0


async def _every(store: Store) -> Told:
    orgs: dict[str, Told] = {}
    for org in await store.orgs():
        orgs[org] = {**org_standing(await store.org(org), org), "lanes": []}
    for lane in await lanes_of(store):
        seen = await store.explain(lane=lane.id)
        told = lane_standing(seen, await store.holds(lane.id), wall_s=time.time())
        orgs[lane.org]["lanes"].append({k: v for k, v in told.items() if k != "org"})
    return {"orgs": list(orgs.values())}


async def show_quota(asked: Asked, org: str | None) -> int:
    async with asked.store() as (store, _):
        told = await books.quota(store, await org_of(store, org))
    asked.tell(told, people.quota_lines(told))
    return 0


async def show_ledger(asked: Asked, org: str | None, *, most: int) -> int:
    async with asked.store() as (store, clock):
        rows = await books.ledger(store, await org_of(store, org), most=most, clock=clock)
    asked.tell(rows, people.ledger_lines(rows))
    return 0


async def verify_ledger(asked: Asked, org: str | None) -> int:
    """1 if the books are wrong."""
    async with asked.store() as (store, _):
        told = await books.verify(store, await org_of(store, org))
    asked.tell(told, people.verified_lines(told))
    return 0 if told["right"] else 1


async def show_unknown(asked: Asked, org: str | None) -> int:
    async with asked.store() as (store, _):
        rows = await books.unknown(store, await org_of(store, org))
    asked.tell(rows, people.unknown_lines(rows))
    return 0


async def show_events(asked: Asked, org: str | None, *, most: int) -> int:
    async with asked.store() as (store, clock):
        rows = await books.events(store, await org_of(store, org), most=most, clock=clock)
    asked.tell(rows, people.event_lines(rows))
    return 0


async def show_audit(asked: Asked, org: str | None, *, most: int) -> int:
    async with asked.store() as (store, clock):
        rows = await books.audit(store, await org_of(store, org), most=most, clock=clock)
    asked.tell(rows, people.audit_lines(rows))
    return 0


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How an org's used characters are put right, and why."""

    how: Literal["add", "call", "total"]
    characters: int
    why: str
    call: str = ""


async def adjust(asked: Asked, org: str | None, one: Adjustment) -> int:
    async with asked.store() as (store, _):
        name = await org_of(store, org)
        used, estimated = await store.adjust(
            name, one.how, one.characters, by=changes.operator(), why=one.why, call=one.call
        )
    told = {"org": name, "used": used, "estimated": estimated}
    asked.tell(told, people.adjusted_lines(told))
    return 0


async def set_org(asked: Asked, org: str | None, wanted: changes.OrgChanges) -> int:
    async def change(store: Store) -> Told:
        return await changes.change_org(store, await org_of(store, org), wanted)

    return await _change(asked, change)


async def set_lane(asked: Asked, lane: str, wanted: changes.LaneChanges) -> int:
    async def change(store: Store) -> Told:
        return await changes.change_lane(store, await lane_of(store, lane), wanted)

    return await _change(asked, change)


async def set_flow(asked: Asked, flow: str, *, weight: float | None, paused: bool | None) -> int:
    async def change(store: Store) -> Told:
        return await changes.change_flow(store, flow, weight=weight, paused=paused)

    return await _change(asked, change)


async def _change(asked: Asked, change: Callable[[Store], Awaitable[Told]]) -> int:
    async with asked.store() as (store, _):
        told = await change(store)
    asked.tell(told, people.changed_lines(told))
    return 0
