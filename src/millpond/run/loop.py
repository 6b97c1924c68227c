"""The loop of one run.

It does both halves in turn: put on disk what has ended, then feed as many jobs as have left. So a
job is never fed again while its answer is between the server and the disk.
"""

import asyncio
import shlex
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from millpond.domain.job import COUNTED, Class
from millpond.domain.limit import Unit
from millpond.errors import NoServer, Refused, StoreUnavailable, Unavailable, UnknownFlow
from millpond.failpoints import reached
from millpond.run.collector import Collector
from millpond.run.family import DEATHS_MOST
from millpond.run.feeder import Feeder, Portion
from millpond.run.folder import Ended, write_end
from millpond.run.household import Household
from millpond.run.options import UNTIL_TOLD, Options
from millpond.run.outlook import Crossings, seconds_left
from millpond.run.preview import Contents, describe_preview, preview
from millpond.run.progress import Progress, Standing, progress, say
from millpond.run.summary import End, Summary, end_of, exit_code, summarize
from millpond.standing.estimate import LATENCY_GUESS_MS
from millpond.standing.explain import Reason, held, waiting_reason
from millpond.store.patience import AGAIN_S
from millpond.store.store import Store
from millpond.store.view import View

log = structlog.get_logger()

_LOOK_EVERY_S = 0.25
_ETA_EVERY_S = 2.0
_ROWS_WAIT_MS = 200
#: A server that stays away so long ends the run.
_SERVER_AWAY_S = 15 * 60


