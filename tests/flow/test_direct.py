"""Calls over connections of our own, against servers that do what a test says."""

import asyncio
import datetime
import gc
import ipaddress
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from millpond.providers import pool
from millpond.providers.http import Http, Posted
from millpond.providers.outcome import NoAnswer, NotSent

DEADLINE_S = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LARGE = bytes(4_000_000)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Answer = Callable[[Writer], Awaitable[None]]


class Server:
    """It reads requests and answers each; which connection each came over is noted."""

    def __init__(self, answer: bytes | Answer) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.over: list[int] = []
        self.connections = 0
        self.read = asyncio.Event()
        self._writers: list[Writer] = []
        self._ended: list[asyncio.Event] = []
        self.url = ""

    async def take(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self._writers.append(writer)
        ended = asyncio.Event()
        self._ended.append(ended)
        try:
            await self._answer_all(reader, writer, self.connections)
        finally:
            ended.set()

    async def _answer_all(self, reader: Reader, writer: Writer, number: int) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self.heads.append(head.decode())
            self.over.append(number)
            self.read.set()
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
            else:
                await self.answer(writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        for ended in self._ended:
            await ended.wait()


@asynccontextmanager
async def serving(
    answer: bytes | Answer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.take, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    named = "localhost" if tls else f"[{host}]" if ":" in host else host
    server.url = f"{'https' if tls else 'http'}://{named}:{port}"
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server
    finally:
        listening.close()
        await server.close()


def http_to(url: str, *, timeout_ms: int = 20_000) -> Http:
    return Http(url, "k", timeout_ms=timeout_ms, clock=lambda: 0.0)


async def statuses(client: Http, count: int) -> list[int]:
    told = [await client.post("/", b"{}", attempt=str(number)) for number in range(count)]
    return [one.reply.status if isinstance(one, Posted) else 0 for one in told]


@pytest.fixture(autouse=True)
async def nothing_is_left_for_the_loop_to_complain_of() -> AsyncIterator[None]:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


# Where a request goes.


@pytest.mark.parametrize(
    ("host", "prefix", "path"),
    [
        ("127.0.0.1", "", "/v1/embed"),
        ("127.0.0.1", "/", "/v1/embed"),
        ("127.0.0.1", "/openai/a%20b/", "/v1/embed"),
        ("::1", "", "/v1/embed"),
        ("::1", "/of/ours", "/v1/embed?a=b"),
    ],
)
async def test_a_request_names_its_server_and_what_it_asks_there(
    host: str, prefix: str, path: str
) -> None:
    try:
        async with serving(OK, host=host) as server, http_to(server.url + prefix) as client:
            assert isinstance(await client.post(path, b"{}", attempt="1"), Posted)
    except OSError:
        if ":" not in host:
            raise
        pytest.skip("the system speaks no IPv6")

    first, *headers, _, _ = server.heads[0].split("\r\n")
    assert first == f"POST {prefix.rstrip('/')}{path} HTTP/1.1"
    assert headers == [
        f"Host: {server.url.removeprefix('http://')}",
        "Content-Type: application/json",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "User-Agent: millpond",
        "Authorization: Bearer k",
        "X-Millpond-Attempt: 1",
        "Content-Length: 2",
    ]


@pytest.mark.parametrize(
    ("url", "host", "port", "named"),
    [
        ("http://Provider.Example", "provider.example", 80, "provider.example"),
        ("https://provider.example/v1", "provider.example", 443, "provider.example"),
        ("https://provider.example:443", "provider.example", 443, "provider.example"),
        ("https://provider.example.:8443", "provider.example", 8443, "provider.example:8443"),
        ("https://[fe80::1]", "fe80::1", 443, "[fe80::1]"),
        ("http://[::1]:8080/v1", "::1", 8080, "[::1]:8080"),
        ("http://müller.example", "xn--mller-kva.example", 80, "xn--mller-kva.example"),
    ],
)
def test_an_address_says_which_server_it_is(url: str, host: str, port: int, named: str) -> None:
    server = pool.Server.at(url)

    assert (server.host, server.port, server.named) == (host, port, named)
    assert server.tls is url.startswith("https")


@pytest.mark.parametrize(
    "url",
    ["", "provider", "ftp://a", "http://", "http://a:b", "http://a:99999", "http://u:secret@a"],
)
async def test_an_address_that_is_none_means_that_nothing_was_sent(url: str) -> None:
    async with http_to(url) as client:
        outcome = await client.post("/", b"{}", attempt="1")

    assert outcome == NotSent("no connection: ValueError", unreachable=True)


async def test_another_address_is_tried_if_one_does_not_take_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(OK) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))

            async def both(*_: object, **__: object) -> list[Any]:
                kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                return [(*kind, closed.getsockname()), (*kind, ("127.0.0.1", port))]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
            async with http_to("http://provider.example") as client:
                assert await statuses(client, 1) == [200]


async def test_those_who_connect_at_once_ask_once_for_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def counted(*names: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        return await look_up(*names, **more)

    monkeypatch.setattr(loop, "getaddrinfo", counted)
    async with serving(OK) as server, http_to(server.url) as client:
        told = await asyncio.gather(*(statuses(client, 3) for _ in range(20)))

    assert told == [[200] * 3] * 20
    assert asked == 1


# What comes back.


async def test_what_goes_before_a_reply_is_no_reply() -> None:
    async def answer(writer: Writer) -> None:
        for part in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nLink: a\r\n\r\n", OK):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(answer) as server, http_to(server.url) as client:
        assert await statuses(client, 3) == [200] * 3
        assert server.connections == 1


async def test_a_body_may_end_with_its_connection() -> None:
    async def answer(writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)
        writer.close()

    async with serving(answer) as server, http_to(server.url) as client:
        for number in (1, 2):
            outcome = await client.post("/", b"{}", attempt="1")
            assert isinstance(outcome, Posted)
            assert outcome.reply.body == b"x" * 300_000
            assert server.connections == number


async def test_a_second_reply_is_not_taken_for_the_next_call() -> None:
    async with serving(OK + OK.replace(b"{}", b"[]")) as server, http_to(server.url) as client:
        for number in (1, 2, 3):
            outcome = await client.post("/", b"{}", attempt="1")
            assert isinstance(outcome, Posted)
            assert outcome.reply.body == b"{}"
            assert server.connections == number


@pytest.mark.parametrize("closes", [False, True])
async def test_a_reply_to_half_a_request_counts(closes: bool) -> None:
    async def take(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        if closes:
            writer.close()
        else:
            taken.append(writer)

    taken: list[Writer] = []
    listening = await asyncio.start_server(take, "127.0.0.1", 0, limit=1_000)
    async with (
        listening,
        http_to(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as client,
    ):
        outcome = await client.post("/", LARGE, attempt="1")
        for writer in taken:
            writer.close()

    assert isinstance(outcome, Posted)
    assert (outcome.reply.status, outcome.reply.body) == (413, b"{}")


# Which connection is used.


async def test_a_connection_is_used_again_and_the_latest_first() -> None:
    async with serving(OK) as server, http_to(server.url) as client:
        await asyncio.gather(*(statuses(client, 1) for _ in range(3)))
        assert sorted(server.over) == [1, 2, 3]
        latest = server.over[-1]
        assert await statuses(client, 5) == [200] * 5

    assert server.over[3:] == [latest] * 5


@pytest.mark.parametrize(
    "reply",
    [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"1.1", b"1.0")],
    ids=["closed", "an old one"],
)
async def test_a_connection_is_used_again_only_if_the_reply_allows_it(reply: bytes) -> None:
    async with serving(reply) as server, http_to(server.url) as client:
        assert await statuses(client, 3) == [200] * 3
        assert server.over == [1, 2, 3]


async def test_a_connection_that_has_rested_for_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "REST_MOST_S", 0.05)
    ended = asyncio.Event()

    async def take(reader: Reader, writer: Writer) -> None:
        try:
            while True:
                await reader.readuntil(b"{}")
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            ended.set()
            writer.close()

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    async with (
        listening,
        http_to(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as client,
        asyncio.timeout(DEADLINE_S),
    ):
        assert await statuses(client, 2) == [200] * 2
        await ended.wait()
        ended.clear()
        assert await statuses(client, 1) == [200]
        await ended.wait()


async def test_those_that_rest_and_those_in_use_end_with_the_block() -> None:
    release = asyncio.Event()

    async def answer(writer: Writer) -> None:
        if len(server.heads) > 1:
            await release.wait()
        writer.write(OK)

    async with serving(answer) as server:
        async with http_to(server.url) as client:
            assert await statuses(client, 1) == [200]
            server.read.clear()
            left = asyncio.create_task(client.post("/", b"{}", attempt="2"))
            await server.read.wait()
        assert await left == NoAnswer("the connection broke: ClientConnectionError")
        release.set()


# Cut at any stage.


@pytest.mark.parametrize("stage", ["looking up", "connecting", "shaking hands"])
async def test_a_call_that_is_cut_before_it_is_sent_leaves_nothing(
    stage: str, monkeypatch: pytest.MonkeyPatch, authority: "Authority"
) -> None:
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    before = open_sockets()

    async def never(*_: object, **__: object) -> Any:
        there.set()
        await asyncio.Event().wait()

    async def take(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(1)
        there.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    name = {"looking up": "getaddrinfo", "connecting": "sock_connect"}.get(stage)
    if name:
        monkeypatch.setattr(loop, name, never)
    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with http_to(url) as client, asyncio.timeout(DEADLINE_S):
        call = asyncio.create_task(client.post("/", b"{}", attempt="1", may_begin=lapsed))
        await there.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    listening.close()
    await until_open_sockets_are(before)


@pytest.mark.parametrize("part", [b"", OK[:20], OK[:-1]], ids=["nothing", "half a head", "a head"])
async def test_a_call_that_is_cut_after_it_was_sent_ends_its_connection(part: bytes) -> None:
    async with serving(part) as server, http_to(server.url) as client:
        call = asyncio.create_task(client.post("/", b"{}", attempt="1"))
        await server.read.wait()
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.answer = OK
        assert await statuses(client, 1) == [200]
        assert server.over == [1, 2]


async def test_a_call_that_is_cut_as_its_reply_has_come_is_cut() -> None:
    """Its connection is as good as any; the next call gets a reply of its own."""
    async with serving(OK) as server, http_to(server.url) as client:
        assert await statuses(client, 1) == [200]
        for number in range(20):
            server.read.clear()
            call = asyncio.create_task(client.post("/", b"{}", attempt="2"))
            await server.read.wait()
            for _ in range(number % 5):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            server.answer = OK.replace(b"{}", b"%02d" % number)
            outcome = await client.post("/", b"{}", attempt="3")
            assert isinstance(outcome, Posted)
            assert outcome.reply.body == b"%02d" % number


def lapsed() -> bool:
    raise AssertionError("nothing is there to write to")


def open_sockets() -> int:
    links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    return sum(link.is_socket() for link in links)


async def until_open_sockets_are(count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while open_sockets() > count:  # noqa: ASYNC110 (it is the system that is asked)
            await asyncio.sleep(0.005)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell")
@pytest.mark.parametrize("of", ["asyncio", "uvloop"])
def test_of_a_thousand_calls_of_all_kinds_no_socket_is_left(of: str) -> None:
    loops = pytest.importorskip(of)
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
        runner.run(a_thousand_calls(random.Random(seed)))


async def a_thousand_calls(chance: random.Random) -> None:
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, told: complaints.append(told))

    async def answer(writer: Writer) -> None:
        match chance.randrange(8):
            case 0:
                writer.write(OK[: chance.randrange(len(OK))])
                writer.close()
            case 1:
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                writer.transport.abort()
            case 2:
                writer.write(b"no HTTP\r\n\r\n")
            case 3:
                writer.write(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
            case 4:
                writer.write(OK + OK)
            case 5:
                writer.write(OK[:-1])  # and nothing more
            case _:
                writer.write(OK)

    before = open_sockets()
    async with serving(answer) as server, http_to(server.url, timeout_ms=250) as client:

        async def one(number: int) -> str:
            call = asyncio.create_task(
                client.post(
                    "/",
                    b"{}" if number % 10 else LARGE[:500_000],
                    attempt=str(number),
                    may_begin=lambda: number % 11 != 0,
                )
            )
            if number % 7 == 0:
                await asyncio.sleep(chance.random() / 100)
                call.cancel()
            await asyncio.wait([call])
            return "cut" if call.cancelled() else type(call.result()).__name__

        async def some(first: int) -> list[str]:
            return [await one(number) for number in range(first, first + 25)]

        told = await asyncio.gather(*(some(first) for first in range(0, 1_000, 25)))
    assert {kind for kinds in told for kind in kinds} == {"cut", "Posted", "NoAnswer", "NotSent"}
    await until_open_sockets_are(before)
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


# TLS.


class Authority:
    """Somebody who vouches for servers, and whose certificate is in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._certificate(self._name, self._key, x509.BasicConstraints(True, None), [])
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str) -> ssl.SSLContext:
        """What a server of those names needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        made = self._certificate(subject, key, x509.BasicConstraints(False, None), names)
        file = self._folder / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        kind: x509.BasicConstraints,
        names: Any,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        ours = self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(kind, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ours), False)
            .add_extension(_may_sign(kind.ca), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*map(_name, names)]), False
            )
        return builder.sign(self._key, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _may_sign(others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not others, False, False, False, False, others, others, False, False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.mark.parametrize("of", ["asyncio", "uvloop"])
def test_over_tls_it_is_the_same(
    of: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops = pytest.importorskip(of)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    async def some() -> None:
        async with serving(OK, tls=authority.server("localhost")) as server:
            async with http_to(server.url) as client:
                assert await statuses(client, 3) == [200] * 3
                large = await client.post("/", LARGE, attempt="4")
                assert isinstance(large, Posted)
                server.answer = (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + LARGE[:900_000]
                )
                large = await client.post("/", b"{}", attempt="5")
                assert isinstance(large, Posted)
                assert len(large.reply.body) == 900_000
            assert server.over == [1] * 5

    with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
        runner.run(some())


@pytest.mark.parametrize(
    ("names", "known", "host", "believed"),
    [
        (["localhost"], True, "localhost", True),
        (["127.0.0.1"], True, "127.0.0.1", True),
        (["localhost"], True, "127.0.0.1", False),
        (["another.example"], True, "localhost", False),
        (["localhost"], False, "localhost", False),
    ],
    ids=["right", "right, a number", "a number", "another's", "of an unknown authority"],
)
async def test_a_server_has_to_show_who_it_is(
    names: list[str],
    known: bool,
    host: str,
    believed: bool,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = authority.file if known else Authority(tmp_path, "another").file
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with (
        serving(OK, tls=authority.server(*names)) as server,
        http_to(server.url.replace("localhost", host)) as client,
    ):
        outcome = await client.post("/", b"{}", attempt="1")

    if believed:
        assert isinstance(outcome, Posted)
    else:
        assert isinstance(outcome, NotSent)
        assert outcome.unreachable
        assert "CERTIFICATE_VERIFY_FAILED" in outcome.reason
        assert server.heads == []
