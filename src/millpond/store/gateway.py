"""Running scripts: the one typed place where the Redis client is called.

A script's text is its file with the libraries it `uses` put behind the first line. Every call
carries what keeps the logical clock honest, and every reply brings the logical time and the
server's `life` back. A server that was started again does not know the scripts; that is how a
restart is noticed, and `new_life` runs before anything else does.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from millpond.clock import monotonic_ms
from millpond.errors import Refused, StoreUnavailable, WrongLayout
from millpond.failpoints import reached
from millpond.store import keys

CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 5
FREE_TIMEOUT_S = 5
_HELLO_TRIES = 10
#: Of the data, as `scripts/lib/base.lua` writes it.
LAYOUT = "2"

Argument = str | int | bytes


class BadAddress(Refused):
    """An address that no client can be made for; the setting that it is from."""

    code = "bad_address"

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"{setting} is no address: write redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
        )
        self.setting = setting


class Time(Protocol):
    """What a gateway asks its caller's clock: tests bring their own."""

    def monotonic_ms(self) -> float: ...

    def server_ms(self) -> int:
        """Stands for the server's TIME where its data says that a test may set it."""
        ...


class RealTime:
    def monotonic_ms(self) -> float:
        return monotonic_ms()

    def server_ms(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str
    sha: str


def _load(name: str) -> Script:
    folder = resources.files("millpond.store") / "scripts"
    first, rest = (folder / f"{name}.lua").read_text().split("\n", 1)
    uses = re.search(r"^-- uses (.+)$", rest, re.MULTILINE)
    if not uses:
        raise AssertionError(f"{name}.lua does not say which libraries it uses")
    libraries = [(folder / "lib" / f"{lib}.lua").read_text() for lib in uses[1].split()]
    text = first + "\n" + _with_what_it_uses(libraries, rest)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


#: A function of a library, and its name.
_FUNCTION = re.compile(
    r"^(local function (\w+)\((?:[^\n]* end\n|.*?^end\n))", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"--.*$", re.MULTILINE)


def _with_what_it_uses(libraries: Sequence[str], script: str) -> str:
    """The script behind its libraries, without the functions that nothing behind them names: the
    server makes each of them anew whenever a script begins, called or not."""
    text = script
    for library in reversed(libraries):
        first, *rest = _FUNCTION.split(library)
        functions = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        for function, name, after in reversed(list(functions)):
            text = after + text
            if re.search(rf"\b{name}\b", _COMMENT.sub("", text)):
                text = function + text
        text = first + text
    return text


SCRIPTS = {
    name: _load(name)
    for name in sorted(
        file.name.removesuffix(".lua")
        for file in (resources.files("millpond.store") / "scripts").iterdir()
        if file.name.endswith(".lua")
    )
}


def connect(
    url: str,
    *,
    blocking: bool = False,
    connections_most: int | None = None,
    setting: str = "MILLPOND_REDIS_URL",
) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`. It never retries by itself.

    `blocking` is for commands that wait at the server for up to a few seconds. Of more commands at
    once than `connections_most` some wait for a free connection, and fail if none is free in
    FREE_TIMEOUT_S; None: each has its own. `setting` is where the address is from. Raises
    BadAddress.
    """
    told: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S * (3 if blocking else 1),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
    }
    try:
        pool: ConnectionPool = (
            ConnectionPool.from_url(url, **told)
            if connections_most is None
            else BlockingConnectionPool.from_url(
                url, max_connections=connections_most, timeout=FREE_TIMEOUT_S, **told
            )
        )
    except ValueError:
        raise BadAddress(setting) from None
    pool.connection_class = _that_can_be_cancelled(pool.connection_class)  # type: ignore[arg-type]
    return Redis.from_pool(pool)


@cache
def _that_can_be_cancelled(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    """A connection that loses no cancellation.

    redis-py sends within `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that
    comes as the sending ends: who was cancelled would go on for ever.
    """

    class Cancellable(connection):  # type: ignore[valid-type, misc]
        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            task = asyncio.current_task()
            before = 0 if task is None else task.cancelling()
            await super().send_packed_command(*args, **kwargs)
            if task is not None and task.cancelling() > before:
                await self.disconnect(nowait=True)  # nobody will read the reply
                raise asyncio.CancelledError

    return Cancellable


class Gateway:
    """Runs scripts on one partition for one process."""

    def __init__(self, redis: Redis, partition: str, *, time: Time | None = None) -> None:
        self.redis = redis
        self.partition = partition
        self.life = 0
        self.now_ms = 0
        self._time = time or RealTime()
        self._replied_ms = self._time.monotonic_ms()
        self._prefix = keys.prefix(partition)
        self._reviving = asyncio.Lock()

    def monotonic_ms(self) -> float:
        """The caller's own clock, which vouches for the logical one."""
        return self._time.monotonic_ms()

    def logical_ms(self) -> int:
        """Logical time as it is about now: that of the last reply, and what has passed since."""
        return self.now_ms + int(self._time.monotonic_ms() - self._replied_ms)

    async def hello(self) -> None:
        """Must come first: brings the logical clock up to date if nobody else keeps it."""
        token = ""
        for _ in range(_HELLO_TRIES):
            word, *rest = await self.run("hello", token, quiet="hello")
            if word == b"hello":
                return
            token = rest[0].decode()
            await asyncio.sleep(1)

    async def run(self, name: str, *args: Argument, quiet: str | None = None) -> list[Any]:
        """Run one script; what it replied, without the time."""
        return (await self.run_all([(name, args)], quiet=quiet))[0]

    async def run_all(
        self, calls: Sequence[tuple[str, Sequence[Argument]]], *, quiet: str | None = None
    ) -> list[list[Any]]:
        """Run scripts one after the other in one round trip."""
        replies = await self._send(calls, quiet)
        known_life = self.life
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            await self._revive(quiet)
            if known_life not in {0, self.life}:
                # What we were about to say may rest on what the server has forgotten.
                raise StoreUnavailable("the server was started again")
            again = await self._send([calls[i] for i in missing], quiet)
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [self._read(reply) for reply in replies]

    async def _send(
        self, calls: Sequence[tuple[str, Sequence[Argument]]], quiet: str | None
    ) -> list[Any]:
        pipe = self.redis.pipeline(transaction=False)
        for name, args in calls:
            pipe.execute_command(
                "EVALSHA", SCRIPTS[name].sha, 1, self._prefix, *self._envelope(quiet), *args
            )
        try:
            return await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error

    def _envelope(self, quiet: str | None) -> tuple[Argument, Argument, Argument]:
        passed = self._time.monotonic_ms() - self._replied_ms
        return self.now_ms, quiet or int(passed), self._time.server_ms()

    def _read(self, reply: Any) -> list[Any]:
        match reply:
            case [int(now), int(life), b"layout", found]:
                raise WrongLayout(found.decode(), LAYOUT)
            case [int(now), int(life), *rest]:
                self.now_ms, self.life = max(now, self.now_ms), life
                self._replied_ms = self._time.monotonic_ms()
                return rest
            case ConnectionError() | TimeoutError() | OutOfMemoryError() | ReadOnlyError():
                raise StoreUnavailable(f"the server refuses: {reply}")
            case ResponseError() if str(reply).startswith(("MISCONF", "LOADING", "NOSCRIPT")):
                raise StoreUnavailable(f"the server refuses: {reply}")
            case Exception():
                raise reply
            case other:
                raise AssertionError(f"a script replied {other!r}")

    async def _revive(self, quiet: str | None) -> None:
        async with self._reviving:
            try:
                about = await self.redis.info("server")
                text, time = SCRIPTS["new_life"].text, self._envelope(quiet)
                new_life = await self.redis.execute_command(  # type: ignore[no-untyped-call]
                    "EVAL", text, 1, self._prefix, *time, about["run_id"]
                )
                reached("gateway.life.begun")
                pipe = self.redis.pipeline(transaction=False)
                for script in SCRIPTS.values():
                    pipe.script_load(script.text)
                await pipe.execute()
            except (RedisError, OSError) as error:
                raise StoreUnavailable(f"the server does not answer: {error}") from error
            self._read(new_life)
