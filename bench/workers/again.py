"""How long until the calls of workers that were killed are queued again, when nobody saw them die.

Twenty workers that nobody looks after hold calls that are never answered; all are killed at once,
as a machine does that loses its power. Their leases end, and a scheduler takes the calls back.

    python -m bench.workers.again        about fifty seconds, nearly idle
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.admission.figures import Figures, rounded, share_below
from bench.admission.house import ORG, PARTITION, server
from bench.workers import accepting
from bench.workers.stubbed import stub

from millpond.embedded import processes
from millpond.run.family import program, start_logged
from millpond.store.keys import job as job_key

WORKERS, SLOTS = 20, 5
LEASE_MS = 30_000
_LOOK_S = 0.05
_MOST_S = 90


async def measured(folder: Path) -> Figures:
    calls = WORKERS * SLOTS
    async with AsyncExitStack() as exits:
        provider = await exits.enter_async_context(
            stub(folder, calls=2 * calls, delay_ms=600_000, sigma=0, seed=1)
        )
        store, url = await exits.enter_async_context(server(folder))
        settings = {
            "MILLPOND_REDIS_URL": url,
            "MILLPOND_PARTITION": PARTITION,
            "MILLPOND_POOL": ORG,
            "MILLPOND_SLOTS": str(SLOTS),
            "MILLPOND_PROVIDER": "cohere",
            "MILLPOND_BASE_URL": provider.base_url,
            "MILLPOND_PROVIDER_KEY": ORG,
            "MILLPOND_LEASE_MS": str(LEASE_MS),
        }

        async def begin(name: str, **more: str) -> asyncio.subprocess.Process:
            log = folder / "millpond.log"
            process = await start_logged(program(name), log, {**settings, **more})
            exits.push_async_callback(processes.stop, process, grace_s=1)
            return process

        await begin("scheduler")
        workers = [await begin("worker", MILLPOND_WORKER=f"w{n}") for n in range(WORKERS)]
        await accepting.open_flow(store)
        jobs = [accepting.new_job(number) for number in range(calls)]
        await store.accept(accepting.FLOW, jobs)
        keys = [job_key(PARTITION, job.id) for job in jobs]

        async def states() -> list[bytes]:
            pipe = store.gateway.redis.pipeline(transaction=False)
            for key in keys:
                pipe.hget(key, "state")
            found: list[bytes] = await pipe.execute()
            return found

        async with asyncio.timeout(_MOST_S):
            while (await states()).count(b"running") < calls:  # noqa: ASYNC110 (so is the server)
                await asyncio.sleep(_LOOK_S)
        print(f"{calls} calls run; {WORKERS} workers are killed", file=sys.stderr, flush=True)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        back: dict[int, float] = {}
        async with asyncio.timeout(_MOST_S):
            while len(back) < calls:
                for number, state in enumerate(await states()):
                    if state == b"queued":
                        back.setdefault(number, time.monotonic() - killed)
                await asyncio.sleep(_LOOK_S)
    waits = list(back.values())
    return {
        "calls": calls,
        "lease_s": LEASE_MS // 1_000,
        "p50_s": rounded(share_below(waits, 0.5)),
        "p99_s": rounded(share_below(waits, 0.99)),
        "most_s": rounded(max(waits)),
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        print(json.dumps(asyncio.run(measured(Path(folder)))))


if __name__ == "__main__":
    main()
