"""Connections to one server: those that rest, and how others are made."""

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from millpond.providers.connection import Connection, Terms
from millpond.providers.posting import EARLY, REST_MOST_S, connect_most_s, made_socket

#: So long a server's addresses are believed. (Else hundreds of connections that are made at once
#: would each ask for them.)
_FOUND_FOR_S = 30.0
#: Another address is tried beside one that has not answered for so long (RFC 8305).
_NEXT_ADDRESS_S = 0.25
_CLOSE_MOST_S = 1.0
_PORTS = {"http": 80, "https": 443}


class NoConnection(Exception):
    """None could be made. The message holds no password or key."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where an address leads. `named` is what the server is called in requests."""

    host: str
    port: int
    named: str
    tls: bool

    @classmethod
    def at(cls, url: str) -> Self:
        """Raises ValueError for what is no address of a server."""
        parts = urlsplit(url)
        usual = _PORTS.get(parts.scheme)
        if usual is None or not parts.hostname or parts.username is not None:
            raise ValueError("no address of a server")
        host = parts.hostname.rstrip(".")
        host = host if host.isascii() else host.encode("idna").decode()
        port = parts.port or usual
        named = f"[{host}]" if ":" in host else host
        return cls(
            host, port, named if port == usual else f"{named}:{port}", tls=parts.scheme == "https"
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Pool:
    """The one that has rested for the shortest time is used first: the others may end."""

    def __init__(self, server: Server, terms: Terms) -> None:
        self._server = server
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._tls = _tls() if server.tls else None
        self._resting: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._found: deque[Any] = deque()
        self._found_until_s = 0.0
        self._finding = asyncio.Lock()
        self._closed = False

    def rested(self) -> Connection | None:
        """One that can be used in this very step of the loop."""
        while self._resting:
            connection = self._resting.pop()
            rests_s = self._loop.time() - connection.rests_since_s
            if rests_s < REST_MOST_S and connection.is_fit():
                return connection
            connection.abort()
        return None

    async def made(self) -> Connection:
        """A new one, that can be used in the step in which this returns.

        Raises NoConnection.
        """
        try:
            async with asyncio.timeout(connect_most_s(self._terms.timeout_s)):
                connection = await self._connect()
        except TimeoutError:
            raise NoConnection(f"Connection timeout to host {self._server}") from None
        except (OSError, RuntimeError, UnicodeError) as error:  # (RuntimeError: uvloop)
            self._found_until_s = 0.0
            raise NoConnection(f"Cannot connect to host {self._server} [{_why(error)}]") from None
        if self._closed or not connection.is_fit():
            connection.abort()
            raise NoConnection(EARLY)
        return connection

    def rest(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        connection.rests_since_s = self._loop.time()
        self._resting.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(REST_MOST_S, self._end_rested)

    async def close(self) -> None:
        """End all, also those in use."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        gone = [connection.gone for connection in self._open]
        for connection in self._open:
            connection.end()
        if gone:
            await asyncio.wait(gone, timeout=_CLOSE_MOST_S)

    async def _connect(self) -> Connection:
        taken = await start_connection(
            await self._addresses(),
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            interleave=1,
            socket_factory=partial(made_socket, most_ms=round(self._terms.timeout_s * 1_000)),
        )
        _, connection = await self._loop.create_connection(
            lambda: Connection(self._loop, self._terms),
            sock=taken,
            ssl=self._tls,
            server_hostname=self._server.host if self._tls else None,
        )
        self._open.add(connection)
        connection.gone.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    async def _addresses(self) -> list[Any]:
        """The server's, each time beginning with another of them."""
        async with self._finding:
            if self._loop.time() >= self._found_until_s:
                self._found = deque(
                    await self._loop.getaddrinfo(
                        self._server.host, self._server.port, type=socket.SOCK_STREAM
                    )
                )
                self._found_until_s = self._loop.time() + _FOUND_FOR_S
        found = list(self._found)
        self._found.rotate(-1)
        return found

    def _end_rested(self) -> None:
        """End those that have rested for too long, and come again for the others."""
        self._timer = None
        now_s = self._loop.time()
        while self._resting:
            left_s = self._resting[0].rests_since_s + REST_MOST_S - now_s
            if left_s > 0:
                self._timer = self._loop.call_later(left_s, self._end_rested)
                return
            self._resting.popleft().abort()


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else type(error).__name__


def _tls() -> ssl.SSLContext:
    """(SSL_CERT_FILE and SSL_CERT_DIR are obeyed by OpenSSL.)"""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
