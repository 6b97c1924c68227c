"""What time it is, for those that act; logic is told the time instead of asking."""

import time
from datetime import UTC, datetime


def monotonic_ms() -> float:
    """Milliseconds that only go forward; only differences mean something."""
    return time.monotonic_ns() / 1_000_000


#: The first and the last second that can be written.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799


def rfc3339(unix_s: float) -> str:
    """A moment as people and programs read it: `2026-01-31T12:00:00Z`. What lies beyond the years
    1 to 9999 is told as their end."""
    moment = datetime.fromtimestamp(min(max(unix_s, _FIRST_S), _LAST_S), UTC)
    return f"{moment.year:04}{moment:-%m-%dT%H:%M:%SZ}"


def duration(seconds: float) -> str:
    """A length of time for people: 8s, 3m10s, 2h05m, 4d03h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02}h"
