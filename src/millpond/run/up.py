"""`millpond up`: all of millpond in one process tree, on an embedded server.

    up ─┬─ server       embedded Valkey or Redis
        ├─ provider     the simulator or a local model, unless a real one is meant
        ├─ scheduler
        ├─ workers
        └─ producer     the HTTP API, for users and for operators

Who dies is started again, and nobody outlives it. An empty folder is given an org, a user with a
key, and an operator's key (run/seeds.py).
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import structlog

from millpond.embedded.kept import Child, Deaths
from millpond.embedded.server import EmbeddedServer
from millpond.errors import NoServer, Refused, Unavailable, UnknownPart, WrongLayout
from millpond.providers.profile import PROFILES, ProviderName
from millpond.run.family import program, start_logged
from millpond.run.folder import DataFolder, for_us_alone
from millpond.run.progress import say
from millpond.run.seeds import CREDENTIALS, MASTER, ORG, Seeds, master_key_of, seed
from millpond.settings import PREFIX, Settings
from millpond.store.access import Terms
from millpond.store.gateway import Gateway, connect
from millpond.store.patience import AGAIN_S
from millpond.store.store import Store

log = structlog.get_logger()

_START_S = 60
_STOP_S = 10
#: The simulator's own limits: ours are what holds.
_SIMULATED = "generate=100000/60s;embed=100000/60s;classify=100000/60s"
POOL = "http"
_IN_USE = (
    "another millpond is at work in {path}; stop it, or give this one a folder of its own with "
    "--data-dir, and ports with --port and --operator-port"
)
#: How our programs begin what they say as they end.
_SAYS = "millpond: "
#: What says the producer's settings here.
_OPTIONS = {"MILLPOND_OPERATOR_LISTEN": "--operator-port", "MILLPOND_LISTEN": "--host and --port"}
#: Settings that children are not given as they are, and what says it to `up`.
SAID_OTHERWISE = {
    "redis_url": "it brings its own server",
    "master_key": f"{MASTER} in the data folder holds it",
    "master_key_file": f"{MASTER} in the data folder is the file",
    "provider": "--provider says it",
    "base_url": "--base-url says it",
    "provider_key": "the key is where `millpond run` looks for it",
    "pool": f"it is {POOL}",
    "processes": "--workers says it",
    "slots": "--slots says it",
    "worker": "each start of a worker makes up a name",
    "at_work": "it is of one worker",
    "listen": "--host and --port say it",
    "operator_listen": "--operator-port says it",
}


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `up` was asked for. `key`: of a real provider, None: it needs none. `terms`: of the org
    that is made in an empty folder; `terms_named`: whether the user named any of them."""

    data_dir: Path
    host: str
    port: int
    operator_port: int
    provider: ProviderName
    base_url: str | None
    key: str | None
    terms: Terms
    terms_named: bool
    workers: int
    slots: int
    as_json: bool


