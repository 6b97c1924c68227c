"""A stranger uses the same key: how soon the run makes room, and how soon it takes all again.

python -m bench.admission.stranger URL CALLS EVERY_S     the stranger, a process of its own
"""

import asyncio
import subprocess
import sys

import aiohttp
from bench.admission import ROOT
from bench.admission.figures import Figures, Place, rounded
from bench.admission.files import KEY, FileRun

from rig import Rows, wait_until

AMOUNT, WINDOW_S = 60, 6
RUN = FileRun(900, f"{AMOUNT}/{WINDOW_S}s")
#: What the stranger takes of each of two windows; it asks again and again until it has it.
STRANGERS, WINDOWS = AMOUNT // 5, 2
AGAIN_S = 0.05
FULL = 0.98


def stranger_comes(place: Place) -> Figures:
    with RUN.under_way(place) as run:
        wait_until(lambda: len(run.provider.calls(KEY)) > 2 * AMOUNT, what="two windows")
        stranger = [sys.executable, "-m", "bench.admission.stranger", run.provider.url]
        subprocess.run(stranger, cwd=ROOT, check=True)
        run.wait()
        return _figures(run.provider.calls(KEY))


def _figures(rows: Rows) -> Figures:
    ours = [row for row in rows if row["attempt"] is not None]
    strangers = [row for row in rows if row["attempt"] is None]
    refused_ms = [row["at_ms"] for row in ours if row["refused_by"] is not None]
    came_ms = min(row["at_ms"] for row in strangers)
    left_ms = max(row["at_ms"] for row in strangers)
    taken = sum(row["refused_by"] is None for row in strangers)
    full_ms = _full_ms([row for row in ours if row["refused_by"] is None], left_ms)
    return {
        "refused": len(refused_ms),
        "stranger_took": taken,
        "last_refused_s": rounded((max(refused_ms) - came_ms) / 1_000) if refused_ms else None,
        "full_after_s": None if full_ms is None else rounded((full_ms - left_ms) / 1_000),
        "seconds": rounded((max(row["at_ms"] for row in rows) - rows[0]["at_ms"]) / 1_000),
    }


def _full_ms(calls: Rows, from_ms: float) -> float | None:
    """When, from then on, a window and a mean latency first held all but all of the limit."""
    mean_ms = sum(call["headers_ms"] - call["received_ms"] for call in calls) / len(calls)
    at_ms = sorted(float(call["at_ms"]) for call in calls)
    wanted = round(FULL * AMOUNT)
    for first_ms, last_ms in zip(at_ms, at_ms[wanted - 1 :], strict=False):
        if first_ms >= from_ms and last_ms - first_ms <= WINDOW_S * 1_000 + mean_ms:
            return last_ms
    return None


async def _be_a_stranger(url: str) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def insist(number: int) -> None:
            asked = {"prompt": f"a stranger's question {number}", "max_tokens": 20}
            while True:
                async with session.post(f"{url}/v1/generate", json=asked) as reply:
                    if reply.status == 200:
                        return
                await asyncio.sleep(AGAIN_S)

        for _ in range(WINDOWS):
            window = asyncio.create_task(asyncio.sleep(WINDOW_S))
            await asyncio.gather(window, *map(insist, range(STRANGERS)))


if __name__ == "__main__":
    asyncio.run(_be_a_stranger(sys.argv[1]))
