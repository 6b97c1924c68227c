"""What operators change: it holds from the next decision on, and stands in the org's audit."""

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, Unit, write_limit_list
from millpond.errors import Refused
from millpond.operate.reach import LaneName
from millpond.providers.profile import PROFILES, Mode, ProviderName
from millpond.standing.explain import held
from millpond.standing.moments import Told
from millpond.store.store import Changes, Reserve, Store
from millpond.store.view import LaneView

#: How the pause of an operator begins; a provider's begins otherwise, and ends a run.
PAUSED = "paused: "


class NothingToChange(Refused):
    """A command that changes names no change."""

    code = "nothing_to_change"


class NoSuchLimits(Refused):
    """Limits that do not go with each other, or that nobody knows."""

    code = "no_such_limits"


def operator() -> str:
    """Who does it, for the audit: the user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@dataclass(frozen=True, slots=True)
class OrgChanges:
    """None stays as it is; `mode` goes with the provider whose profile it is of."""

    quota: int | Literal["none"] | None = None
    suspended: bool | None = None
    mode: tuple[Mode, ProviderName] | None = None
    weights: Mapping[str, float] | None = None
    reserve: Reserve | None = None


async def change_org(store: Store, org: str, changes: OrgChanges) -> Told:
    """Change an org; under a mode also the limits of its lanes, each for its endpoint."""
    if changes == OrgChanges(weights={}) or changes == OrgChanges():
        raise NothingToChange("name what to change, for example --quota 100000 or --suspend")
    by, told = operator(), Changes(reserve=changes.reserve, weights=changes.weights or {})
    lanes: dict[str, Sequence[Limit]] = {}
    if changes.mode is not None:
        mode, provider = changes.mode
        told = replace(told, mode=mode, quota=_quota(PROFILES[provider].quota[mode]))
        lanes = await _limits_of_mode(store, org, mode, provider)
    if changes.quota is not None:
        told = replace(told, quota=changes.quota)
    if changes.suspended is not None:
        told = replace(told, status="suspended" if changes.suspended else "active")
    for lane, limits in lanes.items():
        kept = _kept_of((await store.explain(lane=lane)).lane, limits)
        of_lane = Changes(lane=lane, limits=limits, bulk=bulk_limits(limits, kept))
        await store.change(org, of_lane, by=by)
    version = await store.change(org, told, by=by)
    return {
        "org": org,
        "version": version,
        "lanes": {lane: write_limit_list(limits) for lane, limits in lanes.items()},
    }


def _quota(quota: int | None) -> int | Literal["none"]:
    return "none" if quota is None else quota


async def _limits_of_mode(
    store: Store, org: str, mode: Mode, provider: ProviderName
) -> dict[str, Sequence[Limit]]:
    known = PROFILES[provider].limits
    if known is None:
        raise NoSuchLimits(
            f"nobody knows the limits of {provider} beforehand; set them lane by lane: "
            "millpond lane set LANE --limits 500/60s"
        )
    found: dict[str, Sequence[Limit]] = {}
    for lane in await store.lanes(org):
        endpoint = lane.rpartition(".")[2]
        if endpoint in set(Endpoint):
            found[lane] = known[mode][Endpoint(endpoint)]
    return found


@dataclass(frozen=True, slots=True)
class LaneChanges:
    """None stays as it is. `paused`: why, `""` goes on. `kept`: for interactive jobs, of the
    windows that it names."""

    limits: Sequence[Limit] | None = None
    kept: Sequence[Limit] | None = None
    paused: str | None = None
    paced: bool | None = None
    service_time: bool | None = None


async def change_lane(store: Store, lane: LaneName, changes: LaneChanges) -> Told:
    if changes == LaneChanges():
        raise NothingToChange("name what to change, for example --limits 60/60s or --pause WHY")
    limits: Sequence[Limit] | None = None
    bulk: Sequence[Limit] = ()
    if changes.limits is not None or changes.kept is not None:
        seen = (await store.explain(lane=lane.id)).lane
        limits = changes.limits if changes.limits is not None else _own_limits(seen)
        kept = changes.kept if changes.kept is not None else _kept_of(seen, limits)
        bulk = bulk_limits(limits, kept)
    version = await store.change(
        lane.org,
        Changes(
            lane=lane.id,
            limits=limits,
            bulk=bulk,
            credit=changes.service_time,
            paced=changes.paced,
            paused=changes.paused and PAUSED + changes.paused,
        ),
        by=operator(),
    )
    return {"lane": lane.id, "org": lane.org, "version": version}


def _own_limits(lane: LaneView) -> list[Limit]:
    return [limit for limit in held((), lane.windows) if limit.unit != Unit.BULK]


def _kept_of(lane: LaneView, limits: Sequence[Limit]) -> list[Limit]:
    """What was kept for interactive jobs still is, as far as there are such windows and something
    is left for bulk."""
    whole = {limit.window_ms: limit.amount for limit in _own_limits(lane) if _of_calls(limit)}
    most = {limit.window_ms: limit.amount for limit in limits if _of_calls(limit)}
    return [
        Limit(whole[window.window_ms] - window.amount, window.window_ms, "")
        for window in lane.windows
        if window.unit == Unit.BULK
        and whole.get(window.window_ms, 0) - window.amount < most.get(window.window_ms, 0)
    ]


def _of_calls(limit: Limit) -> bool:
    return limit.unit == Unit.CALLS and limit.window_ms > 0


def bulk_limits(limits: Sequence[Limit], kept: Sequence[Limit]) -> tuple[Limit, ...]:
    """What bulk may use of limits of which something is kept. Raises NoSuchLimits."""
    whole = {limit.window_ms: limit for limit in limits if _of_calls(limit)}
    found = []
    for one in kept:
        limit = whole.get(one.window_ms)
        if limit is None or not _of_calls(one):
            raise NoSuchLimits(f"{one.written}: the lane has no limit of calls with this window")
        if one.amount >= limit.amount:
            raise NoSuchLimits(f"{one.written} of {limit.written} leaves nothing for bulk")
        found.append(replace(limit, amount=limit.amount - one.amount))
    return tuple(found)


async def change_flow(
    store: Store, flow: str, *, weight: float | None, paused: bool | None
) -> Told:
    if weight is None and paused is None:
        raise NothingToChange("name what to change, for example --weight 2 or --pause")
    seen = await store.explain(flow=flow)
    version = await store.change(
        seen.org_id,
        Changes(flow=flow, flow_weight=weight, flow_paused=paused),
        by=operator(),
    )
    return {"flow": flow, "org": seen.org_id, "version": version}
