"""The processes of a run: who dies is started again, and nobody outlives us.

run ─┬─ server       embedded Valkey or Redis, unless there is one
     ├─ simulator    if the provider is our own
     ├─ scheduler
     └─ worker …
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from millpond import failpoints
from millpond.embedded import processes
from millpond.errors import Unavailable
from millpond.store.patience import pause

log = structlog.get_logger()

#: So many deaths, with not one call settled in between, and the run gives up.
DEATHS_MOST = 10
_AGAIN_FIRST_S = 0.1
_AGAIN_MOST_S = 5.0
_STUCK_LOOK_S = 1.0
#: For a child that came up while we were stopping already.
_LATE_STOP_S = 5.0

Start = Callable[[int], Awaitable[asyncio.subprocess.Process]]
Died = Callable[[int], Awaitable[None]]
Stuck = Callable[[], bool]


class Child:
    """One place in the family: a program that is kept running.

    `died` is told which start of it has died, `stuck` says whether it hangs.
    """

    def __init__(
        self, name: str, start: Start, died: Died | None = None, stuck: Stuck | None = None
    ) -> None:
        self.name = name
        self._start = start
        self._died = died
        self._stuck = stuck
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

    async def begin(self) -> None:
        self._process = await self._start(self.starts)
        self.starts += 1

    async def keep(self, stopping: asyncio.Event, deaths: "Deaths") -> None:
        """Start it again whenever it dies, until we are stopping or there were too many deaths."""
        while self._process is not None:
            code = await self._ends(self._process)
            if stopping.is_set():
                return
            log.warning("process_died", process=self.name, code=code)
            if self._died is not None:
                await self._died(self.starts - 1)
            again_s = deaths.count()
            if again_s is None:
                return
            await pause(stopping, again_s)
            if stopping.is_set():
                return
            with suppress(Unavailable, OSError):
                await self.begin()
            if stopping.is_set():
                await self.stop(grace_s=_LATE_STOP_S)
                return

    async def _ends(self, process: asyncio.subprocess.Process) -> int:
        """Wait until it ends; it is made to, if it does not come out of something."""
        while self._stuck is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STUCK_LOOK_S):
                    return await process.wait()
            if self._stuck():
                log.warning("process_stuck", process=self.name)
                process.kill()
        return await process.wait()

    async def stop(self, *, grace_s: float) -> None:
        if self._process is not None:
            await processes.stop(self._process, grace_s=grace_s)

    def hurry(self) -> None:
        """Tell it again to end."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()


class Deaths:
    """Counts deaths since the last settled call."""

    def __init__(self) -> None:
        self._deaths = 0
        self.too_many = False

    def count(self) -> float | None:
        """One more death: how many seconds to wait, or None to give up."""
        self._deaths += 1
        self.too_many = self._deaths >= DEATHS_MOST
        if self.too_many:
            return None
        return float(min(_AGAIN_MOST_S, _AGAIN_FIRST_S * 2 ** (self._deaths - 1)))

    def progress(self) -> None:
        self._deaths = 0


def program(*arguments: str) -> list[str]:
    """The command line of one of our own programs."""
    return [sys.executable, "-m", "millpond", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment for a child, with these settings and none of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in failpoints.VARIABLES or not name.upper().startswith("MILLPOND_")
    }
    return {**inherited, **settings}


async def start_logged(
    command: list[str], log_path: Path, settings: Mapping[str, str]
) -> asyncio.subprocess.Process:
    with log_path.open("ab") as output:
        return await processes.start(command, env=environment(settings), output=output)
