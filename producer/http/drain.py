"""Which requests a server still has, and whether it is on its way out."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

_NOBODY = "-"


class Drain:
    """Where a server is on its way out, and how many requests it still has."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.running = 0
        self.by_address: dict[str, int] = {}

    async def wait(self) -> None:
        """Until no request is being answered."""
        while self.running:
            await self.idle.wait()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A reply on its way out is not done yet."""
        self.begin(_NOBODY)
        try:
            yield
        finally:
            self.end(_NOBODY)

    def begin(self, address: str) -> int:
        """A request came: how many its address has now."""
        self.running += 1
        self.idle.clear()
        self.by_address[address] = many = self.by_address.get(address, 0) + 1
        return many

    def end(self, address: str) -> None:
        """It was answered, or its client left."""
        self.running -= 1
        if not self.running:
            self.idle.set()
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


DRAIN = web.AppKey("drain", Drain)
