"""arq: a job stays in its queue until it has ended; no results are kept."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from typing import Any

from arq import Worker, create_pool, func
from arq.connections import RedisSettings
from asking import provider, run
from given import Given, enqueues

POLL_S = 0.01
ENQUEUED_AT_ONCE = 50


async def enqueue(given: Given) -> None:
    queue = await create_pool(RedisSettings.from_dsn(given.redis_url))
    texts = given.texts()
    for start in range(0, len(texts), ENQUEUED_AT_ONCE):
        portion = texts[start : start + ENQUEUED_AT_ONCE]
        await asyncio.gather(*(queue.enqueue_job("call", text) for text in portion))


async def work(given: Given) -> None:
    async with provider(given) as ask:

        async def call(_: dict[str, Any], prompt: str) -> None:
            await ask(prompt)

        worker = Worker(
            functions=[func(call, name="call")],  # type: ignore[arg-type]
            redis_settings=RedisSettings.from_dsn(given.redis_url),
            max_jobs=given.at_once,
            poll_delay=POLL_S,
            keep_result=0,
            handle_signals=False,
        )
        await worker.async_run()


if __name__ == "__main__":
    run((enqueue if enqueues() else work)(Given.read()))
