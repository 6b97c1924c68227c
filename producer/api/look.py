"""Routes that tell of an org: its usage, its events, its models."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from pydantic import Field

from millpond.clock import rfc3339
from millpond.domain.job import Endpoint
from millpond.producer.api.shapes import EndpointName
from millpond.producer.api.still import StillGood
from millpond.producer.http.problems import LimitShown, Problem, invalid
from millpond.producer.http.sse import Event, stream
from millpond.producer.http.table import EVENT_STREAM, Call, Model, Reply, Route, Who
from millpond.producer.intake import Known
from millpond.providers.catalogue import allowed
from millpond.store.own_models import OwnModels
from millpond.store.singles import Singles
from millpond.store.store import Row, Store

_EVENTS_AT_ONCE = 200
_LOOK_S = 0.5
#: Streams of events that an org may have open at this process.
STREAMS_MOST = 50
_STREAM_AGAIN_S = 5.0
_EVENT_ID = re.compile(r"[0-9]{1,16}(-[0-9]{1,16})?")


class UsageQuery(Model):
    """Which days are wanted."""

    days: Annotated[int, Field(ge=1, le=366)] = Field(30, description="Today and those before.")
    user: str | None = None
    endpoint: EndpointName | None = None


class UsageRow(Model):
    """What single jobs used on a day (UTC)."""

    day: str
    user: str
    endpoint: EndpointName
    model: str
    jobs: int = 0
    characters: int = 0


class Usage(Model):
    """Characters and jobs by day, user, endpoint and model, the latest day first; and what the
    org's quota stands at, which counts everything."""

    data: list[UsageRow]
    quota: int | None
    used: int
    estimated: int
    reserved: int


class ModelShape(Model):
    """A model that the org may use. `base`: it is the org's own, made of that one."""

    id: str
    kind: str | None = None
    size: str | None = None
    endpoints: list[EndpointName] = Field(default_factory=list)
    base: str | None = None


class Look:
    """The handlers, and what they work with."""

    def __init__(self, store: Store, known: Known, still: StillGood) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self._own_models = OwnModels(store.gateway)
        self._known = known
        self._still = still
        self._streams: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        user: dict[str, Any] = {"who": Who.USER}
        return [
            Route(
                "GET",
                "/v1/usage",
                self.get_usage,
                summary="What jobs used, by day, user, endpoint and model",
                query=UsageQuery,
                replies={200: Usage},
                tags=("org",),
                **user,
            ),
            Route(
                "GET",
                "/v1/models",
                self.list_models,
                summary="Models that the org may use in its access mode",
                tags=("org",),
                **user,
            ),
            Route(
                "GET",
                "/v1/events",
                self.follow_events,
                summary="What happens to the org's jobs and quota, as server-sent events",
                reply_type=EVENT_STREAM,
                problems=(429,),
                tags=("org",),
                **user,
            ),
        ]

    async def get_usage(self, call: Call) -> Usage:
        query, org = call.query, call.caller.org
        today = self._store.gateway.logical_ms() // 86_400_000
        rows = [
            row
            for day in range(today, today - query.days, -1)
            for row in await self._day(org, day)
            if query.user in (None, row.user) and query.endpoint in (None, row.endpoint)
        ]
        stands = await self._store.org(org)
        return Usage(
            data=rows,
            quota=stands.quota,
            used=stands.used,
            estimated=stands.estimated,
            reserved=stands.reserved,
        )

    async def _day(self, org: str, day: int) -> list[UsageRow]:
        found: dict[tuple[str, str, str], dict[str, int]] = {}
        for (user, endpoint, model, what), count in (await self._singles.usage(org, day)).items():
            found.setdefault((user, endpoint, model), {})[what] = count
        name = rfc3339(day * 86_400)[:10]
        return [
            UsageRow(
                day=name,
                user=user,
                endpoint=Endpoint(endpoint),
                model=model,
                jobs=counts.get("jobs", 0),
                characters=counts.get("characters", 0),
            )
            for (user, endpoint, model), counts in sorted(found.items())
        ]

    async def list_models(self, call: Call) -> Reply:
        org = call.caller.org
        mode = "full" if (await self._store.org(org)).mode == "full" else "limited"
        own = await self._own_models.of(org)
        models = self._known.models or {}
        data = [
            ModelShape(
                id=name,
                kind=models[name].kind,
                size=models[name].size,
                endpoints=list(models[name].serves),
            )
            for name in allowed(models, "full" if mode == "full" else "limited", None)
        ]
        data += [ModelShape(id=name, base=base) for name, base in sorted(own.items())]
        known = self._known.models is not None
        return Reply({"mode": mode, "all_known": known, "data": data})

    async def follow_events(self, call: Call) -> Any:
        org = call.caller.org
        last = call.request.headers.get("Last-Event-ID")
        if last and not _EVENT_ID.fullmatch(last):
            raise invalid("/Last-Event-ID", "it is no id of an event", where="header")
        if self._streams[org] >= STREAMS_MOST:
            raise Problem(
                "too-many-requests",
                f"the org follows its events {STREAMS_MOST} times already: end one first",
                retry_after_s=_STREAM_AGAIN_S,
                limit=LimitShown("events", "streams", self._streams[org], STREAMS_MOST),
            )
        self._streams[org] += 1
        try:
            return await stream(call, lambda last: self._events(call, org, last))
        finally:
            self._streams[org] -= 1
            if not self._streams[org]:
                del self._streams[org]

    async def _events(self, call: Call, org: str, last: str | None) -> AsyncIterator[Event]:
        """Events of the org as long as the caller's key is good. Before those that follow a gap
        there is one that says `reset`."""
        latest = await self._store.records(org, "events", most=1)
        end = latest[0].id if latest else "0-0"
        place = end
        if last is not None:
            last = last if "-" in last else f"{last}-0"
            place = min(last, end, key=_number)
            if not await self._singles.event_is_kept(org, last):
                yield _RESET
        while await self._still.is_good(call):
            rows = await self._singles.events(org, place, most=_EVENTS_AT_ONCE)
            # Who is that far behind may have been overtaken by what is forgotten.
            if len(rows) == _EVENTS_AT_ONCE and not await self._singles.event_is_kept(org, place):
                yield _RESET
            for row in rows:
                yield self._event(row)
                place = row.id
            if not rows:
                await asyncio.sleep(_LOOK_S)

    def _event(self, row: Row) -> Event:
        told: dict[str, Any] = dict(row.fields)
        kind = told.pop("event")
        at_ms = int(told.pop("at"))
        behind_ms = self._store.gateway.logical_ms() - at_ms
        told = {name: int(value) if value.isdigit() else value for name, value in told.items()}
        told["at"] = rfc3339(time.time() - behind_ms / 1_000)
        return Event(orjson.dumps(told).decode(), id=row.id, event=kind)


#: Events were missed.
_RESET = Event("{}", event="reset")


def _number(event: str) -> tuple[int, int]:
    """An id of an event, to be compared."""
    ms, _, number = event.partition("-")
    return int(ms), int(number)
