"""Streams of server-sent events, over real connections."""

import asyncio

import pytest
from structlog.testing import capture_logs

from flow.test_http_core_toy import Asked, toy

HEAD = b"GET /v1/follow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer member\r\n"


async def _read_until(reader: asyncio.StreamReader, what: bytes) -> bytes:
    read = b""
    async with asyncio.timeout(5):
        while what not in read:
            part = await reader.read(65_536)
            assert part, read
            read += part
    return read


async def _open(
    asked: Asked, more: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", asked.listener.port)
    writer.write(HEAD + more + b"\r\n")
    return reader, writer


async def test_a_stream_has_ids_events_and_pings() -> None:
    async with toy() as asked:
        reader, writer = await _open(asked)
        read = await _read_until(reader, b": ping")
        writer.close()
    head = read.partition(b"\r\n\r\n")[0].lower()
    assert b"content-type: text/event-stream" in head
    assert b"x-accel-buffering: no" in head
    assert b"x-request-id: " in head
    assert b"x-content-type-options: nosniff" in head
    assert b"retry: 1000\r\n" in read
    assert b"id: 1\r\nevent: count\r\ndata: number 1\r\ndata: of many\r\n" in read


async def test_a_stream_goes_on_after_the_last_event_that_was_seen() -> None:
    async with toy() as asked:
        reader, writer = await _open(asked, b"Last-Event-ID: 2\r\n")
        read = await _read_until(reader, b"id: 3")
        writer.close()
    assert b"id: 2" not in read


async def test_a_last_event_id_that_can_be_none_is_refused() -> None:
    async with toy() as asked:
        answer = await asked.ask("GET", "/v1/follow", headers={"Last-Event-ID": "x" * 300})
    assert (answer.status, answer.pointers) == (422, ["/Last-Event-ID"])


async def test_the_head_of_a_stream_can_be_asked_for() -> None:
    async with toy() as asked:
        answer = await asked.ask("HEAD", "/v1/follow")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")


async def test_a_client_that_leaves_ends_its_stream_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with toy() as asked:
        with capture_logs() as events:
            before = asyncio.all_tasks()
            _, writer = await _open(asked)
            await asyncio.wait_for(asked.toy.began.get(), 5)
            writer.close()
            assert await asyncio.wait_for(asked.toy.ended.get(), 5) == "stream"
            async with asyncio.timeout(5):
                while asyncio.all_tasks() - before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert {event["log_level"] for event in events} <= {"info"}
    assert caplog.text == ""


async def test_a_stream_ends_when_the_server_stops() -> None:
    async with toy() as asked:
        reader, writer = await _open(asked)
        await asyncio.wait_for(asked.toy.began.get(), 5)
        await asyncio.wait_for(asked.listener.stop(), 1)
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert await asyncio.wait_for(asked.toy.ended.get(), 5) == "stream"
    assert rest.endswith(b"0\r\n\r\n")
