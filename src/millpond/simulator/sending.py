"""How a reply goes out: whole, or as a fault has it; at once, or piece by piece.

The row of the call is told when the headers went out and whether the whole reply was taken. A
client that leaves stops a reply, but not a stream: its pieces are made all the same, in their
time, and reach nobody.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from millpond.simulator.faults import Manner
from millpond.simulator.journal import Call
from millpond.simulator.provider import Reply, Stream, now_ms, pause

#: How often a hanging call looks whether its client has left.
HANG_LOOK_S = 0.05

DRIP_S = 0.2

#: A short body is announced to be so much longer than it is.
SHORT_BY_BYTES = 100


async def send(call: Call, reply: Reply, request: web.BaseRequest) -> web.StreamResponse:
    """Write the reply, if someone is there to take it, and note how far it came."""
    if reply.manner is not Manner.WHOLE:
        return await _send_badly(call, reply, request)
    response = whole(reply)
    if not _begin(call, reply.status, request):
        return response
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        return response
    call.answered = _transport(request) is not None
    return response


def whole(reply: Reply) -> web.Response:
    return web.Response(body=reply.body, status=reply.status, headers=_headers(reply))


async def _send_badly(call: Call, reply: Reply, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=_headers(reply))
    body = reply.body
    response.content_length = len(body)
    if reply.manner is Manner.SHORT:
        response.content_length += SHORT_BY_BYTES
    if not _begin(call, reply.status, request):
        return response
    try:
        await response.prepare(request)
        if reply.manner is Manner.DRIPPED:
            await _drip(body, response)
            await response.write_eof()
            call.answered = _transport(request) is not None
        else:
            await response.write(body[: len(body) // 2] if reply.manner is Manner.CUT else body)
            _close(request)
    except ConnectionError:
        pass
    return response


async def stream(
    call: Call, reply: Stream, request: web.BaseRequest, settle: Callable[[], None]
) -> web.StreamResponse:
    """Write the pieces over their time; `settle` is called before the last of them goes out."""
    response = web.StreamResponse(headers=_headers(reply))
    pieces, manner = reply.pieces, reply.manner
    if manner is Manner.CUT:
        pieces = pieces[: len(pieces) // 2]
    there = _begin(call, 200, request)
    if there:
        there = await _took(response.prepare(request))
    clock = asyncio.get_running_loop().time
    begun_s, gaps = clock(), max(1, len(reply.pieces) - 1)
    for nth, piece in enumerate(pieces):
        await pause(begun_s + reply.seconds * nth / gaps - clock())
        if nth == len(pieces) - 1:
            settle()
        if there:
            sent = _drip(piece, response) if manner is Manner.DRIPPED else response.write(piece)
            there = await _took(sent)
    if not pieces:
        settle()
    if not there:
        return response
    if manner is Manner.SHORT:
        # What is missing is the end of the last chunk: HTTP's word that all was sent.
        _close(request)
    elif await _took(response.write_eof()):
        call.answered = manner is not Manner.CUT and _transport(request) is not None
    return response


async def until_gone(request: web.BaseRequest) -> None:
    """aiohttp tells no one that a client has left, unless by cancelling: so look for it."""
    while _transport(request) is not None:  # noqa: ASYNC110
        await asyncio.sleep(HANG_LOOK_S)


def reset(request: web.BaseRequest) -> None:
    """Close so that the client sees a reset (RST) and not an orderly end."""
    transport = _transport(request)
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _begin(call: Call, status: int, request: web.BaseRequest) -> bool:
    """Note that the headers go out; False: there is no one to send them to."""
    transport = _transport(request)
    if transport is None:
        return False
    # With no room in the buffer, a write ends when the last byte has left this process.
    transport.set_write_buffer_limits(high=0)
    call.status = status
    call.headers_ms = now_ms()
    return True


async def _drip(body: bytes, response: web.StreamResponse) -> None:
    for nth in range(len(body)):
        await pause(DRIP_S if nth else 0)
        await response.write(body[nth : nth + 1])


async def _took(sent: Awaitable[object]) -> bool:
    """Whether the client was still there to take it."""
    try:
        await sent
    except ConnectionError:
        return False
    return True


def _close(request: web.BaseRequest) -> None:
    """An orderly end of the connection, though not of the reply."""
    transport = _transport(request)
    if transport is not None:
        transport.close()


def _transport(request: web.BaseRequest) -> asyncio.Transport | None:
    """The way back to the client; None when it has left."""
    transport = request.transport
    return None if transport is None or transport.is_closing() else transport


def _headers(reply: Reply | Stream) -> Mapping[str, str]:
    return {"Content-Type": reply.type, **reply.headers}
