"""One POST against a server that answers byte for byte what a test tells it to."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, NoReturn

import pytest

from millpond.providers import http
from millpond.providers.http import Http, Posted
from millpond.providers.outcome import NoAnswer, NotSent

pytestmark = pytest.mark.usefixtures("both_ways")

Writer = asyncio.StreamWriter
Answer = Callable[[Writer], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[bytes] = []


@asynccontextmanager
async def serving(answer: bytes | Answer) -> AsyncIterator[Server]:
    """A server that reads each request and answers it so; it never closes by itself."""
    writers: list[Writer] = []

    async def handle(reader: asyncio.StreamReader, writer: Writer) -> None:
        writers.append(writer)
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            server.requests.append(head + await reader.readexactly(length))
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server = Server(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    try:
        yield server
    finally:
        for writer in writers:
            writer.close()
        listening.close()


async def post(
    url: str, *, timeout_ms: int = 20_000, body: bytes = b"{}"
) -> Posted | NoAnswer | NotSent:
    async with http_to(url, timeout_ms=timeout_ms) as client:
        return await client.post("/v1/generate", body, attempt="1f")


def http_to(url: str, *, timeout_ms: int = 20_000) -> Http:
    return Http(url, "secret", timeout_ms=timeout_ms, clock=lambda: 42.0)


async def test_a_reply_is_told_with_the_moment_of_its_headers() -> None:
    async with serving(
        b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow"
    ) as server:
        reply = await post(server.url + "/", body=b'{"prompt":"x"}')

    assert isinstance(reply, Posted)
    assert (reply.reply.status, reply.reply.body) == (429, b"slow")
    assert reply.reply.headers["Retry-After"] == reply.reply.headers["retry-after"] == "7"
    assert (reply.began_ms, reply.headers_ms) == (42.0, 42.0)
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b'{"prompt":"x"}'
    first, *headers = head.decode().split("\r\n")
    assert first == "POST /v1/generate HTTP/1.1"
    assert {"Authorization: Bearer secret", "X-Millpond-Attempt: 1f"} < set(headers)
    assert {"Content-Type: application/json", "Accept-Encoding: identity"} < set(headers)


async def test_a_call_begins_when_its_request_goes_not_while_its_server_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[str] = []
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def looked_up(*names: Any, **more: Any) -> Any:
        passed.append("looked up")
        return await look_up(*names, **more)

    async def answer(writer: Writer) -> None:
        passed.append("all has come")
        writer.write(OK)

    monkeypatch.setattr(loop, "getaddrinfo", looked_up)
    async with (
        serving(answer) as server,
        Http(
            server.url.replace("127.0.0.1", "localhost"),
            "k",
            timeout_ms=20_000,
            clock=lambda: float(len(passed)),
        ) as client,
    ):
        posted = [await client.post("/", b"{}", attempt=one) for one in ("1", "2")]

    moments = [(one.began_ms, one.headers_ms) for one in posted if isinstance(one, Posted)]
    assert moments == [(1, 2), (2, 3)]


async def test_a_redirect_is_not_followed() -> None:
    redirect = b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(redirect) as server:
        reply = await post(server.url)

    assert isinstance(reply, Posted)
    assert reply.reply.status == 307
    assert len(server.requests) == 1


async def test_a_cookie_is_not_sent_back() -> None:
    with_cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n")
    async with (
        serving(with_cookie) as server,
        Http(server.url, "k", timeout_ms=20_000, clock=lambda: 0.0) as client,
    ):
        for attempt in ("1", "2"):
            await client.post("/", b"", attempt=attempt)

    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


async def test_a_packed_reply_is_neither_blown_up_nor_shown_to_anybody() -> None:
    small = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 400 X\r\nContent-Encoding: GZip\r\nContent-Length: %d\r\n\r\n" % len(small)
    async with serving(head + small) as server:
        reply = await post(server.url)

    assert isinstance(reply, Posted)
    assert reply.reply.body == b"a reply packed as gzip"


async def test_a_reply_that_is_too_large_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_MOST_BYTES", 1_000)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1_001)
    async with serving(large) as server:
        assert await post(server.url) == NoAnswer("the reply is larger than 1,000 bytes")


async def _cut(writer: Writer) -> None:
    writer.write(OK[:-1])
    await writer.drain()
    writer.close()


async def _reset(writer: Writer) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("answer", [_cut, _reset, b"SSH-2.0-OpenSSH\r\n\r\n", b"\xff\xfe\r\n\r\n"])
async def test_a_reply_that_breaks_or_is_none_may_have_been_worked_on(
    answer: bytes | Answer,
) -> None:
    async with serving(answer) as server:
        outcome = await post(server.url)

    assert isinstance(outcome, NoAnswer)
    assert outcome.reason.startswith("the connection broke: ")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [b"", OK[:-1]], ids=["no headers", "headers, half a body"])
async def test_a_reply_that_does_not_end_in_time_is_no_answer(answer: bytes) -> None:
    async with serving(answer) as server:
        assert await post(server.url, timeout_ms=150) == NoAnswer("no answer within 0.15 s")


async def test_a_closed_port_means_that_nothing_was_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        outcome = await post(f"http://127.0.0.1:{free.getsockname()[1]}")

    assert isinstance(outcome, NotSent)
    assert outcome.unreachable


async def test_a_name_that_does_not_exist_means_that_nothing_was_sent() -> None:
    outcome = await post("http://no-such-host.invalid")

    assert isinstance(outcome, NotSent)
    assert outcome.unreachable


async def test_a_server_without_tls_means_that_nothing_was_sent() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listening:
        outcome = await post(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")

    assert isinstance(outcome, NotSent)
    assert outcome.unreachable


async def test_a_connection_that_takes_too_long_means_that_nothing_was_sent() -> None:
    """The system takes no more connections than the queue of a server that never accepts."""
    with socket.socket() as deaf, ExitStack() as queue:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        outcome = await post(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_ms=300)

    assert isinstance(outcome, NotSent)
    assert outcome.unreachable


async def test_a_name_that_takes_too_long_to_look_up_means_that_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)

    outcome = await post("http://slow.invalid", timeout_ms=300)

    assert isinstance(outcome, NotSent)
    assert outcome.unreachable


async def test_a_call_can_have_a_key_of_its_own_and_the_next_has_not() -> None:
    async with serving(OK) as server, http_to(server.url) as client:
        await client.post("/", b"{}", attempt="1", key="its-own")
        await client.post("/", b"{}", attempt="2")

    first, second = (request.partition(b"\r\n\r\n")[0] for request in server.requests)
    assert b"Authorization: Bearer its-own" in first
    assert b"secret" not in first
    assert b"Authorization: Bearer secret" in second


@pytest.mark.parametrize("key", ["its-own", "its-own\r\nX-Other: 1", "its-own\ud800", "its-öwn"])
@pytest.mark.parametrize("answer", [OK, _reset, b"SSH-2.0-OpenSSH\r\n\r\n"])
async def test_a_key_is_never_told(
    key: str, answer: bytes | Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with serving(answer) as server, http_to(server.url) as client:
        outcome = await client.post("/", b"{}", attempt="1", key=key)

    assert "its-" not in f"{outcome!r} {client!r} {vars(client)!r} {caplog.text}"
    assert all(b"X-Other: 1\r\n" not in request for request in server.requests)


async def test_a_key_that_no_header_can_hold_means_that_nothing_was_sent() -> None:
    async with serving(OK) as server, http_to(server.url) as client:
        outcome = await client.post("/", b"{}", attempt="1", key="a\nb")

    assert outcome == NotSent("no connection: ValueError", unreachable=True)
    assert server.requests == []


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has none")
def test_the_system_too_gives_up_when_we_do() -> None:
    made = http.made_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", None), most_ms=7_000)
    with made:
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_000
