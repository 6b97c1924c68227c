"""Before anything is sent: what a run will come to, and whether it can."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from millpond.clock import duration, rfc3339
from millpond.domain.forecast import Taken, last_release_ms
from millpond.domain.limit import Limit, Unit
from millpond.producer.records import Invalid, Reader
from millpond.run.feeder import Lines, Wanted, Writer, skipping

#: More calls than this in a window are not told apart.
_AMOUNT_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds: lines, those that cannot run, and the most that the others may use.
    `done` lines have their row already, and count for nothing else. `along` are jobs that go along
    in a call that is made for another."""

    lines: int
    bad_lines: int
    characters: int
    tokens: int
    done: int = 0
    along: int = 0

    @property
    def jobs(self) -> int:
        return self.lines - self.bad_lines - self.done

    @property
    def calls(self) -> int:
        return self.jobs - self.along

    def calls_of(self, jobs: int) -> int:
        """How many calls some of the jobs take."""
        return ceil(jobs * self.calls / self.jobs) if self.jobs else 0

    def under(self, limits: Sequence[Limit]) -> "Contents":
        """In smaller calls, where a pack as large as it may be would not fit into a limit."""
        fits = [
            max(1, limit.amount * self.jobs // self.amount(limit.unit))
            for limit in limits
            if limit.unit not in {Unit.CALLS, Unit.BULK}
        ]
        calls = max(self.calls, ceil(self.jobs / min(fits, default=self.jobs or 1)))
        return replace(self, along=self.jobs - calls)

    def amount(self, unit: Unit) -> int:
        """How much of a unit all of it takes, 1 at least."""
        match unit:
            case Unit.CALLS | Unit.BULK:
                amount = self.calls
            case Unit.INPUTS:
                amount = self.jobs
            case Unit.CHARACTERS:
                amount = self.characters
            case Unit.TOKENS:
                amount = self.tokens
        return max(1, amount)


def read_contents(
    reader: Reader, writer: Writer, wanted: Wanted, *, lines: int, answered: Lines
) -> Contents:
    """Read the whole file once, as it will be sent; `lines` are its lines, or the sample's."""
    bad = characters = tokens = left = along = 0
    packing = _Packing(writer.pack_most)
    for record in reader.read(skipping(answered, wanted)):
        left += 1
        written = record if isinstance(record, Invalid) else writer.write(record)
        if isinstance(written, Invalid):
            bad += 1
        else:
            characters += written.need.characters
            tokens += written.need.tokens
            along += packing.goes_along(written.pack)
    return Contents(lines, bad, characters, tokens, done=lines - left, along=along)


class _Packing:
    """Jobs that stand in line one after the other share a call, if they may."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._key = ""
        self._packed = 0

    def goes_along(self, key: str) -> bool:
        """Whether the next job in line goes in the call of the one before it."""
        if key and key == self._key and self._packed < self._most:
            self._packed += 1
            return True
        self._key, self._packed = key, 1
        return False


@dataclass(frozen=True, slots=True)
class Preview:
    """When it will be done if all goes well; `seconds` None: nobody knows the limits yet."""

    contents: Contents
    fits_quota: bool
    seconds: float | None
    reason: str | None
    counted: bool

    def as_json(self, *, wall_s: float) -> dict[str, Any]:
        end = self._end(wall_s)
        return {
            "lines": self.contents.lines,
            "bad_lines": self.contents.bad_lines,
            "calls": self.contents.calls,
            "characters_max": self.contents.characters,
            "fits_quota": self.fits_quota,
            **end,
            "reason": self.reason,
        }

    def as_what_if(self, written: str, *, wall_s: float) -> dict[str, Any]:
        """The same for another way to run: what differs with it."""
        end = self._end(wall_s)
        return {"if": written, **end, "fits_quota": self.fits_quota, "reason": self.reason}

    def _end(self, wall_s: float) -> dict[str, Any]:
        if self.seconds is None:
            return {"seconds": None, "ends_at": None}
        return {"seconds": round(self.seconds, 3), "ends_at": rfc3339(wall_s + self.seconds)}


def preview(
    contents: Contents,
    limits: Sequence[Limit] | None,
    *,
    quota_left: int | None,
    concurrency: int,
    latency_ms: float,
) -> Preview:
    """`quota_left`: characters that may still be used, None if they do not count."""
    fits = quota_left is None or contents.characters <= quota_left
    if limits is None:
        return Preview(contents, fits, None, "the provider's limits are not known yet", True)
    contents = contents.under(limits)
    slots, taken = plan(limits, contents, concurrency)
    last_ms = last_release_ms(contents.calls, taken, latency_ms=latency_ms, concurrency=slots)
    seconds = (last_ms + latency_ms) / 1_000 if contents.calls else 0.0
    reason = "quota" if not fits else _slowest(limits, contents, latency_ms)
    return Preview(contents, fits, seconds, reason, quota_left is not None)


def describe_preview(seen: Preview, mode: str) -> str:
    """What is to be expected, for people."""
    contents = seen.contents
    text = f"{contents.lines:,} lines"
    if contents.bad_lines:
        text += f" ({contents.bad_lines:,} of them cannot be asked)"
    text += f", {contents.calls:,} calls, at most {contents.characters:,} characters"
    if not seen.fits_quota:
        text += ", which is more than the quota has left"
    text += f"; {_how_long(seen)}"
    return text + ("; limited access: for testing" if mode == "limited" else "; full access")


def describe_what_if(seen: Preview) -> str:
    """How it would be otherwise, for people."""
    text = _how_long(seen)
    return text if seen.fits_quota else f"{text}, and more characters than the quota has left"


def _how_long(seen: Preview) -> str:
    if seen.seconds is None:
        return f"{seen.reason}"
    text = f"about {duration(seen.seconds)}"
    return f"{text} under {seen.reason}" if seen.reason and seen.fits_quota else text


def plan(limits: Sequence[Limit], contents: Contents, concurrency: int) -> tuple[int, list[Taken]]:
    """Limits in calls: how many at once, and windows. A limit of another unit lets as many calls
    through as fit into it on average, at their most."""
    slots, taken = concurrency, []
    for limit in limits:
        amount = min(_AMOUNT_MOST, max(1, int(limit.amount / _each(limit.unit, contents))))
        if limit.window_ms:
            taken.append(Taken(amount, limit.window_ms, []))
        else:
            slots = min(slots, amount)
    return slots, taken


def _each(unit: Unit, contents: Contents) -> float:
    """How much of a unit a call takes on average, 1 at least."""
    return max(1.0, contents.amount(unit) / max(1, contents.calls))


def _slowest(limits: Sequence[Limit], contents: Contents, latency_ms: float) -> str | None:
    """The limit that the run will wait for most, if it will wait for one."""
    pace = {
        limit.written: (limit.window_ms + latency_ms) * _each(limit.unit, contents) / limit.amount
        for limit in limits
        if contents.calls * _each(limit.unit, contents) > limit.amount
    }
    return max(pace, key=lambda written: pace[written]) if pace else None
