"""The client for programs without an event loop, and for notebooks, which have one already.

It is an AsyncClient on a loop of its own, in a thread of its own.
"""

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack, cast, overload

from millpond.client.asks import Asked, Endpoint, Example, JobOptions, Texts
from millpond.client.client import MAX_RETRIES, TIMEOUT_S, AsyncClient, JobT
from millpond.client.errors import ClientClosed, ClientError
from millpond.client.replies import (
    Classification,
    Embedding,
    Event,
    Explanation,
    Generation,
    Job,
    Limits,
    Model,
    Result,
    Usage,
)
from millpond.client.source import take
from millpond.client.watch import POLLS

T = TypeVar("T")
_CLOSE_S = 5.0
_CLOSED_MEANWHILE = "this client was closed while somebody waited"


class Client:
    """A millpond server; see AsyncClient for what the options and methods mean. Threads may share
    one. It closes itself when it is forgotten, and at the end of the program."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        reply_timeout: float = 30.0,
    ) -> None:
        def make() -> AsyncClient:
            return AsyncClient(
                url,
                api_key,
                timeout=timeout,
                max_retries=max_retries,
                reply_timeout=reply_timeout,
            )

        self.url = make().url  # what is wrong with it is said now
        self._make = make
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def jobs(self) -> "BlockingJobs":
        """Jobs that were submitted."""
        return BlockingJobs(self)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. Jobs that were submitted go on."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def generate(
        self,
        prompt: str,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Generation:
        """The answer to a prompt. Raises JobFailed, JobTimeout, ApiError or ConnectionFailed."""
        return self._do(
            lambda client: client.generate(
                prompt,
                timeout=timeout,
                cancel_on_timeout=cancel_on_timeout,
                idempotency_key=idempotency_key,
                **options,
            )
        )

    @overload
    def embed(
        self,
        text: str,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Embedding: ...

    @overload
    def embed(
        self,
        text: Texts,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Embedding]: ...

    def embed(
        self,
        text: str | Texts,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Embedding | list[Embedding]:
        """A vector, or one for each text. Many texts become several jobs."""

        async def call(client: AsyncClient) -> Embedding | list[Embedding]:
            return await client.embed(
                text,
                timeout=timeout,
                cancel_on_timeout=cancel_on_timeout,
                idempotency_key=idempotency_key,
                **options,
            )

        return self._do(call)

    @overload
    def classify(
        self,
        text: str,
        examples: Sequence[Example],
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Classification: ...

    @overload
    def classify(
        self,
        text: Texts,
        examples: Sequence[Example],
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Classification]: ...

    def classify(
        self,
        text: str | Texts,
        examples: Sequence[Example],
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Classification | list[Classification]:
        """A label, or one for each text. `examples`: (text, label), two of each label at least."""

        async def call(client: AsyncClient) -> Classification | list[Classification]:
            return await client.classify(
                text,
                examples,
                timeout=timeout,
                cancel_on_timeout=cancel_on_timeout,
                idempotency_key=idempotency_key,
                **options,
            )

        return self._do(call)

    def submit(
        self,
        endpoint: Endpoint,
        text: str | Texts,
        *,
        examples: Sequence[Example] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a job and do not wait for it."""
        return self._do(
            lambda client: client.submit(
                endpoint,
                text,
                examples=examples,
                timeout=timeout,
                idempotency_key=idempotency_key,
                **options,
            )
        )

    def submit_many(
        self,
        requests: Iterable[Asked],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> list[Job]:
        """Submit up to 500 jobs, all of them or none; for more there is `map`."""
        asked = list(requests)
        return self._do(
            lambda client: client.submit_many(
                asked, timeout=timeout, idempotency_key=idempotency_key
            )
        )

    def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """Wait until a job has ended: `.answer()` is its answer. Raises JobTimeout."""
        return self._do(lambda client: client.wait(job, timeout=timeout))

    def results(
        self, jobs: Iterable[JobT], *, polls: int = POLLS
    ) -> Generator[Result[JobT], None, None]:
        """Jobs that were submitted, each once, as they end."""
        known = list(jobs)
        return self._iterate(lambda client: client.results(known, polls=polls))

    def map(
        self,
        items: Iterable[T],
        *,
        endpoint: Endpoint = "generate",
        text: Callable[[T], str | Texts | Asked] | None = None,
        examples: Sequence[Example] | None = None,
        concurrency: int = 1_000,
        ordered: bool = False,
        polls: int = POLLS,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Generator[Result[T], None, None]:
        """Any number of items through an endpoint: a result for each, as they end, or `ordered`
        as they came. The items are read in the thread that asks for the results, while it asks."""
        lent: _Lent[T] = _Lent(iter(items))
        return self._iterate(
            lambda client: client.map(
                lent,
                endpoint=endpoint,
                text=text,
                examples=examples,
                concurrency=concurrency,
                ordered=ordered,
                polls=polls,
                timeout=timeout,
                **options,
            ),
            lent,
        )

    def limits(self) -> Limits:
        """The org's quota and limits, and what is used of them."""
        return self._do(lambda client: client.limits())

    def usage(
        self, *, days: int = 30, user: str | None = None, endpoint: Endpoint | None = None
    ) -> Usage:
        """What jobs used, by day, user, endpoint and model."""
        return self._do(lambda client: client.usage(days=days, user=user, endpoint=endpoint))

    def models(self) -> list[Model]:
        """Models that the org may use."""
        return self._do(lambda client: client.models())

    def events(self, last_event_id: str | None = None) -> Generator[Event, None, None]:
        """What happens to the org's jobs and quota, from now on, or from after an event."""
        return self._iterate(lambda client: client.events(last_event_id))

    def _do(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        engine = self._running()
        future = engine.start(call)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed(_CLOSED_MEANWHILE) from None
        except BaseException:
            future.cancel()  # whoever waited was interrupted
            raise

    def _iterate(
        self,
        call: Callable[[AsyncClient], AsyncIterator[T]],
        lent: "_Lent[Any] | None" = None,
    ) -> Generator[T, None, None]:
        engine = self._running()
        # What the loop has for this thread: a step to take, which gives a result or None.
        box: queue.SimpleQueue[Callable[[], tuple[bool, T | None] | None]] = queue.SimpleQueue()
        if lent is not None:
            lent.box = box

        async def begin(client: AsyncClient) -> AsyncIterator[T]:
            iterator = call(client)
            engine.iterators.add(iterator)
            return iterator

        iterator = engine.start(begin).result()
        step: Future[tuple[bool, T | None]] | None = None
        try:
            while True:
                step = engine.start(lambda _: _next(iterator))
                step.add_done_callback(lambda done: box.put(done.result))
                told = None
                while told is None:  # as long as it asks for items
                    try:
                        told = box.get()()
                    except CancelledError:
                        raise ClientClosed(_CLOSED_MEANWHILE) from None
                more, value = told
                if not more:
                    return
                yield cast(T, value)
        finally:
            if step is not None:
                step.cancel()
            engine.finish(iterator)

    def _running(self) -> "_Engine":
        with self._lock:
            if self._closed:
                raise ClientClosed
            if self._engine is None or self._engine.pid != os.getpid():
                self._engine = _Engine(self._make)  # a fork has no threads of its parent's
                weakref.finalize(self, _Engine.close, self._engine)
            engine = self._engine
        if threading.current_thread() is engine.thread:
            raise ClientError("a Client cannot wait in its own thread: use AsyncClient there")
        return engine


class BlockingJobs:
    """Jobs that were submitted: `client.jobs`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, job: Job | str) -> Job:
        """A job as it stands. Raises NotFound."""
        return self._do(lambda client: client.jobs.get(job))

    def list(
        self,
        *,
        state: str | None = None,
        endpoint: Endpoint | None = None,
        class_: str | None = None,
        user: str | None = None,
        search: str | None = None,
        page: int = 100,
    ) -> Generator[Job, None, None]:
        """The org's jobs, the latest first; all filters must fit. `page`: so many a request."""
        return self._client._iterate(
            lambda client: client.jobs.list(
                state=state, endpoint=endpoint, class_=class_, user=user, search=search, page=page
            )
        )

    def cancel(self, job: Job | str) -> Job:
        """Nobody wants it answered any more."""
        return self._do(lambda client: client.jobs.cancel(job))

    def retry(self, job: Job | str) -> Job:
        """Ask again, as a new job, what one asked that ended without an answer."""
        return self._do(lambda client: client.jobs.retry(job))

    def delete(self, job: Job | str) -> None:
        """Keep nothing of it; if it has not ended, it is cancelled."""
        self._do(lambda client: client.jobs.delete(job))

    def explain(self, job: Job | str) -> Explanation:
        """Why it waits, and when it will go."""
        return self._do(lambda client: client.jobs.explain(job))

    def _do(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        return self._client._do(call)


class _Engine:
    """A loop in a thread, with a client on it. Its thread keeps no program alive."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self.pid = os.getpid()
        self._client = make()
        self.iterators: set[AsyncIterator[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=_run, args=(self._loop,), name="millpond-client", daemon=True
        )
        self.thread.start()

    def start(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> "Future[T]":
        coroutine = call(self._client)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise ClientClosed from None

    def finish(self, iterator: AsyncIterator[Any]) -> None:
        """Close an iterator that nobody asks any more."""
        if self._loop.is_closed() or self.pid != os.getpid():
            return
        try:
            future = asyncio.run_coroutine_threadsafe(self._finish(iterator), self._loop)
        except RuntimeError:
            return  # it was closed just now
        if threading.current_thread() is not self.thread:
            with contextlib.suppress(Exception, CancelledError):
                future.result(_CLOSE_S)

    async def _finish(self, iterator: AsyncIterator[Any]) -> None:
        self.iterators.discard(iterator)
        close = getattr(iterator, "aclose", None)
        if close is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S / 2):
                while True:
                    try:
                        await close()
                        return
                    except RuntimeError:  # the step that was cancelled has not ended yet
                        await asyncio.sleep(0.01)

    def close(self) -> None:
        if self.pid != os.getpid() or self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):  # it was closed just now
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is not self.thread:
            self.thread.join(_CLOSE_S)

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S / 2):
                await asyncio.gather(*others, return_exceptions=True)
        # From the outermost in: those inside are closed by them.
        for iterator in list(self.iterators):
            await self._finish(iterator)
        await self._client.close()
        await loop.shutdown_asyncgens()
        loop.stop()


class _Lent(Generic[T]):
    """Items of another thread, as an async iterable: that thread reads them when it is asked."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._found: list[T] = []
        self.box: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __aiter__(self) -> "_Lent[T]":
        return self

    async def __anext__(self) -> T:
        if not self._found:
            loop = asyncio.get_running_loop()
            ready: asyncio.Future[list[T]] = loop.create_future()
            self.box.put(lambda: self._read(loop, ready))
            self._found = (await ready)[::-1]
        if not self._found:
            raise StopAsyncIteration
        return self._found.pop()

    def _read(self, loop: asyncio.AbstractEventLoop, ready: "asyncio.Future[list[T]]") -> None:
        try:
            found = take(self._items, 200)
        except Exception as error:
            loop.call_soon_threadsafe(_settle, ready, None, error)
        else:
            loop.call_soon_threadsafe(_settle, ready, found, None)


def _settle(ready: "asyncio.Future[Any]", found: Any, error: Exception | None) -> None:
    if ready.done():
        return
    if error is not None:
        ready.set_exception(error)
    else:
        ready.set_result(found)


async def _next(iterator: AsyncIterator[T]) -> tuple[bool, T | None]:
    try:
        return True, await anext(iterator)
    except StopAsyncIteration:
        return False, None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        # What another thread began while it ended must not leave that thread waiting.
        loop.run_until_complete(asyncio.sleep(0))
        for task in (late := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.wait(late) if late else asyncio.sleep(0))
    finally:
        loop.close()
