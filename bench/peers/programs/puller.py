"""What the programs share: prompts from one list, the provider, and being refused.

The queue is as good as one can be: a prompt is taken when there is room for it, waits for no
particular process, and a refused one is asked again by the process that has it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import Redis

IN_FLIGHT_MAX = 32
BACKOFF_S = 0.3
BACKOFF_MAX_S = 3.0

Ask = Callable[[str], Awaitable[None]]
Permit = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Given:
    """What the driver says: so many calls are allowed in any window of that length."""

    redis_url: str
    base_url: str
    amount: int
    window_s: int
    how: str

    @classmethod
    def read(cls) -> "Given":
        return cls(**json.loads(sys.argv[1]))


class Refused(Exception):
    """429; `retry_after_s` is what the provider asks for, if it does."""

    def __init__(self, retry_after_s: float | None = None) -> None:
        super().__init__("the provider refused the call")
        self.retry_after_s = retry_after_s

    def wait_s(self, tries: int) -> float:
        """How long to leave a prompt that was refused so many times."""
        if self.retry_after_s is not None:
            return self.retry_after_s
        return min(BACKOFF_S * 2.0 ** (tries - 1), BACKOFF_MAX_S)


@asynccontextmanager
async def provider(given: Given) -> AsyncIterator[Ask]:
    """A way to ask for one generation. It raises Refused."""
    async with ClientSession(timeout=ClientTimeout(total=120)) as session:

        async def ask(prompt: str) -> None:
            async with session.post(
                f"{given.base_url}/v1/generate",
                json={"prompt": prompt, "max_tokens": 256},
                headers={"Authorization": "Bearer bench"},
            ) as reply:
                await reply.read()
                if reply.status == 429:
                    asked = reply.headers.get("Retry-After")
                    raise Refused(float(asked) if asked else None)
                reply.raise_for_status()

        yield ask


class Prompts:
    """The list that all processes take from."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def take(self) -> str | None:
        taken = await self._redis.lpop("todo")  # type: ignore[misc]
        return taken.decode() if isinstance(taken, bytes) else None

    async def start(self) -> None:
        """Say that we are ready, and wait until everybody is."""
        await self._redis.incr("ready")
        while not await self._redis.exists("go"):  # noqa: ASYNC110 (it is the server that is asked)
            await asyncio.sleep(0.01)


async def free() -> None:
    """The permit of those that have no limiter before the call."""


def one_by_one(permit: Permit) -> Permit:
    """The same, but a process has one at the limiter's door, not a crowd."""
    door = asyncio.Lock()

    async def permitted() -> None:
        async with door:
            await permit()

    return permitted


async def pull(given: Given, ask: Ask, permit: Permit = free) -> None:
    """Answer prompts until the list is empty, each call with a permit of its own."""
    room = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def answer(prompt: str) -> None:
        tries = 0
        while True:
            tries += 1
            await permit()
            try:
                return await ask(prompt)
            except Refused as refused:
                await asyncio.sleep(refused.wait_s(tries))

    async def answer_in_room(prompt: str) -> None:
        try:
            await answer(prompt)
        finally:
            room.release()

    async with Redis.from_url(given.redis_url) as redis, asyncio.TaskGroup() as tasks:
        prompts = Prompts(redis)
        await prompts.start()
        while True:
            await room.acquire()
            prompt = await prompts.take()
            if prompt is None:
                return
            tasks.create_task(answer_in_room(prompt))
