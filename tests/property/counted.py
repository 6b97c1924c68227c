"""What the server's data says is taken of a lane's limits, as the sums of `domain/window.py`."""

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from millpond.domain.limit import Limit, Unit
from millpond.domain.window import Windows
from property.books import Books, CallBook, Cap, LaneBook
from property.direct import Dump

RING, RING_AHEAD_MS = 480, 2_000
SHARE_CLIMBS = 0.05

read = lru_cache(maxsize=1_000)(orjson.loads)


def units_of(call: Mapping[str, int], cap: Cap) -> dict[Unit, int]:
    """What a call takes of a limit; bulk calls are counted as calls that only bulk makes."""
    unit = Unit.CALLS if cap.unit == "bulk" else Unit(cap.unit)
    return {unit: call[cap.unit]}


@dataclass
class Taken:
    """One limit as it stands: so much of it is allowed now, and what is taken."""

    cap: Cap
    windows: Windows

    @property
    def limit(self) -> Limit:
        return self.windows.limits[0]

    def used(self, now: int) -> int:
        return self.windows.used(self.limit, now)

    def left(self, now: int) -> int:
        return self.limit.amount - self.used(now)

    def release(self, units: Mapping[str, int]) -> None:
        self.windows.release(units_of(units, self.cap))

    def wait_ms(self, now: int, units: Mapping[str, int]) -> int | None:
        if self.cap.unit == "bulk" and not units["bulk"]:
            return 0
        return self.windows.wait_ms(now, units_of(units, self.cap))


def taken(dump: Dump, books: Books, lane: LaneBook, now: int) -> list[Taken]:
    fields = dump[f"l:{lane.id}"]
    flight = books.flight(lane.id)
    window, _ = shortest(lane.caps)
    share = share_of(fields, window, now)
    told = read(fields["limits"])
    assert [(cap.amount, cap.window_ms, cap.unit) for cap in lane.caps] == [
        tuple(one[:3]) for one in told
    ]
    return [
        _taken(dump, lane, cap, one[3], flight, share if cap.window_ms == window else 1.0, now)
        for cap, one in zip(lane.caps, told, strict=True)
    ]


def _taken(
    dump: Dump,
    lane: LaneBook,
    cap: Cap,
    in_ring: bool,
    flight: list[CallBook],
    share: float,
    now: int,
) -> Taken:
    unit = Unit.CALLS if cap.unit == "bulk" else Unit(cap.unit)
    amount = cap.amount
    if share < 1 and cap.unit == "calls" and cap.window_ms:
        amount = max(1, math.floor(amount * share))
    fields = dump[f"l:{lane.id}"]
    stamps: list[tuple[int, Mapping[Unit, int]]] = []
    if cap.window_ms and in_ring:
        data = dump.get(f"l:{lane.id}:d:{cap.unit}:{cap.window_ms}", b"")
        base = fields.get(f"base:{cap.unit}:{cap.window_ms}")
        stamps = [(at, {unit: n}) for at, n in ring_stamps(data, base, cap.window_ms, now)]
    elif cap.window_ms:
        before, complete = int(fields["before"]), int(fields["complete"])
        stamps = [(int(at), {unit: 1}) for at in sorted(dump.get(f"l:{lane.id}:s", {}).values())]
        if before:
            stamps = sorted([*stamps, (complete, {unit: before})], key=lambda stamp: stamp[0])
    total = Counter({unit: sum(call.units[cap.unit] for call in flight)})
    return Taken(cap, Windows([Limit(amount, cap.window_ms, "", unit)], total, stamps))


def ring_stamps(data: bytes, base: str | None, window_ms: int, now: int) -> list[tuple[int, int]]:
    """A counter counts until the last moment that it stands for is outside of the window."""
    width = ring_width(window_ms)
    first = (now - window_ms) // width
    start = first if base is None else int(base)
    return [
        ((b + 1) * width, counters(data)[b % RING])
        for b in range(max(first, start), start + RING)
        if counters(data)[b % RING]
    ]


def ring_width(window_ms: int) -> int:
    return math.ceil((window_ms + RING_AHEAD_MS) / (RING - 2))


@lru_cache(maxsize=1_000)
def counters(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{RING}I", data.ljust(RING * 4, b"\0"))


def shortest(caps: list[Cap]) -> tuple[int, int]:
    """The shortest window of calls, with its amount; 0 if there is none."""
    found = [(cap.window_ms, cap.amount) for cap in caps if cap.unit == "calls" and cap.window_ms]
    return min(found, key=lambda one: one[0]) if found else (0, 0)


def share_of(fields: dict[str, Any], window_ms: int, now: int) -> float:
    if "share" not in fields or window_ms == 0:
        return 1.0
    climbed = SHARE_CLIMBS * (now - int(fields["share_at"])) / window_ms
    return float(min(1, float(fields["share"]) + climbed))
