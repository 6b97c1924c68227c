"""Slow, silent and crowding clients: each is cut off or answered, and keeps nobody else waiting."""

import asyncio
import time

import pytest

from flow.test_http_core_toy import Asked, toy
from millpond.producer.http.app import HttpSettings

KEY = b"Authorization: Bearer member\r\n"
HEAD = b"GET /v1/birds/1 HTTP/1.1\r\nHost: a\r\n" + KEY
POST = b"POST /v1/birds HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + KEY
DUCK = b'{"kind":"duck","name":"d"}'


async def _drip(asked: Asked, sent: bytes, *, first: bytes = b"", every_s: float = 0.05) -> bytes:
    """Send byte after byte until the server has had enough: what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port)
    writer.write(first)

    async def drip() -> None:
        for byte in sent:
            await asyncio.sleep(every_s)
            writer.write(bytes([byte]))

    dripping = asyncio.create_task(drip())
    said = b""
    try:
        async with asyncio.timeout(5):
            while more := await reader.read(65_536):
                said += more
    except ConnectionResetError:
        pass  # a byte that came after the server had closed; what it said before counts
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
    return said


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET / HTTP/1.1\r\n", HEAD, HEAD + b"X: "],
    ids=["silent", "a letter", "a line", "no end", "half a header"],
)
async def test_a_head_that_does_not_come_is_cut_off(sent: bytes) -> None:
    async with toy() as asked:
        began = time.monotonic()
        assert await asked.raw(sent) == b""
        assert 0.25 < time.monotonic() - began < 3


async def test_a_head_that_drips_is_cut_off() -> None:
    async with toy() as asked:
        assert await _drip(asked, HEAD) == b""


async def test_the_next_head_on_a_connection_has_a_deadline_too() -> None:
    async with toy() as asked:
        said = await _drip(asked, HEAD, first=HEAD + b"\r\n" + b"G")
    assert said.count(b"HTTP/1.1 200 ") == 1


async def test_a_slow_handler_is_not_cut_off() -> None:
    async with toy() as asked:
        waiting = asyncio.create_task(asked.ask("GET", "/v1/wait"))
        await asyncio.sleep(0.6)
        asked.toy.go.set()
        answer = await asyncio.wait_for(waiting, 5)
    assert answer.status == 200


async def test_a_pipelined_request_behind_a_slow_one_is_not_cut_off() -> None:
    slow = HEAD.replace(b"/v1/birds/1", b"/v1/wait") + b"\r\n"
    async with toy() as asked:
        said = asyncio.create_task(asked.raw(slow + HEAD + b"Connection: close\r\n\r\n"))
        await asyncio.sleep(0.6)
        asked.toy.go.set()
        answered = await asyncio.wait_for(said, 5)
    assert answered.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("path", [b"/v1/birds", b"/v1/touch"])
async def test_a_body_that_does_not_come_is_answered_408(path: bytes) -> None:
    sent = POST.replace(b"/v1/birds", path) + b"Content-Length: 26\r\n\r\n" + DUCK[:5]
    async with toy() as asked:
        said = await asked.raw(sent)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"problem+json" in said


async def test_a_body_that_drips_is_answered_408() -> None:
    async with toy() as asked:
        said = await _drip(asked, DUCK, first=POST + b"Content-Length: 26\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_is_too_large_is_not_waited_for() -> None:
    async with toy() as asked:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port)
        writer.write(POST + b"Content-Length: 1000000000\r\n\r\n" + b" " * 1_000)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert time.monotonic() - began < 1
        writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_a_streamed_body_that_stops_is_answered_408() -> None:
    head = POST.replace(b"/v1/birds", b"/v1/upload").replace(
        b"application/json", b"application/jsonl"
    )
    async with toy() as asked:
        said = await asked.raw(head + b"Content-Length: 100\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with toy() as asked:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port)
        writer.write(
            POST + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 26\r\n\r\n"
        )
        told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(DUCK)
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD,
        HEAD + b"\r\n",
        POST + b"Content-Length: 26\r\n\r\n" + DUCK[:5],
        POST + b"Content-Length: 26\r\n\r\n" + DUCK,
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_a_half_closed_connection_ends(sent: bytes) -> None:
    async with toy() as asked:
        said = await asked.raw(sent, close=True)
        assert b" 5" not in said[8:10]
        assert (await asked.ask("GET", "/v1/birds/1")).status == 200


async def test_many_pipelined_requests_are_answered_in_order() -> None:
    many = b"".join(
        HEAD.replace(b"birds/1", b"birds/%d" % number) + b"\r\n" for number in range(200)
    )
    async with toy() as asked:
        said = await asked.raw(many + HEAD + b"Connection: close\r\n\r\n")
    order = [said.index(b'"id":"%d"' % number) for number in range(200)]
    assert order == sorted(order)
    assert said.count(b"HTTP/1.1 200 ") == 201


async def test_what_is_smuggled_behind_a_refused_body_is_not_served() -> None:
    async with toy() as asked:
        said = await asked.raw(POST + b"Content-Length: 100000\r\n\r\n" + HEAD + b"\r\n")
    assert said.count(b"HTTP/1.1 ") - said.count(b"HTTP/1.1 only") == 1
    assert said.startswith(b"HTTP/1.1 413 ")


async def test_an_idle_connection_is_closed_after_the_keepalive() -> None:
    async with toy(HttpSettings(keepalive_s=0.3)) as asked:
        said = await asked.raw(HEAD + b"\r\n", wait_s=3)
    assert said.count(b"HTTP/1.1 200 ") == 1


async def test_an_address_has_no_more_connections_than_it_may() -> None:
    async with toy(HttpSettings(connections_per_address=3)) as asked:
        opened = [await asyncio.open_connection("127.0.0.1", asked.listener.port) for _ in range(3)]
        for reader, writer in opened:
            writer.write(HEAD + b"\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert await asked.raw(HEAD + b"\r\n") == b""
        opened[0][1].close()
        await opened[0][1].wait_closed()
        async with asyncio.timeout(5):
            while not (said := await asked.raw(HEAD + b"Connection: close\r\n\r\n")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _, writer in opened[1:]:
            writer.close()
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_takes_nothing_of_a_reply_is_cut_off() -> None:
    async with toy(HttpSettings(write_s=0.3)) as asked:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port, limit=1)
        docs = b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(docs * 20)
        await asyncio.sleep(1.5)
        answer = await asked.ask("GET", "/v1/birds/1")
        began = time.monotonic()
        with pytest.raises((ConnectionResetError, AssertionError)):  # noqa: PT012
            async with asyncio.timeout(5):
                size = 0
                while part := await reader.read(2**20):
                    size += len(part)
            assert size > 20 * 2_000_000
        assert time.monotonic() - began < 5
        writer.close()
    assert answer.status == 200
