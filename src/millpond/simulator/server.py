"""The simulator as a process: HTTP in, replies out, and what a leaving client means.

A client that leaves changes nothing about its call: the provider goes on, charges it, and notes
that the reply reached nobody. So handlers are never cancelled for a lost connection; only the
end of the process cuts them, and even then each notes its row.
"""

import asyncio
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import assert_never

from aiohttp import web

from millpond.simulator import cohere, openai, sending
from millpond.simulator.author import Author
from millpond.simulator.books import Books
from millpond.simulator.chances import Chance
from millpond.simulator.faults import Fault, Hangs, Resets, ResetsBefore
from millpond.simulator.journal import Call, History, Journal, opened, start
from millpond.simulator.limits import Limits
from millpond.simulator.provider import Outcome, Provider, Reply, Stream, now_ms, pause
from millpond.simulator.weather import Weather
from millpond.simulator.windows import Kind
from millpond.simulator.wire import Wire, api_key, org_of

HOST = "127.0.0.1"
BACKLOG = 4_096
BODY_MAX_BYTES = 8 * 1024 * 1024

FILES_WANTED = 65_536

#: Calls in flight at the end are cut, not waited for. (Zero would mean to aiohttp: no end.)
SHUTDOWN_TIMEOUT_S = 0.05


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads to: whose limits count there, and which wire is spoken."""

    endpoint: str
    wire: Wire


ROUTES = {
    "/v1/generate": Route("generate", cohere),
    "/v1/embed": Route("embed", cohere),
    "/v1/classify": Route("classify", cohere),
    "/v1/chat/completions": Route("generate", openai),
    "/v1/embeddings": Route("embed", openai),
}

#: What is said on paths that nobody has.
ELSEWHERE: Wire = cohere


@dataclass(frozen=True, slots=True)
class Simulation:
    port: int
    ready_file: Path | None
    journal: Path | None
    limits: Limits
    quota: int | None
    books: Kind
    seed: int
    tokens: Chance
    service: Chance
    delay_in: Chance
    delay_out: Chance
    stream: Chance
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
        stream=simulation.stream,
        faults=simulation.faults,
    )
    books = Books(simulation.limits, simulation.quota, kind=simulation.books, seed=simulation.seed)
    # Earlier limits do not matter, the arrivals do.
    books.restore(history.calls)
    provider = Provider(books, weather, Author(simulation.seed, simulation.tokens))
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
        route = ROUTES.get(request.path)
        if route is None or request.method != "POST":
            return _error(404, "404 page not found", route)
        call = Call(
            received_ms=now_ms(),
            org=org_of(api_key(request.headers.get("Authorization"))),
            endpoint=route.endpoint,
            attempt=request.headers.get("X-Millpond-Attempt"),
            body_sha256="",
        )
        fault = self._weather.fault()
        if isinstance(fault, ResetsBefore):
            return self._turn_away(call, request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"the body is larger than {BODY_MAX_BYTES} bytes", route)
        except (ConnectionError, web.RequestPayloadError):
            return _error(400, "the body did not come to its end", route)

        # The head alone was no call yet.
        call.received_ms = now_ms()
        call.body_sha256 = sha256(body).hexdigest()
        try:
            outcome = await self._provider.receive(call, route.wire, body, fault)
            return await self._hand_out(call, outcome, request)
        finally:
            self._provider.leave(call)
            self._journal.write(call)

    def _turn_away(self, call: Call, request: web.BaseRequest) -> web.StreamResponse:
        """The body is never read, so nobody knows what was asked."""
        call.refused_by = "fault"
        sending.reset(request)
        self._journal.write(call)
        return _nothing()

    async def _hand_out(
        self, call: Call, outcome: Outcome, request: web.BaseRequest
    ) -> web.StreamResponse:
        match outcome:
            case Reply():
                await pause(self._weather.delay_out_s())
                return await sending.send(call, outcome, request)
            case Stream(units=units):
                await pause(self._weather.delay_out_s())
                settle = partial(self._provider.settle, call, units)
                return await sending.stream(call, outcome, request, settle)
            case Resets():
                sending.reset(request)
            case Hangs():
                await sending.until_gone(request)
            case _:
                assert_never(outcome)
        return _nothing()


def _nothing() -> web.StreamResponse:
    """aiohttp wants something to send; it finds the connection closed and drops it."""
    return web.Response()


def _error(status: int, message: str, route: Route | None) -> web.StreamResponse:
    """The reply to what is no call, and so is in no journal."""
    wire = ELSEWHERE if route is None else route.wire
    return sending.whole(Reply(status, wire.error(status, message)))


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
