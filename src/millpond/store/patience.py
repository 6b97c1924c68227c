"""Waiting for the server, with an end."""

import asyncio
from contextlib import suppress

import structlog

from millpond.errors import Unavailable, WrongLayout
from millpond.store.durable import check_durable
from millpond.store.store import Store

log = structlog.get_logger()

AGAIN_S = 0.25


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not past the wish to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def hello_until(stop: asyncio.Event, store: Store, *, ephemeral: bool) -> None:
    """Say hello as soon as the server answers.

    Raises NotDurable for a server that may forget what it is told, unless `ephemeral`.
    """
    while not stop.is_set():
        try:
            if not ephemeral:
                await check_durable(store.gateway.redis)
            await store.hello()
            return
        except WrongLayout:
            raise  # time changes nothing
        except Unavailable as error:
            log.warning("store_unavailable", error=str(error))
            await pause(stop, AGAIN_S)
