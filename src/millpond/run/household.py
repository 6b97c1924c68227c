"""Everything that a run needs around it: a server, a provider, a scheduler and workers.

    run ─┬─ server       embedded Valkey or Redis, unless MILLPOND_REDIS_URL names one
         ├─ provider     the simulator or a local model, unless there is one
         ├─ scheduler
         └─ worker …

Who dies is started again, and nobody outlives the run.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import structlog
from redis.asyncio import Redis

from millpond.domain.job import COUNTED, Class
from millpond.domain.limit import Limit, parse_limits, write_limits
from millpond.domain.request import Common
from millpond.embedded.kept import Child, Deaths
from millpond.embedded.server import EmbeddedServer
from millpond.errors import NoServer, Unavailable
from millpond.failpoints import reached
from millpond.providers.at_work import Watch, forget
from millpond.providers.profile import WireName
from millpond.run.family import DEATHS_MOST, program, start_logged
from millpond.run.folder import DataFolder, told_limits
from millpond.run.options import UNTIL_TOLD, Options
from millpond.settings import Settings
from millpond.store.durable import check_durable
from millpond.store.gateway import Gateway, connect
from millpond.store.own_models import OwnModels
from millpond.store.patience import AGAIN_S
from millpond.store.store import Lane, Store

log = structlog.get_logger()

#: A job that saw so many workers die ends. Many, since most of them died of something else.
CRASHES_MOST = 20
_SERVER_START_S = 10
_PROVIDER_START_S = 60
_STOP_S = 10


class Household:
    """The processes around one run. Inside the block everything is there; after it, nothing."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        folder: DataFolder,
        run_id: str,
        *,
        common: Common,
        wire: WireName,
        pack: int,
    ) -> None:
        self._options = options
        self._settings = settings
        self._folder = folder
        self.flow = run_id
        self._org = options.account()
        self._token = secrets.token_hex(3)
        self._base_url = options.base_url or ""
        self._url = settings.redis_url or ""
        self._common = common
        self._wire = wire
        self._pack = pack
        self.limits = self.limits_under(options)
        self._deaths = Deaths(DEATHS_MOST)
        self._stopping = asyncio.Event()
        self._workers_stopping = asyncio.Event()
        self._workers: list[Child] = []
        self._others: list[Child] = []
        self._store: Store | None = None
        self._exits = AsyncExitStack()
        self._gone: list[tuple[str, str]] = []
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Store:
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._stop_others)
            exits.push_async_callback(self.stop_workers)
            if self._settings.redis_url is None:
                await self._begin_server()
            redis = await exits.enter_async_context(connect(self._url))
            self._store = store = await self._open_store(redis)
            reached("household.flow.opened")
            if self._options.own_provider:
                await self._begin(self._others, Child("provider", self._start_provider))
            await self._begin(self._others, Child("scheduler", self._start_scheduler))
            for place in range(self._options.workers):
                await self._begin(self._workers, self._worker(place))
            self._exits = exits.pop_all()
        return store

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    @property
    def gave_up(self) -> bool:
        """The processes keep dying and nothing gets done."""
        return self._deaths.too_many

    async def tell_of_the_dead(self) -> None:
        """We saw workers end, so nobody need wait for their leases, and what they were at work on
        is known. Said until it is heard."""
        assert self._store is not None
        with suppress(Unavailable):
            while self._gone:
                name, blamed = gone = self._gone[0]
                await self._store.leave(name, blamed=blamed)
                if gone in self._gone:  # else another keeper was as fast as we were
                    self._gone.remove(gone)

    def progress(self) -> None:
        """A call was settled: deaths are counted anew."""
        self._deaths.progress()

    def hurry(self) -> None:
        """Running calls need not finish."""
        for worker in self._workers:
            worker.hurry()

    async def stop_workers(self) -> None:
        """Workers claim nothing new, finish their calls within the grace, and end."""
        self._workers_stopping.set()
        grace_s = self._settings.grace_ms / 1_000 + _STOP_S
        await asyncio.gather(*(worker.stop(grace_s=grace_s) for worker in self._workers))

    async def _stop_others(self) -> None:
        self._stopping.set()
        for child in reversed(self._others):
            await child.stop(grace_s=_STOP_S)
        await asyncio.gather(*self._keepers)

    async def _begin(self, where: list[Child], child: Child) -> None:
        stopping = self._workers_stopping if where is self._workers else self._stopping
        where.append(child)
        await child.begin()
        self._keepers.append(
            asyncio.create_task(child.keep(stopping, self._deaths), name=f"keep-{child.name}")
        )

    async def _begin_server(self) -> None:
        server = EmbeddedServer(self._folder.server)
        self._url = server.url

        async def start(_: int) -> asyncio.subprocess.Process:
            await server.start()
            assert server.process is not None
            return server.process

        await self._begin(self._others, Child("server", start))

    async def _open_store(self, redis: Redis) -> Store:
        """The flow is open under the options of this start, and nothing else runs beside it."""
        store = Store(Gateway(redis, self._settings.partition))
        await self._say_hello(store)
        if self._settings.redis_url is None:
            # The folder is ours alone: workers of an earlier start are dead, other runs rest.
            await store.leave_all()
            await store.pause_others(self.flow)
        await self.open_flow(store)
        return store

    async def open_flow(self, store: Store, *, lost: bool = False) -> None:
        """The flow, its lane and org are as this start's options say. `lost`: the server has lost
        what it knew of them."""
        options = self._options
        limits = self.limits or UNTIL_TOLD
        lane = Lane(
            id=f"{self._org}.{options.endpoint}",
            org=self._org,
            pool=self._org,
            limits=limits,
            quota=options.quota,
            counted=options.endpoint in COUNTED,
            bulk=options.bulk_limits(limits),
            credit=options.service_time,
            reserve=options.reserve,
            if_new=self.limits is None,
        )
        await store.set_flow(
            self.flow,
            lane,
            attempts=options.attempts,
            crashes=CRASHES_MOST,
            common=self._common.write(),
            user=options.user,
            klass=Class.INTERACTIVE if options.interactive else Class.BULK,
            weight=options.weight,
            pack=self._pack,
            lost=lost,
        )

    async def used(self) -> int:
        """Characters of the quota that are used. Starts the server only."""
        async with self._server_only() as store:
            return await store.used(self._org)

    async def own_models(self) -> dict[str, str]:
        """The org's fine-tuned models, each with its base. Starts the server only."""
        async with self._server_only() as store:
            return await OwnModels(store.gateway).of(self._org)

    @asynccontextmanager
    async def _server_only(self) -> AsyncIterator[Store]:
        """A look before the household begins, if it ever does."""
        async with AsyncExitStack() as exits:
            if self._settings.redis_url is None:
                server = EmbeddedServer(self._folder.server)
                self._url = server.url
                exits.push_async_callback(server.stop)
                await server.start()
            redis = await exits.enter_async_context(connect(self._url))
            store = Store(Gateway(redis, self._settings.partition))
            await self._say_hello(store)
            yield store

    def limits_under(self, options: Options) -> tuple[Limit, ...] | None:
        """The limits that hold under some options; None: nobody knows them yet."""
        told = told_limits(self._folder.path, self._org, options.endpoint)
        return options.lane_limits or told

    async def learn_limits(self, store: Store, told: str) -> None:
        """The provider has said what its limits are: they hold from now on, and next time."""
        self.limits = parse_limits(f"{self._options.endpoint}={told}")[self._options.endpoint]
        self._folder.keep_told_limits(self._org, self._options.endpoint, told)
        await self.open_flow(store)

    async def _say_hello(self, store: Store) -> None:
        try:
            async with asyncio.timeout(_SERVER_START_S):
                while True:
                    try:
                        if self._settings.redis_url is not None and not self._settings.ephemeral:
                            await check_durable(store.gateway.redis)
                        return await store.hello()
                    except Unavailable as error:
                        reason = error
                        await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            whose = "MILLPOND_REDIS_URL" if self._settings.redis_url else str(self._folder.server)
            raise NoServer(
                f"no server answers at {whose} within {_SERVER_START_S} s: {reason}"
            ) from None

    def _worker(self, place: int) -> Child:
        share, more = divmod(self._options.concurrency, self._options.workers)
        slots = share + (place < more)
        at_work = self._folder.at_work(place)
        watch = Watch(at_work, lease_ms=self._settings.lease_ms)

        async def start(number: int) -> asyncio.subprocess.Process:
            forget(at_work)  # what an earlier run may have left
            return await self._start(
                "worker",
                MILLPOND_WORKER=self._name(place, number),
                MILLPOND_AT_WORK=str(at_work),
                MILLPOND_POOL=self._org,
                MILLPOND_SLOTS=str(slots),
                MILLPOND_PROVIDER=self._wire,
                MILLPOND_BASE_URL=self._base_url,
                MILLPOND_PROVIDER_KEY=self._options.key,
                MILLPOND_TIMEOUT_MS=str(self._options.timeout_ms),
                MILLPOND_LEASE_MS=str(self._settings.lease_ms),
                MILLPOND_GRACE_MS=str(self._settings.grace_ms),
            )

        async def died(number: int, code: int | None) -> bool:
            name, blamed = self._name(place, number), watch.blamed()
            log.warning("worker_died", worker=name, code=code, call=blamed)
            self._gone.append((name, blamed))
            await self.tell_of_the_dead()
            return True

        return Child(f"worker-{place}", start, died, watch.stuck)

    def _name(self, place: int, number: int) -> str:
        return f"{self.flow}-{self._token}-{place}-{number}"

    async def _start_scheduler(self, _: int) -> asyncio.subprocess.Process:
        return await self._start("scheduler")

    async def _start_provider(self, number: int) -> asyncio.subprocess.Process:
        """On the same port each time, so that workers find it again."""
        ready = self._folder.path / "provider.ready"
        ready.unlink(missing_ok=True)
        port = urlsplit(self._base_url).port if number else 0
        start = self._simulator() if self._options.simulated else ["local-model"]
        command = program(*start, "--port", str(port), "--ready-file", str(ready))
        process = await start_logged(command, self._folder.log, {})
        self._base_url = await _read_when_ready(ready, process, self._folder.log)
        if self._options.simulated and self._wire == "openai":
            self._base_url += "/v1"
        return process

    def _simulator(self) -> list[str]:
        options = self._options
        return [
            *("simulator", "--journal", str(self._folder.simulator(self._org))),
            *("--limits", write_limits(options.all_limits)),
            *("--quota", "none" if options.quota is None else str(options.quota)),
            *("--service", "lognormal:0.3,0.5"),
        ]

    async def _start(self, command: str, **settings: str) -> asyncio.subprocess.Process:
        common = {
            "MILLPOND_REDIS_URL": self._url,
            "MILLPOND_EPHEMERAL": str(self._settings.ephemeral),
            "MILLPOND_PARTITION": self._settings.partition,
            "MILLPOND_LOG_LEVEL": self._settings.log_level,
        }
        if self._settings.queue_url is not None:
            common["MILLPOND_QUEUE_URL"] = self._settings.queue_url
        return await start_logged(program(command), self._folder.log, {**common, **settings})


def _last_words(log: Path) -> str:
    """What a program wrote last before it ended."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


async def _read_when_ready(ready: Path, process: asyncio.subprocess.Process, log: Path) -> str:
    try:
        async with asyncio.timeout(_PROVIDER_START_S):
            while not ready.exists():
                if process.returncode is not None:
                    raise Unavailable(f"the provider ended at its start; {_last_words(log)}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Unavailable(f"the provider was not ready in {_PROVIDER_START_S} s") from None
    return ready.read_text().strip()
