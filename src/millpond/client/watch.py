"""Seeing jobs end, many at a time, with few requests.

Half of the pollers hold long polls of the jobs that were submitted first, as these are likely to
end first. The org's events tell of the others, which the other half then fetch. Events that are
missed cost time, and nothing else: every job comes to be among the first.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from millpond.client.errors import ApiError, ClientClosed, ClientError, ConnectionFailed
from millpond.client.replies import Event, Job

POLLS = 16
_HOLD_S = 20.0
_AGAIN_S = 0.5


class Looking(Protocol):
    """What a watch needs of a client."""

    async def look(self, job_id: str, hold_s: float) -> Job: ...

    def events(self) -> AsyncIterator[Event]: ...


class Watch:
    """Tells `ended` of each job once: as it ended, or the error that it cannot be looked at for.
    After ConnectionFailed and the like, all that are left are told of with that error."""

    def __init__(
        self,
        client: Looking,
        ended: Callable[[str, Job | ClientError], None],
        *,
        polls: int = POLLS,
    ) -> None:
        self._client, self._ended = client, ended
        self._polls = max(1, polls)
        self._longs = max(1, self._polls // 2)
        self._left: dict[str, None] = {}  # in the order of submission
        self._resting: dict[str, None] = {}  # nobody looks at them
        self._told: deque[str] = deque()  # have ended, it was said
        self._hints: set[str] = set()
        self._blind = False
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._follower: asyncio.Task[None] | None = None

    def add(self, job_id: str) -> None:
        if job_id in self._left:
            return
        self._left[job_id] = self._resting[job_id] = None
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._look(long=number < self._longs), name="watch")
                for number in range(self._polls)
            ]
        if self._follower is None and len(self._left) > self._longs:
            self._follower = asyncio.create_task(self._follow(), name="watch events")
        self._stir()

    async def close(self) -> None:
        tasks = [*self._tasks, *([self._follower] if self._follower else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, *, long: bool) -> None:
        while True:
            job_id, hold_s = await self._next(long)
            began = asyncio.get_running_loop().time()
            try:
                job = await self._client.look(job_id, hold_s)
            except ClientError as error:
                self._lost(job_id, error)
                continue
            if job.ended:
                self._end(job_id, job)
                continue
            if asyncio.get_running_loop().time() - began < _AGAIN_S:
                await asyncio.sleep(_AGAIN_S)  # it was answered without waiting
            if job_id in self._hints:
                self._told.append(job_id)
            elif job_id in self._left:
                self._resting[job_id] = None
            self._stir()

    async def _next(self, long: bool) -> tuple[str, float]:
        while True:
            if self._told:
                job_id = self._told.popleft()
                self._hints.discard(job_id)
                if job_id in self._left:
                    return job_id, 0.0
                continue
            if self._resting and (long or self._blind):
                job_id = next(iter(self._resting))
                del self._resting[job_id]
                return job_id, _HOLD_S
            await self._stirred.wait()

    def _stir(self) -> None:
        """Whoever waits looks again; who comes later, waits."""
        stirred, self._stirred = self._stirred, asyncio.Event()
        stirred.set()

    def _end(self, job_id: str, how: Job | ClientError) -> None:
        self._hints.discard(job_id)
        if job_id in self._left:
            del self._left[job_id]
            self._ended(job_id, how)

    def _lost(self, job_id: str, error: ClientError) -> None:
        if is_fatal(error):
            for each in list(self._left):
                self._resting.pop(each, None)
                self._end(each, error)
        else:
            self._end(job_id, error)

    async def _follow(self) -> None:
        try:
            async for event in self._client.events():
                job_id = event.data.get("job")
                if isinstance(job_id, str) and job_id in self._left:
                    self._hints.add(job_id)
                    if job_id in self._resting:
                        del self._resting[job_id]
                        self._told.append(job_id)
                        self._stir()
        except ClientError:
            self._blind = True
            self._stir()


#: Of every request alike: what the key is refused for, and what a server that is not there says
#: through a proxy, also when asked again.
_OF_ALL = frozenset({401, 403, 502, 503, 504})


def is_fatal(error: Exception) -> bool:
    """Whether it would befall everything else that is asked just as well. (A 500 is of the one
    request that met it.)"""
    if isinstance(error, ApiError):
        return error.status in _OF_ALL
    return isinstance(error, ConnectionFailed | ClientClosed)
