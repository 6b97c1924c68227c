"""The loop that people copy: capacities in the process, refilled all the time; a pause after 429.

Written anew in the shape of the parallel processor of the OpenAI cookbook, with its figures: five
tries a prompt, a pause of a quarter of the window, a look each millisecond. One process, any
number of calls in flight. `how` is the share of the limit it is told to use.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from puller import Ask, Given, Prompts, Refused, provider
from redis.asyncio import Redis

TRIES = 5
PAUSE_OF_WINDOW = 0.25
LOOK_S = 0.001
TOKENS = 250_000
TOKENS_OF_ANSWER = 256
CHARACTERS_PER_TOKEN = 4


class Capacity:
    """Full at first, and never more than full."""

    def __init__(self, amount: float, window_s: float) -> None:
        self._amount = amount
        self._window_s = window_s
        self._left = amount
        self._looked_s = time.monotonic()

    def has(self, need: float) -> bool:
        now_s = time.monotonic()
        gained = self._amount * (now_s - self._looked_s) / self._window_s
        self._left = min(self._left + gained, self._amount)
        self._looked_s = now_s
        return self._left >= need

    def take(self, need: float) -> None:
        self._left -= need


@dataclass
class Asked:
    prompt: str
    tries: int = 0

    @property
    def tokens(self) -> float:
        return len(self.prompt) / CHARACTERS_PER_TOKEN + TOKENS_OF_ANSWER


class Loop:
    def __init__(self, given: Given, ask: Ask, prompts: Prompts) -> None:
        self._ask = ask
        self._prompts = prompts
        self._calls = Capacity(given.amount * float(given.how), given.window_s)
        self._tokens = Capacity(TOKENS, given.window_s)
        self._pause_s = given.window_s * PAUSE_OF_WINDOW
        self._again: deque[Asked] = deque()
        self._paused_until_s = 0.0
        self._in_flight = 0

    async def run(self) -> None:
        following = await self._next()
        async with asyncio.TaskGroup() as tasks:
            while following or self._in_flight or self._again:
                if following and self._calls.has(1) and self._tokens.has(following.tokens):
                    self._calls.take(1)
                    self._tokens.take(following.tokens)
                    self._in_flight += 1
                    tasks.create_task(self._answer(following))
                    following = None
                following = following or await self._next()
                await asyncio.sleep(LOOK_S)
                pause_s = self._paused_until_s - time.monotonic()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)

    async def _next(self) -> Asked | None:
        if self._again:
            return self._again.popleft()
        prompt = await self._prompts.take()
        return Asked(prompt) if prompt else None

    async def _answer(self, asked: Asked) -> None:
        asked.tries += 1
        try:
            await self._ask(asked.prompt)
        except Refused:
            self._paused_until_s = time.monotonic() + self._pause_s
            if asked.tries < TRIES:
                self._again.append(asked)
            else:
                print(f"lost: {asked.prompt[:20]}")
        finally:
            self._in_flight -= 1


async def main(given: Given) -> None:
    async with Redis.from_url(given.redis_url) as redis, provider(given) as ask:
        prompts = Prompts(redis)
        await prompts.start()
        await Loop(given, ask, prompts).run()


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
