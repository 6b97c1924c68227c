"""What the programs of the night share: the file of prompts, the account, and the chat users.

A program is started with JSON (`Given`). `role` says what it does: bulk, or the chats. Its own
figures for being refused, where it has none, are those of the OpenAI SDK at a tenth, as all of
the night is: 0.05 s, doubling to 0.8 s.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout
from puller import Refused
from redis.asyncio import Redis

BACKOFF_S = 0.05
BACKOFF_MAX_S = 0.8
TIMEOUT_S = 120
BULK_TOKENS = 256
CHAT_TOKENS = 1
#: The simulator writes this header into its journal: it tells whose call it was.
WHOSE = "X-Millpond-Attempt"

#: Ask a prompt for so many tokens at most; `whose` is for the journal. It raises Refused.
Ask = Callable[[str, int, str], Awaitable[None]]


@dataclass(frozen=True)
class Given:
    """What the driver says. `share` of `shares` processes does every so-manieth line; `chats_s`
    are the moments at which somebody asks, after the value of `first` in the server."""

    redis_url: str
    base_url: str
    key: str
    amount: int
    window_s: int
    scale: int
    role: str
    share: int
    shares: int
    lines: str
    answers: str
    chats_s: list[float]
    how: str = "1"

    @classmethod
    def read(cls) -> "Given":
        return cls(**json.loads(Path(sys.argv[1]).read_text()))


def backoff_s(tries: int) -> float:
    """How long to leave a prompt that was refused so many times."""
    return min(BACKOFF_S * 2.0 ** (tries - 1), BACKOFF_MAX_S)


class Lines:
    """This process's part of the file, but for what its file of answers already holds."""

    def __init__(self, given: Given) -> None:
        self._answers = Path(given.answers)
        kept = self._answers.read_text().splitlines() if self._answers.exists() else []
        answered = set(kept)
        lines = Path(given.lines).read_text().splitlines()[given.share :: given.shares]
        self._left = iter([line for line in lines if line not in answered])
        self._out = self._answers.open("a")

    async def take(self) -> str | None:
        return next(self._left, None)

    def keep(self, prompt: str) -> None:
        """What is kept of an answer is its prompt, which is all that going on needs."""
        self._out.write(prompt + "\n")
        self._out.flush()


@asynccontextmanager
async def account(given: Given) -> AsyncIterator[Ask]:
    """The provider's API, used directly."""
    head = {"Authorization": f"Bearer {given.key}"}
    async with ClientSession(timeout=ClientTimeout(total=TIMEOUT_S), headers=head) as session:

        async def ask(prompt: str, tokens: int, whose: str) -> None:
            async with session.post(
                f"{given.base_url}/v1/generate",
                json={"prompt": prompt, "max_tokens": tokens},
                headers={WHOSE: whose},
            ) as reply:
                await reply.read()
                if reply.status == 429:
                    raise Refused
                reply.raise_for_status()

        yield ask


async def begin(redis: Redis) -> None:
    """Say that we are ready, and wait until everybody is."""
    await redis.incr("ready")
    while not await redis.exists("go"):  # noqa: ASYNC110 (it is the server that is asked)
        await asyncio.sleep(0.01)


async def chat(
    given: Given, redis: Redis, say: Callable[[int], Coroutine[None, None, None]]
) -> None:
    """Each chat at its moment, whatever became of those before."""
    while (first := await redis.get("first")) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as tasks:
        for number, at_s in enumerate(given.chats_s):
            await asyncio.sleep(max(0.0, float(first) + at_s - time.time()))
            tasks.create_task(say(number))


async def insist(ask: Ask, prompt: str, tokens: int, whose: str) -> None:
    """Again and again, until it is answered."""
    tries = 0
    while True:
        try:
            return await ask(prompt, tokens, whose)
        except Refused:
            tries += 1
            await asyncio.sleep(backoff_s(tries))


async def chat_by(given: Given, ask: Ask) -> None:
    """The chat users, each of whom insists."""

    async def say(number: int) -> None:
        await insist(ask, chat_prompt(number), CHAT_TOKENS, chat_name(number))

    async with Redis.from_url(given.redis_url) as redis:
        await begin(redis)
        await chat(given, redis, say)


async def bulk_by(given: Given, ask: Ask, most: int) -> None:
    """The lines of the file, so many at a time, and the answers into a file."""
    lines = Lines(given)

    async def one_after_the_other() -> None:
        while (prompt := await lines.take()) is not None:
            await insist(ask, prompt, BULK_TOKENS, "bulk")
            lines.keep(prompt)

    async with Redis.from_url(given.redis_url) as redis, asyncio.TaskGroup() as tasks:
        await begin(redis)
        for _ in range(most):
            tasks.create_task(one_after_the_other())


def chat_prompt(number: int) -> str:
    return f"Are you there, {number}?"


def chat_name(number: int) -> str:
    return f"chat-{number}"
