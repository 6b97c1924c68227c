"""What the ways of posting have in common: what they say, and how their connections behave."""

import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond.providers.adapter import Reply

#: Name, connection and TLS together.
_CONNECT_MOST_S = 10.0
#: A connection that rests longer is not used again. Servers close theirs after 5 s (uvicorn, Node,
#: Apache, llama.cpp) or more: the second below that is for the way there and back.
REST_MOST_S = 4.0
EARLY = "the server ended the connection, or spoke, before it was asked"
ENDED_LEASE = "the lease has ended"
#: What is the same in each request.
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "millpond",
}
#: Codings in which a body is no text. (Some servers name a charset there, which does no harm.)
_PACKED = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
#: On, for 0 s: what has not gone out when a socket is closed is dropped, and the peer is told so.
_NO_LINGERING = struct.pack("ii", 1, 0)
#: The peer has closed its side, or all. (Not every system tells the first of them apart.)
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True)
class Posted:
    """A reply, and when (on the caller's clock) its headers had come and the first byte of the
    request was about to go."""

    reply: Reply
    headers_ms: float
    began_ms: float


def connect_most_s(timeout_s: float) -> float:
    return min(_CONNECT_MOST_S, timeout_s / 2)


def made_socket(address: tuple[Any, ...], *, most_ms: int) -> socket.socket:
    """A socket that leaves nothing behind: what has not gone out when it is closed, by us or
    because the process died, never goes; what nobody takes for so long is given up."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, most_ms))
    return made


class Watched:
    """Asks the system whether a socket has an end or bytes pending, which the loop may not have
    read yet. Bytes are as bad: an answer that nobody asked for, or the goodbye of TLS."""

    __slots__ = ("_pending",)

    def __init__(self, number: int) -> None:
        self._pending = select.poll()
        self._pending.register(number, select.POLLIN | _GONE)

    def is_quiet(self, *, tickets: bool) -> bool:
        """`tickets`: bytes do no harm, they are TLS's session tickets."""
        pending = self._pending.poll(0)
        return not pending or (tickets and not pending[0][1] & _GONE)


def readable(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body, or words in its place if it is packed: we asked for it as it is, and unpacked it
    could be of any size."""
    packed = headers.get("Content-Encoding", "").strip().lower()
    return b"a reply packed as %s" % packed.encode() if packed in _PACKED else body


def too_large(most_bytes: int) -> str:
    return f"the reply is larger than {most_bytes:,} bytes"
