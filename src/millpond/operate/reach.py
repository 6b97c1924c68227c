"""Which server is meant, and which org, lane or flow."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from millpond.embedded import server
from millpond.errors import NoServer, Refused, StoreUnavailable, UnknownPart
from millpond.settings import Settings
from millpond.store.gateway import Gateway, connect
from millpond.store.store import Store
from millpond.store.view import Explanation


class Unclear(Refused):
    """A name is missing, or means more than one."""

    code = "unclear"


@asynccontextmanager
async def reach(data_dir: Path, settings: Settings) -> AsyncIterator[Store]:
    """The server of the run that is alive in a data folder, else the one that the settings name."""
    url = server.address(data_dir / server.FOLDER)
    if url is None or not await _answers(url):
        url = settings.redis_url
    if url is None:
        raise NoServer(
            f"no run is alive here ({data_dir}); name a server: --data-dir DIR of a run that is, "
            "or MILLPOND_REDIS_URL"
        )
    async with connect(url) as redis:
        store = Store(Gateway(redis, settings.partition))
        try:
            await store.hello()
        except StoreUnavailable as error:
            raise NoServer(str(error)) from None
        yield store


async def _answers(url: str) -> bool:
    async with connect(url) as redis:
        try:
            return bool(await redis.ping())
        except (RedisError, OSError):
            return False


async def org_of(store: Store, name: str | None) -> str:
    """The org that is meant: by name or the beginning of one; the only one there is, if none is
    named."""
    return _meant("org", name, await store.orgs())


@dataclass(frozen=True, slots=True)
class LaneName:
    id: str
    org: str


async def lanes_of(store: Store) -> list[LaneName]:
    """Every lane of every org."""
    return [LaneName(lane, org) for org in await store.orgs() for lane in await store.lanes(org)]


async def lane_of(store: Store, name: str) -> LaneName:
    """The lane that is meant: by name, `ACCOUNT.ENDPOINT`, or the beginning of one."""
    lanes = {lane.id: lane for lane in await lanes_of(store)}
    return lanes[_meant("lane", name, lanes)]


async def find(store: Store, name: str) -> Explanation:
    """How the job, the flow or the lane of this name stands: the first of them that is there."""
    for part in ("job", "flow"):
        try:
            return await store.explain(**{part: name})
        except UnknownPart:
            continue
    try:
        lane = await lane_of(store, name)
    except UnknownPart:
        raise UnknownPart("job, flow or lane", name) from None
    return await store.explain(lane=lane.id)


def _meant(part: str, name: str | None, known: Iterable[str]) -> str:
    known = sorted(known)
    fitting = known if name is None else [one for one in known if one.startswith(name)]
    if name in fitting:
        return str(name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        which = f"{name!r} may be one of" if name else "name one of"
        raise Unclear(f"which {part}? {which} {', '.join(fitting)}")
    if name is None:
        raise Unclear(f"the server knows no {part} yet: nothing has been submitted")
    raise UnknownPart(part, name)
