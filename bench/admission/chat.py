"""Somebody asks now and then while bulk fills the limit: how long they wait, and what bulk loses.

Beside it, at a simulator of its own, the same bulk is done alone, and in bursts. A chat waits from
its accept until the simulator has read its request.
"""

import asyncio
import time
from dataclasses import dataclass

from bench.admission.figures import Figures, Place, median, rounded, share_below
from bench.admission.house import ORG, Flow, house, kept, lane

from millpond.domain.job import Class
from rig import Rows, Simulator, simulator

BACKLOG = 1_000
FROM_WINDOW = 2
_LATE_S = 30


@dataclass(frozen=True)
class ChatRun:
    """So many windows of 60 calls, with a chat at some moment of each sixth of a window."""

    window_s: float
    service: str
    windows: int = 12
    chats_a_window: int = 6

    def __call__(self, place: Place) -> Figures:
        shared = ("--limits", f"generate={self.limits}", "--service", self.service)
        seed = ("--seed", str(place.seed))
        with (
            simulator(place.folder / "chats", *shared, *seed) as with_chats,
            simulator(place.folder / "bulk", *shared, *seed) as alone,
        ):
            chats = asyncio.run(self._both(place, with_chats, alone))
            calls, bulk = with_chats.calls(ORG), alone.calls(ORG)
        used, used_alone = self._used(calls), self._used(bulk)
        received_ms = {call["attempt"]: call["received_ms"] for call in calls}
        waits_s = [
            (received_ms.get(chats.calls.get(job, ""), self._never_ms(calls)) - at_ms) / 1_000
            for job, at_ms in chats.accepted_ms.items()
            if at_ms >= self._begin_ms(calls)
        ]
        return {
            "refused": sum(call["refused_by"] is not None for call in calls + bulk),
            "chats": len(waits_s),
            "wait_p50_s": rounded(median(waits_s)),
            "wait_p95_s": rounded(share_below(waits_s, 0.95)),
            "wait_most_s": rounded(max(waits_s)),
            "lost": rounded(1 - used / used_alone),
            "used": rounded(used),
            "used_alone": rounded(used_alone),
        }

    @property
    def limits(self) -> str:
        return f"60/{self.window_s:g}s"

    async def _both(self, place: Place, with_chats: Simulator, alone: Simulator) -> Flow:
        chats, _ = await asyncio.gather(
            self._bulk(place.inside("with"), with_chats.url, chatting=True),
            self._bulk(place.inside("alone"), alone.url, chatting=False),
        )
        return chats

    async def _bulk(self, place: Place, url: str, *, chatting: bool) -> Flow:
        """The flow of chats; without any, if none were asked for."""
        async with house(place.folder, url) as store:
            of = lane(self.limits)
            bulk = Flow(store, "bulk", of, place.chance, user="bulk")
            chats = Flow(store, "chats", of, place.chance, user="chat", klass=Class.INTERACTIVE)
            await bulk.open()
            await chats.open()
            await bulk.feed(BACKLOG)
            while not bulk.calls:  # the windows begin once the workers are there
                await bulk.drain()
            async with kept(bulk.keep_full(BACKLOG), chats.keep_drained()):
                over = asyncio.sleep((self.windows + 0.2) * self.window_s)
                await asyncio.gather(over, *([self._chat(chats)] if chatting else []))
                await self._hear(chats)
            return chats

    async def _chat(self, chats: Flow) -> None:
        every_s = self.window_s / self.chats_a_window
        began_s = time.monotonic()
        for number in range(self.windows * self.chats_a_window):
            at_s = began_s + (number + chats.chance.random()) * every_s
            await asyncio.sleep(max(0, at_s - time.monotonic()))
            await chats.feed(1)

    async def _hear(self, chats: Flow) -> None:
        """Until all have been called, or too late."""
        late_s = time.monotonic() + _LATE_S
        while chats.calls.keys() < chats.accepted_ms.keys() and time.monotonic() < late_s:
            await chats.drain()

    def _used(self, calls: Rows) -> float:
        """The time average of calls in the trailing window, of 60, while it counts."""
        window_ms = self.window_s * 1_000
        begin_ms = self._begin_ms(calls)
        end_ms = begin_ms + (self.windows - FROM_WINDOW) * window_ms
        filled: list[float] = [
            max(0.0, min(end_ms, call["at_ms"] + window_ms) - max(begin_ms, call["at_ms"]))
            for call in calls
            if call["refused_by"] is None
        ]
        return sum(filled) / (end_ms - begin_ms) / 60

    def _begin_ms(self, calls: Rows) -> float:
        first_ms = min(float(call["at_ms"]) for call in calls)
        return first_ms + FROM_WINDOW * self.window_s * 1_000

    def _never_ms(self, calls: Rows) -> float:
        return max(float(call["received_ms"]) for call in calls)
