"""Bulk accept as a sensible client has it: full scripts, a few on the way at once.

python -m bench.workers.accepting '{"redis_url": URL, "jobs": N}'
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence

import uvloop
from bench.admission.house import PARTITION, lane
from bench.workers.field import LIMITS
from bench.workers.programs.given import text

from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common
from millpond.providers.cohere import Cohere
from millpond.store.gateway import Gateway, connect
from millpond.store.store import ACCEPT_MOST, NewJob, Store

FLOW = "bench"
ON_THE_WAY = 4
_COMMON = Common(Endpoint.GENERATE, "command", max_tokens=256)
_ADAPTER = Cohere()


async def open_flow(store: Store) -> None:
    await store.set_flow(FLOW, lane(*LIMITS), attempts=5, crashes=20, common=_COMMON.write())


async def accept(store: Store, jobs: int) -> None:
    """So many jobs with the texts that the peers have."""
    portions = _portions(jobs)

    async def feed() -> None:
        for portion in portions:
            await store.accept(FLOW, [new_job(number) for number in portion])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(ON_THE_WAY):
            tasks.create_task(feed())


def new_job(number: int) -> NewJob:
    ask = Ask(text(number))
    need = _ADAPTER.need(_COMMON, ask)
    return NewJob(
        id=f"{FLOW}.{number}",
        need=need.characters,
        tokens=need.tokens,
        base=need.base,
        note="",
        payload=ask.write(),
    )


def _portions(jobs: int) -> Iterator[Sequence[int]]:
    return (range(start, min(start + ACCEPT_MOST, jobs)) for start in range(0, jobs, ACCEPT_MOST))


async def main(redis_url: str, jobs: int) -> None:
    async with connect(redis_url) as redis:
        store = Store(Gateway(redis, PARTITION))
        await store.hello()
        await open_flow(store)
        began_s, used_s = time.monotonic(), time.process_time()
        await accept(store, jobs)
        took_s, used_s = time.monotonic() - began_s, time.process_time() - used_s
    print(json.dumps({"seconds": took_s, "cpu_s": used_s}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(**json.loads(sys.argv[1])))