class Up:
    """The processes. Inside the block everything is there; after it, nothing."""

    def __init__(self, options: UpOptions, settings: Settings, folder: DataFolder) -> None:
        self._options = options
        self._settings = settings
        self._folder = folder
        self._log = folder.path / "log"
        self._url = ""
        self._base_url = options.base_url or PROFILES[options.provider].base_url or ""
        self._own_provider = options.base_url is None and options.provider in {
            ProviderName.SIMULATOR,
            ProviderName.LOCAL,
        }
        self._deaths = Deaths()
        self._stopping = asyncio.Event()
        self._children: list[Child] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._listens: dict[str, str] = {}

    async def __aenter__(self) -> tuple[Seeds, dict[str, str]]:
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._stop)
            await self._begin(self._server())
            redis = await exits.enter_async_context(connect(self._url))
            store = Store(Gateway(redis, self._settings.partition))
            seeds = await self._seed(store)
            await self._begin(Child("scheduler", self._start("scheduler")))
            try:
                async with asyncio.TaskGroup() as tasks:  # each takes a moment to be there
                    tasks.create_task(self._begin(Child("producer", self._start_producer)))
                    tasks.create_task(self._begin_workers())
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            await _registered(store)
            self._exits = exits.pop_all()
        return seeds, self._listens

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _begin_workers(self) -> None:
        if self._own_provider:
            await self._begin(Child("provider", self._start_provider))
        await self._begin(Child("workers", self._start("worker", self._worker())))

    async def _begin(self, child: Child) -> None:
        await child.begin()
        self._children.append(child)
        self._keepers.append(asyncio.create_task(child.keep(self._stopping, self._deaths)))

    async def _stop(self) -> None:
        """Who takes work in ends first, the server last."""
        self._stopping.set()
        order = ["producer", "workers", "provider", "scheduler", "server"]
        for child in sorted(self._children, key=lambda child: order.index(child.name)):
            grace_s = _STOP_S
            if child.name == "workers":
                grace_s += self._settings.grace_ms // 1_000
            await child.stop(grace_s=grace_s)
        await asyncio.gather(*self._keepers)

    def _server(self) -> Child:
        server = EmbeddedServer(self._folder.server)
        self._url = server.url

        async def start(_: int) -> asyncio.subprocess.Process:
            await server.start()
            assert server.process is not None
            return server.process

        return Child("server", start)

    async def _seed(self, store: Store) -> Seeds:
        await _hello(store)
        await store.leave_all()  # the folder is ours alone: workers of an earlier start are dead
        if self._options.terms_named:
            await _say_if_made(store)
        return await seed(store, self._folder.path, self._options.terms, self._options.key)

    def _start(
        self, command: str, more: dict[str, str] | None = None, *arguments: str
    ) -> Callable[[int], Awaitable[asyncio.subprocess.Process]]:
        async def start(_: int) -> asyncio.subprocess.Process:
            settings = {
                **handed_on(self._settings),
                "MILLPOND_REDIS_URL": self._url,
                "MILLPOND_MASTER_KEY_FILE": str(self._folder.path / MASTER),
                "MILLPOND_PROVIDER": self._options.provider,
                **(more or {}),
            }
            return await start_logged(program(command, *arguments), self._log, settings)

        return start

    def _worker(self) -> dict[str, str]:
        return {
            "MILLPOND_BASE_URL": self._base_url,
            "MILLPOND_PROCESSES": str(self._options.workers),
            "MILLPOND_SLOTS": str(self._options.slots),
            "MILLPOND_POOL": POOL,
            # Of the simulator, which takes any: for orgs that have no key of their own.
            "MILLPOND_PROVIDER_KEY": "nobody" if self._own_provider else "",
        }

    async def _start_provider(self, number: int) -> asyncio.subprocess.Process:
        """On the same port each time, so that workers find it again."""
        ready = self._folder.path / "provider.ready"
        ready.unlink(missing_ok=True)
        logged = _size(self._log)
        port = urlsplit(self._base_url).port if number else 0
        command = ["local-model"]
        if self._options.provider is ProviderName.SIMULATOR:
            journal = self._folder.path / "simulator.jsonl"
            command = ["simulator", "--journal", str(journal), "--limits", _SIMULATED]
            command += ["--service", "lognormal:0.3,0.5"]
        process = await start_logged(
            program(*command, "--port", str(port), "--ready-file", str(ready)), self._log, {}
        )
        told = await _read_when_there(ready, process, "the provider", logged)
        self._base_url = told.decode().strip()
        return process

    async def _start_producer(self, number: int) -> asyncio.subprocess.Process:
        """At the same addresses each time."""
        ready = self._folder.path / "producer.ready"
        ready.unlink(missing_ok=True)
        logged = _size(self._log)
        options = self._options
        ports = [options.port, options.operator_port]
        if number:
            ports = [urlsplit(self._listens[name]).port or 0 for name in ("url", "operator_url")]
        listen, operators = (f"{options.host}:{ports[0]}", f"127.0.0.1:{ports[1]}")
        more = {"MILLPOND_LISTEN": listen, "MILLPOND_OPERATOR_LISTEN": operators}
        begin = self._start("producer", more, "--ready-file", str(ready))
        process = await begin(number)
        told = await _read_when_there(ready, process, "the producer", logged)
        self._listens = orjson.loads(told)
        return process


