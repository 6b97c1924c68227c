"""streaq: a message of its stream is acknowledged when its job has ended; no results are kept.

`accept` measures its bulk enqueue instead.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import json
import time

from asking import Ask, provider, run
from given import Given, enqueues
from streaq import Worker

#: 5,000 jobs at a time are as fast, 200 a little slower.
PORTION = 1_000


class Program:
    def __init__(self, given: Given) -> None:
        self.asks: list[Ask] = []
        self.worker = Worker(redis_url=given.redis_url, concurrency=given.at_once)

        @self.worker.task(name="call", ttl=0, silent=True)  # type: ignore[untyped-decorator,unused-ignore]
        async def call(prompt: str) -> None:
            await self.asks[0](prompt)

        self.call = call


async def enqueue(given: Given) -> None:
    program, texts = Program(given), given.texts()
    async with program.worker:
        began_s, used_s = time.monotonic(), time.process_time()
        for start in range(0, len(texts), PORTION):
            tasks = [program.call.enqueue(text) for text in texts[start : start + PORTION]]
            await program.worker.enqueue_many(tasks)
        took_s, used_s = time.monotonic() - began_s, time.process_time() - used_s
    print(json.dumps({"seconds": took_s, "cpu_s": used_s}))


async def work(given: Given) -> None:
    program = Program(given)
    async with provider(given) as ask:
        program.asks.append(ask)
        await program.worker.run_async()


if __name__ == "__main__":
    run((enqueue if enqueues() else work)(Given.read()))
