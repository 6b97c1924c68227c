"""The cookbook's loop with a file of answers; its chat users ask the provider directly."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio

from evening import BULK_TOKENS, Given, Lines, account, begin, chat_by
from redis.asyncio import Redis
from with_cookbook import Loop


async def bulk(given: Given) -> None:
    async with account(given) as ask, Redis.from_url(given.redis_url) as redis:
        lines = Lines(given)

        async def ask_and_keep(prompt: str) -> None:
            await ask(prompt, BULK_TOKENS, "bulk")
            lines.keep(prompt)

        await begin(redis)
        await Loop(given, ask_and_keep, lines).run()


async def main(given: Given) -> None:
    if given.role == "bulk":
        await bulk(given)
    else:
        async with account(given) as ask:
            await chat_by(given, ask)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
