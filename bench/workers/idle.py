"""One job after the other: how long from its accept to its call's first byte at the provider."""

import asyncio
import random
import time
from pathlib import Path

from bench.admission.figures import Figures, rounded, share_below
from bench.admission.house import server
from bench.workers import accepting, ourselves
from bench.workers.field import Row
from bench.workers.stubbed import Failed, stub

from millpond.store.store import Store

_PAUSE_S = (0.02, 0.08)
_ANSWER_WAIT_MS = 2_000
#: The first ones find a worker that has no connection yet.
_WARM_UP = 10


async def measured(folder: Path, row: Row, seed: int) -> Figures:
    """A job is accepted a moment after the one before it was answered."""
    chance = random.Random(seed)
    jobs, accepted_ns = _WARM_UP + row.calls, []
    async with (
        stub(folder, calls=jobs, delay_ms=row.delay_ms, sigma=0, seed=seed) as provider,
        server(folder) as (store, url),
        ourselves.started(
            folder, url, provider.base_url, slots=row.at_once, names=("scheduler", "worker")
        ),
    ):
        provider.watch({})
        await accepting.open_flow(store)
        for number in range(jobs):
            await asyncio.sleep(chance.uniform(*_PAUSE_S))
            job = accepting.new_job(number)
            accepted_ns.append(time.monotonic_ns())
            await store.accept(accepting.FLOW, [job])
            await _answered(store)
        await provider.heard()
        arrived_ns = await provider.arrivals_ns()
    waits_ms = [(came - went) / 1e6 for went, came in zip(accepted_ns, arrived_ns, strict=True)][
        _WARM_UP:
    ]
    return {
        "p50_ms": rounded(share_below(waits_ms, 0.5)),
        "p99_ms": rounded(share_below(waits_ms, 0.99)),
        "most_ms": rounded(max(waits_ms)),
    }


async def _answered(store: Store) -> None:
    """Wait for the one job's answer, and have it forgotten."""
    for _ in range(10):
        rows = await store.rows(accepting.FLOW, block_ms=_ANSWER_WAIT_MS)
        if rows:
            await store.flushed(accepting.FLOW, rows[-1].id)
        if any("job" in row.fields for row in rows):
            return
    raise Failed("a job was not answered")
