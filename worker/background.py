"""arq, the pump's sibling: everything that is not on the path of a call.

It carries ids only, as JSON, and all state is ours: losing everything in arq's keys loses
nothing. arq ends at any fault of its server, so it is begun again, without touching the pump
(docs/decisions/0017). This is the only module that imports arq.

arq's own command tells whether it works, for probes; it exits with 0 or, within ten seconds, 1:

    MILLPOND_REDIS_URL=… arq millpond.worker.background.WorkerSettings --check
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from arq import cron
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker
from redis.asyncio import Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError

from millpond.errors import Refused
from millpond.settings import Settings, read_settings
from millpond.store import keys
from millpond.store.gateway import CONNECT_TIMEOUT_S, BadAddress
from millpond.store.singles import PURGE_MOST, Singles
from millpond.store.store import Store

log = structlog.get_logger()

#: When in a minute what is not urgent is done.
_AT_SECONDS = {0}
#: And when in an hour what is less so.
_AT_MINUTES = {7}
_AGAIN_S = 1.0
_END_S = 2.0
_POLL_S = 1.0
#: Until `--check` misses us. arq writes its key at the first poll after this and lets it lapse a
#: second later: so with a whole number of polls it would lapse at times while all is well.
_HEALTH_S = 4.75
_JOB_MOST_S = 60
#: Longer than to connect, twice, and to be answered take at most where all is well.
_CHECK_MOST_S = 10
#: A lost call's answer could still come while its worker lives on, paused; not after a day.
_LOST_AGE_MS = 86_400_000
_FORGET_MOST = 200
#: Steps of a purge; the rest waits for the next minute.
_PURGES_MOST = 2_000

#: The server is away, or not yet the one that takes writes.
_AWAY = (ConnectionError, TimeoutError, ReadOnlyError, OSError)


async def forget_lost_calls(ctx: dict[str, Any]) -> None:
    """Stop expecting answers of calls that were lost more than a day ago."""
    store: Store = ctx["store"]
    forgotten = 0
    for org in await store.orgs():
        forgotten += await store.forget(org, age_ms=_LOST_AGE_MS, most=_FORGET_MOST)
    log.info("lost_calls_forgotten", calls=forgotten)


async def purge_old_jobs(ctx: dict[str, Any]) -> None:
    """Single jobs that ended long enough ago leave, with their answers."""
    store, keep = ctx["store"], ctx["keep"]
    singles, purged = Singles(store.gateway), 0
    for _ in range(_PURGES_MOST):
        found = await singles.purge(kept_ms=keep.answers_ms)
        purged += found
        if found < PURGE_MOST:
            break
    log.info("old_jobs_purged", jobs=purged)


async def trim_old_records(ctx: dict[str, Any]) -> None:
    """What is too old leaves the orgs' ledgers, audits and usage."""
    store, keep = ctx["store"], ctx["keep"]
    for org in await store.orgs():
        await store.trim(org, ledger_ms=keep.ledger_ms, audit_ms=keep.audit_ms)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long what is kept: answers, the ledger (and usage), the audit."""

    answers_ms: int
    ledger_ms: int
    audit_ms: int


def queue_address(settings: Settings) -> tuple[str, str]:
    """Where arq keeps its own, and the setting that says so."""
    if settings.queue_url is not None:
        return settings.queue_url, "MILLPOND_QUEUE_URL"
    if settings.redis_url is not None:
        return settings.redis_url, "MILLPOND_REDIS_URL"
    raise Refused("arq needs the worker's MILLPOND_REDIS_URL, or MILLPOND_QUEUE_URL")


async def run(queue: Redis, store: Store, keep: Keep) -> None:
    """Run arq until cancelled, again and again if it ends. `queue` is for arq alone."""
    while True:
        worker = _worker(queue, store, keep)
        try:
            await worker.async_run()
        except _AWAY as error:
            log.warning("background_ended", error=str(error), again_in_s=_AGAIN_S)
        except Exception:
            # Something in its queue that it cannot live with, perhaps.
            log.exception("background_broke", again_in_s=_AGAIN_S)
            with suppress(RedisError, OSError):
                await queue.delete(worker.queue_name)
        finally:
            await _end(worker)
        await asyncio.sleep(_AGAIN_S)


async def _end(worker: Worker) -> None:
    """Its own close() raises while the server is away, before it has ended anything; and it takes
    the key away that says that other workers of the queue are well."""
    for job in worker.tasks.values():
        job.cancel()
    with suppress(asyncio.TimeoutError):
        async with asyncio.timeout(_END_S):
            await asyncio.gather(*worker.tasks.values(), return_exceptions=True)


def _worker(queue: Redis, store: Store, keep: Keep) -> Worker:
    name = keys.background_queue(store.gateway.partition)
    return Worker(
        # A name of the partition's own: arq's keys of a job are the same for all queues.
        cron_jobs=[
            cron(forget_lost_calls, name=f"{name}:forget", second=_AT_SECONDS),
            cron(purge_old_jobs, name=f"{name}:purge", second=_AT_SECONDS),
            cron(trim_old_records, name=f"{name}:trim", minute=_AT_MINUTES, second=_AT_SECONDS),
        ],
        queue_name=name,
        redis_pool=ArqRedis(
            queue.connection_pool,
            job_serializer=_write,
            job_deserializer=orjson.loads,
            default_queue_name=name,
        ),
        job_serializer=_write,
        job_deserializer=orjson.loads,
        ctx={"store": store, "keep": keep},
        handle_signals=False,
        job_timeout=_JOB_MOST_S,
        keep_result=0,
        poll_delay=_POLL_S,
        health_check_interval=_HEALTH_S,
        log_results=False,
    )


def _write(job: dict[str, Any]) -> bytes:
    """arq also writes how a job failed, as an exception, if only to throw it away."""
    return orjson.dumps(job, default=repr)


def __getattr__(name: str) -> dict[str, Any]:
    """`WorkerSettings`, for `arq --check`: where our workers' queue is.

    There is no function in it, so without --check the command refuses to run: it would be a worker
    that takes pickles.
    """
    if name != "WorkerSettings":
        raise AttributeError(name)
    settings = read_settings()
    url, setting = queue_address(settings)
    if "--check" in sys.argv:
        _end_in_time(setting)
    return {
        "redis_settings": _redis_settings(url, setting),
        "queue_name": keys.background_queue(settings.partition),
    }


def _end_in_time(setting: str) -> None:
    """arq has no word for how long a server may take to reply, and would wait for ever for one
    that hangs. By then its process has nothing else to do, so an alarm may end it."""

    def end(*_: object) -> None:
        told = f"millpond: no answer from the server of {setting} in {_CHECK_MOST_S} s\n"
        os.write(sys.stderr.fileno(), told.encode())
        os._exit(1)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(_CHECK_MOST_S)


def _redis_settings(url: str, setting: str) -> RedisSettings:
    """As redis-py reads the address. (arq's from_dsn leaves a password's %-escapes as they are.)"""
    try:
        parts: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise BadAddress(setting) from None
    return RedisSettings(
        host=parts.get("host", "localhost"),
        port=parts.get("port", 6379),
        unix_socket_path=parts.get("path"),
        database=parts.get("db", 0),
        username=parts.get("username"),
        password=parts.get("password"),
        ssl=parts.get("connection_class") is SSLConnection,
        conn_timeout=CONNECT_TIMEOUT_S,
        conn_retries=1,
    )
