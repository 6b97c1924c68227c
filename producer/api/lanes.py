"""What the API knows of lanes: whether there is room for more jobs, and what is left of limits."""

from collections.abc import Sequence

from millpond.clock import monotonic_ms
from millpond.domain.forecast import Line
from millpond.domain.job import Class, Endpoint
from millpond.domain.limit import Unit
from millpond.errors import UnknownPart
from millpond.producer.api.shapes import JobAsked
from millpond.producer.http.problems import LimitShown, Problem
from millpond.standing.estimate import estimate, used_amount
from millpond.store.singles import Bounds, Full, Singles
from millpond.store.store import Store
from millpond.store.view import Explanation, Holds

#: A look at a lane is used for so long.
_KNOWN_MS = 200
_LANES_MOST = 1_000
#: Nobody knows when there will be room: this long is waited at least.
_NOBODY_KNOWS_S = 60.0
_NAMES = {60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}


class Lanes:
    """Looks at lanes. `drain_most_s`: jobs are taken in while what waits before them will have
    gone in that time."""

    def __init__(self, store: Store, bounds: Bounds, *, drain_most_s: float) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self.bounds = bounds
        self._drain_most_s = drain_most_s
        self._seen: dict[str, tuple[float, Explanation, Holds]] = {}
        self._waiting: dict[str, tuple[float, int, int]] = {}

    async def look(self, lane: str) -> tuple[Explanation, Holds]:
        """How a lane stands, a moment ago at most."""
        known = self._seen.get(lane)
        if known is None or monotonic_ms() >= known[0]:
            seen = await self._store.explain(lane=lane)
            holds = await self._store.holds(lane)
            while len(self._seen) >= _LANES_MOST:
                del self._seen[next(iter(self._seen))]
            self._seen[lane] = known = (monotonic_ms() + _KNOWN_MS, seen, holds)
        return known[1], known[2]

    async def holds(self, lane: str) -> Holds:
        return (await self.look(lane))[1]

    async def room_for(self, org: str, size: int) -> None:
        """Raises a Problem if a request of so many bytes finds no room, as things stood a moment
        ago: its body is not worth reading then."""
        known = self._waiting.get(org)
        if known is None or monotonic_ms() >= known[0]:
            waiting = await self._singles.waiting(org)
            while len(self._waiting) >= _LANES_MOST:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[org] = known = (monotonic_ms() + _KNOWN_MS, *waiting)
        _, of_org, of_all = known
        if of_org + size > self.bounds.org:
            raise await self.full(org, Full("org", of_org, self.bounds.org))
        if of_all + size > self.bounds.server:
            raise await self.full(org, Full("server", of_all, self.bounds.server))

    async def admit(self, org: str, asked: Sequence[JobAsked]) -> None:
        """Raises a Problem if what waits in a lane would take too long to go."""
        for endpoint in {one.endpoint for one in asked}:
            jobs = sum(one.endpoint is endpoint for one in asked)
            drains_s = await self._drains_s(f"{org}.{endpoint}", jobs)
            if drains_s is not None and drains_s > self._drain_most_s:
                raise Problem(
                    "backlog",
                    f"what waits for {endpoint} already will take {drains_s / 3600:.1f} h to go, "
                    f"and more than {self._drain_most_s / 3600:g} h is not taken in",
                    retry_after_s=drains_s - self._drain_most_s,
                )

    async def full(self, org: str, full: Full) -> Problem:
        """There are too many bytes: when it is worth while to ask again."""
        again_s, detail = None, str(full)
        if full.whose == "org":
            again_s = await self._some_gone_s(org)
        if again_s is None:
            again_s = _NOBODY_KNOWS_S
            detail += ". When that will be nobody knows: Retry-After is no promise"
        return backlog(full, detail, retry_after_s=again_s)

    async def _some_gone_s(self, org: str) -> float | None:
        """How long until a tenth of what is in line has gone, so that there is room then. None: it
        cannot be told, or nothing is in line and what is there waits for its time."""
        waits = [await self._drains_s(f"{org}.{endpoint}", 0) for endpoint in Endpoint]
        longest_s = max((one for one in waits if one is not None), default=0.0)
        return max(1.0, longest_s / 10) if longest_s else None

    async def _drains_s(self, lane: str, more: int) -> float | None:
        """How long until what is in line, and so much more, has gone; None: nobody knows."""
        try:
            seen, holds = await self.look(lane)
        except UnknownPart:
            return None
        waiting = sum(line.queued for line in seen.lines)
        if not waiting + more:
            return 0.0
        pack = max((line.pack for line in seen.lines), default=1)
        all_ = Line(Class.BULK, "", "", waiting + more, 1.0, 1.0, pack)
        found = estimate(seen, holds, [all_], "", waiting + more)
        return None if found is None else found.goes_ms / 1_000

    async def rate_headers(self, org: str, endpoint: Endpoint) -> dict[str, str]:
        """What is left of an endpoint's limits (draft-ietf-httpapi-ratelimit-headers-11)."""
        seen, _ = await self.look(f"{org}.{endpoint}")
        policies, lefts = [], []
        for window in seen.lane.windows:
            if window.unit != Unit.CALLS or not window.window_ms:
                continue
            seconds = window.window_ms // 1_000
            name = _NAMES.get(window.window_ms, f"{seconds}s")
            amount = used_amount(seen.lane, window)
            policies.append(f'"{name}";q={window.amount};w={max(1, seconds)}')
            left = f'"{name}";r={max(0, amount - window.used)}'
            if window.frees_at_ms is not None:
                left += f";t={max(0, -(-(window.frees_at_ms - seen.now_ms) // 1_000))}"
            lefts.append(left)
        if not policies:
            return {}
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(lefts)}


def backlog(full: Full, detail: str = "", *, retry_after_s: float = _NOBODY_KNOWS_S) -> Problem:
    """What is told of a bound that is reached."""
    name = "kept" if full.whose.endswith("_kept") else "waiting"
    limit = LimitShown(name, "bytes", full.waiting, full.most)
    return Problem("backlog", detail or str(full), retry_after_s=retry_after_s, limit=limit)
