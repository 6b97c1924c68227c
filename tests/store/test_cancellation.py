"""Who is cancelled while the store is asked ends, whatever came at the same moment."""

import asyncio

import pytest
from redis.asyncio import Redis

from millpond.store.gateway import connect


@pytest.mark.usefixtures("redis")
async def test_a_cancellation_that_comes_as_a_command_was_sent_is_not_lost(
    server_url: str, redis: Redis
) -> None:
    """The task is cancelled at every step that it takes through commands, one after the other."""
    async with connect(server_url) as client:
        await client.ping()
        loop = asyncio.get_running_loop()
        for steps in range(60):
            task = asyncio.create_task(_for_ever(client))

            def cancel_after(left: int, task: asyncio.Task[None] = task) -> None:
                if left:
                    loop.call_soon(cancel_after, left - 1)
                else:
                    task.cancel()

            cancel_after(steps)
            done, _ = await asyncio.wait({task}, timeout=2)
            assert done, f"cancelled at step {steps}, it goes on"
        assert await client.ping()


async def _for_ever(client: Redis) -> None:
    while True:
        pipe = client.pipeline(transaction=False)
        pipe.set("x", 1)
        await pipe.execute()
