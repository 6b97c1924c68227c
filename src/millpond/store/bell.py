"""A bell: somebody waits, and is woken when there may be something to do.

It is a hint and nothing rests on it: whoever waits looks again after a second at the latest.
"""

import asyncio
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

_LISTEN_S = 1


class Bell:
    """Listens for one bell key on a connection of its own, for one waiter."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key
        self._rang = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter from inside this process."""
        self._rang.set()

    async def wait(self, seconds: float) -> None:
        """Until the bell rings, or `seconds` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rang.wait()
        self._rang.clear()

    async def listen_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if await self._redis.blpop([self._key], timeout=_LISTEN_S):  # type: ignore[misc]
                    self._rang.set()
            except (RedisError, OSError):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LISTEN_S):
                        await stop.wait()
