"""Items from any iterable, a list at a time, without waiting long for a list to fill."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

#: A list is sent with what there is by then.
_LINGER_S = 0.05


class Source(Protocol[T]):
    """Where items come from. `take` gives one at least, or none at the end."""

    async def take(self, most: int) -> list[T]: ...

    async def close(self) -> None: ...


def source_of(items: Iterable[T] | AsyncIterable[T]) -> Source[T]:
    if isinstance(items, AsyncIterable):
        return _Slow(aiter(items))
    return _Plain(iter(items))


def take(items: Iterator[T], most: int) -> list[T]:
    """The next items; fewer if they come slowly."""
    found: list[T] = []
    until = time.monotonic() + _LINGER_S
    for item in items:
        found.append(item)
        if len(found) == most or time.monotonic() > until:
            break
    return found


class _Plain(Generic[T]):
    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    async def take(self, most: int) -> list[T]:
        return take(self._items, most)

    async def close(self) -> None:
        pass


class _Slow(Generic[T]):
    """Of an async iterable. Its next item may be awaited across several calls."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self._next: asyncio.Task[T] | None = None

    async def take(self, most: int) -> list[T]:
        found: list[T] = []
        until = asyncio.get_running_loop().time() + _LINGER_S
        while len(found) < most:
            if self._next is None:
                self._next = asyncio.create_task(_coroutine(self._items.__anext__))
            left_s = max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait({self._next}, timeout=left_s if found else None)
            if not self._next.done():
                break
            item, self._next = self._next, None
            try:
                found.append(item.result())
            except StopAsyncIteration:
                self._next = item  # it stays at its end
                break
            except Exception:
                if not found:
                    raise
                self._next = item  # raised at the next call, after what came before it
                break
        return found

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        close = getattr(self._items, "aclose", None)
        if close is not None:
            with suppress(Exception):
                await close()


async def _coroutine(following: Callable[[], Any]) -> Any:
    """A task is made of a coroutine, and not of every awaitable."""
    return await following()
