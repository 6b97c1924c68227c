"""Routes of single jobs: submit, look, list, cancel, explain, ask again, erase."""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import structlog
from pydantic import Field, StringConstraints
from structlog.contextvars import bind_contextvars

from millpond.domain.account import Identity
from millpond.domain.job import State
from millpond.errors import Unavailable, UnknownPart
from millpond.producer.api.lanes import Lanes, least_size
from millpond.producer.api.shapes import (
    Accepted,
    AcceptedList,
    ClassName,
    EndpointName,
    Estimate,
    JobAsked,
    JobsAsked,
    JobShape,
    Submitted,
)
from millpond.producer.api.still import StillGood
from millpond.producer.api.wall import Wall, wall_now
from millpond.producer.http.pages import Page, PageQuery, bad_cursor, cursor_of
from millpond.producer.http.table import MIB, Call, Model, Name, Reply, Route, Who
from millpond.producer.intake import Intake, id_again, new_id
from millpond.producer.waiting import Waiting
from millpond.standing.moments import Told
from millpond.standing.standing import standing
from millpond.store.singles import Full, Kept, Singles
from millpond.store.store import Store

log = structlog.get_logger()

WAIT_MOST_S = 60
#: Jobs that are looked at for one page, if a filter passes few of them.
_LOOKED_AT_MOST = 2_000
_AT_ONCE = 200
#: A place in the list: a moment and the job before.
_PLACE = re.compile(r"[0-9]{1,16}\|.{0,200}")

#: As `new_id` and `id_again` make them.
_JOB_ID = re.compile(r"job_[0-9a-f]{32}")
#: Jobs of a list that a line of the log names.
_NAMED_MOST = 20


class LookQuery(Model):
    """How to look at a job."""

    wait: Annotated[float, Field(ge=0, le=WAIT_MOST_S)] = Field(
        0, description="Seconds to wait for its end, if it has not ended."
    )


class ListQuery(PageQuery):
    """Which jobs are wanted; all filters must fit."""

    state: Annotated[State, Field(strict=False)] | None = None
    endpoint: EndpointName | None = None
    class_: ClassName | None = Field(None, alias="class")
    user: Name | None = None
    search: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="A part of its id, its model or its metadata."
    )


