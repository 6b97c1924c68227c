"""arq, the pump's sibling: everything that is not on the path of a call.

It carries ids only, as JSON, and all state is ours: losing everything in arq's keys loses
nothing. arq ends when the server goes away, so it is started again, without touching the pump.
This is the only module that imports arq.
"""

import asyncio
from contextlib import suppress
from typing import Any

import orjson
import structlog
from arq import cron
from arq.connections import RedisSettings
from arq.worker import Worker
from redis.exceptions import RedisError

from millpond.errors import Unavailable
from millpond.store import keys
from millpond.store.store import Store

log = structlog.get_logger()

_AGAIN_S = 1.0
#: A lost call's answer could still come while its worker lives on, paused; not after a day.
_LOST_AGE_MS = 86_400_000
_FORGET_MOST = 200


async def forget_lost_calls(ctx: dict[str, Any]) -> int:
    """Stop expecting answers of calls that were lost more than a day ago."""
    store: Store = ctx["store"]
    return sum(
        [
            await store.forget(org, age_ms=_LOST_AGE_MS, most=_FORGET_MOST)
            for org in await store.orgs()
        ]
    )


async def run_until(stop: asyncio.Event, url: str, store: Store) -> None:
    """Run arq until told to stop, again and again if it ends."""
    while not stop.is_set():
        worker = _worker(url, store)
        running = asyncio.create_task(worker.async_run(), name="arq")
        stopping = asyncio.create_task(stop.wait(), name="arq-stop")
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await _end(worker, running)
        if not stop.is_set():
            log.warning("background_ended", again_in_s=_AGAIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await stop.wait()


async def _end(worker: Worker, running: asyncio.Task[None]) -> None:
    running.cancel()
    with suppress(asyncio.CancelledError, RedisError, OSError, Unavailable):
        await running
    with suppress(RedisError, OSError):
        await worker.close()


def _worker(url: str, store: Store) -> Worker:
    return Worker(
        functions=[],
        cron_jobs=[cron(forget_lost_calls, second=0, keep_result=0)],
        redis_settings=RedisSettings.from_dsn(url),
        queue_name=keys.background_queue(store.gateway.partition),
        ctx={"store": store},
        handle_signals=False,
        keep_result=0,
        poll_delay=1.0,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
    )
