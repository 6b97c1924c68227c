"""POSTs through a proxy, which aiohttp knows how to speak to."""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, StreamWriter
from aiohttp.payload import Payload
from aiohttp.tracing import Trace

from millpond.providers.adapter import Reply
from millpond.providers.outcome import NoAnswer, NotSent
from millpond.providers.posting import (
    EARLY,
    ENDED_LEASE,
    HEADERS,
    REST_MOST_S,
    Posted,
    Watched,
    connect_most_s,
    made_socket,
    readable,
    too_large,
)


class Proxied:
    """Connections through a proxy. (Without one they work as well: so the tests of both ways can be
    the same.)"""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        clock: Callable[[], float],
        most_bytes: int,
        proxy: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._proxy = proxy
        self._key = key
        self._timeout_s = timeout_s
        self._clock = clock
        self._most_bytes = most_bytes
        self._session: aiohttp.ClientSession | None = None
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                self._used,
                limit=0,
                ttl_dns_cache=30,
                keepalive_timeout=REST_MOST_S,
                socket_factory=partial(made_socket, most_ms=round(self._timeout_s * 1_000)),
            ),
            timeout=aiohttp.ClientTimeout(
                total=self._timeout_s, connect=connect_most_s(self._timeout_s)
            ),
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        attempt: str,
        may_begin: Callable[[], bool],
        key: str | None,
    ) -> Posted | NoAnswer | NotSent:
        headers = {
            "Authorization": f"Bearer {self._key if key is None else key}",
            "X-Millpond-Attempt": attempt,
        }
        request = _Request(body, may_begin=may_begin, clock=self._clock, used=self._used)
        assert self._session is not None
        try:
            async with self._session.post(
                self._base_url + path,
                data=request,
                proxy=self._proxy,
                headers=headers,
                allow_redirects=False,
            ) as response:
                headers_ms = self._clock()
                read = await _read(response.content, self._most_bytes)
                if request.began_ms is None:
                    return NotSent(EARLY, unreachable=True)
                if read is None:
                    return NoAnswer(too_large(self._most_bytes))
                request.answered = True
                reply = Reply(response.status, response.headers, readable(read, response.headers))
                return Posted(reply, headers_ms, request.began_ms)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if request.began_ms is None:
                return request.held or NotSent(f"no connection: {_why(error)}", unreachable=True)
            if isinstance(error, TimeoutError):
                return NoAnswer(f"no answer within {self._timeout_s:g} s")
            return NoAnswer(f"the connection broke: {type(error).__name__}")
        finally:
            request.leave()


class _Request(Payload):
    """The body of one request. aiohttp sends the headers together with its first bytes, so nothing
    of the request goes before `write_with_length`, and what that finds out is true as it goes."""

    _value: bytes

    def __init__(
        self,
        body: bytes,
        *,
        may_begin: Callable[[], bool],
        clock: Callable[[], float],
        used: WeakSet[ResponseHandler],
    ) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._may_begin = may_begin
        self._clock = clock
        self._used = used
        self._transport: asyncio.Transport | None = None
        self._written = False
        self.began_ms: float | None = None
        self.answered = False
        #: Why nothing was written, if it was we who kept it back.
        self.held: NotSent | None = None

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write all of it, or nothing.

        From the question to the first byte nothing is awaited that could let others run.
        """
        assert isinstance(writer, StreamWriter)
        connection = writer.protocol
        assert isinstance(connection, ResponseHandler)
        used_before = connection in self._used
        if not _is_fit(connection, used_before=used_before):
            self._hold(EARLY, unreachable=not used_before)
        assert connection.transport is not None
        # No byte is kept back for later (as uvloop once did), and `drain` is over when the system
        # has the last one. (With 0, TLS would take an empty buffer for a full one.)
        connection.transport.set_write_buffer_limits(high=1)
        if not self._may_begin():
            self._hold(ENDED_LEASE, unreachable=False)
        self._transport = connection.transport
        self._used.add(connection)
        self.began_ms = self._clock()
        await writer.write(self._value)
        await writer.drain()
        self._written = True

    def leave(self) -> None:
        """Drop what has not gone out yet, unless the request went and its reply came in whole."""
        if self._transport is not None and not (self._written and self.answered):
            self._transport.abort()

    def _hold(self, reason: str, *, unreachable: bool) -> NoReturn:
        """Nothing is written; aiohttp closes the connection."""
        self.held = NotSent(reason, unreachable=unreachable)
        raise _Held

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)


class _Connector(aiohttp.TCPConnector):
    """Gives out no connection that has ended or that has something to say before it is asked."""

    def __init__(self, used: WeakSet[ResponseHandler], **more: Any) -> None:
        super().__init__(**more)
        self._used = used

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,
    ) -> Connection:
        while True:
            made = await super().connect(req, traces, timeout)
            protocol = made.protocol
            assert protocol is not None
            used_before = protocol in self._used
            if _is_fit(protocol, used_before=used_before):
                return made
            made.close()
            if not used_before:
                raise _EndedAtOnce(EARLY)


class _Held(Exception):
    """The request was kept back."""


class _EndedAtOnce(aiohttp.ClientConnectionError):
    """A new connection was of no use."""


def _is_fit(connection: ResponseHandler, *, used_before: bool) -> bool:
    """Whether a connection can take a request: as far as this side can know.

    aiohttp sees an end only when the loop comes to read it, so the system is asked.
    """
    transport = connection.transport
    if transport is None or transport.is_closing() or connection.should_close:
        return False
    tickets = not used_before and transport.get_extra_info("sslcontext") is not None
    return Watched(transport.get_extra_info("socket").fileno()).is_quiet(tickets=tickets)


def _why(error: Exception) -> str:
    """What kept a connection from being made, without what may hold a password or key."""
    told = (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.InvalidURL,
        ssl.SSLError,
        _EndedAtOnce,
    )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy replied {error.status}"
    return str(error) if isinstance(error, told) else type(error).__name__


async def _read(content: aiohttp.StreamReader, most_bytes: int) -> bytes | None:
    """All of a reply, as it comes; None: it is too large. (In one piece: bytes that come one by
    one would each be an object.)"""
    read = bytearray()
    async for part in content.iter_any():
        read += part
        if len(read) > most_bytes:
            return None
    return bytes(read)
