"""The client for programs that run an event loop.

async with AsyncClient() as client:                    # MILLPOND_URL, MILLPOND_API_KEY
    answer = await client.generate("Name a river.")
    async for result in client.map(prompts, endpoint="generate"):
        ...
"""

import asyncio
import math
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar, Unpack, cast, overload

import orjson

from millpond.client.access import read_access
from millpond.client.asks import Asked, Endpoint, Example, JobOptions, JobRequest, Texts, body_of
from millpond.client.errors import ApiError, ClientError, ConnectionFailed, JobTimeout, NotFound
from millpond.client.mapping import ItemMap, results_of
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
from millpond.client.source import source_of
from millpond.client.sse import TooLong, messages
from millpond.client.transport import Request, Transport
from millpond.client.waits import Patience, backoff_s, seconds_of
from millpond.client.watch import POLLS

T = TypeVar("T")
Told = TypeVar("Told")
JobT = TypeVar("JobT", bound="Job | str")

TIMEOUT_S = 600.0
MAX_RETRIES = 5
#: Long polls last so long; proxies often end what is silent for a minute.
_HOLD_S = 50.0
_INPUTS_MOST = 96
_LIST_MOST = 500
_CANCEL_S = 10.0
_SILENT_S = 45.0  # a stream of events says something every 15


