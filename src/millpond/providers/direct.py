"""POSTs over connections of our own, with no proxy in between (docs/decisions/0020)."""

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from millpond.failpoints import reached
from millpond.providers.connection import Terms
from millpond.providers.outcome import NoAnswer, NotSent
from millpond.providers.pool import NoConnection, Pool, Server
from millpond.providers.posting import ENDED_LEASE, HEADERS, Posted

#: Of these a header's value would become something else.
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: What stands in a request's first line as it is.
_AS_IT_IS = "/%:@!$&'()*+,;=?~-._"


class Direct:
    """The way of a call that needs no proxy."""

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout_s: float,
        clock: Callable[[], float],
        most_bytes: int,
    ) -> None:
        self._base_url = base_url
        self._key = key
        self._terms = Terms(timeout_s, most_bytes, clock)
        self._starts: dict[str, str] = {}
        self._pool: Pool | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        attempt: str,
        may_begin: Callable[[], bool],
        key: str | None,
    ) -> Posted | NoAnswer | NotSent:
        until_s = self._loop.time() + self._terms.timeout_s
        try:
            head = self._head(path, self._key if key is None else key, attempt, len(body))
            pool = self._pool or self._new_pool()
            connection = pool.rested() or await pool.made()
        except NoConnection as error:
            return NotSent(f"no connection: {error}", unreachable=True)
        except ValueError as error:
            return NotSent(f"no connection: {type(error).__name__}", unreachable=True)
        # From here to the first byte nothing is awaited: what was found out is true as it goes.
        keeps = False
        try:
            if not may_begin():
                return NotSent(ENDED_LEASE, unreachable=False)
            began_ms = self._terms.clock()
            exchange = connection.ask(head + body, until_s=until_s)
            await exchange.done
            reached("http.body.read")
            keeps = exchange.keeps
            if exchange.reply is not None:
                return Posted(exchange.reply, exchange.headers_ms, began_ms)
            assert exchange.failed is not None
            return exchange.failed
        finally:
            if keeps:
                pool.rest(connection)
            else:
                connection.abort()

    def _new_pool(self) -> Pool:
        """(Not before the first call: an address that is none is something that calls tell.)"""
        self._pool = Pool(Server.at(self._base_url), self._terms)
        return self._pool

    def _head(self, path: str, key: str, attempt: str, size: int) -> bytes:
        """Raises ValueError if it cannot be written."""
        if _NO_VALUE.search(key) or _NO_VALUE.search(attempt):
            raise ValueError("a header would hold what no header can")
        start = self._starts.get(path)
        if start is None:
            self._starts[path] = start = _start(self._base_url, path)
        return (
            f"{start}Authorization: Bearer {key}\r\nX-Millpond-Attempt: {attempt}\r\n"
            f"Content-Length: {size}\r\n\r\n"
        ).encode()


def _start(base_url: str, path: str) -> str:
    """What all requests to a path begin with."""
    asked = urlsplit(base_url + path)
    target = (asked.path or "/") + (f"?{asked.query}" if asked.query else "")
    headers = {"Host": Server.at(base_url).named, **HEADERS}
    lines = [f"POST {quote(target, safe=_AS_IT_IS)} HTTP/1.1"]
    return "".join(f"{line}\r\n" for line in [*lines, *map(": ".join, headers.items())])
