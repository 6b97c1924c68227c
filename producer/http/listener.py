"""A listening server that slow and hostile clients do not wear down, and that stops gracefully.

aiohttp bounds what a request may be; here are bounds on how long one may take to come and how many
connections one address may have. Both live in a subclass of its `RequestHandler`.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from millpond.producer.http.address import plain
from millpond.producer.http.app import SETTINGS, HttpSettings
from millpond.producer.http.drain import DRAIN, Drain
from millpond.producer.http.problems import Problem, of_status
from millpond.producer.http.rim import Lines, dress, request_id_of

log = structlog.get_logger()


class Guarded(RequestHandler):
    """A connection: its requests have a deadline for their heads; what is no HTTP is a problem."""

    __slots__ = ("_address", "_head_timer", "_server", "_settings")

    def __init__(self, server: "_Server", settings: HttpSettings, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._server, self._settings = server, settings
        self._address: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        address = plain(str(peer[0])) if isinstance(peer, tuple) else ""
        if not self._server.admits(address):
            log.warning("connection_refused", client=address)
            self.force_close()
            return
        self._address = address
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        if self._address is not None:
            self._server.left(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waits = self._waiter is not None and not self._waiter.done()
        if not waits or self._messages:
            self._head_came()
        elif self._head_timer is None:
            self._await_head()  # a part of the next request's head

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._settings.header_s, self._head_is_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not read, or did not expect. (It would log a traceback of each.)"""
        if request.writer.output_size > 0:
            raise ConnectionError("the reply had begun")
        if status >= 500:
            log.error("request_failed", exc_info=exc)
        # aiohttp quotes what it could not read over several lines: the first says what it is
        detail = (message or "").strip().partition("\n")[0].rstrip(":") if status < 500 else ""
        return self._problem(of_status(status, detail), request)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = self._problem(of_status(resp.status), request)
        try:
            with self._server.drain.writing():
                async with asyncio.timeout(self._settings.write_s):
                    return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True

    def _problem(self, problem: Problem, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request_id_of(request)
        reply = problem.response(request_id, self._settings.path_prefix)
        reply.force_close()
        dress(reply, request_id)
        return reply


class _Server(web.Server):
    """Hands out `Guarded` connections, and counts them by address."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[web.StreamResponse]],
        settings: HttpSettings,
        drain: Drain,
        *,
        request_factory: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            handler, request_factory=request_factory, handler_cancellation=True, **kwargs
        )
        self._settings, self.drain = settings, drain
        self._by_address: dict[str, int] = {}

    def __call__(self) -> RequestHandler:
        return Guarded(self, self._settings, loop=self._loop, **self._kwargs)

    def admits(self, address: str) -> bool:
        """Count a connection, unless its address has enough. Proxies carry many clients, whose
        requests are counted instead."""
        many = self._by_address.get(address, 0)
        settings = self._settings
        if (
            many >= settings.connections_per_address
            and address
            and not settings.trust.holds(address)
        ):
            return False
        self._by_address[address] = many + 1
        return True

    def left(self, address: str) -> None:
        """A connection that was admitted has ended."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class _Runner(web.AppRunner):
    def __init__(self, app: web.Application, settings: HttpSettings) -> None:
        super().__init__(app, shutdown_timeout=0.2)
        self._settings = settings

    async def _make_server(self) -> web.Server:
        settings = self._settings
        made = await super()._make_server()  # starts the application
        return _Server(
            made.request_handler,
            settings,
            self.app[DRAIN],
            request_factory=made.request_factory,
            loop=asyncio.get_running_loop(),
            access_log_class=Lines,
            keepalive_timeout=settings.keepalive_s,
            lingering_time=settings.linger_s,
            max_line_size=settings.line_most,
            max_field_size=settings.line_most,
            max_headers=settings.headers_most,
            auto_decompress=False,
        )


class Listener:
    """An application that listens. `stop` may be called while others still talk to it."""

    def __init__(self, app: web.Application) -> None:
        self._app, self._settings = app, app[SETTINGS]
        self._runner = _Runner(app, self._settings)
        self._stopped = False
        self._port: int | None = None

    async def start(
        self, *, host: str | None, port: int, path: str | None, sock: socket.socket | None
    ) -> None:
        """Listen on one of: a socket, a path (Unix), a host and a port."""
        await self._runner.setup()
        site: web.BaseSite
        if sock is not None:
            site = web.SockSite(self._runner, sock, backlog=1_024)
        elif path is not None:
            site = web.UnixSite(self._runner, path, backlog=1_024)
        else:
            site = web.TCPSite(self._runner, host, port, backlog=1_024)
        await site.start()
        if path is None:
            self._port = int(self._runner.addresses[0][1])

    @property
    def port(self) -> int:
        """The port that it got, if port 0 was asked for."""
        assert self._port is not None, "it does not listen on TCP"
        return self._port

    async def stop(self) -> None:
        """/readyz says 503; then nothing new is accepted; what runs has `grace_s` to end."""
        if self._stopped:
            return
        self._stopped = True
        drain = self._app[DRAIN]
        drain.stopping.set()
        await asyncio.sleep(self._settings.drain_s)
        for site in self._runner.sites:
            await site.stop()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
        try:
            async with asyncio.timeout(self._settings.grace_s):
                await drain.wait()
        except TimeoutError:
            log.warning("requests_cut", running=drain.running)
        await self._runner.cleanup()


@asynccontextmanager
async def serve(
    app: web.Application,
    *,
    host: str | None = "127.0.0.1",
    port: int = 0,
    path: str | None = None,
    sock: socket.socket | None = None,
) -> AsyncIterator[Listener]:
    """Listen as long as the block runs, as the application's settings say; then stop gracefully."""
    listener = Listener(app)
    try:
        await listener.start(host=host, port=port, path=path, sock=sock)
        yield listener
    finally:
        await listener.stop()
