"""A worker process: owns the pump and arq, side by side.

The first SIGTERM lets running calls finish within the grace; a second one cuts them.
"""

import asyncio
import os
import signal
import uuid

import structlog

from millpond.clock import monotonic_ms
from millpond.errors import Refused
from millpond.providers.caller import Caller
from millpond.providers.http import Http
from millpond.providers.profile import adapter
from millpond.settings import Settings
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.gateway import Gateway, connect
from millpond.store.patience import hello_until
from millpond.store.store import Store
from millpond.worker import background
from millpond.worker.pump import Pump

log = structlog.get_logger()


async def main(settings: Settings) -> None:
    """Work until told to stop."""
    if settings.redis_url is None or settings.base_url is None:
        raise Refused("a worker needs MILLPOND_REDIS_URL and MILLPOND_BASE_URL")
    async with (
        connect(settings.redis_url) as redis,
        connect(settings.redis_url, blocking=True) as bell_redis,
        connect(settings.redis_url) as background_redis,
        Http(
            settings.base_url,
            settings.api_key.get_secret_value(),
            timeout_ms=settings.timeout_ms,
            clock=monotonic_ms,
        ) as http,
    ):
        bell = Bell(bell_redis, keys.worker_bell(settings.partition, settings.pool))
        stop, hurry = asyncio.Event(), asyncio.Event()
        _obey_signals(stop, hurry, bell)
        store = Store(Gateway(redis, settings.partition))
        pump = Pump(
            store,
            Caller(adapter(settings.provider), http, store.common),
            bell,
            worker=settings.worker or f"{os.getpid()}-{uuid.uuid4().hex[:8]}",
            pool=settings.pool,
            slots=settings.slots,
            lease_ms=settings.lease_ms,
        )
        await hello_until(stop, store, ephemeral=settings.ephemeral)
        log.info("worker_started", pool=settings.pool, slots=settings.slots)
        side_store = Store(Gateway(background_redis, settings.partition))
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(bell.listen_until(stop), name="bell")
            tasks.create_task(
                background.run_until(stop, settings.redis_url, side_store), name="background"
            )
            await pump.run_until(stop, hurry=hurry, grace_ms=settings.grace_ms)
            listening.cancel()  # it may wait at the server for another second


def _obey_signals(stop: asyncio.Event, hurry: asyncio.Event, bell: Bell) -> None:
    def obey() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()
        bell.ring()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, obey)
