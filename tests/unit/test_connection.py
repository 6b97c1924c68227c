"""A connection of our own, driven by hand: what comes of bytes, however they are cut."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.providers.connection import Connection, Exchange, Terms
from millpond.providers.outcome import NoAnswer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Y: z\r\n\r\n"
    b"3\r\n{}{\r\nA;name=value\r\n}{}{}{}{}{\r\n1\r\n}\r\n0\r\nX-Trailer: t\r\n\r\n"
)


class Transport(asyncio.Transport):
    """It takes what is written, and sends nothing."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__({"socket": ours})
        self.written = b""
        self.unsent = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Driven:
    """A connection between two calls of ours, and what it is connected with."""

    def __init__(self, ours: socket.socket, theirs: socket.socket, most_bytes: int) -> None:
        self.theirs = theirs
        self.clock = 0.0
        self.transport = Transport(ours)
        terms = Terms(timeout_s=9, most_bytes=most_bytes, clock=lambda: self.clock)
        self.connection = Connection(asyncio.get_running_loop(), terms)
        self.connection.connection_made(self.transport)

    def ask(self) -> Exchange:
        now_s = asyncio.get_running_loop().time()
        return self.connection.ask(b"POST", until_s=now_s + 9)

    def take(self, parts: Sequence[bytes], *, and_end: bool = False) -> None:
        for part in parts:
            if not self.transport.aborted:
                self.connection.data_received(part)
        if and_end:
            self.connection.connection_lost(None)

    def told(self, reply: Sequence[bytes], *, and_end: bool = False) -> Exchange:
        """What comes of a reply."""
        exchange = self.ask()
        self.take(reply, and_end=and_end)
        return exchange


@contextmanager
def driven(*, most_bytes: int = 1_000_000) -> Iterator[Driven]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = Driven(ours, theirs, most_bytes)
        yield one
        one.connection.abort()


def body_of(exchange: Exchange) -> bytes | None:
    return None if exchange.reply is None else exchange.reply.body


@pytest.fixture(autouse=True)
async def nothing_is_left_for_the_loop_to_complain_of() -> AsyncIterator[None]:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    yield
    assert complaints == []


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (OK, b"{}"),
        (GO_ON + HINTS + GO_ON + OK, b"{}"),
        (CHUNKED, b"{}{}{}{}{}{}{}"),
        (b"HTTP/1.1 204 X\r\n\r\n", b""),
        (b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["a length", "others before it", "chunks", "no content", "not modified", "nothing"],
)
async def test_a_reply_is_the_same_wherever_it_is_cut(reply: bytes, body: bytes) -> None:
    cuts = [[reply[:at], reply[at:]] for at in range(1, len(reply))]
    for parts in [[reply], [reply[at : at + 1] for at in range(len(reply))], *cuts]:
        with driven() as one:
            for _ in range(2):
                exchange = one.told(parts)
                assert (body_of(exchange), exchange.failed) == (body, None), parts
                assert exchange.keeps, parts
            assert not one.transport.aborted


async def test_a_body_without_a_length_goes_on_until_the_connection_ends() -> None:
    reply = b"HTTP/1.1 200 OK\r\n\r\n{} and more"
    for at in range(1, len(reply) + 1):
        with driven() as one:
            exchange = one.ask()
            one.take([reply[:at], reply[at:]])
            assert not exchange.done.done()
            one.connection.connection_lost(None)
            assert (body_of(exchange), exchange.keeps) == (b"{} and more", False)


@pytest.mark.parametrize("reply", [OK, CHUNKED], ids=["a length", "chunks"])
async def test_less_than_a_whole_reply_is_no_answer(reply: bytes) -> None:
    for at in range(len(reply)):
        with driven() as one:
            exchange = one.told([reply[:at]] if at else [], and_end=True)
            head = reply[:at].partition(b"\r\n\r\n")[1]
            kind = "ClientPayloadError" if head else "ServerDisconnectedError"
            assert exchange.failed == NoAnswer(f"the connection broke: {kind}"), reply[:at]


async def test_a_connection_that_is_reset_breaks() -> None:
    with driven() as one:
        exchange = one.ask()
        one.connection.connection_lost(ConnectionResetError())

    assert exchange.failed == NoAnswer("the connection broke: ClientOSError")


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 8_190 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 129 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 199 X\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n",
    ],
    ids=[
        *("another protocol", "two lengths", "a length and chunks", "a long header"),
        *("many headers", "a NUL", "a body before the reply", "no length of a chunk"),
        "a chunk that is longer",
    ],
)
async def test_what_cannot_be_read_breaks_the_connection_at_once(reply: bytes) -> None:
    for size in (1, 7, len(reply)):
        with driven() as one:
            parts = [reply[at : at + size] for at in range(0, len(reply), size)]
            exchange = one.told(parts)
            assert exchange.failed is not None
            assert exchange.failed.reason.startswith("the connection broke: Client")
            assert exchange.done.done()
            assert one.transport.aborted


@pytest.mark.parametrize(
    "more", [OK, OK[:30], b"H", b"garbage", GO_ON], ids=["whole", "part", "a byte", "none", "go on"]
)
async def test_what_comes_after_a_reply_ends_the_connection(more: bytes) -> None:
    with driven() as one:
        exchange = one.told([OK, more])
        assert body_of(exchange) == b"{}"
        assert one.transport.aborted


@pytest.mark.parametrize("more", [OK, OK[:30], b"H"], ids=["whole", "part", "a byte"])
async def test_what_comes_together_with_a_reply_and_is_no_part_of_it_ends_the_connection(
    more: bytes,
) -> None:
    with driven() as one:
        exchange = one.told([OK + more])
        assert (body_of(exchange), exchange.keeps) == (b"{}", False)


