"""Logical moments as the time of day, which is what clients are told."""

import time

from millpond.clock import rfc3339
from millpond.store.gateway import Gateway


class Wall:
    """Reads one clock off the other, as they stand at one moment."""

    def __init__(self, now_ms: int, wall_s: float) -> None:
        self._offset_s = wall_s - now_ms / 1_000

    def at(self, logical_ms: int | None) -> str | None:
        return None if logical_ms is None else rfc3339(self._offset_s + logical_ms / 1_000)


def wall_now(gateway: Gateway) -> Wall:
    """As they stand now."""
    return Wall(gateway.logical_ms(), time.time())
