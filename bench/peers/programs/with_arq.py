"""arq's real workers; each job waits for limits' moving window, and is put off when refused."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from typing import Any

from arq import Retry, Worker, create_pool, func
from arq.connections import RedisSettings
from puller import IN_FLIGHT_MAX, Given, Prompts, Refused, one_by_one, provider
from redis.asyncio import Redis
from with_limits import moving_window

POLL_S = 0.1
TRIES = 1_000


async def main(given: Given) -> None:
    settings = RedisSettings.from_dsn(given.redis_url)
    permit = one_by_one(moving_window(given))
    async with provider(given) as ask, Redis.from_url(given.redis_url) as redis:

        async def answer(context: dict[str, Any], prompt: str) -> None:
            await permit()
            try:
                await ask(prompt)
            except Refused as refused:
                raise Retry(defer=refused.wait_s(context["job_try"])) from None

        prompts = Prompts(redis)
        queue = await create_pool(settings)
        while (prompt := await prompts.take()) is not None:
            await queue.enqueue_job("answer", prompt)
        await prompts.start()
        worker = Worker(
            functions=[func(answer, name="answer")],  # type: ignore[arg-type]
            redis_settings=settings,
            burst=True,
            max_jobs=IN_FLIGHT_MAX,
            max_tries=TRIES,
            poll_delay=POLL_S,
            keep_result=0,
            handle_signals=False,
        )
        await worker.async_run()
        await worker.close()


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
