"""The edge of sending: what has gone out, what has not, and that the two are never mixed up.

The provider here is bare sockets, so that what the system has taken and sent can be seen.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from redis.asyncio import Redis

from conftest import PARTITION, TestTime, lane
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common
from millpond.providers import http
from millpond.providers.caller import Caller
from millpond.providers.cohere import Cohere
from millpond.providers.http import Http, Posted
from millpond.providers.outcome import NoAnswer, NotSent
from millpond.store import keys
from millpond.store.bell import Bell
from millpond.store.store import NewJob, Store
from millpond.worker.pump import Pump

pytestmark = pytest.mark.usefixtures("both_ways")

DEADLINE_S = 20
LARGE = bytes(4_000_000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
EMBEDDED = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"embeddings":[[1]]}'
ENDED = NotSent("the lease has ended", unreachable=False)
AT_ONCE = NotSent(
    "no connection: the server ended the connection, or spoke, before it was asked",
    unreachable=True,
)
_READ_BYTES = 65_536
_SEND_AND_HANG = """
import asyncio, sys
from millpond.clock import monotonic_ms
from millpond.providers.http import Http

async def send(url):
    async with Http(url, "key", timeout_ms=60_000, clock=monotonic_ms) as http:
        await http.post("/", bytes(4_000_000), attempt="1")

asyncio.run(send(sys.argv[1]))
"""


class Peer:
    """The other side of connections; it does only what a test says."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self._taken: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    async def accept(self) -> socket.socket:
        async with asyncio.timeout(DEADLINE_S):
            one, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self._taken.append(one)
        return one

    async def request(self, one: socket.socket) -> bytes:
        """One whole request, whose body is some JSON object."""
        read = b""
        async with asyncio.timeout(DEADLINE_S):
            while not read.endswith(b"}"):
                read += await asyncio.get_running_loop().sock_recv(one, _READ_BYTES)
        return read

    async def rest(self, one: socket.socket) -> tuple[int, str]:
        """How many bytes still come, and how it ends."""
        size = 0
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    part = await asyncio.get_running_loop().sock_recv(one, _READ_BYTES)
                except ConnectionResetError:
                    return size, "reset"
                if not part:
                    return size, "closed"
                size += len(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listening, *self._taken):
            one.close()


def http_to(url: str, *, timeout_ms: int = 20_000) -> Http:
    return Http(url, "k", timeout_ms=timeout_ms, clock=lambda: 0.0)


def lapsed() -> bool:
    return False


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, whose certificate for localhost our side believes."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, made = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(made), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    ours = ssl.create_default_context(cafile=made)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ours)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context


# The lease is looked at as the first byte goes, and at no other time.


@pytest.mark.parametrize("of", ["asyncio", "uvloop"])
def test_the_question_and_the_first_byte_are_one_step_of_the_loop(of: str) -> None:
    loops = pytest.importorskip(of)
    with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
        came = runner.run(what_came_as_it_was_asked_and_next())

    assert came == [False, True]


async def what_came_as_it_was_asked_and_next() -> list[bool]:
    """Whether the peer had any of a request when its `may_begin` was called, and when whatever
    the loop does next was done."""
    came: list[bool] = []

    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.post("/", b"{}", attempt="1"))
            one = await peer.accept()
            await peer.request(one)
            one.send(OK)
            await first

            looked = asyncio.Event()

            def look() -> None:
                try:
                    came.append(bool(one.recv(1, socket.MSG_PEEK)))
                except BlockingIOError:
                    came.append(False)

            def look_again() -> None:
                look()
                looked.set()

            def may_begin() -> bool:
                look()
                asyncio.get_running_loop().call_soon(look_again)
                return True

            again = tasks.create_task(client.post("/", b"{}", attempt="2", may_begin=may_begin))
            await looked.wait()  # nobody reads meanwhile what is looked for
            await peer.request(one)
            one.send(OK)
            await again

    return came


