"""pyrate-limiter: a bucket on Redis, which waits by itself."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio

from puller import Given, provider, pull
from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from redis.asyncio import Redis


async def main(given: Given) -> None:
    rates = [Rate(given.amount, Duration.SECOND * given.window_s)]
    async with Redis.from_url(given.redis_url) as redis, provider(given) as ask:
        limiter = Limiter(await RedisBucket.init(rates, redis, "provider"))

        async def permit() -> None:
            await limiter.try_acquire_async("provider")

        await pull(given, ask, permit)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