async def go_up(options: UpOptions, settings: Settings) -> int:
    """Run until told to stop."""
    if settings.redis_url is not None:
        raise Refused(
            "up brings its own server: unset MILLPOND_REDIS_URL, or start producer, scheduler and "
            "worker beside the server that it names"
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for name in sorted(settings.model_fields_set & SAID_OTHERWISE.keys()):
        say(f"up does not read {PREFIX}{name.upper()}: {SAID_OTHERWISE[name]}", quiet=False)
    say("starting …", quiet=options.as_json)
    with for_us_alone(), DataFolder(options.data_dir, in_use=_IN_USE) as folder:
        folder.close_to_others()
        master_key_of(folder.path)
        async with Up(options, settings, folder) as (seeds, listens):
            tell(options.data_dir, seeds, listens, as_json=options.as_json)
            await stop.wait()
            say("stopping …", quiet=options.as_json)
    return 0


def tell(folder: Path, seeds: Seeds, listens: dict[str, str], *, as_json: bool) -> None:
    """Where it listens, and the keys; where stderr is no terminal it is kept, so then it has no
    key."""
    url = listens["url"]
    if as_json:
        told = {
            "url": url,
            "api_key": seeds.api_key or None,
            "admin_url": listens["operator_url"],
            "admin_key": seeds.operator_key,
            "org": seeds.org,
        }
        print(orjson.dumps(told).decode(), flush=True)
        return
    open_to_view, kept = sys.stderr.isatty(), folder / CREDENTIALS
    key = seeds.api_key if open_to_view else f"api_key in {kept}"
    if not seeds.api_key:
        key = "none: the user is suspended or removed; operators make another"
    operator_key = seeds.operator_key if open_to_view else f"operator_key in {kept}"
    say(
        f"""millpond is up. Its data is in {folder}; Ctrl-C stops it.

  API          {url}   (documentation: {url}/docs)
  key          {key}   (org {seeds.org}, user {seeds.user})
  operators    {listens["operator_url"]}
  key          {operator_key}

  curl -s {url}/v1/jobs -H 'Authorization: Bearer {(open_to_view and seeds.api_key) or "KEY"}' \\
    -H 'Content-Type: application/json' -d '{{"endpoint":"generate","prompt":"Name a river."}}'
""",
        quiet=False,
    )


async def _hello(store: Store) -> None:
    try:
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    return await store.hello()
                except WrongLayout:
                    raise
                except Unavailable as error:
                    reason = error
                    await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        raise NoServer(f"the embedded server does not answer: {reason}") from None


async def _say_if_made(store: Store) -> None:
    with suppress(UnknownPart):
        await store.org(ORG)
        say(
            f"the org {ORG} was made at an earlier start and stays as it is: --limits and --quota "
            f"are for a new one; `millpond orgs limits {ORG}` changes them",
            quiet=False,
        )


async def _registered(store: Store) -> None:
    """Until a worker is there: who is told that all is ready is not told to wait for one."""
    try:
        async with asyncio.timeout(_START_S):
            while True:
                if await store.slots(POOL):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Unavailable(f"no worker was there after {_START_S} s: the log says why") from None


async def _read_when_there(
    ready: Path, process: asyncio.subprocess.Process, what: str, logged: int
) -> bytes:
    """`logged`: bytes of the log from before its start."""
    try:
        async with asyncio.timeout(_START_S):
            while not ready.exists():
                if process.returncode is not None:
                    last = _last_words(ready.parent / "log", logged)
                    raise Unavailable(f"{what} ended at its start: {last}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise Unavailable(f"{what} was not ready in {_START_S} s") from None
    return ready.read_bytes()


def _size(log_path: Path) -> int:
    return log_path.stat().st_size if log_path.exists() else 0


def _last_words(log_path: Path, logged: int) -> str:
    """What a child said as it ended, in the words of our options. Others write there too."""
    lines = log_path.read_bytes()[logged:].decode(errors="replace").strip().splitlines()
    said = [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]
    last = (said or lines or ["it said nothing"])[-1]
    for setting, option in _OPTIONS.items():
        last = last.replace(setting, option)
    return last


def handed_on(settings: Settings) -> dict[str, str]:
    """Our settings, as children are told them; each reads what it needs."""
    return {
        PREFIX + name.upper(): str(value)
        for name, value in settings
        if name not in SAID_OTHERWISE and value is not None
    }