@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("used_before", [False, True])
async def test_after_the_lease_not_one_byte_is_written_and_the_next_call_goes(
    body: bytes, used_before: bool
) -> None:
    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            if used_before:
                before = tasks.create_task(client.post("/", b"{}", attempt="1"))
                one = await peer.accept()
                await peer.request(one)
                one.send(OK)
                await before
            assert await client.post("/", body, attempt="2", may_begin=lapsed) == ENDED
            if not used_before:
                one = await peer.accept()
            assert (await peer.rest(one))[0] == 0

            after = tasks.create_task(client.post("/", b"{}", attempt="3"))
            another = await peer.accept()
            assert b"X-Millpond-Attempt: 3" in await peer.request(another)
            another.send(OK)
            assert isinstance(await after, Posted)


async def test_a_lease_that_ends_while_the_server_is_looked_for_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = True
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def slowly(*names: Any, **more: Any) -> Any:
        nonlocal held
        held = False
        return await look_up(*names, **more)

    monkeypatch.setattr(loop, "getaddrinfo", slowly)
    with Peer() as peer:
        async with http_to(peer.url.replace("127.0.0.1", "localhost")) as client:
            assert await client.post("/", b"{}", attempt="1", may_begin=lambda: held) == ENDED
        assert await peer.rest(await peer.accept()) == (0, "reset")


async def test_a_lease_that_ends_during_the_handshake_is_noticed(
    certificate: ssl.SSLContext,
) -> None:
    """Between us and the server somebody forwards everything, and sees when it is about TLS."""
    held = True
    read = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.extend(await reader.read())
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal held
        there, back = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
        async with asyncio.TaskGroup() as both:
            both.create_task(copy(there, writer))
            back.write(await reader.read(_READ_BYTES))
            held = False
            both.create_task(copy(reader, back))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate)
    between = await asyncio.start_server(forward, "127.0.0.1", 0)
    url = f"https://localhost:{between.sockets[0].getsockname()[1]}"
    async with listening, between, http_to(url) as client:
        outcome = await client.post("/", b"{}", attempt="1", may_begin=lambda: held)

    assert outcome == ENDED
    assert read == b""


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(_READ_BYTES):
            writer.write(part)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_after_the_first_byte_no_lease_ends_a_call() -> None:
    asked = 0

    def only_once() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            call = tasks.create_task(client.post("/", b"{}", attempt="1", may_begin=only_once))
            one = await peer.accept()
            await peer.request(one)
            one.send(OK)
            assert isinstance(await call, Posted)

    assert asked == 1


# What is given up leaves nothing behind.


