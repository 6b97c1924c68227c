"""One POST over HTTP: a reply, or what kept it from coming."""

from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from millpond.failpoints import reached
from millpond.providers.direct import Direct
from millpond.providers.outcome import NoAnswer, NotSent
from millpond.providers.posting import Posted, made_socket
from millpond.providers.proxied import Proxied

__all__ = ["BODY_MOST_BYTES", "Http", "Posted", "made_socket", "proxy_for"]

BODY_MOST_BYTES = 32 * 1024 * 1024
_OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class Http:
    """Connections to one provider, shared by all calls of a worker.

    They are never retried, redirected or decompressed behind our back: each of those would be a
    request or memory that the books do not know of. HTTPS_PROXY and SSL_CERT_FILE are obeyed.
    """

    def __init__(
        self, base_url: str, key: str, *, timeout_ms: int, clock: Callable[[], float]
    ) -> None:
        url, timeout_s = base_url.rstrip("/"), timeout_ms / 1_000
        self._way: Direct | Proxied
        if proxy := proxy_for(base_url):
            self._way = Proxied(
                url, key, timeout_s=timeout_s, clock=clock, most_bytes=BODY_MOST_BYTES, proxy=proxy
            )
        else:
            self._way = Direct(
                url, key, timeout_s=timeout_s, clock=clock, most_bytes=BODY_MOST_BYTES
            )

    async def __aenter__(self) -> Self:
        await self._way.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._way.close()

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
        return await self._way.post(path, body, attempt=attempt, may_begin=may_begin, key=key)


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
