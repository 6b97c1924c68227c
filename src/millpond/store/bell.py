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
        self._wanted = asyncio.Event()
        self._wanted.set()

    def ring(self) -> None:
        """Wake the waiter from inside this process."""
        self._rang.set()

    async def wait(self, seconds: float) -> None:
        """Until the bell rings, or `seconds` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rang.wait()
        self._rang.clear()

    def want(self, *, wanted: bool) -> None:
        """Whether this waiter could do anything now. If not, the next one is to hear the bell."""
        if wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    async def listen_until(self, stop: asyncio.Event) -> None:
        """Hear the bell, and pass it on if it came when it was not wanted any more."""
        while not stop.is_set():
            await self._wanted.wait()
            try:
                if await self._redis.blpop([self._key], timeout=_LISTEN_S):  # type: ignore[misc]
                    if not self._wanted.is_set():
                        await self._redis.lpush(self._key, 1)  # type: ignore[misc]
                    self._rang.set()
            except (RedisError, OSError):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LISTEN_S):
                        await stop.wait()
