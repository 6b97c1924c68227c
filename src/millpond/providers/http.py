"""One POST over HTTP: a reply, or what kept it from coming."""

import asyncio
import select
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, StreamWriter
from aiohttp.payload import Payload
from aiohttp.tracing import Trace

from millpond.failpoints import reached
from millpond.providers.adapter import Reply
from millpond.providers.outcome import NoAnswer, NotSent

BODY_MOST_BYTES = 32 * 1024 * 1024
#: Name, connection and TLS together.
_CONNECT_MOST_S = 10.0
#: A connection that rests longer is not used again. Servers close theirs after 5 s (uvicorn, Node,
#: Apache, llama.cpp) or more: the second below that is for the way there and back.
_REST_MOST_S = 4.0
#: Codings in which a body is no text. (Some servers name a charset there, which does no harm.)
_PACKED = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_EARLY = "the server ended the connection, or spoke, before it was asked"
#: On, for 0 s: what has not gone out when a socket is closed is dropped, and the peer is told so.
_NO_LINGERING = struct.pack("ii", 1, 0)
#: The peer has closed its side, or all. (Not every system tells the first of them apart.)
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Posted:
    """A reply, and when (on the caller's clock) its headers had come and the first byte of the
    request was about to go."""

    reply: Reply
    headers_ms: float
    began_ms: float


class Http:
    """Connections to one provider, shared by all calls of a worker.

    They are never retried, redirected or decompressed behind our back: each of those would be a
    request or memory that the books do not know of. HTTPS_PROXY and SSL_CERT_FILE are obeyed.
    """

    def __init__(
        self, base_url: str, key: str, *, timeout_ms: int, clock: Callable[[], float]
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._proxy = proxy_for(base_url)
        self._key = key
        self._timeout_s = timeout_ms / 1_000
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                self._used,
                limit=0,
                ttl_dns_cache=30,
                keepalive_timeout=_REST_MOST_S,
                socket_factory=partial(made_socket, most_ms=round(self._timeout_s * 1_000)),
            ),
            timeout=aiohttp.ClientTimeout(
                total=self._timeout_s, connect=min(_CONNECT_MOST_S, self._timeout_s / 2)
            ),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "millpond",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        attempt: str,
        may_begin: Callable[[], bool] = lambda: True,
        key: str | None = None,
    ) -> Posted | NoAnswer | NotSent:
        """Send one request and read its reply, in the time allowed.

        `may_begin` is asked once, when nothing is left to do but to write. After a yes the first
        byte goes in the same step of the loop, and whatever comes then is no `NotSent`; without
        one nothing goes. `key` is for this call alone.
        """
        reached("http.post.before")
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
                reached("http.headers.read")
                read = await _read(response.content)
                reached("http.body.read")
                if request.began_ms is None:
                    return NotSent(_EARLY, unreachable=True)
                if read is None:
                    return NoAnswer(f"the reply is larger than {BODY_MOST_BYTES:,} bytes")
                request.answered = True
                reply = Reply(response.status, response.headers, _readable(read, response.headers))
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
            self._hold(_EARLY, unreachable=not used_before)
        assert connection.transport is not None
        # No byte is kept back for later (as uvloop once did), and `drain` is over when the system
        # has the last one. (With 0, TLS would take an empty buffer for a full one.)
        connection.transport.set_write_buffer_limits(high=1)
        if not self._may_begin():
            self._hold("the lease has ended", unreachable=False)
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
                raise _EndedAtOnce(_EARLY)


class _Held(Exception):
    """The request was kept back."""


class _EndedAtOnce(aiohttp.ClientConnectionError):
    """A new connection was of no use."""


def _is_fit(connection: ResponseHandler, *, used_before: bool) -> bool:
    """Whether a connection can take a request: as far as this side can know.

    aiohttp sees an end only when the loop comes to read it, so the system is asked. Bytes are as
    bad: an answer that nobody asked for, or the goodbye of TLS. (On a new connection with TLS they
    are session tickets.)
    """
    transport = connection.transport
    if transport is None or transport.is_closing() or connection.should_close:
        return False
    pending = select.poll()
    pending.register(transport.get_extra_info("socket").fileno(), select.POLLIN | _GONE)
    events = sum(event for _, event in pending.poll(0))
    tickets = not used_before and transport.get_extra_info("sslcontext") is not None
    return not events & (_GONE if tickets else _GONE | select.POLLIN)


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


def made_socket(address: tuple[Any, ...], *, most_ms: int) -> socket.socket:
    """A socket that leaves nothing behind: what has not gone out when it is closed, by us or
    because the process died, never goes; what nobody takes for so long is given up."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, most_ms))
    return made


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address; none for this machine's own.

    (aiohttp's own reading of the environment takes passwords from a netrc file too, which then
    stand against our key.)
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _OWN_HOSTS or proxy_bypass(host):
        return None
    proxy = getproxies().get(parts.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    """All of a reply, as it comes; None: it is too large. (In one piece: bytes that come one by
    one would each be an object.)"""
    read = bytearray()
    async for part in content.iter_any():
        read += part
        if len(read) > BODY_MOST_BYTES:
            return None
    return bytes(read)


def _readable(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body, or words in its place if it is packed: we asked for it as it is, and unpacked it
    could be of any size."""
    packed = headers.get("Content-Encoding", "").strip().lower()
    return b"a reply packed as %s" % packed.encode() if packed in _PACKED else body
