"""taskiq on a Redis stream: a message is acknowledged when its job has ended."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio

from asking import Ask, provider, run
from given import Given, enqueues
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

ENQUEUED_AT_ONCE = 50


def brokered(given: Given, asks: list[Ask]) -> RedisStreamBroker:
    broker = RedisStreamBroker(
        given.redis_url, consumer_id="0", max_connection_pool_size=4 * given.at_once
    )

    @broker.task(task_name="call")  # type: ignore[untyped-decorator,unused-ignore]
    async def call(prompt: str) -> None:
        await asks[0](prompt)

    return broker


async def enqueue(given: Given) -> None:
    broker = brokered(given, [])
    await broker.startup()
    call, texts = broker.find_task("call"), given.texts()
    for start in range(0, len(texts), ENQUEUED_AT_ONCE):
        portion = texts[start : start + ENQUEUED_AT_ONCE]
        await asyncio.gather(*(call.kiq(text) for text in portion))
    await broker.shutdown()


async def work(given: Given) -> None:
    async with provider(given) as ask:
        await run_receiver_task(
            brokered(given, [ask]),
            max_async_tasks=given.at_once,
            max_prefetch=given.at_once,
            validate_params=False,
            run_startup=True,
            ack_time=AcknowledgeType.WHEN_EXECUTED,
        )


if __name__ == "__main__":
    run((enqueue if enqueues() else work)(Given.read()))
