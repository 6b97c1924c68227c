"""The hot path: claim released calls, make them, settle them.

One loop takes a turn whenever something ended or the bell rang: in one round trip it settles
what has ended, lets calls go for the slots that are free, and claims them. Each call runs as a
task of its own. What the store has not confirmed is kept and told again, so an outage of the
server costs time and nothing else.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from millpond import tracing
from millpond.domain.call import Claimed, Settlement
from millpond.errors import Unavailable
from millpond.failpoints import reached
from millpond.providers.caller import Sent
from millpond.providers.outcome import NoAnswer, NotSent, Stopped
from millpond.store.bell import Bell
from millpond.store.store import Store, WorkerState
from millpond.worker.verdict import settlement

log = structlog.get_logger()

#: Jobs settled in one script, unless its first call has more: it must stay short for all others.
_SETTLE_MOST = 100
#: Calls settled, and claimed, in one turn: while it lasts no slot that has become free is used.
_TURN_MOST = 25
_GIVE_BACK_MOST = 200
_IDLE_S = 1.0
_STORE_AWAY_S = 0.25
#: How long a worker that ends goes on telling the server what has ended.
_LAST_WORDS_MS = 10_000
#: Jobs that a line of the log names.
_NAMED_MOST = 20
#: How long settled calls are remembered, to be told again to a server that lost its last moments.
_REMEMBER_MS = 10_000


class Provider(Protocol):
    async def send(self, call: Claimed, may_begin: Callable[[], bool]) -> Sent:
        """Make one call, if `may_begin` says yes as its first byte is about to go."""
        ...


class Pump:
    """Runs the calls of one worker."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        bell: Bell,
        *,
        worker: str,
        pool: str,
        slots: int,
        lease_ms: int,
    ) -> None:
        self._store = store
        self._provider = provider
        self._bell = bell
        self._worker = worker
        self._pool = pool
        self._slots = slots
        self._lease_ms = lease_ms
        self._seq = 0
        self._held: dict[str, Claimed] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ended: deque[Settlement] = deque()
        self._unsent: deque[tuple[str, bool]] = deque()
        self._settled: deque[tuple[float, Settlement]] = deque()
        self._told_life = 0
        self._beat_ms = float("-inf")
        self._beside: asyncio.Task[None] | None = None
        self._tracer = tracing.begin()

    async def run_until(self, stop: asyncio.Event, *, hurry: asyncio.Event, grace_ms: int) -> None:
        """Work until told to stop; then let what runs finish within the grace, or until told to
        hurry."""
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                self._settle_beside(calls)
                claimed = await self._turn(claim=True)
                for call in claimed:
                    self._start(calls, call)
                self._bell.want(wanted=len(self._held) < self._slots)
                if not claimed and not self._ended and not self._unsent:
                    await self._bell.wait(_IDLE_S)
            await self._finish(hurry, grace_ms)

    def _settle_beside(self, tasks: asyncio.TaskGroup) -> None:
        """While more calls end than a turn takes, some are settled beside the turns: else the
        server would wait for us as long as we look at its reply."""
        if self._beside is None and len(self._ended) > _TURN_MOST:
            portion = _portion(self._ended)[:_TURN_MOST]
            for _ in portion:
                self._ended.popleft()
            self._beside = tasks.create_task(self._settle(portion), name="settle")

    async def _settle(self, portion: list[Settlement]) -> None:
        try:
            with tracing.settling(self._tracer, [one.call for one in portion]):
                await self._store.settle(portion)
            self._note(portion)
        except Unavailable as error:
            log.warning("store_unavailable", error=str(error))
            self._ended.extendleft(reversed(portion))
        finally:
            self._beside = None
            self._bell.ring()

    async def _nothing_beside(self) -> None:
        """What is settled beside the turns has been, or is to be told again."""
        if self._beside is not None:
            await asyncio.wait({self._beside})

    def _start(self, calls: asyncio.TaskGroup, call: Claimed) -> None:
        self._held[call.id] = call
        self._running[call.id] = calls.create_task(self._run(call), name=f"call-{call.id}")
        reached("pump.call.started")

    async def _run(self, call: Claimed) -> None:
        begun = False

        def may_begin() -> bool:
            nonlocal begun
            begun = not self._lease_lapsed()
            return begun

        try:
            sent = await self._provider.send(call, may_begin)
        except asyncio.CancelledError:
            sent = Sent(Stopped() if begun else NotSent("cut before it began", unreachable=False))
        except BaseException:  # whatever it is, it is about this call and ends with it
            log.exception("call_broke", call=call.id)
            sent = Sent(NoAnswer("the worker could not make sense of the call"))
        self._end(call, sent)

    def _end(self, call: Claimed, sent: Sent) -> None:
        outcome = sent.outcome
        ended = settlement(
            call,
            outcome,
            headers_ms=sent.headers_ms,
            told=sent.told,
            said=sent.said,
            credit_ms=sent.credit_ms,
            ended_ms=self._now_ms(),
            chance=random.random,
        )
        if ended is not None:
            self._ended.append(ended)
        elif isinstance(outcome, NotSent):
            self._unsent.append((call.id, outcome.unreachable))
        self._running.pop(call.id, None)
        reached("pump.call.ended")
        log.info(
            "call_ended",
            call=call.id,
            org=call.org,
            jobs=[job.id for job in call.jobs[:_NAMED_MOST]],
            job_count=len(call.jobs),
            outcome=type(outcome).__name__,
        )
        self._bell.ring()

    async def _turn(self, *, claim: bool) -> Sequence[Claimed]:
        """Tell the store what has happened and take what it has, in one round trip."""
        try:
            await self._give_back()
            if self._store.gateway.life != self._told_life:
                await self._nothing_beside()
                await self._tell_everything()
            return await self._exchange(claim=claim)
        except Unavailable as error:
            log.warning("store_unavailable", error=str(error))
            await asyncio.sleep(_STORE_AWAY_S)
            return []

    async def _exchange(self, *, claim: bool) -> Sequence[Claimed]:
        beat_due = self._now_ms() - self._beat_ms > self._lease_ms / 6
        if beat_due:  # it says how many slots are free, and what is held
            await self._nothing_beside()
        settlements = [] if self._beside else _portion(self._ended)[:_TURN_MOST]
        state = self._state(without=settlements, with_held=beat_due)
        free = state.free
        if not settlements and not beat_due and not (claim and free):
            await self._nothing_beside()
            return []
        began_ms = self._now_ms()
        reached("pump.turn.before")
        with tracing.settling(self._tracer, [one.call for one in settlements]):
            turn = await self._store.turn(
                state,
                settlements=settlements,
                heartbeat=beat_due,
                claim=min(free, _TURN_MOST) if claim else 0,
            )
        reached("pump.turn.after")
        self._confirm(settlements)
        if beat_due:
            self._beat_ms = began_ms
        if not turn.registered:
            self._beat_ms = float("-inf")
        elif claim and free:
            self._seq += 1
        for call in turn.unwanted:
            if running := self._running.get(call):
                running.cancel()
        return turn.claimed

    def _confirm(self, settlements: list[Settlement]) -> None:
        for _ in settlements:
            self._ended.popleft()
        self._note(settlements)

    def _note(self, settled: list[Settlement]) -> None:
        """They are settled: what was held for them is free, and they are remembered for a while."""
        now_ms = self._now_ms()
        for one in settled:
            self._held.pop(one.id, None)
            self._settled.append((now_ms, one))
            reached("pump.call.settled")
        while self._settled and self._settled[0][0] < now_ms - _REMEMBER_MS:
            self._settled.popleft()

    async def _give_back(self) -> None:
        while self._unsent:
            unreachable = self._unsent[0][1]
            ids = [id for id, why in self._unsent if why == unreachable][:_GIVE_BACK_MOST]
            reached("pump.give_back.before")
            await self._store.give_back(self._worker, ids, unreachable=unreachable)
            reached("pump.give_back.after")
            for id in ids:
                self._unsent.remove((id, unreachable))
                self._held.pop(id, None)

    async def _tell_everything(self) -> None:
        """The server was started again and may have lost its last moments.

        All settles of late are said again, those in doubt too, before what is held is named: a
        call that has ended must not be taken for one that runs.
        """
        life = self._store.gateway.life
        reached("pump.tell.before")
        recent = [one for _, one in self._settled]
        while recent:
            portion = _portion(recent)
            await self._store.settle(portion)
            del recent[: len(portion)]
        while self._ended:
            in_doubt = _portion(self._ended)
            await self._store.settle(in_doubt)
            self._confirm(in_doubt)
        self._told_life = life
        began_ms = self._now_ms()
        await self._store.heartbeat(self._state(without=(), with_held=True))
        reached("pump.tell.after")
        self._beat_ms = began_ms

    async def _finish(self, hurry: asyncio.Event, grace_ms: int) -> None:
        """Nothing new is claimed; calls end by themselves, or are cut when the grace is over."""
        self._slots = 0  # nothing is to be let go for us
        end_ms = self._now_ms() + grace_ms
        while self._running and self._now_ms() < end_ms and not hurry.is_set():
            await self._turn(claim=False)
            await self._bell.wait(min(_IDLE_S, max(0.0, end_ms - self._now_ms()) / 1_000))
        await self._nothing_beside()
        await asyncio.sleep(0)  # a task that has not begun would be cut without a word
        for task in list(self._running.values()):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running.values()))
        end_ms = self._now_ms() + _LAST_WORDS_MS
        while (self._ended or self._unsent) and self._now_ms() < end_ms:
            await self._turn(claim=False)
        reached("pump.leave.before")
        with suppress(Unavailable):
            await self._store.leave(self._worker)
        reached("pump.leave.after")

    def _state(self, *, without: Sequence[Settlement], with_held: bool) -> WorkerState:
        """How we stand once these are settled. What has ended and is not settled is still held;
        only a heartbeat names what we hold."""
        held: list[Claimed] = []
        if with_held:
            settling = {one.id for one in without}
            held = [call for call in self._held.values() if call.id not in settling]
        return WorkerState(
            worker=self._worker,
            pool=self._pool,
            free=max(0, self._slots - len(self._held) + len(without)),
            seq=self._seq,
            lease_ms=self._lease_ms,
            life=self._told_life,
            held=held,
        )

    def _lease_lapsed(self) -> bool:
        return self._now_ms() - self._beat_ms > self._lease_ms * 5 / 6

    def _now_ms(self) -> float:
        return self._store.gateway.monotonic_ms()


def _portion(ended: Iterable[Settlement]) -> list[Settlement]:
    """The first calls, as many as one script should settle."""
    portion: list[Settlement] = []
    jobs = 0
    for one in ended:
        jobs += len(one.jobs)
        if portion and jobs > _SETTLE_MOST:
            break
        portion.append(one)
    return portion
