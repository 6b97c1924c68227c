"""What time it is, for those that act; logic is told the time instead of asking."""

import time
from datetime import UTC, datetime


def monotonic_ms() -> float:
    """Milliseconds that only go forward; only differences mean something."""
    return time.monotonic_ns() / 1_000_000


def rfc3339(unix_s: float) -> str:
    """A moment as people and programs read it: `2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
