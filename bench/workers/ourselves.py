"""`millpond worker` as `millpond run` starts it, beside its scheduler."""

from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.admission.house import ORG, PARTITION
from bench.workers.accepting import FLOW
from bench.workers.stubbed import Failed

from millpond.embedded import processes
from millpond.run.family import program, start_logged
from millpond.store.store import Store, WorkerState

_STOP_S = 10
_OPENER = "opener"
_LEASE_MS = 600_000
_RELEASE_MOST = 200


@asynccontextmanager
async def started(
    folder: Path, redis_url: str, base_url: str, *, slots: int, names: tuple[str, ...]
) -> AsyncIterator[Mapping[str, Process]]:
    """These of our programs."""
    settings = {
        "MILLPOND_REDIS_URL": redis_url,
        "MILLPOND_PARTITION": PARTITION,
        "MILLPOND_WORKER": "w",
        "MILLPOND_POOL": ORG,
        "MILLPOND_SLOTS": str(slots),
        "MILLPOND_PROVIDER": "cohere",
        "MILLPOND_BASE_URL": base_url,
        "MILLPOND_PROVIDER_KEY": ORG,
    }
    async with AsyncExitStack() as exits:
        found = {}
        for name in names:
            process = await start_logged(program(name), folder / "millpond.log", settings)
            exits.push_async_callback(processes.stop, process, grace_s=_STOP_S)
            found[name] = process
        yield found


async def release_all(store: Store, calls: int) -> None:
    """All calls are let go for a worker with room for them, which then leaves."""
    life = store.gateway.life
    await store.heartbeat(WorkerState(_OPENER, ORG, calls, 0, _LEASE_MS, life, ()))
    while calls > 0:
        released, _ = await store.release(_RELEASE_MOST)
        if not released:
            raise Failed(f"{calls} calls were not let go")
        calls -= released
    await store.leave(_OPENER)
    await store.reap()


async def answered(store: Store) -> int:
    """Jobs of the flow that were answered, as the store knows."""
    return (await store.look(FLOW)).flow.succeeded


async def server_pid(store: Store) -> int:
    """The server's process."""
    return int((await store.gateway.redis.info("server"))["process_id"])
