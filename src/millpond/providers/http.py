"""One POST over HTTP: a reply, or what kept it from coming."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from millpond.failpoints import reached
from millpond.providers.adapter import Reply
from millpond.providers.outcome import NoAnswer, NotSent

BODY_MOST_BYTES = 32 * 1024 * 1024
#: Name, connection and TLS together. It must end before all of the time is over: a call that
#: fails there was surely not sent.
_CONNECT_MOST_S = 10.0
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

    async def __aenter__(self) -> Self:
        sending = aiohttp.TraceConfig()
        sending.on_request_headers_sent.append(self._begins)  # told just before they are written
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(
                total=self._timeout_s, connect=min(_CONNECT_MOST_S, self._timeout_s / 2)
            ),
            headers={
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "millpond",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[sending],
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

    async def post(self, path: str, body: bytes, *, attempt: str) -> Posted | NoAnswer | NotSent:
        """Send one request and read its reply, in the time allowed."""
        assert self._session is not None
        began_ms: list[float] = []
        reached("http.post.before")
        try:
            async with self._session.post(
                self._base_url + path,
                data=body,
                proxy=self._proxy,
                headers={"X-Millpond-Attempt": attempt},
                allow_redirects=False,
                trace_request_ctx=began_ms,
            ) as response:
                headers_ms = self._clock()
                reached("http.headers.read")
                read = await _read(response.content)
                reached("http.body.read")
                if read is None:
                    return NoAnswer(f"the reply is larger than {BODY_MOST_BYTES:,} bytes")
                reply = Reply(response.status, response.headers, read)
                return Posted(reply, headers_ms, began_ms[-1])
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
            aiohttp.InvalidURL,
            ssl.SSLError,
        ) as error:
            return NotSent(f"no connection: {error}", unreachable=True)
        except TimeoutError:
            return NoAnswer(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NoAnswer(f"the connection broke: {type(error).__name__}")

    async def _begins(
        self,
        _: aiohttp.ClientSession,
        context: SimpleNamespace,
        __: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        context.trace_request_ctx.append(self._clock())


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
    parts, size = [], 0
    async for part in content.iter_any():
        size += len(part)
        if size > BODY_MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
