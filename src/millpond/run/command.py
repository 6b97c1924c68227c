"""One run from its start to its end.

    file ── feeder ──▶ server ── workers ──▶ provider
                          │
    answers, errors ◀─ collector

One loop does both halves in turn: put on disk what has ended, then feed as many jobs as have
left. So a job is never fed again while its answer is between the server and the disk.
"""

import asyncio
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import structlog

from millpond.errors import StoreUnavailable, Unavailable, UnknownFlow
from millpond.producer.records import Reader, detect, survey
from millpond.producer.template import Template
from millpond.run.collector import Collector
from millpond.run.feeder import Feeder, Portion
from millpond.run.folder import DataFolder, Ended, read_end, write_end
from millpond.run.household import Household
from millpond.run.options import Options
from millpond.run.outlook import Reason, seconds_left, waiting_reason
from millpond.run.progress import Progress, Standing, progress
from millpond.run.summary import End, Summary, end_of, exit_code, summarize
from millpond.settings import Settings
from millpond.store.patience import AGAIN_S
from millpond.store.store import Store
from millpond.store.view import View

log = structlog.get_logger()

_LOOK_EVERY_S = 0.25
_ROWS_WAIT_MS = 200
#: A server that stays away so long ends the run.
_SERVER_AWAY_S = 15 * 60


async def execute(options: Options, settings: Settings) -> int:
    """Do the run; its exit code."""
    began_s = time.monotonic()
    with DataFolder(options.data_dir) as folder:
        format = detect(options.file, options.format)
        template = None if options.template is None else Template(options.template)
        reader = Reader(options.file, format, field=options.field, template=template)
        reader.check()
        found = await asyncio.to_thread(survey, options.file, format)
        run_id = options.run_id(folder.id, found.sha256, format)
        path = folder.run(run_id)
        collector = Collector(path, options, reader)
        ended = read_end(path)
        if ended is not None:
            collector.close()
            return _tell_again(options, ended, time.monotonic() - began_s)
        _say(
            options,
            f"{options.file}: {found.records:,} lines, {options.endpoint}, {options.mode} access",
        )
        run = Run(
            options,
            collector,
            Feeder(reader, options, run_id, collector.answered),
            Household(options, settings, folder, run_id),
            lines=found.records,
            began_s=began_s,
        )
        try:
            end, summary = await run.go()
        finally:
            collector.close()
        return _finish(options, path, end, summary)


class Run:
    """A run that has not finished yet."""

    def __init__(
        self,
        options: Options,
        collector: Collector,
        feeder: Feeder,
        household: Household,
        *,
        lines: int,
        began_s: float,
    ) -> None:
        self._options = options
        self._collector = collector
        self._feeder = feeder
        self._household = household
        self._lines = lines
        self._began_s = began_s
        self._interrupts = 0
        self._view: View | None = None
        self._looked_s = float("-inf")
        self._portion: Portion | None = None

    async def go(self) -> tuple[End, Summary]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        with progress(quiet=self._options.quiet) as shown:
            try:
                async with self._household as store:
                    end = await self._work(store, shown)
                    await self._wind_down(store, end)
            except Unavailable as error:
                print(f"millpond: {error}", file=sys.stderr)
                end = End.NO_SERVER
        return end, self._summary()

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            self._household.hurry()

    async def _work(self, store: Store, shown: Progress) -> End:
        """Collect and feed until there is a reason to end."""
        away_since_s: float | None = None
        while True:
            if self._waiting == 0:
                return End.DONE
            if self._interrupts:
                return End.INTERRUPTED
            if self._household.gave_up:
                return End.GAVE_UP
            try:
                moved = await self._collect(store)
                moved = await self._feed(store) or moved
                end = await self._look(store, shown, moved=moved)
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

    async def _collect(self, store: Store) -> bool:
        """Put on disk what has ended, then let the server forget it."""
        flow = self._household.flow
        rows = await store.rows(flow, block_ms=0 if self._feeder.room else _ROWS_WAIT_MS)
        if not rows:
            return False
        jobs = await asyncio.to_thread(self._collector.take, rows)
        await store.flushed(flow, rows[-1].id)
        for job in jobs:
            self._feeder.left(job)
        return True

    async def _feed(self, store: Store) -> bool:
        """Read on in the file and queue what can run; what the server has not taken is kept."""
        if self._portion is None and self._feeder.room:
            self._portion = await asyncio.to_thread(self._feeder.take)
        if self._portion is None:
            return False
        if self._portion.invalid:
            await asyncio.to_thread(self._collector.take_invalid, self._portion.invalid)
            self._portion.invalid.clear()
        if self._portion.jobs:
            await store.accept(self._household.flow, self._portion.jobs)
        self._portion = None
        return True

    async def _look(self, store: Store, shown: Progress, *, moved: bool) -> End | None:
        """See how things stand, a few times a second; the end that follows from it, if one does."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return None
        self._looked_s = now_s
        before, self._view = self._view, await store.look(self._household.flow)
        if before is None or self._view.flow.calls > before.flow.calls:
            self._household.progress()
        shown.show(self._standing(self._view))
        fed = not moved and not self._feeder.room
        return end_of(self._view, fed=fed)

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
            self._view = await store.look(flow)
            if end is End.DONE:
                await store.flushed(flow, None, done=True)

    async def _collect_if_possible(self, store: Store) -> bool:
        try:
            return await self._collect(store)
        except StoreUnavailable:
            await asyncio.sleep(AGAIN_S)
            return False

    @property
    def _waiting(self) -> int:
        return self._lines - self._collector.succeeded - self._collector.failed

    def _reason(self, view: View) -> Reason | None:
        return waiting_reason(view, self._options.lane_limits, wall_s=time.time())

    def _standing(self, view: View) -> Standing:
        reason = self._reason(view)
        return Standing(
            lines=self._lines,
            succeeded=self._collector.succeeded,
            failed=self._collector.failed,
            calls=view.flow.calls,
            characters=view.org.used + view.org.estimated,
            quota=view.org.quota,
            seconds_left=seconds_left(view, self._waiting - view.lane.flight),
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


def _say(options: Options, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _finish(options: Options, path: Path, end: End, summary: Summary) -> int:
    code = exit_code(end, failed=summary.failed)
    told = summary.as_json()
    if end is End.DONE:
        write_end(path, Ended(code, told))
    _say(options, summary.for_people())
    if summary.resume_command is not None:
        _say(options, f"ended: {end.value}. To go on: {summary.resume_command}")
    _print_json(options, told)
    return code


def _tell_again(options: Options, ended: Ended, seconds: float) -> int:
    _say(
        options,
        f"this run has finished: {ended.summary['succeeded']:,} answered, "
        f"{ended.summary['failed']:,} failed; nothing was sent. Its answers are in {options.out}",
    )
    _print_json(options, {**ended.summary, "seconds": round(seconds, 3)})
    return ended.exit_code


def _print_json(options: Options, told: dict[str, Any]) -> None:
    if options.as_json:
        print(orjson.dumps(told).decode(), flush=True)
