"""One request and its reply; asked again where that is safe.

           ┌── connection error, 429, 502, 503, 504 ◀──┐
ask ──▶ try it ── a reply ──▶ 2xx: told              pause: Retry-After, or a jittered backoff
           └── anything else: raised                   └── only if it may be said twice
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from millpond import __version__
from millpond.client.access import Access
from millpond.client.errors import (
    ApiError,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    TooManyRequests,
    api_error,
)
from millpond.client.waits import Patience, retry_after_s

_AGAIN = frozenset({429, 502, 503, 504})
_CONNECT_S = 10.0
_CONNECTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `key`: the Idempotency-Key; `safe`: said twice, it does nothing twice.
    `hold_s`: the server may take so long before it says anything."""

    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: bytes | None = None
    key: str | None = None
    safe: bool = False
    hold_s: float = 0.0

    @property
    def repeatable(self) -> bool:
        return self.safe or self.key is not None or self.method in ("GET", "DELETE")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `tries`: how often it was asked."""

    status: int
    told: Any
    tries: int


class Transport:
    """A session with the server, opened when it is first needed."""

    def __init__(self, access: Access, *, reply_timeout: float) -> None:
        self._access = access
        self._reply_s = reply_timeout
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def ask(self, request: Request, patience: Patience) -> Reply:
        """Raises ApiError or ConnectionFailed."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            tries += 1
            try:
                return await self._once(request, patience.deadline, tries)
            except ApiError as error:
                error.repeated = tries > 1
                pause = None
                if error.status in _AGAIN and request.repeatable:
                    limited = isinstance(error, TooManyRequests)
                    pause = patience.pause(loop.time(), error.retry_after_s, limited=limited)
                if pause is None:
                    raise
            except ConnectionFailed as error:
                error.idempotency_key = request.key
                never_sent = isinstance(error.__cause__, aiohttp.ClientConnectorError)
                hopeless = isinstance(error.__cause__, aiohttp.ClientSSLError)
                pause = None
                if (request.repeatable or never_sent) and not hopeless:
                    pause = patience.pause(loop.time(), None)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], *, silent_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply that goes on; once. `silent_s`: it is broken if nothing comes for so long."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_S, sock_read=silent_s, connect=None
        )
        try:
            async with self._opened().request(
                "GET",
                self._access.url + path,
                headers={**headers, "Accept": "text/event-stream"},
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                if reply.status not in (200, 204):
                    raise self._refusal(reply, await reply.read())
                yield reply
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _once(self, request: Request, deadline: float, tries: int) -> Reply:
        headers = {} if request.key is None else {"Idempotency-Key": request.key}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=None,
            sock_connect=_CONNECT_S,
            sock_read=request.hold_s + self._reply_s,
        )
        try:
            async with (
                asyncio.timeout_at(deadline if deadline < 1e15 else None),
                self._opened().request(
                    request.method,
                    self._access.url + request.path,
                    params=request.query,
                    data=request.body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                ) as reply,
            ):
                body = await reply.read()
                if not 200 <= reply.status < 300:
                    raise self._refusal(reply, body)
                return Reply(reply.status, self._read(reply, body), tries)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientClosed
        if self._session is None:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                headers={
                    "Authorization": f"Bearer {self._access.key}",
                    "User-Agent": f"millpond/{__version__}",
                },
            )
        if self._loop is not loop:
            raise ClientError("an AsyncClient serves one event loop: make one in each")
        return self._session

    def _read(self, reply: aiohttp.ClientResponse, body: bytes) -> Any:
        if not body:
            return None
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise ClientError(
                f"{self._access.url} answered {reply.content_type}, not JSON: is this millpond's "
                "address?"
            ) from None

    def _refusal(self, reply: aiohttp.ClientResponse, body: bytes) -> ApiError:
        problem: Any = None
        with suppress(orjson.JSONDecodeError):
            problem = orjson.loads(self._access.hidden(body.decode(errors="replace")))
        if not isinstance(problem, dict):
            problem = {}
        if 300 <= reply.status < 400:
            where = reply.headers.get("Location", "elsewhere")
            problem["detail"] = self._access.hidden(f"it redirects to {where}: set that as url")
        return api_error(
            reply.status,
            problem,
            reason=self._access.hidden(reply.reason or ""),
            request_id=reply.headers.get("X-Request-ID"),
            retry_after_s=retry_after_s(reply.headers),
        )

    def _failed(self, error: Exception) -> ConnectionFailed:
        url = self._access.url
        if isinstance(error, aiohttp.ClientConnectorError):
            said = f"{url} cannot be reached: {getattr(error, 'strerror', None) or error}"
        elif isinstance(error, TimeoutError):
            said = f"{url} did not answer in time"
        else:
            said = f"the connection to {url} broke: {error or type(error).__name__}"
        return ConnectionFailed(self._access.hidden(said))
