"""Moments as programs and people are told of them: the time of day, and how far from now."""

from dataclasses import dataclass
from typing import Any

from millpond.clock import duration, rfc3339

Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clock:
    """Now, in logical time and as people know it."""

    now_ms: int
    wall_s: float

    def at(self, logical_ms: int | None) -> Told | None:
        """A moment of logical time."""
        return None if logical_ms is None else self.after((logical_ms - self.now_ms) / 1_000)

    def after(self, seconds: float | None) -> Told | None:
        """So long after now."""
        if seconds is None:
            return None
        return {"at": rfc3339(self.wall_s + seconds), "in_s": round(seconds, 1)}

    def wall(self, unix_s: float | None) -> Told | None:
        return None if unix_s is None else self.after(unix_s - self.wall_s)


def for_people(moment: Told) -> str:
    """`2026-01-31T12:00:00Z (in 3m10s)`, or `(8s ago)`."""
    seconds = moment["in_s"]
    apart = f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} ago"
    return f"{moment['at']} ({apart})"
