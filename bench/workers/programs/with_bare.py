"""No queue at all: the same POSTs from one loop, as many at once."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from collections import deque

from asking import provider, run
from given import Given, enqueues


async def main(given: Given) -> None:
    left = deque(given.texts())

    async with provider(given) as ask:

        async def work() -> None:
            while left:
                await ask(left.popleft())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(given.at_once):
                tasks.create_task(work())
    await asyncio.Event().wait()  # until it is stopped, as the others


if __name__ == "__main__" and not enqueues():
    run(main(Given.read()))
