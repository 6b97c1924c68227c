"""limits: its moving window on Redis, asked again when its oldest stamp leaves."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from puller import Given, Permit, one_by_one, provider, pull

LEAST_S = 0.01


async def main(given: Given) -> None:
    async with provider(given) as ask:
        await pull(given, ask, one_by_one(moving_window(given)))


def moving_window(given: Given) -> Permit:
    uri = given.redis_url.replace("unix://", "async+redis+unix://")
    limiter = MovingWindowRateLimiter(RedisStorage(uri, implementation="redispy"))
    item = RateLimitItemPerSecond(given.amount, given.window_s)

    async def permit() -> None:
        while not await limiter.hit(item, "provider"):
            window = await limiter.get_window_stats(item, "provider")
            await asyncio.sleep(max(window.reset_time - time.time(), LEAST_S))

    return permit


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
