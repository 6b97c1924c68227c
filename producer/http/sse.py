"""Server-sent events, over aiohttp-sse: a handler returns what `stream` makes of an iterator.

async def follow(call: Call) -> web.StreamResponse:
    return await stream(call, events_after)     # events_after(last_event_id | None)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from millpond.producer.http.problems import invalid
from millpond.producer.http.table import Call

PING_S = 15.0
RETRY_MS = 1_000
_ID_MOST = 200


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is what the client says as Last-Event-ID when it comes again."""

    data: str
    id: str | None = None
    event: str | None = None


#: Given the id of the last event that the client saw.
Source = Callable[[str | None], AsyncIterator[Event]]


async def stream(call: Call, source: Source, *, ping_s: float = PING_S) -> web.StreamResponse:
    """Send what `source` yields until it ends, the client leaves or the server stops.

    The source is closed in every case, so that its `finally` runs.
    """
    last = call.request.headers.get("Last-Event-ID")
    if last is not None and (len(last) > _ID_MOST or not last.isprintable()):
        raise invalid("/Last-Event-ID", "it is no id of an event", where="header")
    response = EventSourceResponse(ping_interval=ping_s)
    events = source(last or None)
    with suppress(ConnectionResetError):
        await response.prepare(call.request)
        await response.write(f"retry: {RETRY_MS}\r\n\r\n".encode())
        async with response:
            await _until_stopping(_send_all(response, events), call.stopping)
    return response


async def _send_all(response: EventSourceResponse, events: AsyncIterator[Event]) -> None:
    try:
        async for event in events:
            await response.send(event.data, id=event.id, event=event.event)
    except (ConnectionResetError, TimeoutError):
        return  # the client left, or has taken nothing for two minutes
    finally:
        if hasattr(events, "aclose"):
            await events.aclose()


async def _until_stopping(sending: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Whichever ends first ends the other; an error of the source is raised."""
    send, stop = asyncio.ensure_future(sending), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((send, stop), return_when=asyncio.FIRST_COMPLETED)
        if send.done():
            send.result()
    finally:
        for task in (send, stop):
            task.cancel()
        await asyncio.gather(send, stop, return_exceptions=True)
