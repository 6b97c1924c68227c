"""`map`: any number of items through an endpoint, in bounded memory.

 source ──▶ feed: lists, each under a key of its own ──▶ server
                                                           │
 caller ◀── results, each item once ◀── watch ◀── ended ───┘

As many items as `concurrency` says are between the source and the caller.
"""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar

import orjson

from millpond.client.asks import Asked, body_of
from millpond.client.errors import BadRequest, ClientError, TooLarge
from millpond.client.replies import Job, Result
from millpond.client.source import Source
from millpond.client.transport import Request
from millpond.client.waits import Patience
from millpond.client.watch import Looking, Watch, is_fatal

T = TypeVar("T")

LIST_MOST = 200
_LIST_BYTES_MOST = 4 * 1024 * 1024


class Sending(Looking, Protocol):
    """What a map needs of a client."""

    async def send_list(self, request: Request, patience: Patience) -> list[Job]: ...


class _Item(Generic[T]):
    """An item on its way."""

    __slots__ = ("body", "index", "item", "job")

    def __init__(self, item: T, index: int) -> None:
        self.item, self.index = item, index
        self.body = b""
        self.job: Job | None = None

    def failed(self, error: Exception) -> Result[T]:
        return Result(self.item, self.index, self.job, error=error)


class ItemMap(Generic[T]):
    """One map. `ask` makes a job of an item; `timeout_s`: how long a server may be away."""

    def __init__(
        self,
        client: Sending,
        source: Source[T],
        ask: Callable[[T], Asked],
        *,
        concurrency: int,
        polls: int,
        timeout_s: float,
    ) -> None:
        if concurrency < 1:
            raise ClientError(f"concurrency={concurrency}: it takes one at least")
        self._client, self._source, self._ask = client, source, ask
        self._most, self._timeout_s = concurrency, timeout_s
        self._watch = Watch(client, self._job_ended, polls=polls)
        self._jobs: dict[str, list[_Item[T]]] = {}
        self._results: asyncio.Queue[Result[T] | None] = asyncio.Queue()
        self._under_way = 0
        self._room = asyncio.Event()
        self._fatal: Exception | None = None

    async def results(self, *, ordered: bool) -> AsyncIterator[Result[T]]:
        feeding = asyncio.create_task(self._feed(), name="map feed")
        feeding.add_done_callback(lambda _: self._results.put_nowait(None))
        early: dict[int, Result[T]] = {}
        at, fed = 0, False
        try:
            while self._under_way or not (fed or self._fatal):
                result = await self._results.get()
                if result is None:
                    fed = True
                    continue
                early[result.index] = result
                while early and (not ordered or at in early):
                    index = at if ordered else next(iter(early))
                    self._under_way -= 1
                    self._room.set()
                    at += 1
                    yield early.pop(index)
            if self._fatal is not None:
                raise self._fatal
            feeding.result()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await self._watch.close()
            await self._source.close()

    async def _feed(self) -> None:
        index, at_once = 0, min(LIST_MOST, max(1, self._most // 4))
        while self._fatal is None:
            while (room := self._most - self._under_way) < at_once:
                self._room.clear()
                await self._room.wait()
            if self._fatal is not None:
                return
            taken = await self._source.take(min(LIST_MOST, room))
            if not taken:
                self._fatal = None  # everything was read, and each item has its result
                return
            self._under_way += len(taken)
            items = [_Item(item, index + number) for number, item in enumerate(taken)]
            index += len(items)
            for part in self._lists(items):
                await self._send(part)

    def _lists(self, items: list[_Item[T]]) -> list[list[_Item[T]]]:
        """Parts that are no larger than a server takes; without items nothing can be made of."""
        lists: list[list[_Item[T]]] = [[]]
        size = 0
        for one in items:
            try:
                one.body = orjson.dumps({"class": "bulk", **body_of(self._ask(one.item))})
            except Exception as error:
                self._results.put_nowait(one.failed(error))
                continue
            size += len(one.body) + 1
            if size > _LIST_BYTES_MOST and lists[-1]:
                lists.append([])
                size = len(one.body)
            lists[-1].append(one)
        return [one for one in lists if one]

    async def _send(self, items: list[_Item[T]]) -> None:
        """Submit a list. What it is refused for befalls only the items that are to blame."""
        lists = [items]
        while lists:
            part = lists.pop()
            if self._fatal is not None:
                self._fail(part, self._fatal)
                continue
            try:
                jobs = await self._submit(part)
            except (BadRequest, TooLarge) as error:
                blamed = {number for one in error.errors if (number := _index(one.pointer)) >= 0}
                blamed &= set(range(len(part)))
                if len(part) == 1:
                    self._fail(part, error)
                elif blamed:
                    self._fail([part[number] for number in blamed], error)
                    lists.append([one for n, one in enumerate(part) if n not in blamed])
                else:
                    half = len(part) // 2
                    lists += [part[half:], part[:half]]
            except ClientError as error:
                if is_fatal(error):
                    self._fatal = error
                self._fail(part, error)
            except Exception as error:  # a mistake of ours: nobody may wait for ever all the same
                self._fatal = error
                self._fail(part, error)
            else:
                for one, job in zip(part, jobs, strict=True):
                    one.job = job
                    self._jobs.setdefault(job.id, []).append(one)
                    self._watch.add(job.id)

    async def _submit(self, items: list[_Item[T]]) -> list[Job]:
        if not items:
            return []
        deadline = math.inf
        if self._timeout_s < math.inf:
            deadline = asyncio.get_running_loop().time() + self._timeout_s
        request = Request(
            method="POST",
            path="/v1/jobs",
            body=b"[" + b",".join(one.body for one in items) + b"]",
            key=str(uuid.uuid4()),
        )
        return await self._client.send_list(request, Patience(deadline, None, unhurried=True))

    def _fail(self, items: list[_Item[T]], error: Exception) -> None:
        for one in items:
            self._results.put_nowait(one.failed(error))

    def _job_ended(self, job_id: str, how: Job | ClientError) -> None:
        for one in self._jobs.pop(job_id, ()):
            if isinstance(how, Job):
                result = Result.of(one.item, one.index, how)
            else:
                result = one.failed(how)
                if is_fatal(how):
                    self._fatal = how
            self._results.put_nowait(result)


async def results_of(
    client: Looking, jobs: list[tuple[Any, str]], *, polls: int
) -> AsyncIterator[Result[Any]]:
    """Of jobs that were submitted, as they end: (what the caller has for it, its id)."""
    queue: asyncio.Queue[tuple[str, Job | ClientError]] = asyncio.Queue()
    watch = Watch(client, lambda job_id, how: queue.put_nowait((job_id, how)), polls=polls)
    by_id: dict[str, list[tuple[int, Any]]] = {}
    for index, (item, job_id) in enumerate(jobs):
        by_id.setdefault(job_id, []).append((index, item))
    try:
        for job_id in by_id:
            watch.add(job_id)
        for _ in range(len(by_id)):
            job_id, how = await queue.get()
            for index, item in by_id.pop(job_id):
                if isinstance(how, Job):
                    yield Result.of(item, index, how)
                else:
                    yield Result(item, index, error=how)
    finally:
        await watch.close()


def _index(pointer: str) -> int:
    """Which job of a list a place is in; -1: none."""
    first = pointer.removeprefix("/").partition("/")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 7 else -1
