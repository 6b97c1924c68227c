"""What the API knows of lanes: whether there is room for more jobs, and what is left of limits."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from millpond.clock import duration, monotonic_ms
from millpond.domain.forecast import Line
from millpond.domain.job import Class, Endpoint
from millpond.domain.limit import Unit
from millpond.errors import UnknownPart
from millpond.producer.api.shapes import JobAsked
from millpond.producer.http.problems import LimitShown, Problem
from millpond.standing.estimate import alone_goes_ms, estimate, used_amount
from millpond.store.singles import Bounds, Full, Singles
from millpond.store.store import Store
from millpond.store.view import Explanation, Holds

#: A look at a lane is believed for so long, and one that is a reason to refuse for so long.
_KNOWN_MS, _REFUSED_BY_MS = 200, 20
_LANES_MOST = 1_000
#: Nobody knows when there will be room: this long is waited at least.
_NOBODY_KNOWS_S = 60.0
_NAMES = {60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}


@dataclass(slots=True)
class _Look:
    """How a lane stood at a moment; `came`: jobs that were taken in for it since."""

    at_ms: float
    seen: Explanation
    holds: Holds
    came: int = 0


class Lanes:
    """Looks at lanes. `drain_most_s`: jobs are taken in while what waits before them will have
    gone in that time."""

    def __init__(self, store: Store, bounds: Bounds, *, drain_most_s: float) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self.bounds = bounds
        self._drain_most_s = drain_most_s
        self._seen: dict[str, _Look] = {}
        self._waiting: dict[str, tuple[float, int, int]] = {}

    async def look(self, lane: str) -> tuple[Explanation, Holds]:
        """How a lane stands, a moment ago at most."""
        found = await self._look(lane, _KNOWN_MS)
        return found.seen, found.holds

    async def holds(self, lane: str) -> Holds:
        return (await self.look(lane))[1]

    async def _look(self, lane: str, most_ms: float) -> _Look:
        found, now_ms = self._seen.get(lane), monotonic_ms()
        if found is None or now_ms - found.at_ms >= most_ms:
            seen = await self._store.explain(lane=lane)
            found = _Look(now_ms, seen, await self._store.holds(lane))
            while len(self._seen) >= _LANES_MOST:
                del self._seen[next(iter(self._seen))]
            self._seen[lane] = found
        return found

    def came(self, org: str, asked: Sequence[JobAsked]) -> None:
        """These were taken in: what was seen before is not so any more."""
        self._waiting.pop(org, None)
        for one in asked:
            if found := self._seen.get(f"{org}.{one.endpoint}"):
                found.came += 1

    async def room_for(self, org: str, size: int) -> None:
        """Raises a Problem if a request of so many bytes finds no room, as things stood a moment
        ago: its body is not worth reading then."""
        for most_ms in (_KNOWN_MS, _REFUSED_BY_MS):
            of_org, of_all = await self._bytes(org, most_ms)
            full = None
            if of_org + size > self.bounds.org:
                full = Full("org", of_org, self.bounds.org)
            elif of_all + size > self.bounds.server:
                full = Full("server", of_all, self.bounds.server)
            if full is None:
                return
        assert full is not None
        raise await self.full(org, full, size)

    async def _bytes(self, org: str, most_ms: float) -> tuple[int, int]:
        """Of jobs that wait: of the org, and of all."""
        known, now_ms = self._waiting.get(org), monotonic_ms()
        if known is None or now_ms - known[0] >= most_ms:
            waiting = await self._singles.waiting(org)
            while len(self._waiting) >= _LANES_MOST:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[org] = known = (now_ms, *waiting)
        return known[1], known[2]

    async def admit(self, org: str, asked: Sequence[JobAsked]) -> None:
        """Raises a Problem if what waits in a lane would take too long to go."""
        most_s = self._drain_most_s
        for endpoint, jobs in Counter(one.endpoint for one in asked).items():
            lane = f"{org}.{endpoint}"
            drains_s = await self._drains_s(lane, jobs)
            if drains_s is not None and drains_s > most_s:
                drains_s = await self._drains_s(lane, jobs, _REFUSED_BY_MS)
            if drains_s is None or drains_s <= most_s:
                continue
            seen, holds = await self.look(lane)
            alone_ms = alone_goes_ms(seen, holds, jobs, _pack(seen))
            if alone_ms is not None and alone_ms > most_s * 1_000:
                raise Problem(
                    "refused",
                    f"{jobs} jobs take {duration(alone_ms / 1_000)} to go for {endpoint} although "
                    f"nothing else waits, and what takes longer than {duration(most_s)} is not "
                    "taken in: send fewer at a time",
                    limit=_drain(alone_ms / 1_000, most_s),
                    error_code="takes_too_long",
                )
            raise Problem(
                "backlog",
                f"with what waits for {endpoint} already it would take {duration(drains_s)} until "
                f"this has gone, and what takes longer than {duration(most_s)} is not taken in",
                retry_after_s=drains_s - most_s,
                limit=_drain(drains_s, most_s),
            )

    async def full(self, org: str, full: Full, size: int = 0) -> Problem:
        """There are too many bytes: when it is worth while to ask again. `size`: bytes that are
        asked for at least. More than there may ever be are too many for good."""
        if size > full.most or not full.waiting:
            return _too_large(full)
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
        lanes = (f"{org}.{endpoint}" for endpoint in Endpoint)
        waits = [await self._drains_s(lane, 0, _REFUSED_BY_MS) for lane in lanes]
        longest_s = max((one for one in waits if one is not None), default=0.0)
        return max(1.0, longest_s / 10) if longest_s else None

    async def _drains_s(self, lane: str, more: int, known_ms: float = _KNOWN_MS) -> float | None:
        """How long until what is in line, and so much more, has gone; None: nobody knows."""
        try:
            look = await self._look(lane, known_ms)
        except UnknownPart:
            return None
        seen, holds = look.seen, look.holds
        jobs = sum(line.queued for line in seen.lines) + look.came + more
        if not jobs:
            return 0.0
        all_ = Line(Class.BULK, "", "", jobs, 1.0, 1.0, _pack(seen))
        found = estimate(seen, holds, [all_], "", jobs)
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


def least_size(asked: Sequence[JobAsked]) -> int:
    """Bytes that these weigh in the store at least: what they bring, as it is kept."""
    return sum(
        len(orjson.dumps([one.prompt, one.text, one.inputs, one.params, one.metadata]))
        + sum(len(example.text) + len(example.label) for example in one.examples or ())
        for one in asked
    )


def backlog(full: Full, detail: str = "", *, retry_after_s: float = _NOBODY_KNOWS_S) -> Problem:
    """What is told of a bound that is reached."""
    return Problem(
        "backlog", detail or str(full), retry_after_s=retry_after_s, limit=_bytes_shown(full)
    )


def _too_large(full: Full) -> Problem:
    of = "an org" if full.whose.startswith("org") else "all orgs"
    may = "may be kept" if full.whose.endswith("_kept") else "may wait"
    detail = (
        f"this alone is more than the {full.most:,} bytes of jobs of {of} that {may}: send fewer, "
        "or smaller ones, at a time"
    )
    return Problem("too-large", detail, limit=_bytes_shown(full))


def _bytes_shown(full: Full) -> LimitShown:
    name = "kept" if full.whose.endswith("_kept") else "waiting"
    return LimitShown(name, "bytes", full.waiting, full.most)


def _drain(takes_s: float, most_s: float) -> LimitShown:
    return LimitShown("drain", "seconds", math.ceil(takes_s), int(most_s))


def _pack(seen: Explanation) -> int:
    """Jobs that share a call, at most."""
    return max((line.pack for line in seen.lines), default=1)
