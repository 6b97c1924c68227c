"""The simulator as a process: HTTP in, replies out, and what a leaving client means.

A client that leaves changes nothing about its call: the provider goes on, charges it, and notes
that the reply reached nobody. So handlers are never cancelled for a lost connection; only the
end of the process cuts them, and even then each notes its row.
"""

import asyncio
import os
import resource
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import assert_never

from aiohttp import web

from millpond.simulator import cohere
from millpond.simulator.author import Author
from millpond.simulator.books import Books
from millpond.simulator.faults import Fault, Hangs, Resets
from millpond.simulator.journal import Call, History, Journal, opened, start
from millpond.simulator.limits import ENDPOINTS, Limits
from millpond.simulator.provider import Outcome, Provider, Reply, now_ms, pause
from millpond.simulator.weather import Duration, Weather

HOST = "127.0.0.1"
BACKLOG = 4_096
BODY_MAX_BYTES = 8 * 1024 * 1024

FILES_WANTED = 65_536

#: Calls in flight at the end are cut, not waited for. (Zero would mean to aiohttp: no end.)
SHUTDOWN_TIMEOUT_S = 0.05

#: How often a hanging call looks whether its client has left.
HANG_LOOK_S = 0.05

PATHS = {f"/v1/{endpoint}": endpoint for endpoint in ENDPOINTS}

NOT_FOUND = Reply(404, cohere.error("404 page not found"))
TOO_LARGE = Reply(413, cohere.error(f"the body is larger than {BODY_MAX_BYTES} bytes"))
UNREAD = Reply(400, cohere.error("the body did not come to its end"))


@dataclass(frozen=True, slots=True)
class Simulation:
    port: int
    ready_file: Path | None
    journal: Path | None
    limits: Limits
    quota: int | None
    seed: int
    service: Duration
    delay_in: Duration
    delay_out: Duration
    faults: Sequence[Fault]


def serve(simulation: Simulation) -> None:
    """Run until SIGTERM or SIGINT. OSError: the port or a file cannot be had."""
    _allow_many_connections()
    with opened(simulation.journal) as (journal, history):
        # asyncio.run ends what is left of the calls, and only then is the journal closed.
        asyncio.run(_listen(simulation, journal, history))


async def _listen(simulation: Simulation, journal: Journal, history: History) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    weather = Weather(
        seed=simulation.seed,
        service=simulation.service,
        delay_in=simulation.delay_in,
        delay_out=simulation.delay_out,
        faults=simulation.faults,
    )
    provider = Provider(_books(simulation, history), weather, Author(simulation.seed))
    desk = Desk(provider, weather, journal)
    request = partial(web.BaseRequest, loop=loop, client_max_size=BODY_MAX_BYTES)
    server = web.Server(desk.take, request_factory=request, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, simulation.port, backlog=BACKLOG)
        await site.start()
        # No await between: the first row is the start's even if a call is waiting already.
        journal.write(start(simulation.limits, simulation.quota, simulation.seed))
        if simulation.ready_file is not None:
            _write_whole(simulation.ready_file, f"http://{HOST}:{site.port}")
        await stop.wait()
    finally:
        await runner.cleanup()


class Desk:
    """Takes requests in and hands replies out; one row of the journal for each call."""

    def __init__(self, provider: Provider, weather: Weather, journal: Journal) -> None:
        self._provider = provider
        self._weather = weather
        self._journal = journal

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        endpoint = PATHS.get(request.path)
        if endpoint is None or request.method != "POST":
            return _response(NOT_FOUND)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _response(TOO_LARGE)
        except (ConnectionError, web.RequestPayloadError):
            return _response(UNREAD)

        call = Call(
            received_ms=now_ms(),
            org=cohere.api_key(request.headers.get("Authorization")),
            endpoint=endpoint,
            attempt=request.headers.get("X-Millpond-Attempt"),
            body_sha256=sha256(body).hexdigest(),
        )
        try:
            outcome = await self._provider.receive(call, body)
            return await self._hand_out(call, outcome, request)
        finally:
            self._journal.write(call)

    async def _hand_out(
        self, call: Call, outcome: Outcome, request: web.BaseRequest
    ) -> web.StreamResponse:
        match outcome:
            case Reply():
                await pause(self._weather.delay_out_s())
                return await _send(call, outcome, request)
            case Resets():
                _reset(request)
            case Hangs():
                await _until_gone(request)
            case _:
                assert_never(outcome)
        # aiohttp wants something to send; it finds the connection closed and drops it.
        return web.Response()


async def _send(call: Call, reply: Reply, request: web.BaseRequest) -> web.StreamResponse:
    """Write the reply, if someone is there to take it, and note how far it came."""
    response = _response(reply)
    transport = _transport(request)
    if transport is None:
        return response
    # With no room in the buffer, the write ends when the last byte has left this process.
    transport.set_write_buffer_limits(high=0)
    call.status = reply.status
    call.headers_ms = now_ms()
    try:
        await response.prepare(request)
        await response.write_eof()
    except ConnectionError:
        return response
    call.answered = _transport(request) is not None
    return response


def _transport(request: web.BaseRequest) -> asyncio.Transport | None:
    """The way back to the client; None when it has left."""
    transport = request.transport
    return None if transport is None or transport.is_closing() else transport


async def _until_gone(request: web.BaseRequest) -> None:
    """aiohttp tells no one that a client has left, unless by cancelling: so look for it."""
    while _transport(request) is not None:  # noqa: ASYNC110
        await asyncio.sleep(HANG_LOOK_S)


def _reset(request: web.BaseRequest) -> None:
    """Close so that the client sees a reset (RST) and not an orderly end."""
    transport = _transport(request)
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _response(reply: Reply) -> web.Response:
    headers = {"Content-Type": "application/json"}
    if reply.retry_after_s is not None:
        headers["Retry-After"] = str(reply.retry_after_s)
    return web.Response(body=reply.body, status=reply.status, headers=headers)


def _books(simulation: Simulation, history: History) -> Books:
    """The books as the journal left them; earlier limits do not matter, its arrivals do."""
    books = Books(simulation.limits, simulation.quota)
    for call in sorted(history.calls, key=lambda call: call.at_ms or 0):
        if call.admitted and call.org is not None and call.at_ms is not None:
            books.admit(call.org, call.endpoint, call.at_ms)
            books.settle(call.org, call.endpoint, call.characters)
    return books


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing: who waits for the file never reads half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def _allow_many_connections() -> None:
    """A burst opens thousands of connections, and the usual limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
