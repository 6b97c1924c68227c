"""One POST with aiohttp, for the programs that run in an event loop; and running them in uvloop."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import uvloop
from aiohttp import ClientSession, TCPConnector
from given import HEADERS, Given, answer, body

Ask = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def provider(given: Given) -> AsyncIterator[Ask]:
    async with ClientSession(connector=TCPConnector(limit=0), headers=HEADERS) as session:
        url = given.url

        async def ask(prompt: str) -> str:
            async with session.post(url, data=body(prompt)) as response:
                response.raise_for_status()
                said: str = answer(await response.read())
                return said

        yield ask


def run(work: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
