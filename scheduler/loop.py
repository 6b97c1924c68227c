"""The scheduler: at each moment at which something may move, it says so to the store.

There may be several; none leads, since every decision is one script. It wakes when the store
says that a lane may have room, when the bell rings, and every TICK_MS to keep the logical clock.
"""

import asyncio
import signal

import structlog

from millpond.clock import monotonic_ms
from millpond.errors import Refused, Unavailable
from millpond.failpoints import reached
from millpond.settings import Settings
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.gateway import Gateway, connect
from millpond.store.patience import AGAIN_S, hello_until, pause
from millpond.store.store import Store

log = structlog.get_logger()

TICK_MS = 100
#: How often it says that it lives.
LIVES_MS = 1_000
_MOST = 200
#: Flows that are looked at, as often, for what fell out of its place.
_MENDED_AT_ONCE = 20


async def main(settings: Settings) -> None:
    """Schedule until told to stop."""
    if settings.redis_url is None:
        raise Refused("a scheduler needs MILLPOND_REDIS_URL")
    stop = asyncio.Event()
    async with (
        connect(settings.redis_url) as redis,
        connect(settings.redis_url, blocking=True) as bell_redis,
    ):
        bell = Bell(bell_redis, keys.scheduler_bell(settings.partition))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        store = Store(Gateway(redis, settings.partition))
        await hello_until(stop, store, ephemeral=settings.ephemeral)
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(bell.listen_until(stop), name="bell")
            await schedule_until(stop, store, bell)
            listening.cancel()  # it may wait at the server for another second


async def schedule_until(stop: asyncio.Event, store: Store, bell: Bell) -> None:
    told_ms, cursor = 0.0, "0"
    while not stop.is_set():
        try:
            wait_ms = await step(store)
            if monotonic_ms() - told_ms >= LIVES_MS:
                await store.scheduler_lives()
                repairs, cursor = await store.mend(cursor, _MENDED_AT_ONCE)
                if repairs:
                    log.warning("repaired", repairs=repairs)
                told_ms = monotonic_ms()
        except Unavailable as error:
            log.warning("store_unavailable", error=str(error))
            await pause(stop, AGAIN_S)
            continue
        if wait_ms > 0:
            await bell.wait(wait_ms / 1_000)


async def step(store: Store) -> int:
    """Everything that can move now moves; ms until the next look."""
    reached("scheduler.reap.before")
    _, lease_ms = await store.reap()
    reached("scheduler.reap.after")
    _, later_ms = await store.promote(_MOST)
    reached("scheduler.promote.after")
    released, due_ms = await store.release(_MOST)
    reached("scheduler.release.after")
    if released:
        log.info("calls_released", calls=released)
    waits = [wait for wait in (lease_ms, later_ms, due_ms) if wait is not None]
    return min([TICK_MS, *waits])