class Jobs:
    """The handlers, and what they work with."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        waiting: Waiting,
        lanes: Lanes,
        still: StillGood,
        *,
        simulated: bool,
    ) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self._intake = intake
        self._waiting = waiting
        self._lanes = lanes
        self._still = still
        self._simulated = simulated

    def routes(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER, "tags": ("jobs",)}
        one = "/v1/jobs/{id}"
        return [
            Route(
                "POST",
                "/v1/jobs",
                self.submit_jobs,
                summary="Submit a job, or a list of jobs: all of them or none",
                body=JobsAsked,
                body_most=8 * MIB,
                replies={202: Submitted},
                problems=(403, 409, 429),
                idempotent=True,
                **user,
            ),
            Route(
                "GET",
                "/v1/jobs",
                self.list_jobs,
                summary="Jobs of the org, the latest first; neither result nor reason is told",
                query=ListQuery,
                replies={200: Page[JobShape]},
                **user,
            ),
            Route(
                "GET",
                one,
                self.get_job,
                summary="A job, with its answer once it has one",
                query=LookQuery,
                replies={200: JobShape},
                **user,
            ),
            Route(
                "DELETE",
                one,
                self.delete_job,
                summary="Keep nothing of a job; if it has not ended, it is cancelled",
                replies={204: None},
                **user,
            ),
            Route(
                "POST",
                f"{one}/cancel",
                self.cancel_job,
                summary="Nobody wants a job answered any more",
                replies={200: JobShape},
                **user,
            ),
            Route(
                "GET",
                f"{one}/explain",
                self.explain_job,
                summary="Why a job waits, and when it will go, with how its lane stands",
                replies={200: None},
                **user,
            ),
            Route(
                "POST",
                f"{one}/retry",
                self.retry_job,
                summary="Ask what a job asked that ended without an answer, as a new job",
                replies={202: Accepted},
                problems=(409, 413, 429),
                idempotent=True,
                **user,
            ),
        ]

    async def submit_jobs(self, call: Call) -> Reply:
        who, alone = call.caller, not isinstance(call.body, list)
        asked = [call.body] if alone else call.body
        key = call.idempotency_key
        before = await self._intake.said_before(who, asked, alone=alone, idempotency=key)
        ids = before or await self._take(who, asked, alone=alone, idempotency=key)
        if alone:
            bind_contextvars(job=ids[0])
        else:
            bind_contextvars(jobs=ids[:_NAMED_MOST], job_count=len(ids))
        told = [Accepted(id=id, state=State.QUEUED) for id in ids]
        headers = {"Location": call.link(f"/v1/jobs/{ids[0]}")} if alone else {}
        # They are taken in, whatever comes now: what cannot be told of them is left out.
        try:
            if before is not None:
                states = await self._singles.states(ids)
                told = [
                    one.model_copy(update={"state": state or one.state})
                    for one, state in zip(told, states, strict=True)
                ]
            headers |= await self._lanes.rate_headers(who.org, asked[-1].endpoint)
            told[-1] = _accepted(await self._shape(who, ids[-1], wall_s=time.time()))
        except (UnknownPart, Unavailable) as error:
            log.warning("submission_told_in_part", job=ids[-1], error=str(error))
        return Reply(told[0] if alone else AcceptedList(data=told), status=202, headers=headers)

    async def _take(
        self, who: Identity, asked: Sequence[JobAsked], *, alone: bool, idempotency: str | None
    ) -> list[str]:
        await self._lanes.admit(who.org, asked)
        try:
            ids = await self._intake.take(who, asked, alone=alone, idempotency=idempotency)
        except Full as full:
            raise await self._lanes.full(who.org, full, least_size(asked)) from None
        self._lanes.came(who.org, asked)
        return ids

    async def get_job(self, call: Call) -> JobShape:
        who, id, seconds = call.caller, _id(call), call.query.wait
        kept = await self._singles.find(who.org, id)
        if kept.ended_ms is None and seconds:
            await self._waiting.wait(id, seconds, lambda: self._still.is_good(call))
            await self._still.check(call)
            kept = await self._singles.find(who.org, id)
        return await self._told(kept, wall_s=time.time())

    async def list_jobs(self, call: Call) -> Page[JobShape]:
        query: ListQuery = call.query
        org, place = call.caller.org, query.cursor or ""
        if place and not _PLACE.fullmatch(place):
            raise bad_cursor()
        found: list[Kept] = []
        more: str | None = place
        looked = 0
        while more is not None and len(found) < query.limit and looked < _LOOKED_AT_MOST:
            most = min(_AT_ONCE, query.limit - len(found) if _passes_all(query) else _AT_ONCE)
            page, more = await self._singles.page(org, before=more, most=most)
            looked += most
            for number, kept in enumerate(page):
                if _passes(query, kept):
                    found.append(kept)
                    if len(found) == query.limit and number < len(page) - 1:
                        more = f"{kept.submitted_ms}|{kept.id}"
                        break
        wall = wall_now(self._store.gateway)
        return Page[JobShape](
            data=[self._shape_of(kept, wall) for kept in found],
            next_cursor=None if more is None else cursor_of(more),
        )

    async def delete_job(self, call: Call) -> Reply:
        await self._singles.erase(call.caller.org, _id(call))
        return Reply(status=204)

    async def cancel_job(self, call: Call) -> JobShape:
        who, id = call.caller, _id(call)
        await self._singles.find(who.org, id)
        await self._store.cancel([id])
        return await self._shape(who, id, wall_s=time.time())

    async def explain_job(self, call: Call) -> Reply:
        who, id = call.caller, _id(call)
        await self._singles.find(who.org, id)
        return Reply(await self._standing(id, wall_s=time.time()))

    async def retry_job(self, call: Call) -> Reply:
        who, id = call.caller, _id(call)
        new = new_id()
        if call.idempotency_key is not None:
            new = id_again(who.user, id, call.idempotency_key)
        await self._intake.check_again(who.org, await self._singles.find(who.org, id))
        bind_contextvars(new_job=new)
        try:
            await self._singles.again(who.org, id, new, self._lanes.bounds)
        except Full as full:
            raise await self._lanes.full(who.org, full) from None
        told = Accepted(id=new, state=State.QUEUED)
        try:
            told = _accepted(await self._shape(who, new, wall_s=time.time()))
        except (UnknownPart, Unavailable) as error:
            log.warning("submission_told_in_part", job=new, error=str(error))
        headers = {"Location": call.link(f"/v1/jobs/{new}")}
        return Reply(told, status=202, headers=headers)

    async def _shape(self, who: Identity, id: str, *, wall_s: float) -> JobShape:
        return await self._told(await self._singles.find(who.org, id), wall_s=wall_s)

    async def _told(self, kept: Kept, *, wall_s: float) -> JobShape:
        """A job, with why it waits if it does."""
        shape = self._shape_of(kept, wall_now(self._store.gateway))
        if kept.ended_ms is not None:
            return shape
        try:
            told = await self._standing(kept.id, wall_s=wall_s)
        except UnknownPart:  # it was erased meanwhile
            return shape
        return JobShape.model_validate(
            {
                **shape.model_dump(by_alias=True, exclude={"reason", "estimate"}),
                "reason": told["waits"],
                "estimate": Estimate.model_validate(
                    {"goes": told["goes"], "answered": told["answered"]}
                ),
            }
        )

    async def _standing(self, job: str, *, wall_s: float) -> Told:
        seen = await self._store.explain(job=job)
        return standing(seen, await self._lanes.holds(seen.lane_id), wall_s=wall_s)

    def _shape_of(self, kept: Kept, wall: Wall) -> JobShape:
        return _shape(kept, wall, simulated=self._simulated)


def _id(call: Call) -> str:
    """Which job is meant. The request's line in the log names it, if it can be a job's id: any
    other text is the client's own, and may be what nobody should log."""
    id = call.path["id"]
    if _JOB_ID.fullmatch(id):
        bind_contextvars(job=id)
    return id


