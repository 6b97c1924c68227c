"""What tests share: a real server of their own, and a clock that only they move."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis

from millpond.domain.limit import Limit, parse_limit
from millpond.embedded.server import EmbeddedServer
from millpond.providers import http
from millpond.providers.direct import Direct
from millpond.providers.proxied import Proxied
from millpond.store import keys
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Lane, Reserve, Store

# A shell's background jobs ignore it, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PARTITION = "t"
START_MS = 1_700_000_000_000


class TestTime:
    """Time that stands still until a test moves it: the server's and the caller's alike."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ms = START_MS

    def monotonic_ms(self) -> float:
        return float(self.now_ms)

    def server_ms(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms


@pytest.fixture(autouse=True)
def _logs_go_where_they_went_at_first() -> Iterator[None]:
    """A program that a test ran in this process may have sent them to a file of its own."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees no MILLPOND_ variable and no key of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("MILLPOND_") or name in ("CO_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture(params=[Direct, Proxied])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go over connections of our own, then over aiohttp's as they do through a proxy."""
    monkeypatch.setattr(http, "Direct", request.param)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A server for the whole session. It is started from the main thread, and dies with it."""
    with tempfile.TemporaryDirectory(prefix="millpond-test-") as folder:
        server = EmbeddedServer(Path(folder))
        with asyncio.Runner() as runner:
            runner.run(server.start())
            yield server.url
            runner.run(server.stop())


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[Redis]:
    """A connection to a server that holds nothing but our scripts."""
    async with connect(server_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def time() -> TestTime:
    return TestTime()


@pytest.fixture
async def store(redis: Redis, time: TestTime) -> Store:
    """A store in logical time: it obeys `time` and nothing else."""
    await redis.hset(f"{keys.prefix(PARTITION)}m", "test", "1")  # type: ignore[misc]
    store = Store(Gateway(redis, PARTITION, time=time))
    await store.hello()
    return store


def lane(
    *limits: str,
    quota: int | None = None,
    org: str = "acme",
    endpoint: str = "generate",
    bulk: Sequence[str] = (),
    credit: bool = False,
    paced: bool = False,
    reserve: Reserve = "strict",
) -> Lane:
    """A lane of an org, whose characters count as the provider says."""
    read: list[Limit] = [parse_limit(one) for one in limits or ("60/60s",)]
    return Lane(
        id=f"{org}.{endpoint}",
        org=org,
        pool=org,
        limits=read,
        quota=quota,
        counted=endpoint == "generate",
        bulk=[parse_limit(one) for one in bulk],
        credit=credit,
        paced=paced,
        reserve=reserve,
    )
