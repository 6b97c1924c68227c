"""One connection to a provider: a request goes, its reply comes, and perhaps another follows.

    resting ── ask ──▶ asked ── its reply, whole ──▶ resting
                         │
                         └── cut, too late, too large, broken, no longer fit ──▶ gone

The replies are taken apart by aiohttp's parser (llhttp, in C), which also holds the limits on
headers. Its bodies end up in aiohttp's StreamReader, from which they are taken as they come.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage

from millpond.failpoints import reached
from millpond.providers.adapter import Reply
from millpond.providers.outcome import NoAnswer
from millpond.providers.posting import Watched, readable, too_large

_LINE_MOST_BYTES = 8_190
_HEADERS_MOST = 128
#: A StreamReader that holds more asks to pause. It never holds more than was read in one go.
_HELD_MOST_BYTES = 2**30
_SWITCHING = 101


@dataclass(frozen=True, slots=True)
class Terms:
    """What all calls of a worker have in common. `clock` is the caller's, in ms."""

    timeout_s: float
    most_bytes: int
    clock: Callable[[], float]


class Exchange:
    """One request, and what has come of it so far; once it is `done`, either `reply` or `failed`
    is there. `keeps`: its connection can take another."""

    __slots__ = ("done", "failed", "headers_ms", "keeps", "message", "payload", "read", "reply")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.message: RawResponseMessage | None = None
        self.payload: StreamReader | None = None
        self.headers_ms = 0.0
        self.read = bytearray()
        self.reply: Reply | None = None
        self.failed: NoAnswer | None = None
        self.keeps = False


class Connection(asyncio.Protocol):
    """`gone` is done when the system has the socket back."""

    __slots__ = (
        "_exchange",
        "_loop",
        "_parser",
        "_terms",
        "_timer",
        "_tls",
        "_transport",
        "_used",
        "_watched",
        "gone",
        "rests_since_s",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, terms: Terms) -> None:
        self._loop = loop
        self._terms = terms
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tls = False
        self._used = False
        self.gone: asyncio.Future[None] = loop.create_future()
        self.rests_since_s = 0.0

    # What its user does.

    def is_fit(self) -> bool:
        """Whether it can take a request, as far as this side can know."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return self._watched.is_quiet(tickets=self._tls and not self._used)

    def ask(self, request: bytes, *, until_s: float) -> Exchange:
        """Write a request, here and now. Its reply may come until that moment of the loop's."""
        assert self._transport is not None
        assert self._exchange is None
        exchange = Exchange(self._loop.create_future())
        self._used = True
        self._exchange = exchange
        self._parser = HttpResponseParser(
            cast(BaseProtocol, _UNPAUSED),
            self._loop,
            _HELD_MOST_BYTES,
            max_line_size=_LINE_MOST_BYTES,
            max_field_size=_LINE_MOST_BYTES,
            max_headers=_HEADERS_MOST,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._timer = self._loop.call_at(until_s, self._too_late)
        try:
            self._transport.write(request)
        except (OSError, RuntimeError):  # (RuntimeError: uvloop)
            self._broke(exchange, "ClientOSError")
        return exchange

    def abort(self) -> None:
        """End it, and drop what has not gone out yet."""
        self._exchange = None
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """End it; if somebody waits for a reply, there will be none."""
        if self._exchange is not None:
            self._broke(self._exchange, "ClientConnectionError")
        self.abort()

    # What the loop tells it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._watched = Watched(transport.get_extra_info("socket").fileno())
        # No byte is kept back for later (as uvloop once did). (With 0, TLS would take an empty
        # buffer for a full one.)
        self._transport.set_write_buffer_limits(high=1)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception:  # whatever it is that makes it no reply
            self._broke(exchange, "ClientResponseError")
            return
        more = False
        for message, payload in messages:
            if exchange.message is not None:
                more = True
            elif not 100 <= message.code < 200 or message.code == _SWITCHING:
                exchange.message, exchange.payload = message, payload
                exchange.headers_ms = self._terms.clock()
                reached("http.headers.read")
            elif not payload.is_eof():  # what only goes before a reply has no body
                self._broke(exchange, "ClientResponseError")
                return
        if exchange.payload is not None:
            self._read(exchange, exchange.payload, more=more)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.gone.set_result(None)
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.payload is not None:
            try:
                self._parser.feed_eof()
            except Exception:
                pass  # there was more to come
            else:
                # It goes on until the connection ends: however it ends. Whether that was all can
                # be seen only in what it says.
                self._read(exchange, exchange.payload, more=False)
        if self._exchange is not None:
            self._broke(exchange, "ServerDisconnectedError" if error is None else "ClientOSError")

    # What comes of that.

    def _read(self, exchange: Exchange, payload: StreamReader, *, more: bool) -> None:
        """Take what has come of the body. `more`: there came another reply."""
        message = exchange.message
        assert message is not None
        exchange.read += payload.read_nowait(-1)
        if len(exchange.read) > self._terms.most_bytes:
            self._fail(exchange, too_large(self._terms.most_bytes))
            return
        if not payload.is_eof():
            return
        self._exchange = None
        body = bytes(exchange.read)
        exchange.reply = Reply(message.code, message.headers, readable(body, message.headers))
        exchange.keeps = (
            not more
            and not message.should_close
            and message.code != _SWITCHING
            and self._is_between()
        )
        self._end(exchange)

    def _is_between(self) -> bool:
        """All of the request has gone, and of what is no part of its reply nothing has come."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        try:
            return self._parser.feed_eof() is None  # else it holds the beginning of another
        except Exception:
            return False

    def _too_late(self) -> None:
        if self._exchange is not None:
            self._fail(self._exchange, f"no answer within {self._terms.timeout_s:g} s")

    def _broke(self, exchange: Exchange, before: str) -> None:
        """Told by aiohttp's names for it; `before`: the name if there are no headers yet."""
        kind = before if exchange.message is None else "ClientPayloadError"
        self._fail(exchange, f"the connection broke: {kind}")

    def _fail(self, exchange: Exchange, reason: str) -> None:
        exchange.failed = NoAnswer(reason)
        self.abort()
        self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        self._stop_timer()
        if not exchange.done.done():
            exchange.done.set_result(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Unpaused:
    """What a StreamReader takes for its connection. Nobody pauses: all is taken as it comes."""

    _reading_paused = False

    def pause_reading(self) -> None:
        raise AssertionError("more is held than was read")

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


_UNPAUSED = _Unpaused()
