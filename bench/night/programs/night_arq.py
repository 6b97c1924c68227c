"""arq's workers behind limits' moving window; the chats have a queue and a worker of their own.

arq takes up what a dead worker had when `job_timeout` and 10 s are over. Of its 300 s the night has
a tenth.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from arq import Retry, Worker, create_pool, func
from arq.connections import ArqRedis, RedisSettings
from evening import (
    BULK_TOKENS,
    CHAT_TOKENS,
    Given,
    account,
    backoff_s,
    begin,
    chat,
    chat_name,
    chat_prompt,
)
from puller import Refused, one_by_one
from redis.asyncio import Redis
from with_limits import moving_window

JOBS_MOST = 10
JOB_TIMEOUT_S = 300
POLL_S = 0.5
TRIES = 100_000
QUEUES = {"bulk": "arq:bulk", "chat": "arq:chat"}


async def main(given: Given) -> None:
    settings = RedisSettings.from_dsn(given.redis_url)
    queue = QUEUES[given.role]
    async with AsyncExitStack() as exits:
        redis = await exits.enter_async_context(Redis.from_url(given.redis_url))
        ask = await exits.enter_async_context(account(given))
        pool = await create_pool(settings)
        permit = one_by_one(moving_window(given))

        async def answer(context: dict[str, Any], prompt: str, tokens: int, whose: str) -> None:
            await permit()
            try:
                await ask(prompt, tokens, whose)
            except Refused:
                raise Retry(defer=backoff_s(context["job_try"])) from None

        if given.role == "bulk":
            await put_in_line(redis, pool)
        await begin(redis)
        worker = Worker(
            functions=[func(answer, name="answer")],  # type: ignore[arg-type]
            redis_settings=settings,
            queue_name=queue,
            burst=given.role == "bulk",
            max_jobs=JOBS_MOST,
            max_tries=TRIES,
            job_timeout=JOB_TIMEOUT_S / given.scale,
            poll_delay=POLL_S / given.scale,
            keep_result=0,
            handle_signals=False,
        )
        if given.role == "bulk":
            await worker.async_run()
        else:
            await asyncio.gather(worker.async_run(), chats(given, redis, pool))


async def put_in_line(redis: Redis, pool: ArqRedis) -> None:
    """All prompts, once: who is started again finds the list empty."""
    while (prompt := await redis.lpop("todo")) is not None:  # type: ignore[misc]
        await pool.enqueue_job(
            "answer", prompt.decode(), BULK_TOKENS, "bulk", _queue_name=QUEUES["bulk"]
        )


async def chats(given: Given, redis: Redis, pool: ArqRedis) -> None:
    async def say(number: int) -> None:
        await pool.enqueue_job(
            *("answer", chat_prompt(number), CHAT_TOKENS, chat_name(number)),
            _queue_name=QUEUES["chat"],
        )

    await chat(given, redis, say)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