class Run:
    """A run that has not finished yet."""

    def __init__(
        self,
        options: Options,
        collector: Collector,
        feeder: Feeder,
        household: Household,
        *,
        path: Path,
        contents: Contents,
        began_s: float,
    ) -> None:
        self._path = path
        self._options = options
        self._collector = collector
        self._feeder = feeder
        self._household = household
        self._contents = contents
        self._lines = contents.lines
        self._eta = (float("-inf"), 0.0)
        self._began_s = began_s
        self._interrupts = 0
        self._view: View | None = None
        self._looked_s = float("-inf")
        self._portion: Portion | None = None
        self._life = 0
        self._careful = False
        self._crossings = Crossings()
        self._succeeded_before = 0

    async def go(self) -> tuple[End, Summary]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        with progress(quiet=self._options.quiet) as shown:
            try:
                async with self._household as store:
                    await self._foresee(store)
                    end = await self._work_or_pause(store, shown)
                    await self._wind_down(store, end)
            except (NoServer, StoreUnavailable) as error:
                print(f"millpond: {error}", file=sys.stderr)
                end = End.NO_SERVER
        return end, self._summary()

    async def _foresee(self, store: Store) -> None:
        """Say what is to be expected, now that the books can be looked at."""
        view = await store.look(self._household.flow)
        self._succeeded_before = view.flow.succeeded
        org = view.org
        seen = preview(
            self._contents,
            self._household.limits,
            quota_left=None
            if org.quota is None or not self._counts(view)
            else org.quota - org.spent,
            concurrency=self._options.concurrency,
            latency_ms=view.lane.latency_ms or LATENCY_GUESS_MS,
        )
        say(describe_preview(seen, self._options.mode), quiet=self._options.quiet)

    def _counts(self, view: View) -> bool:
        """Whether this run's characters count against a quota."""
        return view.org.quota is not None and self._options.endpoint in COUNTED

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            say(
                "stopping: running calls may finish; Ctrl-C again cuts them",
                quiet=self._options.quiet,
            )
        else:
            self._household.hurry()

    async def _work_or_pause(self, store: Store, shown: Progress) -> End:
        """Work; if that cannot go on at all, nobody else is to go on with our jobs either."""
        try:
            return await self._work(store, shown)
        except Refused:
            with suppress(Unavailable):
                await store.pause(self._household.flow)
            raise

    async def _work(self, store: Store, shown: Progress) -> End:
        """Collect and feed until there is a reason to end."""
        away_since_s: float | None = None
        self._life = store.gateway.life
        while True:
            if self._waiting == 0:
                return End.DONE
            if self._interrupts:
                return End.INTERRUPTED
            if self._household.gave_up:
                print(
                    f"millpond: {DEATHS_MOST} times a process of this run died, with no call made "
                    f"in between; see {self._options.data_dir / 'log.jsonl'}",
                    file=sys.stderr,
                )
                return End.GAVE_UP
            try:
                end = await self._step(store, shown)
                away_since_s = None
            except StoreUnavailable as error:
                now_s = time.monotonic()
                away_since_s = away_since_s or now_s
                if now_s - away_since_s > _SERVER_AWAY_S:
                    print(f"millpond: {error}", file=sys.stderr)
                    return End.NO_SERVER
                await asyncio.sleep(AGAIN_S)
                continue
            if end is not None:
                return end

    async def _step(self, store: Store, shown: Progress) -> End | None:
        """One round of the loop; the end that follows from what it saw, if one does."""
        try:
            await self._household.tell_of_the_dead()
            moved = await self._collect(store, wait=not self._feeder.room)
            self._look_for_restart(store)
            moved = await self._feed(store) or moved
            return await self._look(store, shown, moved=moved)
        except UnknownFlow:
            say(
                "the server lost its data: the run goes on when its windows have surely passed",
                quiet=self._options.quiet,
            )
            await self._household.open_flow(store, lost=True)
            self._begin_again()
            return None

    async def _collect(self, store: Store, *, wait: bool) -> bool:
        """Put on disk what has ended, then let the server forget it."""
        flow = self._household.flow
        rows = await store.rows(flow, block_ms=_ROWS_WAIT_MS if wait else 0)
        if not rows:
            return False
        reached("run.rows.read")
        if any(row.fields.get("outcome") == "known" for row in rows):
            # The calls that dead workers left behind are counted too, but are of unknown outcome.
            self._household.progress()
        jobs = await asyncio.to_thread(self._collector.take, rows)
        reached("run.flush.before")
        await store.flushed(flow, rows[-1].id)
        reached("run.flush.after")
        for job in jobs:
            self._feeder.left(job)
        return True

    async def _feed(self, store: Store) -> bool:
        """Read on in the file and queue what can run; what the server has not taken is kept."""
        if self._portion is None and self._feeder.room:
            self._portion = await asyncio.to_thread(self._feeder.take)
            reached("run.portion.read")
        if self._portion is None:
            return False
        if self._portion.invalid:
            await asyncio.to_thread(self._collector.take_invalid, self._portion.invalid)
            reached("run.invalid.kept")
            self._portion.invalid.clear()
        # If the reply to an earlier try was lost, some may have been answered in the meantime.
        jobs = [job for job in self._portion.jobs if self._feeder.expects(job)]
        if jobs:
            reached("run.accept.before")
            await store.accept(self._household.flow, jobs)
            reached("run.accept.after")
        self._portion = None
        return True

    def _look_for_restart(self, store: Store) -> None:
        """A server that was started again may have lost the last jobs it was given."""
        if store.gateway.life != self._life:
            self._life = store.gateway.life
            self._begin_again()

    def _begin_again(self) -> None:
        """Read the file from its start once more; what is known or on disk stays as it is."""
        self._portion = None
        self._feeder.begin_again()

    async def _look(self, store: Store, shown: Progress, *, moved: bool) -> End | None:
        """See how things stand, a few times a second; the end that follows from it, if one does."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return None
        self._looked_s = now_s
        self._view = await store.look(self._household.flow)
        if self._household.limits is None:
            await self._learn(store, self._view)
        if self._view.lane.share < 1 and not self._careful:
            say(
                "the provider refused a call that the limits allow: somebody else uses the key, "
                "or it counts differently. Going slower; it climbs back while nothing is refused",
                quiet=self._options.quiet,
            )
        self._careful = self._view.lane.share < 1
        if self._counts(self._view):
            self._tell_of_quota(self._view)
        shown.show(self._standing(self._view))
        fed = not moved and not self._feeder.room
        return end_of(self._view, fed=fed)

    def _tell_of_quota(self, view: View) -> None:
        org = view.org
        for percent in self._crossings.look(org):
            say(
                f"{percent} % of the quota is used: {org.spent:,} of {org.quota:,} characters",
                quiet=self._options.quiet,
            )

    async def _learn(self, store: Store, view: View) -> None:
        """Take the limits from whoever set the lane's, or from the provider's first reply; without
        them nobody may guess."""
        there = held(UNTIL_TOLD, [one for one in view.lane.windows if one.unit != Unit.BULK])
        if there is not UNTIL_TOLD:
            self._household.limits = tuple(there)
            return
        if view.lane.told is not None:
            await self._household.learn_limits(store, view.lane.told)
            say(f"limits, as the provider says: {view.lane.told}", quiet=self._options.quiet)
        elif view.flow.succeeded > self._succeeded_before:
            raise UnknownLimits(
                "the provider's replies do not say what its limits are; name them, for example "
                f"--limits '{self._options.endpoint}=60/60s' (or 10@once for so many at a time)"
            )

    async def _wind_down(self, store: Store, end: End) -> None:
        """Let what runs finish, and put on disk what it brings."""
        flow = self._household.flow
        if end is not End.DONE:
            with suppress(Unavailable):
                await store.pause(flow)
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(self._household.stop_workers(), name="stop-workers")
            while not stopping.done():
                await self._collect_if_possible(store)
        while await self._collect_if_possible(store):
            pass
        with suppress(Unavailable, UnknownFlow):
            view = await store.look(flow)
            # It rests since we said so: that is not what it waits for.
            self._view = replace(view, flow=replace(view.flow, paused=False))
            if end is End.DONE:
                summary = self._summary()
                code = exit_code(end, failed=summary.failed)
                reached("run.end.before")
                write_end(self._path, Ended(code, summary.as_json()))
                reached("run.end.written")
                await store.flushed(flow, None, done=True)
                reached("run.end.told")

    async def _collect_if_possible(self, store: Store) -> bool:
        try:
            return await self._collect(store, wait=True)
        except StoreUnavailable:
            await asyncio.sleep(AGAIN_S)
            return False

    @property
    def _waiting(self) -> int:
        return self._lines - self._collector.succeeded - self._collector.failed

    def _reason(self, view: View) -> Reason | None:
        return waiting_reason(
            view,
            self._household.limits or UNTIL_TOLD,
            wall_s=time.time(),
            klass=Class.INTERACTIVE if self._options.interactive else Class.BULK,
        )

    def _seconds_left(self, view: View) -> float | None:
        """An estimate, made anew every few seconds: a long file takes a moment to play forward."""
        limits, now_s = self._household.limits, time.monotonic()
        if limits is None:
            return None
        made_s, ends_s = self._eta
        if now_s - made_s > _ETA_EVERY_S:
            left_s = seconds_left(
                view,
                self._contents,
                self._waiting,
                limits=limits,
                concurrency=self._options.concurrency,
            )
            made_s, ends_s = self._eta = now_s, now_s + left_s
        return max(0.0, ends_s - now_s)

    def _standing(self, view: View) -> Standing:
        reason = self._reason(view)
        return Standing(
            lines=self._lines,
            succeeded=self._collector.succeeded,
            failed=self._collector.failed,
            calls=view.flow.calls,
            characters=view.org.used + view.org.estimated,
            quota=view.org.quota,
            seconds_left=self._seconds_left(view),
            waits_for=None if reason is None else reason.for_people(),
        )

    def _summary(self) -> Summary:
        return summarize(
            self._view,
            None if self._view is None else self._reason(self._view),
            lines=self._lines,
            succeeded=self._collector.succeeded,
            failed=self._collector.failed,
            seconds=time.monotonic() - self._began_s,
            resume_command=shlex.join(["millpond", *sys.argv[1:]]),
        )


class UnknownLimits(Refused):
    """Nobody said what the provider's limits are."""

    code = "unknown_limits"