def _accepted(job: JobShape) -> Accepted:
    return Accepted(id=job.id, state=job.state, reason=job.reason, estimate=job.estimate)


def _shape(kept: Kept, wall: Wall, *, simulated: bool) -> JobShape:
    note = orjson.loads(kept.note)
    told: dict[str, Any] = {
        "id": kept.id,
        "state": kept.state,
        "endpoint": note["endpoint"],
        "class": note["class"],
        "model": note["model"],
        "user": note["user"],
        "metadata": note.get("metadata", {}),
        "submitted_at": wall.at(kept.submitted_ms),
        "ended_at": wall.at(kept.ended_ms),
        "deadline": wall.at(kept.deadline_ms),
        "attempts": kept.attempts,
        "cancelling": kept.cancelling and kept.ended_ms is None,
        "again_of": kept.again_of,
        "simulated": simulated,
    }
    if kept.answer is not None:
        answer = orjson.loads(kept.answer)
        if kept.state is State.SUCCEEDED:
            told["result"] = answer
        else:
            told["error"] = answer["error"]
    return JobShape.model_validate(told)


def _passes_all(query: ListQuery) -> bool:
    filters: Sequence[Any] = (query.state, query.endpoint, query.class_, query.user, query.search)
    return all(one is None for one in filters)


def _passes(query: ListQuery, kept: Kept) -> bool:
    if query.state is not None and kept.state is not query.state:
        return False
    if _passes_all(query):
        return True
    note = orjson.loads(kept.note)
    wanted = {"endpoint": query.endpoint, "class": query.class_, "user": query.user}
    if any(value is not None and note[name] != value for name, value in wanted.items()):
        return False
    if query.search is None:
        return True
    texts = [kept.id, note["model"], *note.get("metadata", {}).values()]
    return any(query.search in text for text in texts)
