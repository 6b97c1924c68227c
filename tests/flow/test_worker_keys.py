"""A worker's calls go with the key of their org, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.clock import monotonic_ms
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common
from millpond.providers.caller import Caller
from millpond.providers.http import Http
from millpond.providers.profile import adapter
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.keyring import Keyring, let_go_on
from millpond.store.sealing import MasterKey, MasterKeys
from millpond.store.store import NewJob, Store
from millpond.store.vault import Vault
from millpond.worker.pump import Pump
from rig import Simulator, simulator

OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(32, 64)))
JOBS = 5
DEADLINE_S = 30


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider"), "--limits", "none") as one:
        yield one


async def submit(store: Store, first: int) -> None:
    common = Common(Endpoint.GENERATE, "command", max_tokens=4).write()
    await store.set_flow("f", lane("1000/60s"), attempts=3, crashes=3, common=common)
    jobs = [NewJob(f"f.{first + n}", 100, "", Ask("Hi").write()) for n in range(JOBS)]
    await store.accept("f", jobs)


@asynccontextmanager
async def worker(
    store: Store, redis: Redis, provider: Simulator, ring: Keyring, *, own: str = "of-the-worker"
) -> AsyncIterator[None]:
    """A worker that has a key of its own as well."""
    stop = asyncio.Event()
    bell = Bell(redis, keys.worker_bell(PARTITION, "acme"))
    async with (
        asyncio.timeout(DEADLINE_S),
        Http(provider.url, own, timeout_ms=10_000, clock=monotonic_ms) as http,
        asyncio.TaskGroup() as tasks,
    ):
        caller = Caller(adapter("cohere"), http, store.common, key_of=ring.key_of)
        pump = Pump(store, caller, bell, worker="w", pool="acme", slots=10, lease_ms=30_000)
        tasks.create_task(pump.run_until(stop, hurry=asyncio.Event(), grace_ms=10_000))
        yield
        stop.set()
        bell.ring()


async def until_answered(store: Store, count: int) -> None:
    while (await store.look("f")).flow.succeeded < count:  # noqa: ASYNC110 (the store is asked)
        await asyncio.sleep(0.01)


async def until_paused(store: Store) -> str:
    while True:
        paused = (await store.look("f")).lane.paused
        if paused is not None:
            return paused
        await asyncio.sleep(0.01)


async def test_an_orgs_calls_go_with_its_key_and_soon_with_one_that_is_set_anew(
    store: Store, redis: Redis, time: TestTime, provider: Simulator
) -> None:
    vault = Vault(store.gateway, MasterKeys([OLD]))
    ring = Keyring(store, MasterKeys([OLD]), clock=time.monotonic_ms)
    await submit(store, 0)
    await vault.keep("acme", "first-of-acme", by="ann")
    async with worker(store, redis, provider, ring):
        await until_answered(store, JOBS)
        await vault.keep("acme", "second-of-acme", by="ann")
        time.advance(5_000)
        await submit(store, JOBS)
        await until_answered(store, 2 * JOBS)

    assert len(provider.calls("first-of-acme")) == JOBS
    assert len(provider.calls("second-of-acme")) == JOBS
    assert provider.calls("of-the-worker") == []


async def test_where_a_key_does_not_open_nothing_is_sent_until_it_does(
    store: Store, redis: Redis, time: TestTime, provider: Simulator
) -> None:
    await submit(store, 0)
    await Vault(store.gateway, MasterKeys([OLD])).keep("acme", "third-of-acme", by="ann")
    async with worker(
        store, redis, provider, Keyring(store, MasterKeys([NEW]), clock=time.monotonic_ms)
    ):
        paused = await until_paused(store)
    view = await store.look("f")
    assert OLD.name in paused
    assert (view.flow.succeeded, view.flow.failed, view.flow.open) == (0, 0, JOBS)
    assert provider.calls("of-the-worker") == provider.calls("third-of-acme") == []

    both = Keyring(store, MasterKeys([NEW, OLD]), clock=time.monotonic_ms)
    async with worker(store, redis, provider, both):
        assert await let_go_on(store, "acme", by="ann") == ["acme.generate"]
        await until_answered(store, JOBS)

    assert len(provider.calls("third-of-acme")) == JOBS
    assert {row["status"] for row in provider.calls("third-of-acme")} == {200}


async def test_an_org_without_a_key_goes_with_the_workers_own(
    store: Store, redis: Redis, time: TestTime, provider: Simulator
) -> None:
    await submit(store, 0)
    ring = Keyring(store, MasterKeys([OLD]), clock=time.monotonic_ms)
    async with worker(store, redis, provider, ring, own="of-nobody-else"):
        await until_answered(store, JOBS)

    assert len(provider.calls("of-nobody-else")) == JOBS
