"""A program that is kept running: who dies is started again, who hangs is killed.

A run keeps its server, provider, scheduler and workers so; `worker --processes N` keeps N workers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from millpond.embedded import processes
from millpond.errors import Unavailable

log = structlog.get_logger()

_AGAIN_FIRST_S = 0.1
_AGAIN_MOST_S = 5.0
_STUCK_LOOK_S = 1.0
#: For one that came up while we were stopping already.
_LATE_STOP_S = 5.0

#: Both are told which start of it is meant, counted from 0.
Start = Callable[[int], Awaitable[asyncio.subprocess.Process]]
#: Tells of it in our stead. With which code it ended, None: it could not even be started. False:
#: it is not tried again.
Died = Callable[[int, int | None], Awaitable[bool]]
Stuck = Callable[[], bool]


class Child:
    """One place: whoever runs here is followed by another start of it. `stuck` says if it hangs."""

    def __init__(
        self, name: str, start: Start, died: Died | None = None, stuck: Stuck | None = None
    ) -> None:
        self.name = name
        self._start = start
        self._died = died
        self._stuck = stuck
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0

    async def begin(self) -> None:
        number, self._process = self._starts, None
        self._starts += 1
        self._process = await self._start(number)

    async def keep(self, stopping: asyncio.Event, deaths: "Deaths") -> None:
        """Start it again whenever it dies, until we are stopping or there were too many deaths."""
        while True:
            code = await self._ends()
            if stopping.is_set():
                return
            if self._died is None:
                log.warning("process_died", process=self.name, code=code)
            elif not await self._died(self._starts - 1, code):
                return
            again_s = deaths.count()
            if again_s is None:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await stopping.wait()
            if stopping.is_set():
                return
            await self._begin_again()
            if stopping.is_set():
                await self.stop(grace_s=_LATE_STOP_S)
                return

    async def _begin_again(self) -> None:
        try:
            await self.begin()
        except (Unavailable, OSError) as error:
            log.warning("process_not_started", process=self.name, error=str(error))

    async def _ends(self) -> int | None:
        """Wait until it ends; it is made to, if it does not come out of something."""
        if self._process is None:
            return None
        while self._stuck is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STUCK_LOOK_S):
                    return await self._process.wait()
            if self._stuck():
                log.warning("process_stuck", process=self.name)
                self._process.kill()
        return await self._process.wait()

    async def stop(self, *, grace_s: float) -> None:
        if self._process is not None:
            await processes.stop(self._process, grace_s=grace_s)

    def hurry(self) -> None:
        """Tell it again to end."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()


class Deaths:
    """Counts deaths since the last progress: the more, the later the next start."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._deaths = 0
        self.too_many = False

    def count(self) -> float | None:
        """One more death: how many seconds to wait, or None to give up."""
        self._deaths += 1
        self.too_many = self._most is not None and self._deaths >= self._most
        if self.too_many:
            return None
        return float(min(_AGAIN_MOST_S, _AGAIN_FIRST_S * 2 ** min(self._deaths - 1, 10)))

    def progress(self) -> None:
        self._deaths = 0
