"""No limiter: six tries with random exponential waits, as provider guides say; then it is lost."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio

from puller import Given, Refused, provider, pull
from tenacity import (
    RetryError,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)


async def main(given: Given) -> None:
    async with provider(given) as ask:
        persistent = retry(
            wait=wait_random_exponential(min=1, max=60),
            stop=stop_after_attempt(6),
            retry=retry_if_exception_type(Refused),
        )(ask)

        async def ask_or_lose(prompt: str) -> None:
            try:
                await persistent(prompt)
            except RetryError:
                print(f"lost: {prompt[:20]}")

        await pull(given, ask_or_lose)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
