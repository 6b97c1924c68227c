"""aiolimiter: one call each window/amount. It has no shared state, so there is one process."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio

from aiolimiter import AsyncLimiter
from puller import Given, provider, pull


async def main(given: Given) -> None:
    limiter = AsyncLimiter(1, given.window_s / given.amount)
    async with provider(given) as ask:
        await pull(given, ask, limiter.acquire)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
