"""Waiting for jobs to end: any number of requests, one connection that listens."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from millpond.clock import monotonic_ms
from millpond.errors import Unavailable
from millpond.store.patience import AGAIN_S, pause
from millpond.store.singles import Singles

log = structlog.get_logger()

_BLOCK_MS = 1_000
#: The stream forgets: what was missed in it is found so late at most.
_LOOK_AGAIN_MS = 10_000
_LOOKED_AT = 1_000
#: How often it is asked whether somebody still may wait.
_MAY_S = 1.0


class Waiting:
    """Tells requests that wait for jobs when those end. `singles` is for it alone: it blocks."""

    def __init__(self, singles: Singles) -> None:
        self._singles = singles
        self._waiters: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._over = False

    async def run_until(self, stop: asyncio.Event) -> None:
        """Listen. After a time without the server whoever waits is looked for anew."""
        place: str | None = None
        looked_ms = 0.0
        while not stop.is_set():
            try:
                if place is None:
                    place = await self._singles.last_done()
                    looked_ms = 0.0
                if monotonic_ms() - looked_ms > _LOOK_AGAIN_MS:
                    await self._look_again()
                    looked_ms = monotonic_ms()
                ended, place = await self._singles.done(place, block_ms=_BLOCK_MS)
            except Unavailable as error:
                log.warning("store_unavailable", error=str(error))
                place = None
                await pause(stop, AGAIN_S)
                continue
            for job in ended:
                self._tell(job)
        self._over = True
        for job in list(self._waiters):
            self._tell(job)

    async def wait(self, job: str, seconds: float, may: Callable[[], Awaitable[bool]]) -> None:
        """Until the job has ended, or so long, or we stop, or `may` says no."""
        if self._over:
            return
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[job].add(told)
        try:
            # It may have ended between the caller's look and now.
            if await self._singles.ended([job]):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not told.done() and await may():
                        await asyncio.wait((told,), timeout=_MAY_S)
        finally:
            waiting = self._waiters[job]
            waiting.discard(told)
            if not waiting:
                del self._waiters[job]

    def _tell(self, job: str) -> None:
        for told in self._waiters.get(job, ()):
            if not told.done():
                told.set_result(None)

    async def _look_again(self) -> None:
        jobs = list(self._waiters)
        for first in range(0, len(jobs), _LOOKED_AT):
            for job in await self._singles.ended(jobs[first : first + _LOOKED_AT]):
                self._tell(job)
