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

from millpond import logs
from millpond.errors import NoServer, StoreUnavailable, Unavailable, UnknownFlow
from millpond.producer.records import Reader, detect, survey
from millpond.producer.template import Template
from millpond.providers import cohere
from millpond.run.collector import Collector
from millpond.run.family import DEATHS_MOST
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
    _check_parameters(options)
    with DataFolder(options.data_dir) as folder:
        logs.configure(settings.log_level, folder.log.open("a"))
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
            path=path,
            lines=found.records,
            began_s=began_s,
        )
        try:
            end, summary = await run.go()
        finally:
            collector.close()
        return _finish(options, end, summary)


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
        lines: int,
        began_s: float,
    ) -> None:
        self._path = path
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
        self._life = 0

    async def go(self) -> tuple[End, Summary]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        with progress(quiet=self._options.quiet) as shown:
            try:
                async with self._household as store:
                    end = await self._work(store, shown)
                    await self._wind_down(store, end)
            except (NoServer, StoreUnavailable) as error:
                print(f"millpond: {error}", file=sys.stderr)
                end = End.NO_SERVER
        return end, self._summary()

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            _say(self._options, "stopping: running calls may finish; Ctrl-C again cuts them")
        else:
            self._household.hurry()

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
            _say(self._options, "the server lost its data: its books begin anew, the run goes on")
            await self._household.open_flow(store)
            self._begin_again()
            return None

    async def _collect(self, store: Store, *, wait: bool) -> bool:
        """Put on disk what has ended, then let the server forget it."""
        flow = self._household.flow
        rows = await store.rows(flow, block_ms=_ROWS_WAIT_MS if wait else 0)
        if not rows:
            return False
        if any(row.fields.get("outcome") == "known" for row in rows):
            # The calls that dead workers left behind are counted too, but are of unknown outcome.
            self._household.progress()
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
        # If the reply to an earlier try was lost, some may have been answered in the meantime.
        jobs = [job for job in self._portion.jobs if self._feeder.expects(job)]
        if jobs:
            await store.accept(self._household.flow, jobs)
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
                summary = self._summary()
                code = exit_code(end, failed=summary.failed)
                write_end(self._path, Ended(code, summary.as_json()))
                await store.flushed(flow, None, done=True)

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


def _check_parameters(options: Options) -> None:
    """What is wrong for every line is said before anything begins."""
    cohere.request(
        options.endpoint,
        "?",
        model=options.model,
        max_tokens=options.max_tokens,
        params=options.params,
    )


def _say(options: Options, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _finish(options: Options, end: End, summary: Summary) -> int:
    code = exit_code(end, failed=summary.failed)
    told = summary.as_json()
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
