"""A program that is kept running: started again if it dies, killed if it hangs, and no more if
there is no use in it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from millpond.embedded import kept, processes
from millpond.embedded.kept import Child, Deaths

ENDS = "raise SystemExit(5)"
STAYS = "import time; time.sleep(600)"


class Programs:
    """What is run at the first start, the second and so on; what became of each."""

    def __init__(self, *programs: str | None) -> None:
        self._programs = programs
        self.ends: list[tuple[int, int | None]] = []
        self.started = asyncio.Event()

    async def start(self, number: int) -> asyncio.subprocess.Process:
        program = self._programs[number]
        if program is None:
            raise OSError("no room")
        process = await processes.start([sys.executable, "-c", program])
        if program == STAYS:
            self.started.set()
        return process

    async def died(self, number: int, code: int | None) -> bool:
        self.ends.append((number, code))
        return number + 1 < len(self._programs)


@asynccontextmanager
async def keeping(child: Child, deaths: Deaths) -> AsyncIterator[asyncio.Task[None]]:
    stopping = asyncio.Event()
    async with asyncio.timeout(30):
        await child.begin()
        task = asyncio.create_task(child.keep(stopping, deaths))
        yield task
        stopping.set()
        await child.stop(grace_s=5)
        await task


async def test_who_dies_is_started_again_until_there_is_no_use_in_it() -> None:
    programs = Programs(ENDS, ENDS)
    async with keeping(Child("one", programs.start, programs.died), Deaths()) as task:
        await task

    assert programs.ends == [(0, 5), (1, 5)]


async def test_one_that_could_not_be_started_is_tried_again() -> None:
    programs = Programs(ENDS, None, STAYS)
    async with keeping(Child("one", programs.start, programs.died), Deaths()):
        await programs.started.wait()

    assert programs.ends == [(0, 5), (1, None)]


async def test_one_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_STUCK_LOOK_S", 0.05)
    programs = Programs(STAYS)
    child = Child("one", programs.start, programs.died, stuck=lambda: True)
    async with keeping(child, Deaths()) as task:
        await task

    assert programs.ends == [(0, -9)]


async def test_after_too_many_deaths_it_is_let_be() -> None:
    programs = Programs(ENDS, ENDS, STAYS)
    deaths = Deaths(2)
    async with keeping(Child("one", programs.start, programs.died), deaths) as task:
        await task

    assert deaths.too_many
    assert len(programs.ends) == 2


def test_the_wait_doubles_up_to_five_seconds_and_begins_anew_with_progress() -> None:
    deaths = Deaths()
    assert [deaths.count() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    for _ in range(2_000):
        assert deaths.count() == 5.0

    deaths.progress()

    assert deaths.count() == 0.1
