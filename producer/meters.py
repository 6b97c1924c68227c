"""What /metrics tells of the store: looked at every few seconds, told as it was then."""

import asyncio
from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millpond import __version__
from millpond.errors import Unavailable
from millpond.store.patience import pause
from millpond.store.singles import Counts, Singles
from millpond.store.store import Store

log = structlog.get_logger()

_LOOK_S = 5.0


class StoreMeters(Collector):
    """Counters and gauges of the whole partition."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._singles = Singles(store.gateway)
        self._counts: Counts | None = None
        self._silent_ms: int | None = None
        registry.register(self)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Look, again and again."""
        while not stop.is_set():
            try:
                self._counts = await self._singles.counts()
                self._silent_ms = await self._store.scheduler_silent_ms()
            except Unavailable as error:
                self._counts = None  # nothing is told rather than what may be so no more
                log.warning("store_unavailable", error=str(error))
            await pause(stop, _LOOK_S)

    def collect(self) -> Iterator[Metric]:
        built = GaugeMetricFamily(
            "millpond_build_info", "Which millpond it is.", labels=["version"]
        )
        built.add_metric([__version__], 1)
        yield built
        if self._counts is None:
            return
        submitted = CounterMetricFamily(
            "millpond_jobs_enqueued", "Single jobs taken in.", labels=["endpoint"]
        )
        finished = CounterMetricFamily(
            "millpond_jobs_finished", "Single jobs that ended.", labels=["endpoint", "outcome"]
        )
        open_: dict[str, int] = {}
        for (state, endpoint), count in self._counts.jobs.items():
            if state == "submitted":
                submitted.add_metric([endpoint], count)
                open_[endpoint] = open_.get(endpoint, 0) + count
            else:
                finished.add_metric([endpoint, state], count)
                open_[endpoint] = open_.get(endpoint, 0) - count
        waiting = GaugeMetricFamily(
            "millpond_jobs_open", "Single jobs that have not ended.", labels=["endpoint"]
        )
        for endpoint, count in open_.items():
            waiting.add_metric([endpoint], count)
        yield from (submitted, finished, waiting)
        yield GaugeMetricFamily(
            "millpond_waiting_bytes", "Of jobs that have not ended.", self._counts.waiting_bytes
        )
        yield GaugeMetricFamily("millpond_orgs", "Orgs that are known.", self._counts.orgs)
        if self._silent_ms is not None:
            yield GaugeMetricFamily(
                "millpond_scheduler_lag_seconds",
                "Since a scheduler last said that it is at work.",
                self._silent_ms / 1_000,
            )
