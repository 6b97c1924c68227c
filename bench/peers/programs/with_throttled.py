"""throttled-py on Redis: GCRA without a burst, or a sliding window.

It is asked again after the time it names: its own waiting looks five times a second at most, which
is too seldom for a call each tenth of a second.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from datetime import timedelta

from puller import Given, one_by_one, provider, pull
from throttled.asyncio import RedisStore, Throttled, rate_limiter

LEAST_S = 0.001


async def main(given: Given) -> None:
    burst = 1 if given.how == "gcra" else given.amount
    window = timedelta(seconds=given.window_s)
    throttled = Throttled(
        key="provider",
        using=given.how,
        quota=rate_limiter.per_duration(window, given.amount, burst=burst),
        store=RedisStore(server=given.redis_url),
    )

    async def permit() -> None:
        while (result := await throttled.limit()).limited:  # noqa: ASYNC110
            await asyncio.sleep(max(result.state.retry_after, LEAST_S))

    async with provider(given) as ask:
        await pull(given, ask, one_by_one(permit))


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
