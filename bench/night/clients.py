"""The clients at work: processes that are started again when they die, and chats that come in."""

import asyncio
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.night.field import SCALE, Client, Night
from bench.peers.environments import python_of
from bench.peers.run import COMMAND, GRACE_S, START_S, Failed, launch, prompts
from bench.peers.run import PROGRAMS as PEERS_PROGRAMS
from redis.asyncio import Redis

from millpond.domain.job import Class, Endpoint
from millpond.domain.limit import parse_limits
from millpond.domain.request import Ask, Common
from millpond.embedded import processes, server
from millpond.embedded.server import EmbeddedServer
from millpond.errors import Unavailable
from millpond.providers.cohere import Cohere
from millpond.run.options import account
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Lane, NewJob, Store
from rig import ROLES
from rig import processes as all_processes

PROGRAMS = Path(__file__).parent / "programs"
#: LiteLLM shall not ask the network for prices before it begins.
PEERS_SETTINGS = {"PYTHONPATH": str(PEERS_PROGRAMS), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
#: The account: what the simulator calls an organisation.
KEY = "demo"
CHAT = "chat-"


class AtWork(ABC):
    """A client that has begun with the prompts."""

    #: What it said beforehand of how long it would take, if it said anything.
    promised_s: float | None = None

    @abstractmethod
    async def wait(self) -> None:
        """Until it has come to an end with the prompts."""

    @abstractmethod
    def workers(self) -> list[int]:
        """The processes that make its calls."""

    @abstractmethod
    async def chat(self, first_s: float) -> None:
        """Somebody asks now and then, counted from a moment of unix time."""

    @abstractmethod
    def is_chat(self, attempt: str) -> int | None:
        """The number of the chat that a call was made for, as the journal names the call."""


# ---------------------------------------------------------------- other people's


@dataclass
class Peers(AtWork):
    """Processes of a program of ours around somebody else's library, and a supervisor."""

    folder: Path
    client: Client
    night: Night
    base_url: str
    redis: Redis
    redis_url: str
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    keepers: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        """All are started, and let go when the last is ready."""
        lines = prompts(self.night.scenario)
        (self.folder / "lines").write_text("".join(line + "\n" for line in lines))
        await self.redis.rpush("todo", *lines)  # type: ignore[misc]
        for share in range(self.client.processes):
            await self._start(f"bulk-{share}")
        await self._start("chat-0")
        async with asyncio.timeout(START_S):
            while int(await self.redis.get("ready") or 0) < len(self.running):
                if any(process.returncode for process in self.running.values()):
                    raise Failed(_last_words(self.folder / "peer.log"))
                await asyncio.sleep(0.02)
        self.keepers = [
            asyncio.create_task(self._keep(name)) for name in self.running if name != "chat-0"
        ]
        await self.redis.set("go", 1)

    async def wait(self) -> None:
        await asyncio.gather(*self.keepers)

    async def end(self) -> None:
        for keeper in self.keepers:
            keeper.cancel()
        for process in self.running.values():
            await processes.stop(process, grace_s=GRACE_S)

    def workers(self) -> list[int]:
        return [
            process.pid
            for name, process in self.running.items()
            if name != "chat-0" and process.returncode is None
        ]

    async def chat(self, first_s: float) -> None:
        await self.redis.set("first", first_s)

    def is_chat(self, attempt: str) -> int | None:
        return int(attempt.removeprefix(CHAT)) if attempt.startswith(CHAT) else None

    async def _keep(self, name: str) -> None:
        """Started again whenever it was killed, until it ends by itself."""
        while code := await self.running[name].wait():
            if code > 0:
                raise Failed(_last_words(self.folder / "peer.log"))
            await self._start(name)

    async def _start(self, name: str) -> None:
        role, _, share = name.partition("-")
        given = {
            "redis_url": self.redis_url,
            "base_url": self.base_url,
            "key": KEY,
            "amount": self.night.amount,
            "window_s": self.night.window_s,
            "scale": SCALE,
            "role": role,
            "share": int(share),
            "shares": self.client.processes,
            "lines": str(self.folder / "lines"),
            "answers": str(self.folder / f"answers-{name}"),
            "chats_s": self.night.chats_s,
        }
        told = self.folder / f"given-{name}.json"
        told.write_text(json.dumps(given))
        python = python_of(self.client.requirements)
        with (self.folder / "peer.log").open("ab") as log:
            self.running[name] = await processes.start(
                [str(python), str(PROGRAMS / f"{self.client.program}.py"), str(told)],
                env={**os.environ, **PEERS_SETTINGS},
                output=log,
            )


# ---------------------------------------------------------------- ourselves


@dataclass
class Ourselves(AtWork):
    """`millpond run` for the prompts; chats are a flow of their own in its lane."""

    folder: Path
    night: Night
    base_url: str
    process: asyncio.subprocess.Process
    promised_s: float | None
    chats_of_calls: dict[str, int] = field(default_factory=dict)

    async def wait(self) -> None:
        if await self.process.wait():
            raise Failed(_last_words(self.folder / "millpond.log"))

    def workers(self) -> list[int]:
        return [
            pid
            for pid, parent, line in all_processes()
            if parent == self.process.pid and ROLES["worker"] in line
        ]

    async def chat(self, first_s: float) -> None:
        url = server.address(self.folder / "data" / server.FOLDER)
        assert url is not None
        async with connect(url) as redis, asyncio.TaskGroup() as tasks:
            store = Store(Gateway(redis, "0"))
            hearing = tasks.create_task(self._hear(store))
            await self._ask(store, first_s)
            hearing.cancel()

    def is_chat(self, attempt: str) -> int | None:
        return self.chats_of_calls.get(attempt)

    async def _ask(self, store: Store, first_s: float) -> None:
        common = Common(Endpoint.GENERATE, "command", max_tokens=1)
        with suppress(Unavailable):  # the server goes when the prompts are answered
            await store.hello()
            await store.set_flow(
                *("chat", self._lane()),
                attempts=5,
                crashes=20,
                common=common.write(),
                user="chat",
                klass=Class.INTERACTIVE,
            )
            for number, at_s in enumerate(self.night.chats_s):
                await asyncio.sleep(max(0.0, first_s + at_s - time.time()))
                await store.accept("chat", [_chat(common, number)])

    async def _hear(self, store: Store) -> None:
        """Which call was made for which chat."""
        with suppress(Unavailable):
            while True:
                rows = await store.rows("chat", block_ms=500)
                for row in rows:
                    if "call" in row.fields:
                        chat = row.fields["jobs"].removeprefix(CHAT)
                        self.chats_of_calls[row.fields["call"]] = int(chat)
                if rows:
                    await store.flushed("chat", rows[-1].id)

    def _lane(self) -> Lane:
        """As the run has opened it."""
        org = account("simulator", self.base_url, KEY)
        limits = parse_limits(self.night.scenario.limits)[Endpoint.GENERATE]
        return Lane(f"{org}.generate", org, org, limits, quota=None, counted=True)


def _chat(common: Common, number: int) -> NewJob:
    ask = Ask(f"Are you there, {number}?")
    need = Cohere().need(common, ask)
    return NewJob(f"{CHAT}{number}", need.characters, "", ask.write(), need.tokens, need.base)


# ---------------------------------------------------------------- starting either


@asynccontextmanager
async def at_work(
    folder: Path, client: Client, night: Night, base_url: str
) -> AsyncIterator[AtWork]:
    """The client begins with the prompts; it is gone after the block."""
    if client.program:
        async with _peers(folder, client, night, base_url) as peers:
            yield peers
    else:
        async with _ourselves(folder, night, base_url) as we:
            yield we


@asynccontextmanager
async def _peers(
    folder: Path, client: Client, night: Night, base_url: str
) -> AsyncIterator[AtWork]:
    python_of(client.requirements)
    one = EmbeddedServer(folder / "valkey")
    await one.start()
    try:
        async with Redis.from_url(one.url) as redis:
            peers = Peers(folder, client, night, base_url, redis, one.url)
            try:
                await peers.begin()
                yield peers
            finally:
                await peers.end()
    finally:
        await one.stop()


@asynccontextmanager
async def _ourselves(folder: Path, night: Night, base_url: str) -> AsyncIterator[AtWork]:
    file = folder / "prompts.jsonl"
    lines = prompts(night.scenario)
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in lines))
    asked = [
        *(*COMMAND, "run", str(file), "--base-url", base_url, "--limits", night.scenario.limits),
        *("--quota", "none", "--workers", "4", "--data-dir", str(folder / "data")),
        *("--out", str(folder / "out.jsonl"), "--errors", str(folder / "errors.jsonl"), "--quiet"),
    ]
    promised_s = await _promised(asked)
    process = await launch(folder / "millpond.log", asked)
    try:
        yield Ourselves(folder, night, base_url, process, promised_s)
    finally:
        await processes.stop(process, grace_s=GRACE_S)


async def _promised(asked: Sequence[str]) -> float:
    process = await processes.start([*asked, "--dry-run", "--json"], output=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise Failed(told.decode())
    return float(json.loads(told.decode().splitlines()[-1])["seconds"])


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-4_000:]