@pytest.mark.parametrize(
    "reply",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"1.1", b"1.0"),
        b"HTTP/1.1 101 X\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["it says so", "an old one", "switching", "really switching"],
)
async def test_not_every_connection_can_take_another_request(reply: bytes) -> None:
    with driven() as one:
        exchange = one.told([reply])
        assert exchange.reply is not None
        assert not exchange.keeps


async def test_a_reply_to_half_a_request_counts_and_its_connection_is_not_used_again() -> None:
    with driven() as one:
        exchange = one.ask()
        one.transport.unsent = 1
        one.take([b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"])

    assert exchange.reply is not None
    assert (exchange.reply.status, exchange.keeps) == (413, False)


async def test_the_headers_are_timed_as_they_come_not_those_before_them_nor_the_end() -> None:
    with driven() as one:
        exchange = one.ask()
        for moment, part in enumerate([GO_ON, OK[:20], OK[20:-2], OK[-2:]], start=1):
            one.clock = float(moment)
            one.take([part])

    assert exchange.headers_ms == 3


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    with driven() as one:
        one.take([OK])
        assert one.transport.aborted
        assert not one.connection.is_fit()


@pytest.mark.parametrize("end", [False, True])
async def test_what_the_loop_has_not_read_yet_makes_a_connection_unfit(end: bool) -> None:
    with driven() as one:
        assert one.connection.is_fit()
        if end:
            one.theirs.shutdown(socket.SHUT_WR)
        else:
            one.theirs.send(b"x")
        assert not one.connection.is_fit()


async def test_no_more_is_kept_than_is_allowed() -> None:
    chunk = b"1\r\n{\r\n"
    with driven(most_bytes=100) as one:
        exchange = one.ask()
        one.take([CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", chunk * 100])
        assert not exchange.done.done()
        one.take([chunk])
        assert exchange.failed == NoAnswer("the reply is larger than 100 bytes")
        assert one.transport.aborted


@dataclass(frozen=True)
class Made:
    """A reply as somebody could write it, and what it says."""

    wire: bytes
    status: int
    body: bytes
    until_closed: bool


_TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map("x-".__add__)
_VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
_HEADERS = st.lists(st.tuples(_TOKENS, _VALUES), max_size=6)


def _chunk(content: bytes, extension: bool, upper: bool) -> bytes:
    size = f"{len(content):X}" if upper else f"{len(content):x}"
    return f"{size}{';a=b' if extension else ''}\r\n".encode() + content + b"\r\n"


@st.composite
def replies(draw: st.DrawFn) -> Made:
    status = draw(st.sampled_from([200, 201, 204, 304, 307, 400, 413, 429, 500, 529, 999]))
    before = b"".join(draw(st.lists(st.sampled_from([GO_ON, HINTS]), max_size=2)))
    lines = [f"HTTP/1.1 {status} {draw(st.sampled_from(['', 'OK', 'Not so']))}"]
    lines += [f"{name}:{value}" for name, value in draw(_HEADERS)]
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"" if status in (204, 304) else b"".join(parts)
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    content = body
    if status in (204, 304):
        framing = "none"
    elif framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        sized = [_chunk(part, draw(st.booleans()), draw(st.booleans())) for part in parts]
        trailer = draw(st.sampled_from([b"", b"X-T: t\r\n"]))
        content = b"".join(sized) + b"0\r\n" + trailer + b"\r\n"
    head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
    return Made(before + head + content, status, body, framing == "end")


async def as_aiohttp_reads(parts: Sequence[bytes]) -> tuple[int, bytes, Any]:
    """Status, body and headers of a reply that comes in such parts, and then the end."""
    handler = ResponseHandler(asyncio.get_running_loop())
    handler.connection_made(Transport(socket.socket()))
    handler.set_response_params(read_until_eof=True, auto_decompress=False)
    for part in parts:
        handler.data_received(part)
    handler.connection_lost(None)
    while True:
        message, payload = await handler.read()
        if message.code >= 200:
            return message.code, await payload.read(), message.headers


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=replies(), data=st.data())
async def test_whatever_a_reply_and_its_parts_we_read_what_was_written_and_what_aiohttp_reads(
    made: Made, data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(1, max(1, len(made.wire) - 1)), max_size=12))
    edges = [0, *sorted(cuts), len(made.wire)]
    parts = [made.wire[a:b] for a, b in pairwise(edges) if a < b]

    with driven() as one:
        exchange = one.told(parts, and_end=made.until_closed)

    reply = exchange.reply
    assert reply is not None
    assert (reply.status, reply.body) == (made.status, made.body)
    assert exchange.keeps is (not made.until_closed)
    status, body, headers = await as_aiohttp_reads(parts)
    assert (reply.status, reply.body, reply.headers) == (status, body, headers)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=replies(), data=st.data())
async def test_whatever_is_wrong_with_a_reply_the_call_ends_and_nothing_is_raised(
    made: Made, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(made.wire)))
    wrong = made.wire[:at] + data.draw(st.binary(max_size=4)) + made.wire[at + 1 :]
    cut = data.draw(st.integers(0, len(wrong)))

    with driven() as one:
        exchange = one.told([part for part in (wrong[:cut], wrong[cut:]) if part])
        if not one.transport.aborted:
            one.connection.connection_lost(None)

    assert exchange.done.done()
    assert (exchange.reply is None) is not (exchange.failed is None)
    exchange.done.result()
