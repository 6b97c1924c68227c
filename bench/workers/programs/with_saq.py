"""saq: a job is in the list of active ones until it has ended; no results are kept."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from typing import Any

from asking import provider, run
from given import Given, enqueues
from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

ENQUEUED_AT_ONCE = 50
NO_RESULT = -1


def connected(given: Given) -> Redis:
    """Each slot waits on a connection of its own; more than 100 must be asked for."""
    found: Redis = Redis.from_url(given.redis_url, max_connections=4 * given.at_once)
    return found


async def enqueue(given: Given) -> None:
    queue = RedisQueue(connected(given))
    await queue.connect()
    texts = given.texts()
    for start in range(0, len(texts), ENQUEUED_AT_ONCE):
        portion = texts[start : start + ENQUEUED_AT_ONCE]
        asked = (queue.enqueue("call", prompt=text, ttl=NO_RESULT) for text in portion)
        await asyncio.gather(*asked)
    await queue.disconnect()


async def work(given: Given) -> None:
    async with provider(given) as ask:

        async def call(_: dict[str, Any], *, prompt: str) -> None:
            await ask(prompt)

        queue = RedisQueue(connected(given), max_concurrent_ops=given.at_once)
        worker = Worker(queue, [("call", call)], concurrency=given.at_once)
        await queue.connect()
        await worker.start()


if __name__ == "__main__":
    run((enqueue if enqueues() else work)(Given.read()))
