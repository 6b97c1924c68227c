"""Routes of an org's limits: how they stand, and how much of them one user may have."""

import time
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Unit, parse_limit
from millpond.producer.api.lanes import Lanes
from millpond.producer.api.shapes import EndpointName
from millpond.producer.api.values import Prose
from millpond.producer.http.table import Call, Model, Reply, Route, Who
from millpond.standing.standing import caps_standing, lane_standing, org_standing
from millpond.store.store import Changes, LaneTerms, Store


def _caps(text: str) -> tuple[Limit, ...]:
    """Limits that one user may have. Raises ValueError."""
    caps = tuple(parse_limit(one) for one in text.split(","))
    for one in caps:
        if one.unit is not Unit.CALLS or not one.window_ms:
            raise ValueError(
                f"{one.written!r}: a limit per user counts calls of a window, for example 20/60s"
            )
    if len({one.window_ms for one in caps}) < len(caps):
        raise ValueError("two limits have the same window")
    return caps


def _readable(text: str) -> str:
    _caps(text)
    return text


CapList = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_readable),
    Field(examples=["20/60s,2000/1d"]),
]


class CapsAsked(Model):
    """What each user of the org may have of an endpoint's limits; null: as much as there is. An
    endpoint that is not named stays as it is."""

    limits: Annotated[dict[EndpointName, CapList | None], Field(min_length=1)]
    why: Prose | None = Field(None, description="It stands in the org's audit.")


class LimitRoutes:
    """For users: how limits stand. For admins: what one user may have of them."""

    def __init__(self, store: Store, lanes: Lanes) -> None:
        self._store = store
        self._lanes = lanes

    def routes(self) -> list[Route]:
        tags: dict[str, Any] = {"tags": ("org",)}
        return [
            Route(
                "GET",
                "/v1/limits",
                self.get_limits,
                summary="The org's limits and quota, what is used of them and when there is room",
                who=Who.USER,
                **tags,
            ),
            Route(
                "PUT",
                "/v1/limits/per-user",
                self.set_caps,
                summary="How much of the org's limits each of its users may have",
                body=CapsAsked,
                who=Who.ADMIN,
                **tags,
            ),
        ]

    async def get_limits(self, call: Call) -> Reply:
        org = call.caller.org
        endpoints = {}
        for endpoint in Endpoint:
            lane = f"{org}.{endpoint}"
            seen, holds = await self._lanes.look(lane)
            told = lane_standing(seen, holds, wall_s=time.time())
            told["limits"] += caps_standing(
                await self._store.explain(lane=lane, user=call.caller.user), wall_s=time.time()
            )
            endpoints[str(endpoint)] = {
                name: value for name, value in told.items() if name not in ("org", "in_line")
            }
        return Reply({"org": org_standing(await self._store.org(org), org), "endpoints": endpoints})

    async def set_caps(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        lanes = [
            LaneTerms(f"{who.org}.{endpoint}", caps=_caps(text) if text else ())
            for endpoint, text in asked.limits.items()
        ]
        await self._store.change(who.org, Changes(lanes=lanes, why=asked.why or ""), by=who.user)
        return await self.get_limits(call)
