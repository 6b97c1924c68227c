"""A worker process: owns the pump and arq, side by side. Or several such processes, kept alive.

The first SIGTERM lets running calls finish within the grace; a second one cuts them.
"""

import asyncio
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from millpond.clock import monotonic_ms
from millpond.embedded import processes
from millpond.embedded.kept import Child, Deaths
from millpond.errors import Refused, Unavailable
from millpond.providers.at_work import AtWork, Watch
from millpond.providers.caller import Caller
from millpond.providers.http import Http
from millpond.providers.profile import PROFILES, ProviderName, adapter
from millpond.settings import Settings
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.gateway import Gateway, connect
from millpond.store.keyring import keyring_of
from millpond.store.patience import hello_until, pause
from millpond.store.sealing import read_master_keys
from millpond.store.store import Store
from millpond.worker import background
from millpond.worker.pump import Pump

log = structlog.get_logger()

#: In a hurry the server is told what has ended; if it does not listen, we go all the same.
_HURRY_S = 5.0
#: How much later than its grace a process of several may end.
_STOP_S = 10.0
_CANCELLED_AGAIN_S = 0.5
_UP_LOOK_S = 0.05
_UP_MOST_S = 10.0
#: How a program ends whose options or settings are no good, or whose server is not.
_USAGE = 2
#: Each process adds its place and a number to the name.
_NAME_MOST = 48
#: Who lived so long did not die of how it was started.
_STEADY_MS = 60_000


async def main(settings: Settings) -> None:
    """Work until told to stop."""
    redis_url, base_url = _addresses(settings)
    queue_url, queue_setting = background.queue_address(settings)
    async with (
        connect(redis_url) as redis,
        connect(redis_url, blocking=True) as bell_redis,
        connect(redis_url) as background_redis,
        connect(queue_url, setting=queue_setting) as queue,
        Http(
            base_url,
            settings.provider_key.get_secret_value(),
            timeout_ms=settings.timeout_ms,
            clock=monotonic_ms,
        ) as http,
    ):
        bell = Bell(bell_redis, keys.worker_bell(settings.partition, settings.pool))
        stop, hurry = asyncio.Event(), asyncio.Event()
        store = Store(Gateway(redis, settings.partition))
        keyring = keyring_of(store, settings)
        at_work = AtWork(settings.at_work)
        pump = Pump(
            store,
            Caller(
                adapter(PROFILES[ProviderName(settings.provider)].wire),
                http,
                store.common,
                key_of=None if keyring is None else keyring.key_of,
                at_work=at_work,
            ),
            bell,
            worker=settings.worker or _made_up_name(),
            pool=settings.pool,
            slots=settings.slots,
            lease_ms=settings.lease_ms,
        )
        end = asyncio.timeout(None)

        def obey() -> None:
            if stop.is_set() and not hurry.is_set():
                hurry.set()
                end.reschedule(asyncio.get_running_loop().time() + _HURRY_S)
            stop.set()
            log.info("worker_stopping", hurry=hurry.is_set())
            bell.ring()

        try:
            async with end:
                _obey_signals(obey)
                await hello_until(stop, store, ephemeral=settings.ephemeral)
                at_work.begin()
                loop = type(asyncio.get_running_loop()).__module__
                log.info("worker_started", pool=settings.pool, slots=settings.slots, loop=loop)
                side_store = Store(Gateway(background_redis, settings.partition))
                async with asyncio.TaskGroup() as tasks:
                    beside = [
                        tasks.create_task(bell.listen_until(stop), name="bell"),
                        tasks.create_task(
                            background.run(queue, side_store, _keep(settings)), name="background"
                        ),
                    ]
                    await pump.run_until(stop, hurry=hurry, grace_ms=settings.grace_ms)
                    await _end(beside)
        except TimeoutError:
            log.warning("server_did_not_listen")
        at_work.end()


