"""Who a request is from and how it was addressed, where proxies that are trusted may say so."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Kind = Literal["x-forwarded", "forwarded"]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True, slots=True)
class Trust:
    """From which addresses forwarding headers are believed, and which of the two kinds.

    Only one kind is read: a proxy sets its own and passes on what a client made up as the other.
    `unix` is whether whoever speaks over a Unix socket is believed.
    """

    networks: tuple[Network, ...] = ()
    kind: Kind = "x-forwarded"
    unix: bool = False

    def holds(self, address: str) -> bool:
        """Whether what `address` says of others is believed."""
        if not address:
            return self.unix
        if not self.networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Origin:
    """The client's address (empty: a Unix socket), and the base of links."""

    address: str
    scheme: str
    host: str
    prefix: str
    forwarded: bool = False


ORIGIN = web.RequestKey("origin", Origin)


def base_url(request: web.Request) -> str:
    """Scheme, host and prefix as the client sees them, without a slash at the end."""
    origin = request[ORIGIN]
    return f"{origin.scheme}://{origin.host}{origin.prefix}"


def origin_of(request: web.BaseRequest, trust: Trust, path_prefix: str) -> Origin:
    """What the connection says, or a trusted proxy in its place."""
    peername = request.transport.get_extra_info("peername") if request.transport else None
    peer = plain(str(peername[0])) if isinstance(peername, tuple) else ""
    host = request.headers.get("Host", "localhost")
    direct = Origin(peer, request.scheme, host, path_prefix)
    if not trust.holds(peer):
        return direct
    told = _x_forwarded(request) if trust.kind == "x-forwarded" else _forwarded(request)
    if not any(told):
        return direct
    chain, scheme, told_host, prefix = told
    return Origin(
        address=_client(chain, trust) or peer,
        scheme=scheme if scheme in ("http", "https") else direct.scheme,
        host=told_host or host,
        prefix=prefix.rstrip("/") if prefix and _PREFIX.fullmatch(prefix) else path_prefix,
        forwarded=True,
    )


def plain(address: str) -> str:
    """An IPv4 address that came mapped into IPv6 is an IPv4 address."""
    return address.removeprefix("::ffff:") if "." in address else address


def _client(chain: list[str], trust: Trust) -> str | None:
    """The nearest address that is not one of our own proxies."""
    found = None
    for entry in reversed(chain):
        try:
            found = str(ipaddress.ip_address(plain(_without_port(entry))))
        except ValueError:
            break
        if not trust.holds(found):
            break
    return found


def _without_port(entry: str) -> str:
    entry = entry.strip().strip('"')
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


_Told = tuple[list[str], str | None, str | None, str | None]


def _x_forwarded(request: web.BaseRequest) -> _Told:
    headers = request.headers
    chain = [
        part for line in headers.getall("X-Forwarded-For", ()) for part in line.split(",") if part
    ]
    scheme = headers.get("X-Forwarded-Proto")
    return (
        chain,
        scheme.rpartition(",")[2].strip().lower() if scheme else None,
        None,
        headers.get("X-Forwarded-Prefix"),
    )


def _forwarded(request: web.BaseRequest) -> _Told:
    """aiohttp reads the header (RFC 7239); the last element is what our own proxy added."""
    elements = request.forwarded
    chain = [element["for"] for element in elements if "for" in element]
    last = elements[-1] if elements else {}
    return chain, last.get("proto", "").lower() or None, last.get("host"), None