async def test_a_call_that_is_cut_sends_no_more_of_a_large_request() -> None:
    with Peer() as peer:
        async with http_to(peer.url) as client:
            call = asyncio.create_task(client.post("/", LARGE, attempt="1"))
            one = await peer.accept()
            await asyncio.get_running_loop().sock_recv(one, 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            size, end = await peer.rest(one)

    assert end == "reset"
    assert size < len(LARGE)


async def test_a_call_over_tls_that_is_cut_sends_no_more_either(
    certificate: ssl.SSLContext,
) -> None:
    begun, cut = asyncio.Event(), asyncio.Event()
    size, end = 0, ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal size, end
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        begun.set()
        await cut.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        try:
            while part := await reader.read(_READ_BYTES):
                size += len(part)
        except ConnectionResetError:
            end = "reset"
        ended.set()

    ended = asyncio.Event()
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    async with listening, http_to(url) as client, asyncio.timeout(DEADLINE_S):
        written = asyncio.Event()

        def may_begin() -> bool:
            asyncio.get_running_loop().call_later(0.01, written.set)
            return True

        call = asyncio.create_task(client.post("/", LARGE, attempt="1", may_begin=may_begin))
        await begun.wait()
        await written.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        cut.set()
        await ended.wait()

    assert end == "reset"
    assert size < len(LARGE)


async def test_over_tls_a_connection_is_used_again(certificate: ssl.SSLContext) -> None:
    """What TLS says beside the answers, like session tickets, is no reason against it."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"{}")
                writer.write(OK)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    async with listening, http_to(url) as client:
        for attempt in ("1", "2", "3", "4", "5"):
            assert isinstance(await client.post("/", b"{}", attempt=attempt), Posted)

    assert connections == 1


async def test_a_call_whose_time_is_over_sends_no_more_of_a_large_request() -> None:
    with Peer() as peer:
        async with http_to(peer.url, timeout_ms=200) as client:
            outcome = await client.post("/", LARGE, attempt="1")
            size, end = await peer.rest(await peer.accept())

    assert outcome == NoAnswer("no answer within 0.2 s")
    assert end == "reset"
    assert size < len(LARGE)


@pytest.mark.parametrize("reply", [OK, OK.replace(b"Length: 2", b"Length: 99999999")])
async def test_a_reply_to_half_a_request_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """A refusal may come so. Nobody waits until the rest has gone."""
    monkeypatch.setattr(http, "BODY_MOST_BYTES", 1)
    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            call = tasks.create_task(client.post("/", LARGE, attempt="1"))
            one = await peer.accept()
            await asyncio.get_running_loop().sock_recv(one, 1)
            one.send(reply)
            assert isinstance(await call, NoAnswer)
            assert (await peer.rest(one))[1] == "reset"


async def test_what_has_not_gone_out_when_the_process_dies_never_goes() -> None:
    with Peer() as peer:
        dying = await asyncio.create_subprocess_exec(sys.executable, "-c", _SEND_AND_HANG, peer.url)
        one = await peer.accept()
        await asyncio.get_running_loop().sock_recv(one, 1)
        os.kill(dying.pid, signal.SIGKILL)
        await dying.wait()
        size, end = await peer.rest(one)

    assert end == "reset"
    assert size < len(LARGE)


# A connection is used again only while it can be.


async def test_a_connection_that_has_just_been_closed_is_not_used_again() -> None:
    """The loop has not read the end yet when the next call takes the connection."""
    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.post("/", b"{}", attempt="1"))
            one = await peer.accept()
            await peer.request(one)
            one.send(OK)
            await first
            one.shutdown(socket.SHUT_WR)
            second = tasks.create_task(client.post("/", b"{}", attempt="2"))
            another = await peer.accept()
            assert b"X-Millpond-Attempt: 2" in await peer.request(another)
            another.send(OK)
            assert isinstance(await second, Posted)
            assert (await peer.rest(one))[0] == 0


@pytest.mark.parametrize("seen", [False, True], ids=["the loop has not read it", "it has"])
async def test_an_answer_that_nobody_asked_for_is_not_given_to_the_next_call(seen: bool) -> None:
    with Peer() as peer:
        async with http_to(peer.url) as client, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.post("/", b"{}", attempt="1"))
            one = await peer.accept()
            await peer.request(one)
            one.send(OK)
            await first
            one.send(OK.replace(b"{}", b"[]"))
            for _ in range(10 if seen else 0):
                await asyncio.sleep(0)
            second = tasks.create_task(client.post("/", b"{}", attempt="2"))
            another = await peer.accept()
            await peer.request(another)
            another.send(OK)
            posted = await second

    assert isinstance(posted, Posted)
    assert posted.reply.body == b"{}"


async def test_a_server_that_closes_each_connection_at_once_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closing = threading.Thread(target=lambda: listening.accept()[0].close())
        closing.start()
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect

        async def until_it_is_closed(*to: Any) -> None:
            await connect(*to)
            closing.join()

        monkeypatch.setattr(loop, "sock_connect", until_it_is_closed)
        async with http_to(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            outcome = await client.post("/", b"{}", attempt="1", may_begin=lapsed)

    assert outcome == AT_ONCE


async def test_an_answer_that_comes_before_the_question_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def until_it_has_spoken(*to: Any) -> None:
        await connect(*to)
        (await peer.accept()).send(OK)

    monkeypatch.setattr(loop, "sock_connect", until_it_has_spoken)
    with Peer() as peer:
        async with http_to(peer.url) as client:
            outcome = await client.post("/", b"{}", attempt="1", may_begin=lapsed)

    assert outcome == AT_ONCE


async def test_tls_that_breaks_after_the_request_is_no_proof_that_nothing_was_sent(
    certificate: ssl.SSLContext,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        raw = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        raw.send(b"no record of TLS")
        raw.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    async with listening, http_to(url) as client:
        outcome = await client.post("/", b"{}", attempt="1")

    assert isinstance(outcome, NoAnswer)


class Closing:
    """A server in a thread of its own that closes connections at moments of its liking."""

    def __init__(self, seed: int) -> None:
        self.read: list[str] = []
        self._chance = random.Random(seed)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._started.set()
        async with listening:
            await self._stop.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(self._chance.random() / 500):
                    head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                self.read.append(head.partition(b"Attempt: ")[2].partition(b"\r\n")[0].decode())
                writer.write(OK)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


async def test_of_a_server_that_closes_at_any_moment_each_call_is_known_for_what_it_was() -> None:
    """What the server has read was sent, what was not sent it has not read."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    outcomes: dict[str, Posted | NoAnswer | NotSent] = {}

    with Closing(seed) as server:
        async with http_to(server.url) as client, asyncio.TaskGroup() as tasks:

            async def some(who: int) -> None:
                for number in range(200):
                    attempt = f"{who}-{number}"
                    outcomes[attempt] = await client.post("/", b"{}", attempt=attempt)
                    await asyncio.sleep(chance.random() / 500)

            for who in range(4):
                tasks.create_task(some(who))

    def of(kind: type) -> set[str]:
        return {attempt for attempt, outcome in outcomes.items() if isinstance(outcome, kind)}

    print({kind.__name__: len(of(kind)) for kind in (Posted, NoAnswer, NotSent)})
    assert len(outcomes) == 800
    assert len(set(server.read)) == len(server.read)  # nothing is sent twice
    assert of(Posted) <= set(server.read) <= of(Posted) | of(NoAnswer)


# In the pump: what was not sent costs nothing.


@asynccontextmanager
async def pumping(
    store: Store, redis: Redis, url: str, *, grace_ms: int = 10_000
) -> AsyncIterator[tuple[Callable[[], None], Pump]]:
    """A worker at one job; with the block it stops, and has ended."""

    async def common_of(flow: str) -> bytes:
        return Common(Endpoint.EMBED, "m", 9).write()

    await store.set_flow("f", lane("1000/60s"), attempts=3, crashes=3)
    await store.accept("f", [NewJob("f.0", 10, "", Ask("a").write())])
    stop, hurry = asyncio.Event(), asyncio.Event()
    bell = Bell(redis, keys.worker_bell(PARTITION, "acme"))

    def end() -> None:
        stop.set()
        hurry.set()
        bell.ring()

    async with http_to(url) as client, asyncio.timeout(2 * DEADLINE_S):
        caller = Caller(Cohere(), client, common_of)
        pump = Pump(store, caller, bell, worker="w", pool="acme", slots=4, lease_ms=30_000)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump.run_until(stop, hurry=hurry, grace_ms=grace_ms))
            yield end, pump
            end()