def _keep(settings: Settings) -> background.Keep:
    return background.Keep(
        answers_ms=settings.keep_answers_s * 1_000,
        ledger_ms=settings.keep_ledger_s * 1_000,
        audit_ms=settings.keep_audit_s * 1_000,
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancelled until they have ended: arq, for one, may lose a cancellation as it starts."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCELLED_AGAIN_S)


async def keep(settings: Settings, processes_wanted: int) -> int:
    """Keep several workers running, each a process of its own, until told to stop.

    The exit code: that of a worker which says, before it was up, that it is of no use to start it.
    """
    redis_url, _ = _addresses(settings)
    read_master_keys(settings)  # what stops all of them is told once
    if len(settings.worker) > _NAME_MOST:
        raise Refused(f"MILLPOND_WORKER: at most {_NAME_MOST} characters for several processes")
    stop = asyncio.Event()
    name = settings.worker or _made_up_name()
    places: list[Place] = []

    def obey() -> None:
        if stop.is_set():
            for place in places:
                place.hurry()
        stop.set()

    with tempfile.TemporaryDirectory(prefix="millpond-workers-") as folder:
        async with connect(redis_url) as redis:
            store = Store(Gateway(redis, settings.partition))
            places += [
                Place(f"{name}-{n}", settings, Path(folder), store) for n in range(processes_wanted)
            ]
            _obey_signals(obey)
            await hello_until(stop, store, ephemeral=settings.ephemeral)
            async with asyncio.TaskGroup() as tasks:
                for place in places:
                    tasks.create_task(place.keep_until(stop), name="keep")
                    if place is places[0]:
                        await place.begun(stop)  # what stops all of them is told once
                    if stop.is_set():
                        break
                await stop.wait()
                for place in places:
                    tasks.create_task(place.stop(), name="stop")
    return _USAGE if any(place.of_no_use for place in places) else 0


class Place:
    """One of several workers: whoever works here is followed by another one if it dies.

    Nothing that happens to one is told to the others; it dies with us (Linux). In the folder it
    says what it is at work on, so that only that call is held responsible for its death.
    """

    def __init__(self, name: str, settings: Settings, folder: Path, store: Store) -> None:
        self._name = name
        self._at_work = folder / name
        self._store = store
        self._watch = Watch(self._at_work, lease_ms=settings.lease_ms)
        self._grace_s = settings.grace_ms / 1_000 + _STOP_S
        self._command = [sys.executable, "-m", "millpond", "worker", "--processes", "1"]
        if settings.ephemeral:
            self._command.append("--ephemeral")
        self._child = Child(name, self._start, self._died, self._watch.stuck)
        self._deaths = Deaths()
        self._began_ms = 0.0
        self._ended = False
        self.of_no_use = False

    async def keep_until(self, stop: asyncio.Event) -> None:
        """Start it, and again whenever it ends, later and later, until told to stop. If that is
        of no use, we all stop."""
        with suppress(OSError):  # no room for one now: tried again
            await self._child.begin()
        await self._child.keep(stop, self._deaths)
        if self.of_no_use:
            stop.set()

    async def begun(self, stop: asyncio.Event) -> None:
        """Wait a while until it is up, or has ended in its first attempt."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_UP_MOST_S):
                while not (stop.is_set() or self._ended or self._watch.up()):
                    await pause(stop, _UP_LOOK_S)

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        self._began_ms = monotonic_ms()
        told = {"MILLPOND_WORKER": self._worker(number), "MILLPOND_AT_WORK": str(self._at_work)}
        return await processes.start(self._command, env={**os.environ, **told})

    async def _died(self, number: int, code: int | None) -> bool:
        self._ended = True
        self.of_no_use = code == _USAGE and not self._watch.up()
        if self.of_no_use:
            return False  # it has said why
        if monotonic_ms() - self._began_ms > _STEADY_MS:
            self._deaths.progress()
        worker, blamed = self._worker(number), self._watch.blamed()
        log.warning("worker_died", worker=worker, code=code, call=blamed)
        with suppress(Unavailable):  # else its lease ends
            await self._store.leave(worker, blamed=blamed)
        return True

    def _worker(self, number: int) -> str:
        return f"{self._name}-{number}"

    async def stop(self) -> None:
        """Nothing new is claimed; calls finish within the grace."""
        await self._child.stop(grace_s=self._grace_s)

    def hurry(self) -> None:
        """Tell it again to end: running calls need not finish."""
        self._child.hurry()


def _addresses(settings: Settings) -> tuple[str, str]:
    if settings.redis_url is None or settings.base_url is None:
        raise Refused("a worker needs MILLPOND_REDIS_URL and MILLPOND_BASE_URL")
    return settings.redis_url, settings.base_url


def _made_up_name() -> str:
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _obey_signals(obey: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, obey)
