"""A server, a scheduler and workers, without a run: flows are fed and drained by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from millpond.domain.job import Class, Endpoint
from millpond.domain.limit import parse_limit
from millpond.domain.request import Ask, Common
from millpond.embedded import processes
from millpond.embedded.server import EmbeddedServer
from millpond.providers.cohere import Cohere
from millpond.run.family import program, start_logged
from millpond.store.gateway import Gateway, connect
from millpond.store.store import ACCEPT_MOST, Lane, NewJob, Store

WORKERS = 4
SLOTS = 200
PARTITION = "0"
ORG = "bench"
_STOP_S = 10
_ROWS_WAIT_MS = 500

_COMMON = Common(Endpoint.GENERATE, "command", max_tokens=256)
_ADAPTER = Cohere()


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[Store, str]]:
    """A server of one's own and its address. Nobody else is there."""
    one = EmbeddedServer(folder / "server")
    await one.start()
    try:
        async with connect(one.url) as redis:
            store = Store(Gateway(redis, PARTITION))
            await store.hello()
            yield store, one.url
    finally:
        await one.stop()


@asynccontextmanager
async def house(folder: Path, provider_url: str) -> AsyncIterator[Store]:
    """The same with all that lets calls go and makes them."""
    async with server(folder) as (store, url), AsyncExitStack() as exits:
        common = {"MILLPOND_REDIS_URL": url, "MILLPOND_PARTITION": PARTITION}
        workers = [
            {
                "MILLPOND_WORKER": f"w{number}",
                "MILLPOND_POOL": ORG,
                "MILLPOND_SLOTS": str(SLOTS // WORKERS),
                "MILLPOND_PROVIDER": "cohere",
                "MILLPOND_BASE_URL": provider_url,
                "MILLPOND_PROVIDER_KEY": ORG,
            }
            for number in range(WORKERS)
        ]
        for name, settings in (("scheduler", {}), *(("worker", one) for one in workers)):
            process = await start_logged(
                program(name), folder / "log.jsonl", {**common, **settings}
            )
            exits.push_async_callback(processes.stop, process, grace_s=_STOP_S)
        yield store


def lane(*limits: str) -> Lane:
    """The one lane of the one account."""
    return Lane(
        id=f"{ORG}.generate",
        org=ORG,
        pool=ORG,
        limits=[parse_limit(one) for one in limits],
        quota=None,
        counted=True,
    )


@dataclass
class Flow:
    """Jobs of one user that are fed in portions; what became of them is taken as it comes."""

    store: Store
    id: str
    lane: Lane
    chance: Random
    user: str = ""
    klass: Class = Class.BULK
    fed: int = 0
    held: int = 0
    #: When a job was accepted (unix ms), and the call that carried it.
    accepted_ms: dict[str, float] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)

    async def open(self) -> None:
        await self.store.set_flow(
            self.id,
            self.lane,
            attempts=5,
            crashes=20,
            common=_COMMON.write(),
            user=self.user,
            klass=self.klass,
        )

    async def feed(self, jobs: int) -> None:
        while jobs > 0:
            portion = [self._job() for _ in range(min(jobs, ACCEPT_MOST))]
            now_ms = time.time() * 1_000
            self.held = await self.store.accept(self.id, portion)
            self.accepted_ms.update((job.id, now_ms) for job in portion)
            jobs -= len(portion)

    async def drain(self) -> None:
        """Take the rows that there are, or wait a little for one."""
        rows = await self.store.rows(self.id, block_ms=_ROWS_WAIT_MS)
        for row in rows:
            if "call" in row.fields:
                self.calls |= dict.fromkeys(row.fields["jobs"].split(","), row.fields["call"])
        if rows:
            self.held = await self.store.flushed(self.id, rows[-1].id)

    async def keep_full(self, jobs: int) -> None:
        """Drain and feed for ever, so that about so many are held."""
        while True:
            if self.held < jobs:
                await self.feed(jobs - self.held)
            await self.drain()

    async def keep_drained(self) -> None:
        while True:
            await self.drain()

    def _job(self) -> NewJob:
        self.fed += 1
        ask = Ask(f"{self.id} {self.fed}: {self.chance.randbytes(40).hex()}")
        need = _ADAPTER.need(_COMMON, ask)
        return NewJob(
            f"{self.id}.{self.fed}", need.characters, "", ask.write(), need.tokens, need.base
        )


@asynccontextmanager
async def kept(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Work that goes on for ever is done beside the block, and ends with it."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one) for one in work]
        yield
        # More than once: one that came together with a reply may be lost on its way.
        while running := [one for one in started if not one.done()]:
            for one in running:
                one.cancel()
            await asyncio.wait(running, timeout=1)