async def outcomes_of(store: Store) -> list[str]:
    rows = await store.rows("f", block_ms=1)
    return [row.fields["outcome"] for row in rows if "call" in row.fields]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await true():  # noqa: ASYNC110 (it is the store that is asked)
            await asyncio.sleep(0.005)


async def test_a_lease_that_ends_while_the_connection_is_made_costs_nothing(
    store: Store, redis: Redis, time: TestTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect
    tries = 0

    async def slowly(to: socket.socket, address: Any) -> None:
        nonlocal tries
        tries += address[1] == int(peer.url.rpartition(":")[2])
        if tries == 1:
            time.advance(26_000)
        await connect(to, address)

    async def done() -> bool:
        return (await store.look("f")).flow.open == 0

    monkeypatch.setattr(loop, "sock_connect", slowly)
    with Peer() as peer:
        async with pumping(store, redis, peer.url):
            assert await peer.rest(await peer.accept()) == (0, "reset")
            one = await peer.accept()
            await peer.request(one)
            one.send(EMBEDDED)
            await until(done)
            assert await outcomes_of(store) == ["unsent", "known"]
            assert (await store.look("f")).flow.estimated == 0


@pytest.mark.parametrize("sent", [False, True])
async def test_a_call_that_is_cut_is_unknown_only_if_some_of_it_was_sent(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect
    connecting = asyncio.Event()

    async def never(to: socket.socket, address: Any) -> None:
        if not sent and address[1] == int(peer.url.rpartition(":")[2]):
            connecting.set()
            await asyncio.Event().wait()
        await connect(to, address)

    monkeypatch.setattr(loop, "sock_connect", never)
    with Peer() as peer:
        async with pumping(store, redis, peer.url) as (end, _):
            if sent:
                await peer.request(await peer.accept())
            else:
                await connecting.wait()
            end()

    assert await outcomes_of(store) == (["unknown"] if sent else ["unsent"])
    assert (await store.look("f")).flow.estimated == (10 if sent else 0)