class AsyncClient:
    """A millpond server. `timeout`: seconds for each call in all, submission and waiting and
    repetitions; `max_retries`: how often a request is repeated that may be; `reply_timeout`:
    seconds of silence after which a connection is taken for broken."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        reply_timeout: float = 30.0,
    ) -> None:
        access = read_access(url, api_key)
        self.url = access.url
        self._timeout_s = seconds_of(timeout, timeout)
        self._retries = max(0, max_retries)
        self._transport = Transport(access, reply_timeout=reply_timeout)
        self.jobs = Jobs(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Jobs that were submitted go on."""
        await self._transport.close()

    async def generate(
        self,
        prompt: str,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Generation:
        """The answer to a prompt. Raises JobFailed, JobTimeout, ApiError or ConnectionFailed."""
        asked = JobRequest(endpoint="generate", text=prompt, **options)
        job = await self._one(asked, timeout, cancel_on_timeout, idempotency_key)
        return cast(Generation, job.answer())

    @overload
    async def embed(
        self,
        text: str,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Embedding: ...

    @overload
    async def embed(
        self,
        text: Texts,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Embedding]: ...

    async def embed(
        self,
        text: str | Texts,
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Embedding | list[Embedding]:
        """A vector, or one for each text. Many texts become several jobs."""
        asked = JobRequest(endpoint="embed", text=text, **options)
        if isinstance(text, str):
            job = await self._one(asked, timeout, cancel_on_timeout, idempotency_key)
            return cast(Embedding, job.answer())
        jobs = await self._several(asked, timeout, cancel_on_timeout, idempotency_key)
        return [one for job in jobs for one in cast("list[Embedding]", job.answer())]

    @overload
    async def classify(
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
    async def classify(
        self,
        text: Texts,
        examples: Sequence[Example],
        *,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Classification]: ...

    async def classify(
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
        asked = JobRequest(endpoint="classify", text=text, examples=examples, **options)
        if isinstance(text, str):
            job = await self._one(asked, timeout, cancel_on_timeout, idempotency_key)
            return cast(Classification, job.answer())
        jobs = await self._several(asked, timeout, cancel_on_timeout, idempotency_key)
        return [one for job in jobs for one in cast("list[Classification]", job.answer())]

    async def submit(
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
        asked = JobRequest(endpoint=endpoint, text=text, examples=examples, **options)
        return await self._submit(asked, self._patience(timeout), idempotency_key)

    async def submit_many(
        self,
        requests: Iterable[Asked],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> list[Job]:
        """Submit up to 500 jobs, all of them or none; for more there is `map`."""
        bodies = [body_of(one) for one in requests]
        if not bodies:
            return []
        if len(bodies) > _LIST_MOST:
            raise ClientError(
                f"{len(bodies)} jobs at once: {_LIST_MOST} are the most; map() takes any number"
            )
        request = self._submission(bodies, idempotency_key)
        return await self.send_list(request, self._patience(timeout))

    async def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """Wait until a job has ended, whichever way: `.answer()` is its answer, or raises
        JobFailed. Raises JobTimeout if it has not ended by then."""
        [ended] = await self._wait_all([_id(job)], self._patience(timeout), timeout)
        return ended

    async def results(
        self, jobs: Iterable[JobT] | AsyncIterable[JobT], *, polls: int = POLLS
    ) -> AsyncGenerator[Result[JobT], None]:
        """Jobs that were submitted, each once, as they end. `polls`: requests at a time."""
        if isinstance(jobs, AsyncIterable):
            jobs = [job async for job in jobs]
        ended = results_of(self, [(job, _id(job)) for job in jobs], polls=polls)
        try:
            async for result in ended:
                yield result
        finally:
            await _close(ended)

    async def map(
        self,
        items: Iterable[T] | AsyncIterable[T],
        *,
        endpoint: Endpoint = "generate",
        text: Callable[[T], str | Texts | Asked] | None = None,
        examples: Sequence[Example] | None = None,
        concurrency: int = 1_000,
        ordered: bool = False,
        polls: int = POLLS,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[Result[T], None]:
        """Any number of items through an endpoint: a result for each, as they end, or `ordered`
        as they came. An item is a text, several, or a job; `text` makes that of other items.

        `concurrency`: so many items are under way, which is what is held in memory; `timeout`:
        for so long the server may be away. What cannot be overcome is raised after every item
        that was read has its result.
        """
        usual = JobRequest(endpoint=endpoint, text="", examples=examples, **options)

        def ask(item: T) -> Asked:
            made: Any = item if text is None else text(item)
            if isinstance(made, str | list | tuple):
                return replace(usual, text=made)
            if isinstance(made, JobRequest):
                return made
            if isinstance(made, Mapping):
                return {**{k: v for k, v in usual.body().items() if k not in _TEXTS}, **made}
            raise ClientError(
                f"an item of type {type(made).__name__} is no text and no job: pass text=, a "
                "function that makes one of it"
            )

        seconds = seconds_of(timeout, self._timeout_s)
        mapped = ItemMap(
            self, source_of(items), ask, concurrency=concurrency, polls=polls, timeout_s=seconds
        ).results(ordered=ordered)
        try:
            async for result in mapped:
                yield result
        finally:
            await _close(mapped)

    async def limits(self) -> Limits:
        """The org's quota and limits, and what is used of them."""
        return self._parsed(Limits.of, await self._get("/v1/limits"))

    async def usage(
        self, *, days: int = 30, user: str | None = None, endpoint: Endpoint | None = None
    ) -> Usage:
        """What jobs used, by day, user, endpoint and model."""
        query = _query(days=days, user=user, endpoint=endpoint)
        return self._parsed(Usage.of, await self._get("/v1/usage", query))

    async def models(self) -> list[Model]:
        """Models that the org may use."""
        told = await self._get("/v1/models")
        return self._parsed(lambda told: [Model.of(one) for one in told["data"]], told)

    async def events(self, last_event_id: str | None = None) -> AsyncGenerator[Event, None]:
        """What happens to the org's jobs and quota, from now on, or from after an event.

        It comes again by itself. An event of kind `reset` says that events were missed. Raises
        ConnectionFailed once the server has been away for as long as the client's timeout.
        """
        last, retry_s, fails, began = last_event_id, 1.0, 0, False
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        while True:
            headers = {} if last is None else {"Last-Event-ID": last}
            told_s: float | None = None
            try:
                async with self._transport.stream(
                    "/v1/events", headers, silent_s=_SILENT_S
                ) as reply:
                    if reply.status == 204:
                        return
                    if began and last is None:
                        yield Event("reset", {})  # nobody knows what came in between
                    began, fails, until = True, 0, loop.time() + self._timeout_s
                    async for message in messages(reply.content.iter_any()):
                        last = message.id or last
                        if message.retry_ms is not None:
                            retry_s = message.retry_ms / 1_000
                        if message.data:
                            yield Event(message.event, _data(message.data), message.id)
            except ApiError as error:
                if error.status not in (429, 502, 503, 504) or loop.time() > until:
                    raise
                fails, told_s = fails + 1, error.retry_after_s
            except ConnectionFailed:
                if loop.time() > until:
                    raise
                fails += 1
            except TooLong as error:
                raise ClientError(f"the stream of events cannot be read: {error}") from None
            await asyncio.sleep(told_s or max(retry_s, backoff_s(fails) if fails > 1 else 0.0))

    async def look(self, job_id: str, hold_s: float = 0.0) -> Job:
        """A job, once it has ended or `hold_s` seconds have passed; however long that takes."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s + hold_s
        return await self._look(job_id, hold_s, Patience(deadline, None))

    async def send_list(self, request: Request, patience: Patience) -> list[Job]:
        """Submit a list as it was written."""
        reply = await self._transport.ask(request, patience)
        bodies = orjson.loads(request.body or b"[]")
        return self._parsed(
            lambda told: [
                Job.of(one, endpoint=body["endpoint"], class_=body.get("class", "bulk"))
                for one, body in zip(told["data"], bodies, strict=True)
            ],
            reply.told,
        )

    async def _one(
        self, asked: JobRequest, timeout: float | None, cancel: bool, key: str | None
    ) -> Job:
        patience = self._patience(timeout)
        job = await self._submit(asked, patience, key)
        [ended] = await self._wait_all([job.id], patience, timeout, cancel=cancel)
        return ended

    async def _several(
        self, asked: JobRequest, timeout: float | None, cancel: bool, key: str | None
    ) -> list[Job]:
        texts = list(asked.text)
        if not texts:
            return []
        parts = [texts[at : at + _INPUTS_MOST] for at in range(0, len(texts), _INPUTS_MOST)]
        if len(parts) > _LIST_MOST:
            raise ClientError(f"{len(texts)} texts at once: map() takes any number")
        asked = replace(asked, class_=asked.class_ or "interactive")
        bodies = [replace(asked, text=part).body() for part in parts]
        patience = self._patience(timeout)
        jobs = await self.send_list(self._submission(bodies, key), patience)
        return await self._wait_all([job.id for job in jobs], patience, timeout, cancel=cancel)

    async def _submit(self, asked: JobRequest, patience: Patience, key: str | None) -> Job:
        reply = await self._transport.ask(self._submission(asked.body(), key), patience)
        of = asked.class_ or "interactive"
        return self._parsed(
            lambda told: Job.of(told, endpoint=asked.endpoint, class_=of), reply.told
        )

    def _submission(self, body: Any, key: str | None) -> Request:
        return Request(
            method="POST",
            path="/v1/jobs",
            body=orjson.dumps(body),
            key=key or str(uuid.uuid4()),
        )

    async def _wait_all(
        self,
        job_ids: list[str],
        patience: Patience,
        timeout: float | None,
        *,
        cancel: bool = False,
    ) -> list[Job]:
        """The jobs when all have ended, in the order asked for."""
        ended: dict[str, Job] = {}
        for job_id in job_ids:
            try:
                ended[job_id] = await self._wait(job_id, patience)
            except TimeoutError:
                break
            except ClientError as error:
                error.job_id = job_id
                error.add_note(f"job {job_id} was taken in: wait({job_id!r}) waits for it again")
                raise
        left = [job_id for job_id in job_ids if job_id not in ended]
        if left and cancel:
            for job_id in left:
                job = await self._cancel(job_id, self._patience(_CANCEL_S))
                if job.state == "succeeded":  # it was answered just then
                    ended[job_id] = job
            left = [job_id for job_id in job_ids if job_id not in ended]
        if left:
            seconds = seconds_of(timeout, self._timeout_s)
            raise JobTimeout(left, seconds, cancelled=cancel)
        return [ended[job_id] for job_id in job_ids]

    async def _wait(self, job_id: str, patience: Patience) -> Job:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            hold_s = max(0.0, min(_HOLD_S, patience.deadline - began))
            # Each poll has its own retries; the time is the call's.
            poll = Patience(patience.deadline, self._retries)
            try:
                job = await self._look(job_id, hold_s, poll)
            except ConnectionFailed:
                if loop.time() >= patience.deadline:
                    raise TimeoutError from None
                raise
            if job.ended:
                return job
            if loop.time() >= patience.deadline - 0.01:
                raise TimeoutError
            if loop.time() - began < min(0.5, hold_s):
                await asyncio.sleep(min(0.5, max(0.0, patience.deadline - loop.time())))

    async def _look(self, job_id: str, hold_s: float, patience: Patience) -> Job:
        # A moment less than there is: the reply has to arrive too.
        hold_s = max(0.0, min(hold_s, patience.deadline - asyncio.get_running_loop().time() - 0.2))
        query = {"wait": f"{hold_s:.3f}"} if hold_s else None
        request = Request(method="GET", path=_path(job_id), query=query, hold_s=hold_s)
        reply = await self._transport.ask(request, patience)
        return self._parsed(Job.of, reply.told)

    async def _cancel(self, job_id: str, patience: Patience) -> Job:
        request = Request(method="POST", path=_path(job_id, "/cancel"), safe=True)
        reply = await self._transport.ask(request, patience)
        return self._parsed(Job.of, reply.told)

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        request = Request(method="GET", path=path, query=query)
        return (await self._transport.ask(request, self._patience(None))).told

    def _patience(self, timeout: float | None) -> Patience:
        seconds = seconds_of(timeout, self._timeout_s)
        now = asyncio.get_running_loop().time()
        return Patience(now + seconds if seconds < math.inf else math.inf, self._retries)

    def _parsed(self, of: Callable[[Any], Told], told: Any) -> Told:
        try:
            return of(told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ClientError(
                f"{self.url} answered what this client cannot read ({type(error).__name__}): "
                "is this millpond's address, and the server's version this one's?"
            ) from None


class Jobs:
    """Jobs that were submitted: `client.jobs`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, job: Job | str) -> Job:
        """A job as it stands. Raises NotFound."""
        return self._client._parsed(Job.of, await self._client._get(_path(_id(job))))

    async def list(
        self,
        *,
        state: str | None = None,
        endpoint: Endpoint | None = None,
        class_: str | None = None,
        user: str | None = None,
        search: str | None = None,
        page: int = 100,
    ) -> AsyncGenerator[Job, None]:
        """The org's jobs, the latest first; all filters must fit. `page`: so many a request."""
        asked = {"state": state, "endpoint": endpoint, "class": class_, "user": user}
        query = _query(**asked, search=search, limit=page)
        while True:
            told = await self._client._get("/v1/jobs", query)
            for one in self._client._parsed(lambda told: list(map(Job.of, told["data"])), told):
                yield one
            if not told.get("next_cursor"):
                return
            query["cursor"] = told["next_cursor"]

    async def cancel(self, job: Job | str) -> Job:
        """Nobody wants it answered any more."""
        return await self._client._cancel(_id(job), self._client._patience(None))

    async def retry(self, job: Job | str) -> Job:
        """Ask again, as a new job, what one asked that ended without an answer. Raises Conflict
        if it has an answer or has not ended."""
        request = Request(method="POST", path=_path(_id(job), "/retry"))
        reply = await self._client._transport.ask(request, self._client._patience(None))
        new = self._client._parsed(Job.of, reply.told)
        return replace(new, again_of=_id(job))

    async def delete(self, job: Job | str) -> None:
        """Keep nothing of it; if it has not ended, it is cancelled."""
        request = Request(method="DELETE", path=_path(_id(job)))
        try:
            await self._client._transport.ask(request, self._client._patience(None))
        except NotFound as error:
            if not error.repeated:  # else it was our first try that deleted it
                raise

    async def explain(self, job: Job | str) -> Explanation:
        """Why it waits, and when it will go."""
        told = await self._client._get(_path(_id(job), "/explain"))
        return self._client._parsed(Explanation.of, told)


_TEXTS = ("prompt", "text", "inputs")


def _id(job: Job | str) -> str:
    return job if isinstance(job, str) else job.id


def _path(job_id: str, more: str = "") -> str:
    if not job_id or not all(letter.isalnum() or letter in "_-" for letter in job_id):
        raise ClientError(f"{job_id[:100]!r} is no id of a job")
    return f"/v1/jobs/{job_id}{more}"


def _query(**asked: Any) -> dict[str, str]:
    return {name: str(value) for name, value in asked.items() if value is not None}


def _data(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"text": text}
    return told if isinstance(told, dict) else {"value": told}


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
